"""Plots of images, mistakes, scores and training, from paths of images.

scikit-learn's displays take a TransferClassifier and paths of images like any classifier and its
features; featx has displays for what scikit-learn cannot know: embeddings, pictures, layers, and
fine-tuning. All passes but the first find their embeddings in the cache.

Usage: python examples/displays.py [FOLDER]
"""

from pathlib import Path

import matplotlib.pyplot as plt
from digits import image_folder
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay
from sklearn.model_selection import LearningCurveDisplay, train_test_split

from featx import (
    EmbeddingMapDisplay,
    FineTune,
    LayerDisplay,
    MistakesDisplay,
    ProbePathDisplay,
    TransferClassifier,
    TuningHistoryDisplay,
    load_image_folder,
)

folder = load_image_folder(image_folder())
train, test, y_train, y_test = train_test_split(
    folder.data, folder.target, test_size=0.5, stratify=folder.target, random_state=0
)
classifier = TransferClassifier("tiny").fit(train, y_train)

displays = {
    # What do the images look like to the backbone?
    "map": EmbeddingMapDisplay.from_estimator(classifier, folder.data, folder.target),
    # Which images are wrong, and which classes are mistaken for which?
    "mistakes": MistakesDisplay.from_estimator(classifier, test, y_test),
    "confusion": ConfusionMatrixDisplay.from_estimator(classifier, test, y_test),
    # Would more images help?
    "learning_curve": LearningCurveDisplay.from_estimator(
        classifier, folder.data, folder.target, cv=3, shuffle=True, random_state=0
    ),
}

# Which strength of regularization, and which layer?
probe = TransferClassifier("tiny", head="probe").fit(train, y_train)
displays["probe_path"] = ProbePathDisplay.from_estimator(probe)
displays["layers"] = LayerDisplay.from_estimator(
    TransferClassifier("tiny", head="nearest_mean"), train, y_train, cv=3
)

# Is fine-tuning worth it?
tuned = TransferClassifier("tiny", fine_tune=FineTune(1, epochs=5), random_state=0)
displays["tuning"] = TuningHistoryDisplay.from_estimator(tuned.fit(train, y_train))

# One class against all others: curves of two classes.
last = folder.target_names[-1]
is_last, is_last_test = y_train == last, y_test == last
detector = TransferClassifier("tiny").fit(train, is_last)
displays["roc"] = RocCurveDisplay.from_estimator(detector, test, is_last_test)
displays["precision_recall"] = PrecisionRecallDisplay.from_estimator(detector, test, is_last_test)
displays["calibration"] = CalibrationDisplay.from_estimator(detector, test, is_last_test)

figures = Path("figures")
figures.mkdir(exist_ok=True)
for name, display in displays.items():
    display.figure_.savefig(figures / f"{name}.png", bbox_inches="tight")
plt.close("all")
print(f"{len(displays)} figures in {figures}")
