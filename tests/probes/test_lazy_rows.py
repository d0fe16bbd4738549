"""Probes that are fitted on a lazy array agree with those fitted in memory."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx import EmbeddingCache, LinearProbe, MomentPCA, RidgeProbe, RidgeProbeRegressor
from featx.digests.key_table import keys_from_matrix
from featx.digests.space import Space
from featx.exceptions import InputError, ParameterError
from featx.probes import _arrays, _base, _whitening

N_ROWS, N_FEATURES = 900, 30


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Treat lazy arrays of any size as larger than memory, and read small blocks."""
    monkeypatch.setattr(_base, "_MAX_BYTES_READ_ONCE", 0)
    monkeypatch.setattr(_arrays, "_ROWS_AT_ONCE", 128)
    monkeypatch.setattr(_whitening, "_LAZY_ROWS_AT_ONCE", 100)
    for module in ("_logistic", "_ridge_solver", "ridge", "_whitening"):
        monkeypatch.setattr(f"featx.probes.{module}._ROWS_AT_ONCE", 100)


@pytest.fixture
def labels():
    return np.random.default_rng(1).choice(["a", "b", "c"], N_ROWS)


@pytest.fixture
def rows(labels):
    rng = np.random.default_rng(0)
    centers = {label: rng.normal(size=N_FEATURES) for label in "abc"}
    noise = rng.normal(size=(N_ROWS, N_FEATURES)) * np.linspace(0.5, 4, N_FEATURES)
    return (3 + 0.7 * np.array([centers[label] for label in labels]) + noise).astype(np.float32)


def lazy_array_of(rows, folder):
    cache = EmbeddingCache(folder / "cache")
    space = Space({"feature_shape": [rows.shape[1]], "dtype": "float32"}, label="rows")
    keys = np.random.default_rng(2).integers(0, 256, (len(rows), 16), dtype=np.uint8)
    store = cache.store(space)
    for start in range(0, len(rows), 350):  # shards do not end where blocks do
        part = slice(start, start + 350)
        store.append(keys_from_matrix(keys[part]), rows[part])
    return cache.open()


@pytest.fixture
def lazy_rows(rows, tmp_path):
    return lazy_array_of(rows, tmp_path)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_probe_agrees_with_in_memory(fit_intercept, n_classes, rows, lazy_rows, labels):
    labels = np.where(labels == "c", "a", labels) if n_classes == 2 else labels
    probe = LinearProbe(np.logspace(-4, 2, 7), fit_intercept=fit_intercept, patience=None)
    streamed = probe.fit(lazy_rows, labels, sample_weight=np.linspace(0.5, 2, N_ROWS))
    path, C, coef = streamed.path_, streamed.C_, streamed.coef_
    scores, classes = streamed.decision_function(lazy_rows), streamed.predict(lazy_rows)
    assert streamed.n_features_in_ == N_FEATURES
    expected = probe.fit(rows, labels, sample_weight=np.linspace(0.5, 2, N_ROWS))
    np.testing.assert_allclose(path["scores"], expected.path_["scores"], atol=2 / 180)
    assert C == expected.C_
    assert np.linalg.norm(coef - expected.coef_) <= 1e-3 * np.linalg.norm(expected.coef_)
    np.testing.assert_allclose(scores, expected.decision_function(rows), rtol=1e-3, atol=1e-3)
    assert np.mean(classes == expected.predict(rows)) > 0.99
    assert streamed.predict_proba(lazy_rows).shape == (N_ROWS, n_classes)


