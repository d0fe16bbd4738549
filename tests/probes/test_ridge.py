"""RidgeProbe and RidgeProbeRegressor are scikit-learn's ridge, with their strength selected."""

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits, make_classification
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx import FineTune, RidgeProbe, RidgeProbeRegressor, TransferClassifier, load, save
from featx.exceptions import InputError, ParameterError


@parametrize_with_checks([RidgeProbe(cv=2), RidgeProbeRegressor()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def samples(n_samples, n_features, n_classes, seed=0):
    """Samples of classes that overlap, far from the origin."""
    X, y = make_classification(
        n_samples,
        n_features,
        n_informative=n_features // 2,
        n_classes=n_classes,
        class_sep=0.7,
        random_state=seed,
    )
    return X + 5, np.array(list("abcdefgh"))[y]


def split_scores(search):
    """Scores of a fitted search, (n_candidates, n_folds)."""
    n_folds = search.n_splits_
    return np.stack(
        [search.cv_results_[f"split{number}_test_score"] for number in range(n_folds)], axis=1
    )


SHAPES = pytest.mark.parametrize("shape", [(300, 20), (60, 90)], ids=["primal", "dual"])


@SHAPES
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False], ids=["intercept", "no intercept"])
@pytest.mark.parametrize("class_weight", [None, "balanced", {"a": 3}], ids=str)
def test_classifier_is_ridge_classifier(shape, n_classes, fit_intercept, class_weight):
    X, y = samples(*shape, n_classes)
    weights = np.random.default_rng(0).random(len(y))
    params = {"fit_intercept": fit_intercept, "class_weight": class_weight}
    probe = RidgeProbe(**params).fit(X, y, sample_weight=weights)
    expected = RidgeClassifier(probe.alpha_, **params).fit(X, y, sample_weight=weights)
    coef = np.atleast_2d(expected.coef_)  # of two classes it has one dimension in some versions
    np.testing.assert_allclose(probe.coef_, coef, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(probe.intercept_, expected.intercept_, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(probe.predict(X), expected.predict(X))
    scores = probe.decision_function(X)
    np.testing.assert_allclose(scores, expected.decision_function(X), atol=1e-7)
    assert probe.classes_.tolist() == expected.classes_.tolist()


@SHAPES
@pytest.mark.parametrize("alpha", [1e-6, 1e-2, 1e3])
@pytest.mark.parametrize("n_targets", [0, 3])
def test_regressor_is_ridge(shape, alpha, n_targets):
    X, _ = samples(*shape, 2)
    rng = np.random.default_rng(1)
    y = rng.normal(size=(len(X), n_targets)) if n_targets else rng.normal(size=len(X))
    weights = rng.random(len(y))
    probe = RidgeProbeRegressor([alpha]).fit(X, y, sample_weight=weights)
    expected = Ridge(alpha).fit(X, y, sample_weight=weights)
    np.testing.assert_allclose(probe.coef_, expected.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(probe.predict(X), expected.predict(X), atol=1e-5)
    assert probe.coef_.shape == expected.coef_.shape
    assert probe.predict(X).shape == y.shape


@SHAPES
@pytest.mark.parametrize(
    "cv",
    [
        None,
        3,
        KFold(4, shuffle=True, random_state=0),
        ShuffleSplit(3, test_size=0.3, random_state=0),
        PredefinedSplit(np.arange(60) % 3 - 1),
    ],
    ids=["default", "three", "shuffled", "random splits", "one part is never held out"],
)
def test_path_equals_a_grid_search(shape, cv):
    X, y = (each[:60] for each in samples(*shape, 3))
    probe = RidgeProbe(cv=cv).fit(X, y)
    search = GridSearchCV(RidgeClassifier(), {"alpha": probe.path_["alphas"]}, cv=cv).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search))
    assert probe.best_score_ == pytest.approx(search.best_score_)
    means = search.cv_results_["mean_test_score"]
    assert probe.alpha_ == probe.path_["alphas"][means >= means.max() - 1e-12].max()


def test_regressor_path_equals_a_grid_search():
    X, y = load_diabetes(return_X_y=True)
    probe = RidgeProbeRegressor().fit(X, y)
    search = GridSearchCV(Ridge(), {"alpha": probe.path_["alphas"]}).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search), atol=1e-9)
    assert probe.alpha_ == search.best_params_["alpha"]


def test_path_with_another_score():
    X, y = samples(200, 20, 3)
    probe = RidgeProbe([0.1, 10, 1000], scoring="f1_macro", cv=3).fit(X, y)
    grid = {"alpha": [0.1, 10, 1000]}
    search = GridSearchCV(RidgeClassifier(), grid, scoring="f1_macro", cv=3).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search))


def test_path_of_a_fold_that_repeats_rows():
    X, y = samples(60, 8, 2)
    cv = [(np.arange(10, 60), np.arange(10).repeat(3)), (np.arange(30), np.arange(30, 60))]
    probe = RidgeProbe(cv=cv).fit(X, y)
    search = GridSearchCV(RidgeClassifier(), {"alpha": probe.path_["alphas"]}, cv=cv).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search))


