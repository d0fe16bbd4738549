"""scikit-learn's displays of a classifier, on paths of images."""

import pytest
from PIL import Image
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay
from sklearn.model_selection import LearningCurveDisplay

from featx import TransferClassifier


@pytest.fixture
def paths(images, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def classifier(paths, labels):
    return TransferClassifier("tiny").fit(paths[:12], labels[:12])


def test_confusion_matrix_of_paths_counts_images(classifier, paths, labels):
    display = ConfusionMatrixDisplay.from_estimator(classifier, paths, labels)
    assert display.confusion_matrix.tolist() == [[10, 0], [0, 10]]


@pytest.mark.parametrize("display", [RocCurveDisplay, PrecisionRecallDisplay, CalibrationDisplay])
def test_curves_of_paths_name_positive_class(display, classifier, paths, labels):
    shown = display.from_estimator(classifier, paths, labels, pos_label="light")
    assert "light" in shown.ax_.get_ylabel()


def test_learning_curve_of_paths_needs_no_pass(classifier, paths, labels):
    classifier.transform(paths)
    display = LearningCurveDisplay.from_estimator(
        TransferClassifier("tiny", head="nearest_mean"), paths, labels, cv=2, train_sizes=[4, 10]
    )
    assert display.test_scores.mean() == 1
