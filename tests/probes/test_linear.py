"""LinearProbe is scikit-learn's logistic regression, with its strength selected along a path."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx import LinearProbe, TransferClassifier, load, save
from featx.exceptions import InputError, ParameterError
from featx.probes._logistic import Tolerances

CV = StratifiedKFold(3, shuffle=True, random_state=0)


REASON = "folds hold rows, and a row that weighs twice is one row"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": REASON,
}


@parametrize_with_checks(
    [LinearProbe([0.001, 0.01, 0.1, 1.0, 10.0], cv=2)],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def digits(n_samples=600):
    X, y = load_digits(return_X_y=True)
    return X[:n_samples], np.array(list("abcdefghij"))[y[:n_samples]]


def wide():
    X, y = make_classification(
        90, 200, n_informative=20, n_classes=3, random_state=0, class_sep=0.5
    )
    return X + 5, y


def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


SETS = {"digits": digits, "wide": wide, "two classes": cancer}


def reference(C, **params):
    """Scikit-learn's optimum, to many digits."""
    return LogisticRegression(C=C, solver="newton-cg", tol=1e-10, max_iter=10_000, **params)


def loss(estimator, X, y, C, weights=None):
    scores = estimator.decision_function(X)
    logs = log_softmax(
        scores if scores.ndim == 2 else np.column_stack([0 * scores, scores]), axis=1
    )
    own = logs[np.arange(len(y)), np.searchsorted(estimator.classes_, y)]
    return -np.sum(own if weights is None else weights * own) + np.sum(estimator.coef_**2) / 2 / C


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("C", [1e-6, 1e-3, 0.1, 10, 1e3])
@pytest.mark.parametrize("name", SETS)
def test_fit_is_the_optimum_of_scikit_learn(name, C, dtype):
    X, y = SETS[name]()
    X = X.astype(dtype)
    probe = LinearProbe([C], cv=CV).fit(X, y)
    expected = reference(C).fit(X.astype(np.float64), y)
    gap = np.linalg.norm(probe.coef_ - expected.coef_) / np.linalg.norm(expected.coef_)
    assert gap < 1e-3
    least = loss(expected, X.astype(np.float64), y, C)
    assert loss(probe, X.astype(np.float64), y, C) <= least * (1 + 1e-6)
    np.testing.assert_allclose(probe.predict_proba(X), expected.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("name", SETS)
def test_fit_scores_equal_a_grid_search(name):
    X, y = SETS[name]()
    Cs = np.logspace(-5, 2, 8)
    search = GridSearchCV(reference(1.0), {"C": Cs}, cv=CV).fit(X, y)
    scores = np.stack([search.cv_results_[f"split{number}_test_score"] for number in range(3)], 1)
    probe = LinearProbe(Cs, cv=CV, patience=None).fit(X, y)
    # A sample on the very edge may fall to the other side.
    assert probe.path_["scores"] == pytest.approx(scores, abs=1.01 * 3 / len(y))
    assert probe.best_score_ == pytest.approx(search.best_score_, abs=2 / len(y))
    chosen = np.flatnonzero(Cs == probe.C_)[0]
    assert probe.best_score_ == probe.path_["scores"].mean(axis=1).max()
    assert (probe.path_["scores"].mean(axis=1)[:chosen] < probe.best_score_).all()


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", SETS)
def test_fit_weights_and_intercept_are_scikit_learns(name, fit_intercept, class_weight):
    X, y = SETS[name]()
    weights = None if class_weight else np.random.default_rng(0).uniform(0.1, 3, len(y))
    params = {"class_weight": class_weight, "fit_intercept": fit_intercept}
    probe = LinearProbe([0.1], cv=CV, **params).fit(X, y, sample_weight=weights)
    expected = reference(0.1, **params).fit(X, y, sample_weight=weights)
    gap = np.linalg.norm(probe.coef_ - expected.coef_) / np.linalg.norm(expected.coef_)
    assert gap < 1e-3
    np.testing.assert_allclose(probe.intercept_, expected.intercept_, atol=2e-3)
    assert probe.intercept_.shape == expected.intercept_.shape


def test_fit_weights_count_in_the_scores():
    X, y = digits()
    right = cross_val_predict(reference(1e-4), X, y, cv=CV) == y
    weights = np.where(right, 1.0, 1e-3)  # what is hard hardly counts
    probe = LinearProbe([1e-4], cv=CV).fit(X, y, sample_weight=weights)
    expected = [
        reference(1e-4)
        .fit(X[train], y[train], sample_weight=weights[train])
        .score(X[test], y[test], sample_weight=weights[test])
        for train, test in CV.split(X, y)
    ]
    np.testing.assert_allclose(probe.path_["scores"][0], expected, atol=1e-4)
    assert probe.best_score_ > right.mean() + 0.02


def test_fit_path_ends_where_it_has_turned():
    X, y = make_classification(600, 60, n_informative=4, flip_y=0.1, random_state=0)
    X += np.random.default_rng(0).normal(size=X.shape) * 3
    whole = LinearProbe(patience=None).fit(X, y)
    assert len(whole.path_["Cs"]) == 45
    short = LinearProbe().fit(X, y)
    n_walked = len(short.path_["Cs"])
    assert 10 < n_walked < 45
    assert (short.C_, short.best_score_) == (whole.C_, whole.best_score_)
    np.testing.assert_array_equal(short.path_["scores"], whole.path_["scores"][:n_walked])
    means = short.path_["scores"].mean(axis=1)
    assert (means[-8:] < short.best_score_).all()


def test_fit_equal_scores_select_the_strongest():
    X, y = np.repeat([[1.0, 0.0], [0.0, 1.0]], 20, axis=0), np.repeat([0, 1], 20)
    assert LinearProbe([10.0, 0.1, 1.0]).fit(X, y).C_ == 0.1


def test_fit_strengths_are_sorted_and_unique():
    X, y = digits(200)
    probe = LinearProbe([1.0, 0.01, 1.0], cv=2, patience=None).fit(X, y)
    assert probe.path_["Cs"].tolist() == [0.01, 1.0]


def test_fit_groups_and_validation_split_are_kept():
    X, y = digits(300)
    groups = np.arange(300) // 30
    probe = LinearProbe([0.01], cv=GroupKFold(3)).fit(X, y, groups=groups)
    expected = cross_val_score(reference(0.01), X, y, cv=GroupKFold(3), groups=groups)
    np.testing.assert_allclose(probe.path_["scores"][0], expected, atol=0.011)
    split = PredefinedSplit(np.repeat([-1, 0], [200, 100]))
    assert LinearProbe([0.01, 1], cv=split).fit(X, y).path_["scores"].shape == (2, 1)


def test_fit_folds_with_repeated_rows_count_them():
    X, y = digits(200)
    train = np.random.default_rng(0).integers(0, 150, 150)
    folds = [(train, np.arange(150, 200))]
    probe = LinearProbe([0.01], cv=folds).fit(X, y)
    expected = reference(0.01).fit(X[train], y[train]).score(X[150:], y[150:])
    assert probe.best_score_ == pytest.approx(expected, abs=0.021)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "f1_macro"])
