"""KNNProbe is weighted nearest neighbors by cosine, with their number selected."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx import KNNProbe, TransferClassifier, load, save
from featx.exceptions import ParameterError


@parametrize_with_checks([KNNProbe(cv=2)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def by_scikit_learn(temperature=0.07):
    """The same votes: exp(similarity / temperature), similarity being 1 less the distance."""
    return KNeighborsClassifier(
        algorithm="brute", metric="cosine", weights=lambda far: np.exp((1 - far) / temperature)
    )


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_fit_scores_equal_a_grid_search(digits, temperature):
    X, y = digits
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(by_scikit_learn(temperature), {"n_neighbors": [1, 5, 20]}, cv=cv)
    search.fit(X, y)
    probe = KNNProbe([20, 1, 5], temperature=temperature, cv=cv).fit(X, y)
    scores = np.stack([search.cv_results_[f"split{number}_test_score"] for number in range(3)], 1)
    np.testing.assert_allclose(probe.path_["scores"], scores, atol=1e-12)
    assert probe.path_["n_neighbors"].tolist() == [1, 5, 20]
    assert probe.best_score_ == pytest.approx(search.best_score_)
    expected = search.best_estimator_.predict_proba(X[::7] + 1)
    np.testing.assert_allclose(probe.predict_proba(X[::7] + 1), expected, atol=1e-9)


def test_fit_equal_scores_select_the_largest():
    X, y = np.repeat([[1.0, 0.0], [0.0, 1.0]], 20, axis=0), np.repeat([0, 1], 20)
    assert KNNProbe([1, 3, 5]).fit(X, y).n_neighbors_ == 5


def test_fit_fewer_samples_than_neighbors_all_vote(digits):
    X, y = digits
    probe = KNNProbe([10_000], cv=3).fit(X, y)
    expected = by_scikit_learn().set_params(n_neighbors=len(X)).fit(X, y).predict_proba(X[:9])
    np.testing.assert_allclose(probe.predict_proba(X[:9]), expected, atol=1e-9)


def test_fit_groups_and_validation_split_are_kept(digits):
    X, y = digits
    groups = np.arange(len(X)) % 7
    probe = KNNProbe(cv=GroupKFold(7)).fit(X, y, groups=groups)
    assert probe.path_["scores"].shape == (4, 7)
    held_out = PredefinedSplit(np.where(np.arange(len(X)) < 100, 0, -1))
    one = KNNProbe([5], cv=held_out).fit(X, y)
    right = by_scikit_learn().fit(X[100:], y[100:]).score(X[:100], y[:100])
    assert one.best_score_ == pytest.approx(right)


def test_fit_folds_with_repeated_rows_keep_classes(digits):
    X, y = digits
    drawn = np.random.default_rng(0).integers(0, len(X), len(X))  # as many as there are, shuffled
    test = np.setdiff1d(np.arange(len(X)), drawn)
    probe = KNNProbe([5], cv=[(drawn, test)]).fit(X, y)
    right = by_scikit_learn().fit(X[drawn], y[drawn]).score(X[test], y[test])
    assert probe.best_score_ == pytest.approx(right)


def test_predict_proba_zero_rows_stay_finite(digits):
    X, y = digits
    X = X.copy()
    X[3] = 0
    shares = KNNProbe(temperature=1e-4, cv=2).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(shares.sum(1), 1)


def test_fit_many_rows_in_parts_agree(digits, monkeypatch):
    X, y = digits
    whole = KNNProbe(cv=2).fit(X, y)
    monkeypatch.setattr("featx.probes.knn._SIMILARITIES_AT_ONCE", 2000)
    parts = KNNProbe(cv=2).fit(X, y)
    np.testing.assert_array_equal(parts.path_["scores"], whole.path_["scores"])
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X))


def test_fit_faulty_parameters_raise_one_error(digits):
    with pytest.raises(ParameterError, match=r"(?s)n_neighbors=\[0\].*temperature=-1"):
        KNNProbe([0], temperature=-1).fit(*digits)


def test_transfer_classifier_head_is_saved_and_loaded(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    labels = np.arange(len(images)) % 2
    classifier = TransferClassifier("tiny", head=KNNProbe([1, 3], cv=2)).fit(images, labels)
    save(classifier, tmp_path / "m.featx")
    again = load(tmp_path / "m.featx")
    np.testing.assert_array_equal(again.predict_proba(images), classifier.predict_proba(images))
