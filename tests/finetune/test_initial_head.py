"""The initial head: training starts exactly from it, and it is kept unless clearly beaten."""

import numpy as np
import pytest
from digit_tuning import classifier, tuning, unit_extractor
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import FeatureExtractor, TransferClassifier, TransferRegressor
from featx._training_data import Data
from featx.finetune.initial_head import InitialHead, is_clearly_positive

HEADS = [
    "logistic",
    "svm",
    "lda",
    "ridge",
    "knn",
    LogisticRegression(max_iter=1000),
    make_pipeline(StandardScaler(), PCA(10, whiten=True), LogisticRegression(max_iter=1000)),
    GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [0.1, 1.0]},
    ),
    CalibratedClassifierCV(LogisticRegression(max_iter=1000)),
]


@pytest.mark.parametrize(
    ("head", "n_classes"),
    [
        *(
            pytest.param(head, 4, marks=pytest.mark.long if head in ("svm", "lda") else ())
            for head in HEADS
        ),
        (HEADS[0], 2),
        *(pytest.param(head, 2, marks=pytest.mark.long) for head in HEADS[1:]),
    ],
    ids=str,
)
def test_fine_tune_starts_exactly_from_the_head(digits, cache, head, n_classes):
    images, labels = digits
    few = labels < n_classes
    fitted = classifier(cache, head, epochs=1).fit(images[few], labels[few])
    assert fitted.report_.handover_gap <= 1e-5
    assert fitted.report_.kept in ("head", "tuned")


@pytest.mark.parametrize("y_shape", ["flat", "two outputs"])
def test_fine_tune_regressor_starts_from_the_head(digits, cache, y_shape):
    images, labels = digits
    y = labels * 1e5 + 3.0 if y_shape == "flat" else np.c_[labels * 1e-3, -labels]
    extractor = FeatureExtractor("tiny", cache=cache)
    regressor = TransferRegressor(extractor, fine_tune=tuning(), random_state=0).fit(images, y)
    assert regressor.report_.handover_gap <= 1e-5
    assert regressor.predict(images).shape == y.shape
    assert regressor.score(images, y) > 0.9


def test_fine_tune_pls_head_starts_exactly(network, empty_cache, few_digits):
    images, labels = few_digits
    head = PLSRegression(3)
    tune = tuning(unfreeze="all", epochs=8, learning_rate=3e-3)
    regressor = TransferRegressor(unit_extractor(network, empty_cache), head, tune, random_state=0)
    report = regressor.fit(images, labels).report_
    assert report.handover_gap <= 1e-5
    assert r2_score(labels, np.ravel(regressor.predict(images))) > min(0.5, report.head_score)


def test_fine_tune_scores_are_comparable(network, empty_cache, few_digits):
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, scoring="neg_mean_squared_error")
    regressor = TransferRegressor(
        unit_extractor(network, empty_cache), search, tuning(epochs=3), random_state=0
    )
    report = regressor.fit(few_digits[0], few_digits[1] * 100.0).report_
    assert -1 < report.head_score < 1
    assert abs(report.tuned_score - report.head_score) < 0.5


@pytest.mark.parametrize("labels_of", [lambda y: y, lambda y: np.c_[y % 2, y > 1]])
def test_fine_tune_insignificant_gain_keeps_head(network, empty_cache, few_digits, labels_of):
    """One sample more of twenty, and one less elsewhere, is no reason to keep another network."""
    images, labels = few_digits
    new = np.ones(20)
    old, other = new.copy(), new.copy()
    old[[0, 1]], other[2] = 0, 0
    assert not is_clearly_positive(other - old, np.ones(20))
    assert is_clearly_positive(new - old, np.ones(20))
    head = "ridge"
    tune = tuning(epochs=3, learning_rate=1e-9)
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), head, tune, random_state=0
    )
    assert classifier.fit(images, labels_of(labels)).report_.kept == "head"


@pytest.mark.parametrize("labels_of", [lambda y: y, lambda y: y % 2, lambda y: np.c_[y % 2, y > 1]])
def test_tuned_model_only_recalibrated_is_not_better(labels_of, few_digits):
    images, labels = few_digits[0].reshape(80, 64) / 255, labels_of(few_digits[1])
    data = Data(None, labels, None, None).split(0.25, is_classifier=True, seed=0)
    head = LogisticRegression(C=1e-3)  # right, with little confidence
    head = head if labels.ndim == 1 else OneVsRestClassifier(head)
    initial = InitialHead(lambda: clone(head), tuning(epochs=3), data, images.astype(np.float32))
    scaling, dense = initial.linear.layers()
    first = np.asarray(dense(scaling(initial.embeddings[data.validation].astype(np.float32))))
    calibrated = initial.objective.calibrated(first, data.validation)
    before, after = (
        initial.objective.losses(each, data.validation).mean() for each in (first, calibrated)
    )
    assert after < 0.96 * before
    assert not initial.tuned_model_is_better(calibrated, first)