def test_fit_other_scores_choose(scoring):
    X, y = digits(300)
    Cs = [1e-4, 1e-2, 1]
    probe = LinearProbe(Cs, cv=CV, scoring=scoring).fit(X, y)
    search = GridSearchCV(reference(1.0), {"C": Cs}, cv=CV, scoring=scoring).fit(X, y)
    assert probe.best_score_ == pytest.approx(search.best_score_, abs=2e-3)
    assert search.best_params_["C"] == probe.C_


def test_fit_many_folds_are_solved_in_turns(monkeypatch):
    X, y = digits(200)
    whole = LinearProbe([0.01, 0.1], cv=4).fit(X, y)
    monkeypatch.setattr("featx.probes._logistic._COLUMNS_AT_ONCE", 20)
    monkeypatch.setattr("featx.probes._logistic._ROWS_AT_ONCE", 64)
    parted = LinearProbe([0.01, 0.1], cv=4).fit(X, y)
    np.testing.assert_allclose(parted.path_["scores"], whole.path_["scores"], atol=0.021)
    np.testing.assert_allclose(parted.coef_, whole.coef_, atol=1e-5)


def test_fit_constant_features_change_nothing():
    X, y = digits(300)
    probe = LinearProbe([0.01], cv=3).fit(X, y)
    more = LinearProbe([0.01], cv=3).fit(np.hstack([X, np.full((300, 2), 1e4)]), y)
    np.testing.assert_allclose(more.coef_[:, :64], probe.coef_, atol=1e-5)
    np.testing.assert_allclose(
        more.predict_proba(np.hstack([X, np.full((300, 2), 1e4)])),
        probe.predict_proba(X),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"Cs": [0.1, -1]}, "Cs="),
        ({"Cs": []}, "Cs="),
        ({"Cs": 1.0}, "Cs="),
        ({"Cs": [np.nan], "patience": 0}, "(?s)Cs=.*patience=0"),
        ({"patience": 1.5}, "patience=1.5"),
    ],
)
def test_fit_faulty_parameters_are_all_named(params, words):
    X, y = digits(100)
    with pytest.raises(ParameterError, match=words):
        LinearProbe(**params).fit(X, y)


