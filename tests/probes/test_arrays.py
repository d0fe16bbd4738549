"""Probes agree on NumPy arrays and arrays of other libraries, and predict arrays of their kind."""

import copy

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import GroupKFold

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    KNNProbe,
    LinearProbe,
    MomentPCA,
    NearestMeanProbe,
    RidgeProbe,
    RidgeProbeRegressor,
    compare_heads,
)
from featx.probes._arrays import largest_of_each_row, to_numpy
from featx.probes._whitening import Rotation

CLASSIFIERS = {
    "linear": LinearProbe([0.01, 1.0], cv=3),
    "ridge": RidgeProbe([0.1, 10.0], cv=3),
    "neighbors": KNNProbe([3, 9], cv=3),
    "means": NearestMeanProbe(),
}
PROBES = {**CLASSIFIERS, "ridge regression": RidgeProbeRegressor([0.1, 10.0], cv=3)}
METHODS = ("decision_function", "predict", "predict_log_proba", "predict_proba")


def strict(values):
    """Return an array that can do what the Array API asks for and no more, and is no numpy's."""
    xp = pytest.importorskip("array_api_strict")
    return xp.asarray(values, device=xp.Device("device1"))


def tensor(values):
    torch = pytest.importorskip("torch")
    return torch.asarray(values, device="cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(params=[strict, tensor])
def elsewhere(request):
    """Give what moves numpy's arrays to another library, while scikit-learn lets them through."""
    request.param(np.zeros(1))
    with config_context(array_api_dispatch=True):
        yield request.param


def digits(dtype):
    X, y = load_digits(return_X_y=True)
    return (X[:400] / 16).astype(dtype), y[:400]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
@pytest.mark.parametrize("name", PROBES)
def test_fit_elsewhere_agrees_with_numpy(name, load, dtype, elsewhere):
    X, y = load(return_X_y=True)
    X, y = (X / X.max(axis=0).clip(1)).astype(dtype)[:400], y[:400]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y))
    given = {} if name == "neighbors" else {"sample_weight": weights}
    here = clone(PROBES[name]).fit(X, y, **given)
    moved = {key: elsewhere(values) for key, values in given.items()}
    there = clone(PROBES[name])
    there.fit(elsewhere(X), elsewhere(y), **moved)
    kind = type(elsewhere(X))
    if name not in ("means", "neighbors"):
        assert isinstance(there.coef_, kind)
        gaps = to_numpy(there.coef_) - here.coef_
        assert np.abs(gaps).max() < 1e-5 * np.abs(here.coef_).max()
    if hasattr(here, "path_"):
        # A fold of float32 may tell one sample of a near tie otherwise.
        assert np.abs(there.path_["scores"] - here.path_["scores"]).max() < 0.01
    for method in METHODS:
        if hasattr(here, method):
            answer = getattr(there, method)(elsewhere(X))
            assert isinstance(answer, kind)
            expected = getattr(here, method)(X)
            np.testing.assert_allclose(to_numpy(answer), expected, rtol=1e-4, atol=1e-4)
    assert float(there.score(elsewhere(X), elsewhere(y))) == pytest.approx(here.score(X, y))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_predict_string_classes_elsewhere_are_numpy(name, elsewhere):
    X, y = digits(np.float32)
    words = np.array(list("abcdefghij"))[y]
    probe = clone(CLASSIFIERS[name]).fit(elsewhere(X), words)
    predicted = probe.predict(elsewhere(X))
    assert isinstance(predicted, np.ndarray)
    assert np.mean(predicted == words) > 0.85


@pytest.mark.parametrize("name", ["linear", "ridge"])
def test_fit_groups_elsewhere_give_same_scores(name, elsewhere):
    X, y = digits(np.float64)
    groups = np.arange(len(y)) // 20
    probe = clone(CLASSIFIERS[name]).set_params(cv=GroupKFold(4))
    here = probe.fit(X, y, groups=groups).path_["scores"]
    there = probe.fit(elsewhere(X), y, groups=elsewhere(groups)).path_["scores"]
    np.testing.assert_allclose(there, here, atol=0.011)


@pytest.mark.parametrize("name", ["linear", "ridge", "ridge regression"])
def test_fit_wide_rows_elsewhere_answers_there(name, elsewhere):
    X, y = digits(np.float64)
    probe = clone(PROBES[name]).fit(elsewhere(X[:40]), y[:40] % 2)
    expected = clone(PROBES[name]).fit(X[:40], y[:40] % 2)
    assert isinstance(probe.coef_, type(elsewhere(X)))
    np.testing.assert_allclose(to_numpy(probe.coef_), expected.coef_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "ridge"])
def test_fit_scorers_get_arrays_of_numpy(name, elsewhere):
    X, y = digits(np.float64)
    probe = clone(CLASSIFIERS[name]).set_params(scoring="f1_macro")
    there = probe.fit(elsewhere(X), elsewhere(y)).path_["scores"]
    np.testing.assert_allclose(there, probe.fit(X, y).path_["scores"], atol=0.01)