def test_folds_may_be_masks():
    X, y = samples(60, 8, 2)
    first = np.arange(60) < 30
    masks, numbers = [(first, ~first)], [(np.arange(30), np.arange(30, 60))]
    scores = [RidgeProbe(cv=cv).fit(X, y).path_["scores"] for cv in (masks, numbers)]
    np.testing.assert_array_equal(*scores)


def test_folds_without_any_weight_are_named():
    X, y = samples(60, 8, 2)
    weights = np.repeat([1.0, 0.0], 30)
    cv = [(np.arange(0, 60, 2), np.arange(1, 60, 2)), (np.arange(30), np.arange(30, 60))]
    with pytest.raises(ValueError, match="are zero in the test part of fold 1"):
        RidgeProbe(cv=cv).fit(X, y, sample_weight=weights)


def test_path_weighs_classes_in_training_only():
    X, y = samples(150, 10, 3)
    weights = {"a": 9, "b": 1, "c": 2}
    probe = RidgeProbe(class_weight=weights).fit(X, y)
    head = RidgeClassifier(class_weight=weights)
    search = GridSearchCV(head, {"alpha": probe.path_["alphas"]}).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search))


@pytest.mark.parametrize("scoring", ["neg_max_error", lambda probe, X, y: probe.score(X, y)])
def test_scores_that_take_no_weights(scoring):
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    probe = RidgeProbeRegressor([1, 10], scoring=scoring).fit(X, y)
    search = GridSearchCV(Ridge(), {"alpha": [1, 10]}, scoring=scoring).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search))


def test_groups_reach_the_splitter():
    X, y = samples(120, 10, 2)
    groups = np.repeat(np.arange(12), 10)
    cv = GroupKFold(4)
    probe = RidgeProbe(cv=cv).fit(X, y, groups=groups)
    search = GridSearchCV(RidgeClassifier(), {"alpha": probe.path_["alphas"]}, cv=cv)
    np.testing.assert_allclose(probe.path_["scores"], split_scores(search.fit(X, y, groups=groups)))


def test_weights_count_in_the_scores_too():
    X, y = samples(100, 10, 2)
    weights = np.repeat([1.0, 1e-9], 50)
    cv = [(np.r_[0:25, 50:75], np.r_[25:50, 75:100]), (np.r_[25:50, 75:100], np.r_[0:25, 50:75])]
    half = [(np.arange(25), np.arange(25, 50)), (np.arange(25, 50), np.arange(25))]
    weighted = RidgeProbe(cv=cv).fit(X, y, sample_weight=weights)
    alone = RidgeProbe(cv=half).fit(X[:50], y[:50])
    np.testing.assert_allclose(weighted.path_["scores"], alone.path_["scores"], atol=1e-6)


