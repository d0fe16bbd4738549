"""Every kind of target that scikit-learn knows, and the methods that depend on the head."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import (
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.metrics import accuracy_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    FineTune,
    TransferClassifier,
    TransferRegressor,
    load,
    save,
)
from featx.exceptions import InputError, ParameterError


def each_frozen(values):
    """Return each value with no fine-tuning, and with it: in the gate for the first value only."""
    return [
        pytest.param(value, tune, id=f"{value}-{kind}", marks=mark)
        for place, value in enumerate(values)
        for tune, kind, mark in (
            (None, "frozen", ()),
            (FineTune(epochs=1), "tuned", pytest.mark.long if place else ()),
        )
    ]


@pytest.fixture
def images():
    """Noise, dark or light, red or blue: four kinds of images, by turns."""
    noise = np.random.default_rng(0).integers(0, 64, (24, 64, 64, 3), dtype=np.uint8)
    noise[::2] += 64
    noise[0::4, ..., 0] += 64
    noise[1::4, ..., 0] += 64
    return noise


@pytest.fixture
def labels():
    """Two labels (24, 2) of each image: light, red."""
    return np.tile([[1, 1], [0, 1], [1, 0], [0, 0]], (6, 1))


@pytest.mark.parametrize(
    "head", ["logistic", "ridge", "svm", "knn", "nearest_mean", "lda", "forest"]
)
def test_named_head_learns_several_labels(head, images, labels):
    classifier = TransferClassifier("tiny", head, random_state=0).fit(images, labels)
    assert classifier.score(images, labels) == 1
    assert classifier.predict(images).shape == (24, 2)


@pytest.mark.parametrize(
    "head",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        OneVsRestClassifier(LogisticRegression()),
        GridSearchCV(LogisticRegression(), {"C": [1, 10]}, cv=2),
        GridSearchCV(OneVsRestClassifier(LogisticRegression()), {"estimator__C": [1, 10]}, cv=2),
    ],
    ids=str,
)
def test_any_head_learns_several_labels(head, images, labels):
    classifier = TransferClassifier("tiny", head).fit(images, labels)
    assert classifier.score(images, labels) == 1
    assert classifier.predict_proba(images).shape == (24, 2)


def test_grid_search_accepts_several_labels(images, labels):
    search = GridSearchCV(TransferClassifier("tiny"), {"head__C": [0.1, 10]}, cv=2)
    assert search.fit(images, labels).score(images, labels) == 1
    assert cross_val_score(TransferClassifier("tiny"), images, labels, cv=2).mean() > 0.9


def test_several_labels_are_saved_and_exported(images, labels, tmp_path):
    classifier = TransferClassifier("tiny").fit(images, labels)
    save(classifier, tmp_path / "labels.featx")
    loaded = load(tmp_path / "labels.featx")
    expected = classifier.predict_proba(images)
    np.testing.assert_array_equal(loaded.predict_proba(images), expected)
    model = classifier.to_keras()
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize(("head", "fine_tune"), each_frozen(["logistic", "ridge", "svm", "forest"]))
def test_weights_reach_the_head_of_each_label(head, fine_tune, images, labels):
    """Weights decide between samples with contradicting labels."""
    opposite = 1 - labels
    weights = np.repeat([1.0, 1e-6], len(images))
    classifier = TransferClassifier("tiny", head, fine_tune=fine_tune, random_state=0)
    twice = np.concatenate([images, images])
    classifier.fit(twice, np.concatenate([labels, opposite]), sample_weight=weights)
    assert classifier.score(images, labels) == 1


def test_several_labels_with_weights_are_saved(images, labels, tmp_path):
    classifier = TransferClassifier("tiny").fit(images, labels, sample_weight=np.arange(24) % 3)
    save(classifier, tmp_path / "labels.featx")
    loaded = load(tmp_path / "labels.featx")
    expected = classifier.predict_proba(images)
    np.testing.assert_array_equal(loaded.predict_proba(images), expected)
    again = loaded.fit(images, labels, sample_weight=np.arange(24) % 3)
    np.testing.assert_allclose(again.predict_proba(images), expected)


def test_calibrated_labels_with_weights_are_saved(images, labels, tmp_path):
    """scikit-learn keeps its calibrated heads in an object that is no estimator."""
    head = OneVsRestClassifier(CalibratedClassifierCV(LogisticRegression(), cv=2))
    classifier = TransferClassifier("tiny", head)
    classifier.fit(images, labels, sample_weight=np.arange(24) % 3 + 1)
    save(classifier, tmp_path / "labels.featx")
    loaded = load(tmp_path / "labels.featx")
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))


@pytest.mark.parametrize("head", ["logistic", "forest"])
def test_several_outputs_of_several_classes(head, images, labels):
    outputs = np.c_[np.arange(24) % 4, labels[:, 0]]
    classifier = TransferClassifier("tiny", head, random_state=0).fit(images, outputs)
    np.testing.assert_array_equal(classifier.predict(images), outputs)
    weights = np.arange(24)
    assert classifier.score(images, outputs, sample_weight=weights) == 1
    wrong = outputs.copy()
    wrong[0] = wrong[0][::-1] + 1
    assert classifier.score(images, wrong) == pytest.approx(23 / 24)
    classes = [each.tolist() for each in classifier.classes_]
    assert classes == [[0, 1, 2, 3], [0, 1]]


@pytest.mark.parametrize("head", ["ridge", "svm", "knn", "forest", Ridge()], ids=str)
def test_several_values(head, images):
    values = images.mean(axis=(1, 2))[:, :2] / 64
    regressor = TransferRegressor("tiny", head, random_state=0).fit(images, values)
    assert regressor.predict(images).shape == (24, 2)
    assert regressor.score(images, values) > 0.9


NAMES = [
    ["no", "yes"],
    [False, True],
    [-1, 1],
    [0.0, 2.0],
    np.array(["no", "yes"], dtype=object),
    np.array([3, 255], dtype=np.uint8),
]


@pytest.mark.parametrize(("names", "fine_tune"), each_frozen(NAMES))
def test_binary_labels_of_any_type(names, fine_tune, images, labels):
    y = np.asarray(names)[labels[:, 0]]
    classifier = TransferClassifier("tiny", fine_tune=fine_tune, random_state=0).fit(images, y)
    assert classifier.classes_.tolist() == list(names)
    assert classifier.predict(images).dtype.kind == y.dtype.kind
    assert accuracy_score(y, classifier.predict(images)) > 0.9


def test_class_weight_reaches_the_head(images, labels):
    y = labels[:, 0]
    plain = TransferClassifier("tiny", LogisticRegression(C=1e-4)).fit(images, y)
    weighted = TransferClassifier("tiny", LogisticRegression(C=1e-4, class_weight={0: 9})).fit(
        images, y
    )
    assert weighted.predict_proba(images)[:, 0].mean() > plain.predict_proba(images)[:, 0].mean()


@pytest.mark.parametrize("head", [SGDClassifier(random_state=0), GaussianNB()], ids=str)
def test_partial_fit_learns_batch_by_batch(head, images, labels):
    y = np.array(["dark", "light"])[labels[:, 0]]
    classifier = TransferClassifier(FeatureExtractor("tiny"), head)
    for start in range(0, 24, 6):
        batch = slice(start, start + 6)
        weights = np.ones(6) if start else None
        classifier.partial_fit(images[batch], y[batch], ["dark", "light"], sample_weight=weights)
        assert classifier.report_.n_forward == 6
    assert classifier.score(images, y) > 0.7
    expected = type(head)(**head.get_params())
    embeddings = classifier.transform(images).astype(np.float64)
    for start in range(0, 24, 6):
        batch = slice(start, start + 6)
        expected.partial_fit(embeddings[batch], y[batch], ["dark", "light"])
    np.testing.assert_array_equal(classifier.predict(images), expected.predict(embeddings))


def test_partial_fit_goes_on_after_fit(images, labels):
    y = labels[:, 0]
    classifier = TransferClassifier("tiny", SGDClassifier(random_state=0)).fit(images, y)
    n_steps = classifier.head_.t_
    classifier.partial_fit(images[:4], y[:4])
    assert classifier.head_.t_ == n_steps + 4


def test_partial_fit_of_a_regressor(images):
    y = images.mean(axis=(1, 2, 3)) / 64
    regressor = TransferRegressor("tiny", SGDRegressor(random_state=0))
    for _ in range(20):
        regressor.partial_fit(images, y)
    assert np.corrcoef(regressor.predict(images), y)[0, 1] > 0.8


def test_partial_fit_bad_input_raises_early(images):
    head = SGDClassifier()
    with pytest.raises(InputError, match="X has 24 samples and y has 3"):
        TransferClassifier("tiny", head).partial_fit(images, [0, 1, 0], [0, 1])
    with pytest.raises(ParameterError, match="fine_tune=None"):
        TransferClassifier("tiny", head, FineTune()).partial_fit(images, [0, 1] * 12, [0, 1])
    with pytest.raises(InputError, match="classes must be passed"):
        TransferClassifier("tiny", head).partial_fit(images, [0, 1] * 12)
    with pytest.raises(ValueError, match="Unknown label type"):
        TransferClassifier("tiny", head).partial_fit(images, np.linspace(0, 1, 24), [0, 1])
    with pytest.raises(InputError, match="a regressor needs numbers"):
        TransferRegressor("tiny", SGDRegressor()).partial_fit(images, ["a", "b"] * 12)
    extractor = FeatureExtractor("tiny", layer="stage1", pooling=None)
    with pytest.raises(ParameterError, match="pass another pooling"):
        TransferClassifier(extractor, head).partial_fit(images, [0, 1] * 12, [0, 1])
    assert EmbeddingCache().info()["n_forward"] == 0


class Mixture(ClassifierMixin, GaussianMixture):
    """A head that has score_samples."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return super().fit(X)