def test_fit_one_class_is_refused():
    with pytest.raises(InputError, match="one class"):
        LinearProbe().fit(np.eye(6), np.zeros(6))


def test_fit_folds_with_one_class_are_named():
    with pytest.raises(InputError, match="folds 0, 1 have one class only"):
        LinearProbe(cv=KFold(2)).fit(np.eye(20), np.repeat([0, 1], 10))


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_fit_class_without_weight_is_never_predicted(fit_intercept):
    X, y = digits(200)
    weights = (y != "d").astype(float)
    params = {"class_weight": "balanced", "fit_intercept": fit_intercept, "cv": 3}
    probe = LinearProbe([0.01], **params).fit(X, y, sample_weight=weights)
    assert np.isfinite(probe.coef_).all()
    assert "d" not in probe.predict(X)


def test_fit_numbers_beyond_float32_raise():
    X = np.random.default_rng(0).normal(size=(40, 3))
    X[0, 0] = 1e39
    with pytest.raises(InputError, match="too large"), np.errstate(all="ignore"):
        LinearProbe([1.0]).fit(X, np.arange(40) % 2)


def test_fit_nan_scores_are_the_worst():
    X, y = digits(100)
    n_calls = []

    def scorer(estimator, X, y):
        n_calls.append(1)
        return np.nan if len(n_calls) <= 3 else estimator.score(X, y)

    assert LinearProbe([1e-3, 1.0], cv=3, scoring=scorer).fit(X, y).C_ == 1.0


def test_fit_too_few_iterations_warns(monkeypatch):
    X, y = digits(100)
    few = Tolerances(step=1e-9, decrease=1e-15, rounding=1e-16, max_iter=2)
    monkeypatch.setattr("featx.probes.linear._FINAL_TOLERANCES", few)
    with pytest.warns(ConvergenceWarning, match="2 iterations at C=1"):
        LinearProbe([1.0], cv=2).fit(X, y)


def test_transfer_classifier_probe_is_saved_and_exported(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    labels = np.repeat(["day", "night"], 20)
    images[20:] //= 3
    classifier = TransferClassifier("tiny", head="probe").fit(images, labels)
    assert isinstance(classifier.head_, LinearProbe)
    assert classifier.score(images, labels) == 1
    save(classifier, tmp_path / "probe.featx")
    again = load(tmp_path / "probe.featx")
    np.testing.assert_array_equal(again.predict_proba(images), classifier.predict_proba(images))
    computed = classifier.to_keras().predict(images, verbose=0)
    np.testing.assert_allclose(computed, classifier.predict_proba(images), atol=1e-4)