def test_several_labels():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 12))
    Y = (X[:, :3] + rng.normal(size=(150, 3)) > 0).astype(int)
    probe = RidgeProbe().fit(X, Y)
    expected = RidgeClassifier(probe.alpha_).fit(X, Y)
    np.testing.assert_allclose(probe.coef_, expected.coef_, atol=1e-9)
    np.testing.assert_array_equal(probe.predict(X), expected.predict(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_large_mean_keeps_the_digits(dtype):
    """Features with a mean that is large beside the spread are what sums lose digits by."""
    X, y = samples(400, 20, 3)
    X = (X + 1000).astype(dtype)
    probe = RidgeProbe([1e-3]).fit(X, y)
    expected = RidgeClassifier(1e-3).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(probe.coef_, expected.coef_, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("alphas", [[], [0], [-1.0, 1.0], ["a"], 3.0, [np.nan], [[1.0]]], ids=str)
def test_fit_faulty_strengths_raise(alphas):
    X, y = samples(50, 5, 2)
    with pytest.raises(ParameterError, match="expected a list of numbers above 0"):
        RidgeProbe(alphas).fit(X, y)


@pytest.mark.parametrize(
    ("weights", "message"),
    [(np.ones(3), "shape"), (-np.ones(50), "no weight below 0"), (np.zeros(50), "all are zero")],
)
def test_fit_faulty_weights_raise(weights, message):
    X, y = samples(50, 5, 2)
    with pytest.raises(ValueError, match=message):
        RidgeProbe().fit(X, y, sample_weight=weights)


def test_fit_folds_with_negative_indices_score_alike():
    X, y = samples(60, 5, 2)
    last = [(np.arange(50), np.arange(-10, 0)), (np.arange(-50, 0), np.arange(10))]
    same = [(np.arange(50), np.arange(50, 60)), (np.arange(10, 60), np.arange(10))]
    scores = [RidgeProbe([0.1, 10.0], cv=cv).fit(X, y).path_["scores"] for cv in (last, same)]
    np.testing.assert_array_equal(*scores)


def test_fit_no_folds_raises():
    X, y = samples(60, 5, 2)
    with pytest.raises(InputError, match=r"cv=\[\] holds nothing out"):
        RidgeProbe(cv=[]).fit(X, y)


def test_fit_heavy_fold_survives_cancellation():
    X, y = samples(60, 5, 2)
    X[3] *= 1e9
    values = (y == y[0]).astype(float)
    first = [next(KFold(5).split(X))]  # holds it out
    probe = RidgeProbeRegressor([1.0], cv=first).fit(X, values)
    expected = cross_val_score(Ridge(1.0), X, values, cv=first)
    np.testing.assert_allclose(probe.path_["scores"][0], expected, rtol=1e-6)


@pytest.mark.parametrize("n_rows", [20, 60])
def test_fit_numbers_whose_products_are_infinite_raise(n_rows):
    X = 1e160 * np.random.default_rng(0).normal(size=(n_rows, 40))
    with np.errstate(all="ignore"), pytest.raises(InputError, match=r"infinite or too large"):
        RidgeProbeRegressor([1.0]).fit(X, np.arange(n_rows, dtype=float))


@pytest.fixture(scope="module")
def digit_images():
    digits = load_digits()
    images = digits.images[:200, ..., np.newaxis].repeat(8, 1).repeat(8, 2).repeat(3, 3) * 15
    return images.astype(np.uint8), digits.target[:200]


def test_as_the_head_of_a_classifier(digit_images, tmp_path):
    images, labels = digit_images
    classifier = TransferClassifier("tiny", RidgeProbe(cv=3))
    classifier.fit(images[:150], labels[:150], sample_weight=np.ones(150))
    assert classifier.score(images[150:], labels[150:]) > 0.8
    save(classifier, tmp_path / "probe.featx")
    expected = classifier.decision_function(images[150:])
    loaded = load(tmp_path / "probe.featx")
    np.testing.assert_allclose(loaded.decision_function(images[150:]), expected, atol=1e-5)
    scores = classifier.to_keras().predict(images[150:], verbose=0)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_as_a_head_that_is_fine_tuned(digit_images):
    images, labels = digit_images
    tuned = TransferClassifier("tiny", RidgeProbe(cv=3), FineTune(1, epochs=1), random_state=0)
    report = tuned.fit(images[:100], labels[:100]).report_
    assert report.handover_gap < 1e-5


def test_as_the_head_of_several_labels(digit_images):
    images, labels = digit_images
    several = np.column_stack([labels % 2, labels > 4]).astype(int)
    classifier = TransferClassifier("tiny", RidgeProbe(cv=3)).fit(images, several)
    assert isinstance(classifier.head_, RidgeProbe)
    assert classifier.score(images, several) > 0.8


@pytest.mark.parametrize(("offset", "spread"), [(1.7e9, 0.5), (0.0, 1.0), (1e7, 1.0)])
def test_regressor_float32_scores_equal_a_scorer(offset, spread):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 20)).astype(np.float32)
    y = offset + spread * (X @ rng.normal(size=20)) + 0.01 * rng.normal(size=400)
    own, named = RidgeProbeRegressor().fit(X, y), RidgeProbeRegressor(scoring="r2").fit(X, y)
    assert own.alpha_ == named.alpha_
    np.testing.assert_allclose(own.path_["scores"], named.path_["scores"], atol=1e-6)


def test_classifier_float32_scores_equal_a_scorer():
    X, y = make_classification(600, 20, n_informative=10, n_classes=3, random_state=0)
    X = (X + 1e4).astype(np.float32)
    own, named = RidgeProbe().fit(X, y), RidgeProbe(scoring="accuracy").fit(X, y)
    np.testing.assert_array_equal(own.path_["scores"], named.path_["scores"])


@pytest.mark.parametrize("cv", [KFold(5), ShuffleSplit(4, random_state=0)])
def test_fit_folds_one_by_one_score_alike(cv, monkeypatch):
    X, y = load_digits(return_X_y=True)
    expected = RidgeProbe(cv=cv).fit(X, y)
    monkeypatch.setattr("featx.probes._ridge_solver._MAX_GRAM_BYTES", 0)
    probe = RidgeProbe(cv=cv).fit(X, y)
    np.testing.assert_allclose(probe.path_["scores"], expected.path_["scores"], atol=1e-12)
    np.testing.assert_allclose(probe.coef_, expected.coef_, rtol=1e-6)


def test_fit_many_folds_need_little_memory():
    X, y = make_classification(900, 300, random_state=0)

    def peak(n_folds, limit):
        with patch("featx.probes._ridge_solver._MAX_GRAM_BYTES", limit):
            tracemalloc.start()
            RidgeProbe([1.0], cv=n_folds).fit(X, y)
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    peak(2, 0)
    gram = 300**2 * 8
    assert peak(40, 0) < peak(2, 0) + 4 * gram
    assert peak(40, 2**30) > peak(2, 2**30) + 30 * gram
