"""Projection of embeddings to two dimensions, for the map of a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from featx._validation import ParameterFaults
from featx.exceptions import InputError, MissingExtraError
from featx.probes.pca import MomentPCA

_N_ROWS_CHECKED = 4096  # at a time
_SAFE_MAGNITUDES = 1e-12, 1e12  # whose squares float32 and float64 both hold
_N_COMPONENTS = 50  # before t-SNE, as van der Maaten and Hinton (2008) do
_PERPLEXITY = 30  # the default of scikit-learn


class Projection(NamedTuple):
    """Two coordinates for each sample.

    Attributes
    ----------
    xy : ndarray of shape (n_samples, 2), float32
        NaN for a sample without an embedding.
    explained : float or None
        Fraction of the variance that the two coordinates keep; None if the method has none.
    """

    xy: np.ndarray
    explained: float | None


def project(embeddings: Any, method: str = "pca") -> Projection:
    """Return embeddings in two dimensions, the same in each run.

    Parameters
    ----------
    embeddings : ndarray or LazyEmbeddings of shape (n_samples, n_features)
        Rows with NaN stay NaN. Where fewer than two rows differ, all others are 0.
    method : {"pca", "umap", "tsne"}, default="pca"
        "pca" is two principal components, of which the entry of largest magnitude is positive.
        "tsne" is scikit-learn's t-SNE (van der Maaten and Hinton 2008, JMLR 9) on up to 50
        principal components; "umap" is umap-learn's UMAP (McInnes et al. 2018, arXiv:1802.03426).

    Returns
    -------
    Projection

    Raises
    ------
    ParameterError
        The method is unknown.
    InputError
        The embeddings are not a table.
    MissingExtraError
        The method is "umap", and umap-learn is not installed.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx.reporting.projection import project
    >>> xy, explained = project(load_digits().data)
    >>> xy.shape, round(explained, 2)
    ((1797, 2), 0.29)
    """
    reduce = _method(method)
    if np.ndim(embeddings) != 2:
        raise InputError(
            f"embeddings has shape {np.shape(embeddings)}: expected (n_samples, n_features)"
        )
    is_finite = _finite_rows(embeddings)
    rows = embeddings if is_finite.all() else embeddings[np.flatnonzero(is_finite)]
    xy = np.full((len(embeddings), 2), np.nan, np.float32)
    if not _rows_differ(rows):
        xy[is_finite] = 0
        return Projection(xy, None)
    xy[is_finite], explained = reduce(_at_safe_magnitude(rows))
    return Projection(xy, explained)


def check_method(name: str) -> None:
    """Raise ParameterError for an unknown method, MissingExtraError for one not installed."""
    _method(name)


def _method(name: str) -> Callable[[Any], tuple[np.ndarray, float | None]]:
    """Return the function of a method; raise ParameterError or MissingExtraError."""
    methods = {"pca": _pca, "umap": _umap, "tsne": _tsne}
    faults = ParameterFaults("project")
    faults.check_option("method", name, methods)
    faults.raise_any()
    if name == "umap":
        _umap_class()
    return methods[name]


def _finite_rows(embeddings: Any) -> np.ndarray:
    """Return which rows have only finite values."""
    blocks = (
        np.isfinite(np.asarray(embeddings[start : start + _N_ROWS_CHECKED])).all(axis=1)
        for start in range(0, len(embeddings), _N_ROWS_CHECKED)
    )
    return np.concatenate([np.empty(0, bool), *blocks])


def _rows_differ(rows: Any) -> bool:
    """Return whether there are two rows that differ."""
    starts = range(0, len(rows), _N_ROWS_CHECKED)
    blocks = (np.asarray(rows[start : start + _N_ROWS_CHECKED]) for start in starts)
    return any((block != np.asarray(rows[:1])).any() for block in blocks)


def _at_safe_magnitude(rows: Any) -> Any:
    """Return rows, divided by their largest magnitude if their squares could overflow."""
    starts = range(0, len(rows), _N_ROWS_CHECKED)
    largest = max(
        float(np.abs(np.asarray(rows[start : start + _N_ROWS_CHECKED])).max()) for start in starts
    )
    smallest_safe, largest_safe = _SAFE_MAGNITUDES
    if smallest_safe < largest < largest_safe:
        return rows
    return np.asarray(rows, np.float64) / largest


def _pca(rows: Any) -> tuple[np.ndarray, float]:
    """Return two principal components and the fraction of the variance that they keep."""
    pca = MomentPCA(min(2, *rows.shape)).fit(rows)
    xy = np.zeros((len(rows), 2))
    xy[:, : len(pca.components_)] = pca.transform(rows)
    return xy, float(pca.explained_variance_ratio_.sum())


def _tsne(rows: Any) -> tuple[np.ndarray, None]:
    """Return the coordinates of t-SNE, which needs more than three samples, or else of PCA."""
    from sklearn.manifold import TSNE

    if len(rows) < 4:
        return _pca(rows)[0], None
    components = MomentPCA(min(_N_COMPONENTS, *rows.shape)).fit_transform(rows)
    init = np.zeros((len(rows), 2), np.float32)
    init[:, : min(2, components.shape[1])] = components[:, :2] / components[:, 0].std() * 1e-4
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    tsne = TSNE(init=init, perplexity=perplexity, random_state=0)
    return tsne.fit_transform(components.astype(np.float32)), None


def _umap(rows: Any) -> tuple[np.ndarray, None]:
    """Return the coordinates of UMAP, which needs more than three samples, or else of PCA."""
    if len(rows) < 4:
        return _pca(rows)[0], None
    n_neighbors = min(15, len(rows) - 1)
    # With a random state, UMAP has one thread; it warns unless that is asked for.
    umap = _umap_class()(n_neighbors=n_neighbors, random_state=0, n_jobs=1)
    return umap.fit_transform(np.asarray(rows, np.float32)), None


def _umap_class() -> Any:
    """Return the class of umap-learn; raise MissingExtraError if it is not installed."""
    try:
        from umap import UMAP
    except ImportError as exc:
        raise MissingExtraError(
            "method='umap' needs umap-learn: pip install umap-learn, or pass 'pca' or 'tsne'"
        ) from exc
    return UMAP
