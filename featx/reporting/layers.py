"""LayerDisplay: scores of a head on the layers of a backbone, by depth."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from featx._transfer import TransferEstimator
from featx._validation import ParameterFaults
from featx.backbones.backbone import Backbone
from featx.backbones.blocks import blocks_of
from featx.digests.tensor_history import calls_of, is_graph, upstream_tensors
from featx.exceptions import ParameterError
from featx.extractor import FeatureExtractor
from featx.reporting.plots import (
    AS_TEXT,
    BEST,
    add_legend,
    axes_or_new,
    import_pyplot,
    plot_folds,
    short_name,
)

_LAYER = "extractor__layer"


class LayerDisplay:
    """Scores of a head on the layers of a backbone, from its inputs to its output.

    Use :meth:`from_estimator` or :meth:`from_search` to make one. The line is the mean over the
    folds, and the band reaches from the lowest to the highest fold.

    Parameters
    ----------
    layers : sequence of str or None
        Names of the layers, from the inputs of the backbone to its output; None is the output.
    scores : ndarray of shape (n_layers, n_folds)
        Scores of each layer in each fold.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        Figure of the axes.
    line_ : matplotlib Line2D
        Means over the folds.
    band_ : matplotlib PolyCollection
        Range of the folds.
    best_ : matplotlib Line2D
        Mark of the layer with the best mean score.

    See Also
    --------
    FeatureExtractor : Extractor whose `layer` is the layer that is read.
    TransferClassifier : Estimator that is scored on each layer.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np
    >>> from featx import LayerDisplay, TransferClassifier
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    >>> images[::2] //= 4
    >>> labels = ["dark", "light"] * 10
    >>> classifier = TransferClassifier("tiny", head="nearest_mean")
    >>> display = LayerDisplay.from_estimator(classifier, images, labels, cv=2)
    >>> display.layers[0], display.layers[-1], display.scores.shape[1]
    ('stage1_add', None, 2)
    >>> plt.show()
    """

    def __init__(self, *, layers: Sequence[str | None], scores: np.ndarray) -> None:
        self.layers = layers
        self.scores = scores

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        layers: Sequence[str | None] | None = None,
        groups: Any = None,
        cv: Any = None,
        scoring: Any = None,
        ax: Any = None,
    ) -> Self:
        """Cross-validate an estimator on each of several layers, with one pass for all of them.

        Parameters
        ----------
        estimator : TransferClassifier or TransferRegressor
            Estimator, which need not be fitted, and is not changed. Without a cache, the embeddings
            are in a temporary one.
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        layers : sequence of str or None, default=None
            Names of layers, in any order; None in it is the output of the backbone. By default,
            the ends of the blocks that ``featx backbones NAME`` lists, and the output.
        groups : array-like of shape (n_samples,), default=None
            Groups for a splitter that keeps them together.
        cv : int, splitter, iterable of (train, test) or None, default=None
            Cross-validation; None is five folds, stratified for a classifier.
        scoring : str, callable or None, default=None
            Score; None is that of the estimator.
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        LayerDisplay
            Display, already plotted.

        Raises
        ------
        ParameterError
            `estimator` is of another type, or a layer is not there.
        MissingExtraError
            matplotlib is not installed.
        ValueError
            Samples, labels or folds are faulty.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")  # before the pass
        _check_layer_params(estimator, layers)
        with _cached_copy(estimator) as copy:
            extractor = copy.extractor.fit(X)
            backbone = extractor.current_source().load_backbone()
            layers = _layers_by_depth(_block_ends(backbone) if layers is None else layers, backbone)
            extractor.set_params(also_cache=layers).fit_transform(X)
            extractor.set_params(also_cache=())
            search = GridSearchCV(
                copy, {_LAYER: layers}, cv=cv, scoring=scoring, refit=False, error_score="raise"
            )
            search.fit(X, y, groups=groups)
        return cls(layers=layers, scores=_fold_scores(search.cv_results_, "score")).plot(ax)

    @classmethod
    def from_search(cls, search: Any, *, ax: Any = None) -> Self:
        """Plot the layers that a search tried, each with the best of its candidates.

        Parameters
        ----------
        search : GridSearchCV or other search
            Fitted search over the parameter `layer` of an extractor, as ``extractor__layer``, and
            any other parameters.
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        LayerDisplay
            Layers are ordered by depth, or as they were tried if the search has ``refit=False``.

        Raises
        ------
        NotFittedError
            The search is not fitted.
        ParameterError
            It did not search the layers of one extractor.
        MissingExtraError
            matplotlib is not installed.

        Examples
        --------
        >>> import matplotlib.pyplot as plt, numpy as np
        >>> from sklearn.model_selection import GridSearchCV
        >>> from featx import LayerDisplay, TransferClassifier
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
        >>> images[::2] //= 4
        >>> grid = {"extractor__layer": ["stage4", "stage2"]}
        >>> search = GridSearchCV(TransferClassifier("tiny", "nearest_mean"), grid, cv=2)
        >>> LayerDisplay.from_search(search.fit(images, [0, 1] * 10)).layers
        ['stage2', 'stage4']
        >>> plt.show()
        """
        check_is_fitted(search)
        results = getattr(search, "cv_results_", {})
        names = [name for name in results if name.removeprefix("param_").split("__")[-1] == "layer"]
        if len(names) != 1:
            raise ParameterError.of(
                "search",
                search,
                "expected a fitted search over the layers of one extractor, as in "
                f"GridSearchCV(estimator, {{'{_LAYER}': ['stage3', 'stage4']}})",
            )
        metric = search.refit if isinstance(search.refit, str) else "score"
        scores = _fold_scores(results, metric)
        tried = list(results[names[0]])
        best: dict[Any, np.ndarray] = {}
        for layer, own in zip(tried, scores, strict=True):
            if layer not in best or own.mean() > best[layer].mean():
                best[layer] = own
        extractor = _fitted_extractor(getattr(search, "best_estimator_", None))
        layers = list(best)
        if extractor is not None:
            layers = _layers_by_depth(layers, extractor.current_source().load_backbone())
        return cls(layers=layers, scores=np.array([best[layer] for layer in layers])).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the scores.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        LayerDisplay
            The display itself.
        """
        width = float(np.clip(0.4 * len(self.layers), 6.4, 16))
        self.ax_ = ax = axes_or_new(ax, f"{type(self).__name__}.plot", size=(width, 4.8))
        self.figure_ = ax.figure
        scores = np.asarray(self.scores)
        depths = np.arange(len(self.layers))
        self.line_, self.band_ = plot_folds(ax, depths, scores, marker="o")
        best = int(scores.mean(axis=1).argmax())
        (self.best_,) = ax.plot(best, scores[best].mean(), **BEST)
        names = [short_name("output" if layer is None else layer, 24) for layer in self.layers]
        ax.set_xticks(depths, names, rotation=45, ha="right", rotation_mode="anchor", **AS_TEXT)
        ax.set_xlabel("layer, from input to output")
        ax.set_ylabel("score")
        best_name = f"best: {names[best]}, {scores[best].mean():.3f}"
        handles = [self.line_, self.band_, self.best_]
        add_legend(ax, handles, ["mean", f"range of {scores.shape[1]} folds", best_name])
        return self


def _check_layer_params(estimator: Any, layers: Any) -> None:
    """Raise a ParameterError, before any work, for an estimator or layers of another type."""
    faults = ParameterFaults("LayerDisplay.from_estimator")
    if not isinstance(estimator, TransferEstimator):
        faults.add("estimator", estimator, "a TransferClassifier or TransferRegressor.")
    is_list = isinstance(layers, Sequence) and not isinstance(layers, str) and len(layers)
    if layers is not None and not (
        is_list and all(layer is None or isinstance(layer, str) for layer in layers)
    ):
        faults.add("layers", layers, "names of layers, and None for the output of the backbone.")
    faults.raise_any()


@contextlib.contextmanager
def _cached_copy(estimator: TransferEstimator) -> Iterator[Any]:
    """Yield an unfitted copy of an estimator whose extractor has a cache."""
    copy = clone(estimator).set_params(extractor__also_cache=())
    if copy.extractor.resolved_cache() is not None:
        yield copy
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        yield copy.set_params(extractor__cache=folder)


def _fitted_extractor(estimator: Any) -> FeatureExtractor | None:
    """Return the fitted extractor inside an estimator, if there is one."""
    if isinstance(estimator, Pipeline):
        steps = (_fitted_extractor(step) for _, step in estimator.steps)
        return next((step for step in steps if step is not None), None)
    found = getattr(estimator, "extractor_", estimator)
    return found if isinstance(found, FeatureExtractor) else None


def _fold_scores(results: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return the scores (n_candidates, n_folds) in the results of a search."""
    names = [name for name in results if re.fullmatch(rf"split\d+_test_{re.escape(metric)}", name)]
    return np.stack([results[name] for name in names], axis=1)