class Deaf(ClassifierMixin, BaseEstimator):
    """A head that has no method but what it must have."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def test_score_samples_is_the_heads(images, labels):
    head = Mixture(covariance_type="diag", reg_covar=1e-3, random_state=0)
    classifier = TransferClassifier("tiny", head).fit(images, labels[:, 0])
    embeddings = classifier.transform(images).astype(np.float64)
    expected = classifier.head_.score_samples(embeddings)
    np.testing.assert_array_equal(classifier.score_samples(images), expected)


METHODS = (
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "partial_fit",
)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (Deaf(), []),
        (RidgeClassifier(), ["decision_function"]),
        (LogisticRegression(), ["predict_proba", "predict_log_proba", "decision_function"]),
        ("knn", ["predict_proba"]),
        (SGDClassifier(), ["decision_function", "partial_fit"]),
        (
            SGDClassifier("log_loss"),
            ["predict_proba", "predict_log_proba", "decision_function", "partial_fit"],
        ),
        (GaussianNB(), ["predict_proba", "predict_log_proba", "partial_fit"]),
        (MultiOutputClassifier(Deaf()), []),
    ],
    ids=str,
)
def test_methods_follow_the_head(head, expected, images, labels):
    classifier = TransferClassifier("tiny", head)
    y = labels if isinstance(head, MultiOutputClassifier) else labels[:, 0]
    for each in (classifier, classifier.fit(images, y)):
        assert [name for name in METHODS if hasattr(each, name)] == expected
    regressor = TransferRegressor("tiny", SGDRegressor())
    assert [name for name in METHODS if hasattr(regressor, name)] == ["partial_fit"]
