"""From a folder of images to a saved classifier
=============================================

The folder has one subfolder for each class: ``photos/daisy/*.jpg``, ``photos/roses/*.jpg`` and so
on. Here it holds scikit-learn's handwritten digits; for your own images, run
``python examples/image_folder.py FOLDER``.
"""

import matplotlib.pyplot as plt
from digits import image_folder
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import cross_val_score, train_test_split

from featx import MistakesDisplay, TransferClassifier, load, load_image_folder, save

folder = load_image_folder(image_folder())
train, test, y_train, y_test = train_test_split(
    folder.data, folder.target, test_size=0.25, stratify=folder.target, random_state=0
)

# %%
# How accurate is it?
# -------------------
# ``"tiny"`` comes with featx. For photographs, ``"mobilenet_v2"`` or ``"resnet50"`` are more
# accurate; Keras downloads their weights once, and nothing else changes. The five folds share one
# pass over the images.

classifier = TransferClassifier("tiny", head="logistic")
scores = cross_val_score(classifier, train, y_train, cv=5)
print(f"accuracy in five folds: {scores.mean():.3f} ± {scores.std():.3f}")

# %%
# The cache now holds the embeddings of all training images, so this fit does not run the network.

classifier.fit(train, y_train)
print(f"{classifier.report_.n_forward} forward passes for this fit")

# %%
# Which classes are confused?
# ---------------------------
# scikit-learn's displays work with paths of images, as with any other features.

ConfusionMatrixDisplay.from_estimator(classifier, test, y_test, xticks_rotation="vertical")
plt.show()

# %%
# The mistakes, with the largest loss first:

mistakes = MistakesDisplay.from_estimator(classifier, test, y_test, n_images=6)
plt.show()

# %%
# Save it
# -------
# The model becomes one file, without pickle, which another process or machine can load.

save(classifier, "classifier.featx")
restored = load("classifier.featx")
print("predictions for the first images:", restored.predict(test[:5]))
