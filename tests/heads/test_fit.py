"""Heads are trained with weights, whatever they are wrapped in."""

import numpy as np
import pytest
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from featx.heads import fit

LOGISTIC = LogisticRegression(tol=1e-8)
SCALED = make_pipeline(StandardScaler(), LOGISTIC)
OF_LABELS = [
    OneVsRestClassifier(LOGISTIC),
    OneVsRestClassifier(SCALED),
    make_pipeline(StandardScaler(), OneVsRestClassifier(LOGISTIC)),
    ClassifierChain(LOGISTIC),
    GridSearchCV(OneVsRestClassifier(LOGISTIC), {"estimator__C": [0.1, 1]}, cv=2),
]
OF_CLASSES = [
    OneVsOneClassifier(SCALED),
    VotingClassifier([("logistic", LOGISTIC), ("bayes", GaussianNB())]),
    StackingClassifier([("logistic", LOGISTIC), ("bayes", GaussianNB())], LOGISTIC, cv=2),
    GridSearchCV(SCALED, {"logisticregression__C": [0.1, 1]}, cv=2),
    CalibratedClassifierCV(SCALED, cv=2),
    BaggingClassifier(SCALED, random_state=0),
]


@pytest.mark.parametrize("head", [GaussianNB(), make_pipeline(StandardScaler(), GaussianNB())])
def test_fit_head_weights_reach_the_head(head, data):
    X, y = data
    weights = np.where(y == 0, 3.0, 1.0)
    fit.fit_head(head, X, y, sample_weight=weights)
    prior = (head[-1] if hasattr(head, "steps") else head).class_prior_
    np.testing.assert_allclose(prior, [0.75, 0.25])


@pytest.mark.parametrize("is_on", [False, True], ids=["routing off", "routing on"])
@pytest.mark.parametrize("number", range(len(OF_LABELS)))
def test_fit_head_weights_reach_each_label(number, is_on):
    """Weighting nothing but one half of the samples is leaving out the other."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 5))
    Y = (X[:, :2] + rng.normal(size=(80, 2)) > 0).astype(int)
    weights = np.repeat([1.0, 1e-12], 40)
    weighted, half, plain = (clone(OF_LABELS[number]) for _ in range(3))
    assert fit.takes_sample_weight(weighted)
    with config_context(enable_metadata_routing=is_on):
        fit.fit_head(weighted, X, Y, sample_weight=weights)
        assert get_config()["enable_metadata_routing"] == is_on
    fit.fit_head(half, X[:40], Y[:40], sample_weight=None)
    fit.fit_head(plain, X, Y, sample_weight=None)
    probabilities = [each.predict_proba(X) for each in (weighted, half, plain)]
    if isinstance(weighted, GridSearchCV):  # whose folds are others with half of the samples
        assert not np.allclose(probabilities[0], probabilities[2], atol=1e-3)
    else:
        np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-4)


@pytest.mark.parametrize("number", range(len(OF_CLASSES)))
def test_fit_head_weights_reach_the_parts(number, data):
    """Doubled weights of one class pull the border of all of them away from it."""
    X, y = data
    X = X - 1.5 * y[:, np.newaxis]  # or there would be nothing to pull at
    weighted, plain = clone(OF_CLASSES[number]), clone(OF_CLASSES[number])
    assert fit.takes_sample_weight(weighted)
    fit.fit_head(weighted, X, y, sample_weight=np.where(y == 0, 9.0, 1.0))
    fit.fit_head(plain, X, y, sample_weight=None)
    assert (weighted.predict(X) == 0).sum() > (plain.predict(X) == 0).sum()


@pytest.mark.parametrize(
    "head",
    [
        KNeighborsClassifier(),
        OneVsRestClassifier(KNeighborsClassifier()),
        GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3]}),
        GridSearchCV(LOGISTIC, {"C": [1]}, scoring="f1"),
        SelfTrainingClassifier(LOGISTIC),
        MultiOutputClassifier(KNeighborsClassifier()),
        GridSearchCV(SCALED, {"logisticregression": [LOGISTIC, KNeighborsClassifier()]}),
    ],
    ids=[
        "neighbors",
        "of each label",
        "search",
        "search by a named score",
        "self-training",
        "of outputs",
        "search over heads",
    ],
)
def test_takes_sample_weight_nowhere_is_false(head):
    assert not fit.takes_sample_weight(head)
    assert not fit.takes_sample_weight(make_pipeline(StandardScaler(), head))


@pytest.mark.parametrize("inner", [LOGISTIC, SCALED, OF_CLASSES[3]], ids=["head", "pipe", "search"])
def test_fit_head_weights_reach_each_output(inner, data):
    X, y = data
    X = X - 1.5 * y[:, np.newaxis]
    weights = np.where(y == 0, 9.0, 1.0)
    weighted, plain = (MultiOutputClassifier(clone(inner)) for _ in range(2))
    outputs = np.column_stack([y, y + 3])
    fit.fit_head(weighted, X, outputs, sample_weight=weights)
    fit.fit_head(plain, X, outputs, sample_weight=None)
    assert (weighted.predict(X)[:, 0] == 0).sum() > (plain.predict(X)[:, 0] == 0).sum()


def test_fit_head_without_routing_takes_weights(data):
    head = AdaBoostClassifier(clone(LOGISTIC), n_estimators=3)
    assert fit.takes_sample_weight(head)
    fit.fit_head(head, *data, sample_weight=np.ones(40))
    assert head.score(*data) > 0.8


def test_takes_sample_weight_leaves_the_head_alone(data):
    head = OneVsRestClassifier(LogisticRegression())
    assert fit.takes_sample_weight(head)
    with config_context(enable_metadata_routing=True):
        assert head.estimator.get_metadata_routing().fit.requests["sample_weight"] is None


def test_fit_head_keeps_own_metadata_requests(data):
    X, y = data
    with config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        last = OneVsRestClassifier(LogisticRegression().set_fit_request(sample_weight=True))
    head = make_pipeline(scaler, last)
    fit.fit_head(head, X, y, sample_weight=1.0 * y + 1)
    np.testing.assert_allclose(head[0].mean_, X.mean(axis=0))


def test_train_further_weights_reach_each_class():
    X, y = load_iris(return_X_y=True)
    weighted, plain = (OneVsRestClassifier(SGDClassifier(random_state=0)) for _ in range(2))
    weights = np.where(y == 2, 9.0, 1.0)
    fit.train_further(weighted, X, y, classes=[0, 1, 2], sample_weight=weights)
    fit.train_further(plain, X, y, classes=[0, 1, 2])
    assert not np.allclose(weighted.decision_function(X), plain.decision_function(X))


def test_as_head_input_large_matrix_stays_float32():
    embeddings = np.ones((4, 4), np.float32)
    assert fit.as_head_input(embeddings).dtype == np.float64
    assert fit.as_head_input(embeddings, max_bytes=100) is embeddings
