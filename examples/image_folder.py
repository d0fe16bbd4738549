"""From a folder of images to a saved classifier, in a minute.

The folder has one subfolder for each class: ``photos/daisy/*.jpg``, ``photos/roses/*.jpg``, ...

Usage: python examples/image_folder.py [FOLDER]
"""

from digits import image_folder
from sklearn.metrics import classification_report
from sklearn.model_selection import cross_val_score, train_test_split

from featx import TransferClassifier, load, load_image_folder, save

folder = load_image_folder(image_folder())
train, test, y_train, y_test = train_test_split(
    folder.data, folder.target, test_size=0.25, stratify=folder.target, random_state=0
)

# "tiny" comes with featx. For photos, "mobilenet_v2" or "resnet50" are more accurate; Keras
# downloads their weights once, and nothing else changes.
classifier = TransferClassifier("tiny", head="logistic")

# How accurate is it? Five folds share one pass over the images.
scores = cross_val_score(classifier, train, y_train, cv=5)
print(f"accuracy in five folds: {scores.mean():.3f} ± {scores.std():.3f}")

classifier.fit(train, y_train)
print(f"{classifier.report_.n_forward} forward passes for this fit: all rows were cached")
print(classification_report(y_test, classifier.predict(test)))

# One file, without pickle, for another process or another machine.
save(classifier, "classifier.featx")
restored = load("classifier.featx")
print("predictions for the first images:", restored.predict(test[:5]))
