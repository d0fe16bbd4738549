"""Intervals and calibrated probabilities
======================================

An accuracy from a few hundred images has an uncertainty, and a probability of 0.9 should be right
nine times in ten. :func:`featx.evaluate` reports both: intervals of all scores, the calibration
error, and the temperature by which the scores of the head have to be divided.

For your own images: ``python examples/calibration.py FOLDER``.
"""

import matplotlib.pyplot as plt
import numpy as np
from digits import image_folder
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from featx import TransferClassifier, evaluate, load_image_folder

folder = load_image_folder(image_folder())
X, test, y, y_test = train_test_split(
    folder.data, folder.target, train_size=0.5, stratify=folder.target, random_state=0
)

# %%
# A forest averages the votes of its trees, and is less sure than it could be. Temperature scaling
# on held-out folds corrects that; ``featx fit --calibrate`` does the same.

head = RandomForestClassifier(random_state=0)
heads = {
    "as fitted": head,
    "calibrated": CalibratedClassifierCV(head, method="temperature", ensemble=False),
}
results, confident = {}, {}
for name, each in heads.items():
    classifier = TransferClassifier("tiny", each).fit(X, y)
    proba, predicted = classifier.predict_proba(test), classifier.predict(test)
    result = evaluate(y_test, predicted, proba=proba, classes=classifier.classes_)
    results[name], confident[name] = result, (predicted == y_test, proba.max(axis=1))
    low, high = result["intervals"]["accuracy"]
    print(f"{name}: accuracy {result['accuracy']:.3f} ({low:.3f} to {high:.3f})")
    print(f"  calibration error {result['calibration']['error']:.3f}, ", end="")
    print(f"{result['calibration']['tendency'] or 'as sure as it should be'}")

# %%
# How often is a prediction right that has some probability?

figure, ax = plt.subplots(figsize=(5, 5), layout="constrained")
for name, (is_right, probability) in confident.items():
    CalibrationDisplay.from_predictions(
        is_right, probability, n_bins=8, strategy="quantile", name=name, ax=ax
    )
ax.set(xlabel="probability of the predicted label", ylabel="fraction that is right")
plt.show()

# %%
# The F1 score of each class with its 95% interval: do not call a class harder than another if their
# intervals overlap.

scores = results["calibrated"]["classes"]
intervals = results["calibrated"]["intervals"]["classes"]
names = list(scores)
f1 = np.array([scores[name]["f1-score"] for name in names])
ends = np.array([intervals[name]["f1-score"] for name in names])
figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.errorbar(f1, names, xerr=[f1 - ends[:, 0], ends[:, 1] - f1], fmt="o", capsize=3)
ax.set(xlabel="F1 score", ylabel="class")
plt.show()
