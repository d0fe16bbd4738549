"""Several labels for one image: ``y`` of shape (n_samples, n_labels).

Each image shows two handwritten digits side by side; which of the ten are there? A logistic
regression has one target, so the estimator fits a copy of it for each label.

Usage: python examples/multi_label.py [FOLDER]
"""

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

# An average over the image would mix the two digits, so the layer is flattened instead.
extractor = FeatureExtractor("tiny", layer="stage4", pooling="flatten")
classifier = TransferClassifier(extractor, head="logistic")
probabilities = cross_val_predict(classifier, X, y, cv=3, method="predict_proba")

macro_f1 = f1_score(y, probabilities > 0.5, average="macro")
precision = average_precision_score(y, probabilities, average=None)
print(f"macro F1 {macro_f1:.3f}")
print(f"average precision {precision.mean():.3f}, by chance {y.mean():.3f}; label by label:")
for label, value in zip(binarizer.classes_, precision, strict=True):
    print(f"  {label}: {value:.3f}")
