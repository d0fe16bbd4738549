"""Few labels: augmented views and self-training
=============================================

Only four images of each class have a label. There are two ways to improve a classifier without
more labels: augmented views of the labeled images, and the images without a label.

For your own images: ``python examples/few_labels.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from keras import layers
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from featx import FeatureExtractor, TransferClassifier, evaluate, load_image_folder

folder = load_image_folder(image_folder())
y = LabelEncoder().fit_transform(folder.target)
X, test, y, y_test = train_test_split(folder.data, y, test_size=0.25, stratify=y, random_state=0)
rng = np.random.default_rng(0)
labeled = np.concatenate([rng.permutation(np.flatnonzero(y == label))[:4] for label in set(y)])

head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
extractor = FeatureExtractor("tiny")
models = {"4 labels per class": TransferClassifier(extractor, head).fit(X[labeled], y[labeled])}

# %%
# Augmented views
# ---------------
# An augmented view is a randomly changed version of an image. Here, digits are shifted and rotated
# a little, but not mirrored, since that would change them. The head trains on all views of an
# image, and predicts from their mean. The network embeds each view only once.

augment = [layers.RandomTranslation(0.08, 0.08), layers.RandomRotation(0.03)]
views = FeatureExtractor("tiny", views=4, augment=augment)
models["+ augmented views"] = TransferClassifier(views, head).fit(X[labeled], y[labeled])

# %%
# Self-training
# -------------
# In scikit-learn, the label -1 marks images without a label. The head labels the images about
# which it is certain enough, is fitted again with these labels, and so on. The embeddings are
# computed only once.

few = np.full(len(y), -1)
few[labeled] = y[labeled]
self_training = make_pipeline(extractor, SelfTrainingClassifier(head, threshold=0.9)).fit(X, few)
n_more = int((self_training[-1].labeled_iter_ > 0).sum())
print(f"{len(labeled)} labels of {len(y)}, {n_more} more from the head")
models["+ self-training"] = self_training
models["all labels"] = TransferClassifier(extractor, head).fit(X, y)

# %%
# The accuracies, with 95% intervals:

results = {name: evaluate(y_test, model.predict(test)) for name, model in models.items()}
accuracy = {name: result["accuracy"] for name, result in results.items()}
figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for name, result in results.items():
    low, high = result["intervals"]["accuracy"]
    errors = [[result["accuracy"] - low], [high - result["accuracy"]]]
    ax.errorbar(result["accuracy"], name, xerr=errors, fmt="o", capsize=4)
    print(f"{name:18}  accuracy {result['accuracy']:.3f} ({low:.3f} to {high:.3f})")
ax.invert_yaxis()
ax.set(xlabel="accuracy", xlim=(None, 1))
plt.show()
