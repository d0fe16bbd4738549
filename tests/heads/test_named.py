"""Heads by name, their parameters and their random states."""

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.exceptions import ParameterError
from featx.heads.named import (
    CLASSIFIER_HEADS,
    REGRESSOR_HEADS,
    calibrated_head,
    head_for_outputs,
    make_head,
    seed_head,
)


@pytest.mark.parametrize("name", CLASSIFIER_HEADS)
def test_make_head_classifier_name_learns(name, data):
    head = make_head(name, CLASSIFIER_HEADS)
    assert head.fit(*data).score(*data) > 0.8


@pytest.mark.parametrize("name", REGRESSOR_HEADS)
def test_make_head_regressor_name_learns(name, data):
    head = make_head(name, REGRESSOR_HEADS)
    assert head.fit(*data).score(*data) > 0.3


def test_make_head_unknown_name_suggests_near_one():
    with pytest.raises(ParameterError, match="Did you mean 'logistic'"):
        make_head("logistics", CLASSIFIER_HEADS)


@pytest.mark.parametrize("head", [3, LogisticRegression, StandardScaler()])
def test_make_head_no_estimator_raises(head):
    with pytest.raises(ParameterError, match="expected a name or a scikit-learn estimator"):
        make_head(head, CLASSIFIER_HEADS)


def test_make_head_estimator_is_cloned(data):
    mine = LogisticRegression(C=3)
    head = make_head(mine, CLASSIFIER_HEADS).fit(*data)
    assert head.C == 3
    assert not hasattr(mine, "coef_")


def test_seed_head_fills_only_what_is_none():
    head = make_pipeline(StandardScaler(), RandomForestClassifier())
    seed_head(head, 7)
    assert head[-1].random_state == 7
    seeded = RandomForestClassifier(random_state=1)
    seed_head(seeded, 7)
    assert seeded.random_state == 1


def test_seed_head_none_changes_nothing():
    head = RandomForestClassifier()
    seed_head(head, None)
    assert head.random_state is None


def test_make_head_stacking_without_final_estimator(data):
    stack = StackingClassifier([("forest", RandomForestClassifier(10, random_state=0))])
    assert make_head(stack, CLASSIFIER_HEADS).fit(*data).score(*data) > 0.8


def test_for_outputs_logistic_cv_copies_each_column():
    head = head_for_outputs(LogisticRegressionCV(cv=2), np.array([[0, 1], [1, 1]]))
    assert isinstance(head, OneVsRestClassifier)


def test_calibrated_head_lowers_log_loss():
    X, y = make_classification(600, 40, n_informative=4, flip_y=0.3, random_state=0)
    plain, calibrated = make_head("logistic", CLASSIFIER_HEADS), calibrated_head("logistic")
    loss, calibrated_loss = (
        log_loss(y[200:], head.fit(X[:200], y[:200]).predict_proba(X[200:]))
        for head in (plain, calibrated)
    )
    assert calibrated_loss < 0.9 * loss


@pytest.mark.parametrize(
    ("version", "method"),
    [("1.7.2", "sigmoid"), ("1.8.0", "temperature"), ("1.10.dev0", "temperature")],
)
def test_calibrated_head_follows_scikit_learn(version, method, monkeypatch):
    monkeypatch.setattr(sklearn, "__version__", version)
    assert calibrated_head("ridge").method == method