@pytest.mark.parametrize("cv", [ShuffleSplit(3, random_state=0), GroupKFold(3)])
def test_linear_probe_folds_overlap_or_hold_groups(cv, rows, lazy_rows, labels):
    groups = np.arange(N_ROWS) // 7 if isinstance(cv, GroupKFold) else None
    probe = LinearProbe([0.01, 1.0], cv=cv)
    streamed = probe.fit(lazy_rows, labels, groups=groups).path_["scores"]
    in_memory = probe.fit(rows, labels, groups=groups).path_["scores"]
    np.testing.assert_allclose(streamed, in_memory, atol=0.01)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_ridge_probe_agrees_with_in_memory(fit_intercept, rows, lazy_rows, labels):
    probe = RidgeProbe(fit_intercept=fit_intercept, class_weight="balanced")
    streamed = probe.fit(lazy_rows, labels)
    path, coef, intercept = streamed.path_, streamed.coef_, streamed.intercept_
    scores = streamed.decision_function(lazy_rows)
    expected = probe.fit(rows, labels)
    np.testing.assert_array_equal(path["scores"], expected.path_["scores"])
    np.testing.assert_allclose(coef, expected.coef_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(intercept, expected.intercept_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(scores, expected.decision_function(rows), rtol=1e-5, atol=1e-6)


def test_ridge_regressor_agrees_with_in_memory(rows, lazy_rows):
    values = rows @ np.arange(N_FEATURES) + np.random.default_rng(0).normal(0, 20, N_ROWS)
    probe = RidgeProbeRegressor()
    streamed = probe.fit(lazy_rows, values)
    scores, predicted = streamed.path_["scores"], streamed.predict(lazy_rows)
    expected = probe.fit(rows, values)
    np.testing.assert_allclose(scores, expected.path_["scores"], rtol=1e-5)
    np.testing.assert_allclose(predicted, expected.predict(rows), rtol=1e-4)


@pytest.mark.parametrize("whiten", [True, False])
def test_moment_pca_equals_scikit_learn(whiten, rows, lazy_rows):
    pca = MomentPCA(5, whiten=whiten)
    streamed = pca.fit(lazy_rows).transform(lazy_rows)
    expected = PCA(5, whiten=whiten, svd_solver="full").fit(rows.astype(np.float64))
    np.testing.assert_allclose(pca.explained_variance_, expected.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(
        pca.explained_variance_ratio_, expected.explained_variance_ratio_, rtol=1e-5
    )
    theirs = expected.transform(rows)
    signs = np.sign((streamed * theirs).sum(axis=0))
    np.testing.assert_allclose(streamed * signs, theirs, rtol=1e-3, atol=1e-3)
    assert streamed.dtype == np.float32
    assert pca.get_feature_names_out().tolist() == [f"momentpca{n}" for n in range(5)]


def test_moment_pca_small_components_are_exact(rows, tmp_path):
    spreads = np.logspace(0, -5, N_FEATURES)
    rows = (np.random.default_rng(3).normal(size=rows.shape) * spreads).astype(np.float32)
    streamed = MomentPCA(whiten=True).fit(lazy_array_of(rows, tmp_path))
    expected = PCA(svd_solver="full").fit(rows.astype(np.float64))
    np.testing.assert_allclose(
        streamed.explained_variance_, expected.explained_variance_, rtol=1e-4
    )


@parametrize_with_checks([MomentPCA(), MomentPCA(1, whiten=True)])
def test_moment_pca_scikit_learns_checks(estimator, check):
    check(estimator)


def test_moment_pca_faulty_n_components_raises(rows):
    for n_components in (0, 31, 2.5, "mle"):
        with pytest.raises(ParameterError, match="n_components="):
            MomentPCA(n_components).fit(rows)


def test_map_heads_fit_transformed_rows(rows, lazy_rows, labels):
    scaler = StandardScaler()
    for _, block in lazy_rows.blocks():
        scaler.partial_fit(block)
    mapped = lazy_rows.map(scaler).map(MomentPCA(10, whiten=True).fit(lazy_rows.map(scaler)))
    assert mapped.shape == (N_ROWS, 10)
    assert "StandardScaler" in repr(mapped)
    scaled = StandardScaler().fit_transform(rows)
    expected = MomentPCA(10, whiten=True).fit(scaled).transform(scaled)
    np.testing.assert_allclose(np.asarray(mapped), expected, atol=1e-3)
    np.testing.assert_allclose(mapped[-1, 2:4], expected[-1, 2:4], atol=1e-3)
    np.testing.assert_array_equal(mapped[[5, 3]], mapped[:][[5, 3]])
    probe = RidgeProbe().fit(mapped, labels)
    in_memory = RidgeProbe().fit(expected, labels)
    assert probe.best_score_ == pytest.approx(in_memory.best_score_, abs=0.01)


def test_predict_no_rows_raises(lazy_rows, labels):
    probe = RidgeProbe([1.0]).fit(lazy_rows, labels)
    with pytest.raises(ValueError, match="0 sample"):
        probe.predict(lazy_rows.map(StandardScaler().fit(lazy_rows[:]))[:0])


def test_map_transformer_may_return_frames(rows, lazy_rows, labels):
    scaler = StandardScaler().set_output(transform="pandas").fit(rows)
    mapped = LinearProbe([0.1, 1.0]).fit(lazy_rows.map(scaler), labels)
    in_memory = LinearProbe([0.1, 1.0]).fit(np.asarray(scaler.transform(rows)), labels)
    np.testing.assert_allclose(mapped.coef_, in_memory.coef_, rtol=1e-2, atol=1e-4)


def test_fit_other_scoring_raises(lazy_rows, labels):
    for probe in (LinearProbe(scoring="neg_log_loss"), RidgeProbe(scoring="f1_macro")):
        with pytest.raises(ParameterError, match="scoring="):
            probe.fit(lazy_rows, labels)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_fit_infinite_values_raise(fit_intercept, rows, labels, tmp_path):
    rows[700, 3] = np.inf
    lazy_rows = lazy_array_of(rows, tmp_path)
    options = {"fit_intercept": fit_intercept}
    for probe in (LinearProbe([1.0], **options), RidgeProbe([1.0], **options)):
        with pytest.raises(InputError, match="infinite"):
            probe.fit(lazy_rows, labels)


def test_predict_unfitted_or_other_features_raises(lazy_rows, labels):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LinearProbe([1.0]).fit(lazy_rows, labels[:-1])
    with pytest.raises(NotFittedError):
        LinearProbe().predict(lazy_rows)
    probe = LinearProbe([1.0]).fit(lazy_rows, labels)
    with pytest.raises(ValueError, match="features"):
        probe.predict(lazy_rows.map(MomentPCA(3).fit(lazy_rows)))


@pytest.mark.parametrize("n_rows", [20, N_ROWS])
def test_fit_small_lazy_arrays_are_read_once(n_rows, rows, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(_base, "_MAX_BYTES_READ_ONCE", 2**20 if n_rows == N_ROWS else 0)
    lazy_rows = lazy_array_of(rows[:n_rows], tmp_path)
    probe = LinearProbe([0.1, 1.0], cv=2, scoring="neg_log_loss")
    streamed = probe.fit(lazy_rows, labels[:n_rows]).coef_
    np.testing.assert_array_equal(streamed, probe.fit(rows[:n_rows], labels[:n_rows]).coef_)


def test_ridge_incomplete_folds_read_small_blocks(lazy_rows, labels, monkeypatch):
    sizes, read = [], type(lazy_rows).__getitem__

    def counted(self, rows):
        found = read(self, rows)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(type(lazy_rows), "__getitem__", counted)
    folds = ShuffleSplit(2, test_size=0.2, train_size=0.5, random_state=0)
    RidgeProbe([1.0], cv=folds).fit(lazy_rows, labels)
    assert 0 < max(sizes) <= 128
