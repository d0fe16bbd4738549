"""EmbeddingMapDisplay: embeddings in two dimensions, colored by label."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.multiclass import type_of_target

from featx._targets import as_labels
from featx._validation import has_methods
from featx.exceptions import InputError, ParameterError
from featx.probes._arrays import is_lazy
from featx.reporting.plots import COLORS, GRAY, MARKERS, add_legend, axes_or_new, import_pyplot
from featx.reporting.projection import project

_MAX_CLASSES = len(COLORS) * len(MARKERS)  # with a color and a marker of their own
_AXES = {"pca": "component", "umap": "UMAP", "tsne": "t-SNE"}


class EmbeddingMapDisplay:
    """Map of embeddings in two dimensions, colored by label.

    Use :meth:`from_estimator` or :meth:`from_embeddings` to make one.

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        Positions of the samples.
    y : array-like of shape (n_samples,), default=None
        Labels, or numbers, of the samples; None colors all samples alike.
    axis_names : (str, str), default=("dimension 1", "dimension 2")
        Labels of the horizontal and the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure of the axes.
    scatters_ : list of matplotlib PathCollection
        Points of each class; if there are more than 20, those of the largest 20, and last those of
        all others.
    legend_ : matplotlib Legend or None
        Legend of the classes, if points are colored by class.
    colorbar_ : matplotlib Colorbar or None
        Color bar, if points are colored by numbers.

    See Also
    --------
    near_duplicates : Find samples with nearly the same embedding.
    MomentPCA : Principal components of more embeddings than fit in memory.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from featx import EmbeddingMapDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = EmbeddingMapDisplay.from_embeddings(X, y)
    >>> display.points.shape
    (1797, 2)
    >>> plt.show()
    """

    def __init__(
        self,
        *,
        points: np.ndarray,
        y: Any = None,
        axis_names: tuple[str, str] = ("dimension 1", "dimension 2"),
    ) -> None:
        self.points = points
        self.y = y
        self.axis_names = axis_names

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, method: str = "pca", ax: Any = None
    ) -> Self:
        """Plot the embeddings that an estimator computes of samples.

        Samples that cannot be read are left out if the extractor has ``on_error="nan"``.

        Parameters
        ----------
        estimator : FeatureExtractor, TransferClassifier, TransferRegressor or other transformer
            Fitted estimator with ``transform``.
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,), default=None
            Labels or numbers by which points are colored.
        method : {"pca", "umap", "tsne"}, default="pca"
            Two principal components; or UMAP (McInnes et al. 2018, arXiv 1802.03426), which needs
            umap-learn; or scikit-learn's t-SNE (van der Maaten and Hinton 2008).
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        EmbeddingMapDisplay
            Display, already plotted.

        Raises
        ------
        ParameterError
            `estimator` has no ``transform``, or the method is unknown.
        InputError
            See :meth:`from_embeddings`.
        MissingExtraError
            matplotlib is not installed.

        Examples
        --------
        >>> import matplotlib.pyplot as plt, numpy as np
        >>> from featx import EmbeddingMapDisplay, FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
        >>> images[:3] //= 4
        >>> labels = ["dark"] * 3 + ["light"] * 3
        >>> EmbeddingMapDisplay.from_estimator(FeatureExtractor("tiny"), images, labels)
        <...>
        >>> plt.show()
        """
        import_pyplot(f"{cls.__name__}.from_estimator")  # before the pass
        if not has_methods(estimator, "transform"):
            raise ParameterError.of(
                "estimator",
                estimator,
                "expected one with transform, such as a FeatureExtractor; for embeddings, call "
                "from_embeddings",
            )
        embeddings = np.asarray(estimator.transform(X))
        return cls.from_embeddings(embeddings, y, method=method, ax=ax)

    @classmethod
    def from_embeddings(
        cls, embeddings: Any, y: Any = None, *, method: str = "pca", ax: Any = None
    ) -> Self:
        """Plot embeddings, projected to two dimensions.

        Parameters
        ----------
        embeddings : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Samples with NaN or infinite values are left out.
        y : array-like of shape (n_samples,), default=None
            Labels or numbers by which points are colored.
        method : {"pca", "umap", "tsne"}, default="pca"
            Two principal components; or UMAP (McInnes et al. 2018, arXiv 1802.03426), which needs
            umap-learn; or scikit-learn's t-SNE (van der Maaten and Hinton 2008).
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        EmbeddingMapDisplay
            Display, already plotted.

        Raises
        ------
        ParameterError
            The method is unknown.
        InputError
            `y` does not hold one label for each sample, or the embeddings are not vectors, or none
            of them is finite.
        MissingExtraError
            matplotlib, or umap-learn for ``method="umap"``, is not installed.
        """
        import_pyplot(f"{cls.__name__}.from_embeddings")
        if not is_lazy(embeddings):
            embeddings = np.asarray(embeddings)
        y = _checked_colors(y, len(embeddings))
        points, explained = project(embeddings, method)
        known = np.flatnonzero(~np.isnan(points).any(axis=1))
        if not len(known):
            raise InputError(f"none of the {len(points)} embeddings has finite values only")
        name, together = _AXES[method], ""
        if explained is not None:
            together = f" (both: {explained:.0%} of the variance)"
        return cls(
            points=points[known],
            y=None if y is None else y[known],
            axis_names=(f"{name} 1{together}", f"{name} 2"),
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        EmbeddingMapDisplay
            The display itself.

        Examples
        --------
        >>> import matplotlib.pyplot as plt, numpy as np
        >>> from featx import EmbeddingMapDisplay
        >>> points = np.random.default_rng(0).normal(size=(6, 2))
        >>> figure, axes = plt.subplots(1, 2)
        >>> EmbeddingMapDisplay(points=points).plot(axes[0])
        <...>
        >>> EmbeddingMapDisplay(points=points, y=["cat", "dog"] * 3).plot(axes[1])
        <...>
        >>> plt.show()
        """
        y = _checked_colors(self.y, len(self.points))
        size = (6.4, 4.8) if y is None else (8.0, 4.8)  # with room for a legend
        self.ax_ = ax = axes_or_new(ax, f"{type(self).__name__}.plot", size=size)
        self.figure_ = ax.figure
        self.legend_: Any = None
        self.colorbar_: Any = None
        if y is None:
            self.scatters_ = [self._scatter(slice(None), color=COLORS[0])]
        elif type_of_target(y) == "continuous":
            self.scatters_ = [self._scatter(slice(None), c=y, cmap="viridis")]
            self.colorbar_ = self.figure_.colorbar(self.scatters_[0], ax=ax)
        else:
            self._scatter_classes(y)
        ax.set_xlabel(self.axis_names[0])
        ax.set_ylabel(self.axis_names[1])
        return self

    def _scatter_classes(self, y: np.ndarray) -> None:
        """Plot the largest classes in colors of their own, and all others in gray, below them."""
        labels, counts = np.unique(y, return_counts=True)
        is_shown = np.isin(
            np.arange(len(labels)), np.argsort(-counts, kind="stable")[:_MAX_CLASSES]
        )
        shown, others = labels[is_shown], labels[~is_shown]
        self.scatters_ = [
            self._scatter(
                y == label,
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number // len(COLORS)],
            )
            for number, label in enumerate(shown)
        ]
        names = [str(label) for label in shown]
        if len(others):
            mask = np.isin(y, others)
            self.scatters_.append(self._scatter(mask, color=GRAY, marker=".", zorder=0.9))
            names.append(f"{len(others)} other classes")
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "borderaxespad": 0}
        legend = add_legend(
            self.ax_, self.scatters_, names, markerscale=1.5, fontsize="small", **beside
        )
        for handle in legend.legend_handles:
            handle.set_alpha(1)
        self.legend_ = legend

    def _scatter(self, rows: Any, **options: Any) -> Any:
        x, y = self.points[rows].T
        size = float(np.clip(30_000 / len(self.points), 4, 36))
        return self.ax_.scatter(x, y, s=size, alpha=0.7, linewidths=0, rasterized=True, **options)


def _checked_colors(y: Any, n_samples: int) -> np.ndarray | None:
    """Return labels or numbers by which points are colored, (n_samples,)."""
    if y is None:
        return None
    y = as_labels(y)
    if y.ndim != 1:
        raise InputError(f"y has shape {y.shape}: expected one label for each sample, (n_samples,)")
    if len(y) != n_samples:
        raise InputError(f"there are {n_samples} samples, and y has {len(y)} labels")
    return y
