"""Several labels for one image
============================

The target is an array of zeros and ones, of shape (n_samples, n_labels). Here, each image shows
two handwritten digits side by side, and the classifier has to find which of the ten digits are in
it. A logistic regression has only one target, so the estimator fits a copy of it for each label.

For your own images: ``python examples/multi_label.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import MultiLabelBinarizer

from featx import FeatureExtractor, TransferClassifier, load_image_folder

folder = load_image_folder(image_folder())
rng = np.random.default_rng(0)
pairs = rng.permutation(len(folder.data))[: len(folder.data) // 2 * 2].reshape(-1, 2)


def beside_each_other(paths):
    """Return one image of two digits."""
    image = Image.new("RGB", (128, 64))
    for number, path in enumerate(paths):
        with Image.open(path) as half:
            image.paste(half.resize((64, 64)), (64 * number, 0))
    return image


X = [beside_each_other(folder.data[pair]) for pair in pairs]
binarizer = MultiLabelBinarizer()
y = binarizer.fit_transform(folder.target[pairs])
print(f"{len(X)} images, labels {y.shape}")

# %%
# Average pooling would mix the two digits, so ``pooling="flatten"`` keeps all values of the layer.

extractor = FeatureExtractor("tiny", layer="stage4", pooling="flatten")
classifier = TransferClassifier(extractor, head="logistic")
probabilities = cross_val_predict(classifier, X, y, cv=3, method="predict_proba")

# %%
# Some images, with the labels whose probability is above 0.5:

figure, axes = plt.subplots(2, 4, figsize=(9, 3.2), layout="constrained")
for ax, image, own in zip(axes.flat, X, probabilities, strict=False):
    ax.imshow(image)
    ax.set_title(", ".join(binarizer.classes_[own > 0.5]) or "none")
    ax.axis("off")
plt.show()

# %%
# The average precision of each label, and that of a guess:

macro_f1 = f1_score(y, probabilities > 0.5, average="macro")
precision = average_precision_score(y, probabilities, average=None)
print(f"macro F1 {macro_f1:.3f}")
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.bar(binarizer.classes_, precision)
ax.hlines(y.mean(axis=0), np.arange(y.shape[1]) - 0.4, np.arange(y.shape[1]) + 0.4, color="k")
ax.set(xlabel="label", ylabel="average precision", ylim=(0, 1))
plt.show()