def test_ridge_probe_labels_elsewhere_are_those_here(elsewhere):
    X, y = digits(np.float64)
    Y = np.eye(10, dtype=np.int64)[y]
    probe = RidgeProbe([1.0]).fit(elsewhere(X), elsewhere(Y))
    predicted = probe.predict(elsewhere(X))
    assert isinstance(predicted, type(elsewhere(X)))
    np.testing.assert_array_equal(to_numpy(predicted), RidgeProbe([1.0]).fit(X, Y).predict(X))


@pytest.mark.parametrize("name", PROBES)
def test_predict_arrays_from_another_place_are_refused(name, elsewhere):
    X, y = digits(np.float64)
    with pytest.raises(ValueError, match=r"predict\(\) must use the same namespace and device"):
        clone(PROBES[name]).fit(elsewhere(X), y).predict(X)
    with pytest.raises(ValueError, match=r"predict\(\) must use the same namespace and device"):
        clone(PROBES[name]).fit(X, y).predict(elsewhere(X))


@pytest.mark.parametrize("name", PROBES)
def test_fit_without_dispatch_reads_as_numpy(name):
    torch = pytest.importorskip("torch")
    X, y = digits(np.float32)
    probe = clone(PROBES[name]).fit(torch.asarray(X), torch.asarray(y))
    assert isinstance(probe.predict(torch.asarray(X)), np.ndarray)


def test_fit_lazy_array_with_dispatch_is_read(tmp_path):
    cache = EmbeddingCache(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    rows = FeatureExtractor("tiny", cache=cache).fit_transform(images)
    lazy_rows = cache.open(X=images)
    labels = np.arange(40) % 2
    with config_context(array_api_dispatch=True):
        for probe in CLASSIFIERS.values():
            answer = clone(probe).fit(lazy_rows, labels).predict(lazy_rows)
            np.testing.assert_array_equal(answer, clone(probe).fit(rows, labels).predict(rows))


@pytest.mark.parametrize("name", ["linear", "ridge", "means"])
def test_fit_weights_negative_stride_read_only(name, elsewhere):
    X, y = digits(np.float64)
    weights = np.linspace(1, 2, len(y))[::-1]
    weights.flags.writeable = False
    probe = clone(PROBES[name]).fit(elsewhere(X), y, sample_weight=weights)
    same = clone(PROBES[name]).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(to_numpy(probe.predict(elsewhere(X))), same.predict(X))


@pytest.mark.parametrize("name", PROBES)
def test_predict_precision_of_rows_may_be_another(name, elsewhere):
    X, y = digits(np.float64)
    for one, other in ((np.float32, np.float64), (np.float64, np.float32)):
        probe = clone(PROBES[name]).fit(elsewhere(X.astype(one)), elsewhere(y))
        same = clone(PROBES[name]).fit(X.astype(one), y)
        for method in METHODS:
            if hasattr(same, method):
                answer = to_numpy(getattr(probe, method)(elsewhere(X.astype(other))))
                expected = getattr(same, method)(X.astype(other))
                assert answer.dtype == expected.dtype
                np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


def test_rotation_rows_elsewhere_centered_in_float64(elsewhere):
    X = np.random.default_rng(0).normal(size=(50, 4)) + 1e6
    rotation = Rotation.fit(X, np.ones(50), fit_intercept=True)
    here, there = (
        rotation.project(rows, np.dtype(np.float32)).take(np.arange(50))
        for rows in (X, elsewhere(X))
    )
    np.testing.assert_allclose(to_numpy(there), here, atol=1e-5)


@pytest.mark.parametrize("name", PROBES)
def test_fit_keeps_no_gradients(name):
    torch = pytest.importorskip("torch")
    X, y = digits(np.float32)
    rows = torch.asarray(X, requires_grad=True)
    with config_context(array_api_dispatch=True):
        probe = copy.deepcopy(clone(PROBES[name]).fit(rows, torch.asarray(y)))
        assert not probe.predict(rows).requires_grad


def test_compare_heads_and_pca_take_arrays_elsewhere(elsewhere):
    X, y = digits(np.float64)
    (found,) = compare_heads(elsewhere(X), elsewhere(y), heads=["nearest_mean"])
    (expected,) = compare_heads(X, y, heads=["nearest_mean"])
    np.testing.assert_array_equal(found.scores, expected.scores)
    components = MomentPCA(3).fit(elsewhere(X)).transform(elsewhere(X))
    np.testing.assert_array_equal(components, MomentPCA(3).fit(X).transform(X))


@pytest.mark.parametrize("n_columns", [5, 640, 1001, 4096])
def test_largest_of_each_row_agrees_with_sorting(n_columns):
    values = np.random.default_rng(0).standard_normal((30, n_columns)).astype(np.float32)
    values[0, -3:] = 9  # in the columns that fill no chunk
    values[1] = -np.inf
    places, largest = largest_of_each_row(values, 5)
    np.testing.assert_array_equal(largest, -np.sort(-values, axis=1)[:, :5])
    np.testing.assert_array_equal(np.take_along_axis(values, places, 1), largest)
    assert all(len(set(row)) == 5 for row in places.tolist())