def _block_ends(backbone: Backbone) -> list[str | None]:
    """Return the layers at the ends of blocks, and None, the output."""
    if not is_graph(backbone.model):
        return [None]
    others = backbone.hub.outputs if backbone.hub else {}
    names = {id(tensor): name for name, tensor in others.items()}
    calls = calls_of(backbone.model)
    last = [calls[block.start.position - 1] for block in blocks_of(backbone.model)[1:]]
    return [*(names.get(id(call.outputs[0])) or call.operation.name for call in last), None]


def _layers_by_depth(layers: Sequence[str | None], backbone: Backbone) -> list[str | None]:
    """Return layers, each once, ordered by the number of calls below their outputs."""
    layers = list(dict.fromkeys(layers))
    if len(layers) == 1:
        return layers
    return sorted(layers, key=lambda layer: (layer is None, _depth(layer, backbone)))


def _depth(layer: str | None, backbone: Backbone) -> int:
    """Return the number of calls between the inputs of a backbone and the output of a layer."""
    tensor = replace(backbone, spec=replace(backbone.spec, layer=layer)).tensor
    known = {id(each) for each in backbone.model.inputs}
    depth = 0
    for _, call, _ in upstream_tensors([tensor], known):
        known.update(map(id, call.outputs))
        depth += 1
    return depth
