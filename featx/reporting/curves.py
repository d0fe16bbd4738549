"""ProbePathDisplay and TuningHistoryDisplay: scores by strength, and a fine-tuning by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from featx.exceptions import InputError, ParameterError
from featx.reporting.plots import BEST, COLORS, add_legend, axes_or_new, plot_folds, set_text

_STRENGTHS = {"Cs": "C", "alphas": "alpha", "n_neighbors": "n_neighbors"}
_MAX_TICKS = 8  # more strengths than these have ticks at powers of ten
_ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1)}  # place of a legend


class ProbePathDisplay:
    """Scores of a probe along its path of strengths.

    Use :meth:`from_estimator` to make one. The line is the mean over the folds, and the band
    reaches from the lowest to the highest fold.

    Parameters
    ----------
    strengths : ndarray of shape (n_strengths,)
        Strengths that were tried, or numbers of neighbors; increasing.
    scores : ndarray of shape (n_strengths, n_folds)
        Scores of each strength in each fold.
    selected : float
        Strength that was selected.
    strength_name : str, default="strength"
        Label of the horizontal axis, such as ``"C"``.

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
    selected_ : matplotlib Line2D
        Mark of the selected strength.

    See Also
    --------
    LinearProbe : Logistic regression along a path of strengths.
    RidgeProbe : Ridge classification along a path of strengths.
    RidgeProbeRegressor : Ridge regression along a path of strengths.
    KNNProbe : Nearest neighbors, whose number is selected.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from featx import ProbePathDisplay, RidgeProbe
    >>> probe = RidgeProbe().fit(*load_digits(return_X_y=True))
    >>> display = ProbePathDisplay.from_estimator(probe)
    >>> display.selected == probe.alpha_
    True
    >>> plt.show()
    """

    def __init__(
        self,
        *,
        strengths: np.ndarray,
        scores: np.ndarray,
        selected: float,
        strength_name: str = "strength",
    ) -> None:
        self.strengths = strengths
        self.scores = scores
        self.selected = selected
        self.strength_name = strength_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the path of a fitted probe.

        Parameters
        ----------
        estimator : LinearProbe, RidgeProbe, RidgeProbeRegressor or KNNProbe
            Fitted probe; or a pipeline, TransferClassifier or TransferRegressor that ends in one.
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        ProbePathDisplay
            Display, already plotted.

        Raises
        ------
        NotFittedError
            The estimator is not fitted.
        ParameterError
            The estimator is not a probe with a path, and does not end in one.
        MissingExtraError
            matplotlib is not installed.
        """
        check_is_fitted(estimator)
        probe = _last_step(estimator)
        path = getattr(probe, "path_", None)
        if not isinstance(path, dict):
            raise ParameterError.of(
                "estimator",
                estimator,
                "expected a LinearProbe, RidgeProbe, RidgeProbeRegressor or KNNProbe, or an "
                "estimator that ends in one, such as TransferClassifier(head='probe')",
            )
        (key,) = path.keys() - {"scores"}
        name = _STRENGTHS[key]
        return cls(
            strengths=np.asarray(path[key]),
            scores=np.asarray(path["scores"]),
            selected=getattr(probe, f"{name}_"),
            strength_name=name,
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the scores.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on; None makes a new figure.

        Returns
        -------
        ProbePathDisplay
            The display itself.
        """
        self.ax_ = ax = axes_or_new(ax, f"{type(self).__name__}.plot")
        self.figure_ = ax.figure
        scores = np.asarray(self.scores)
        self.line_, self.band_ = plot_folds(ax, self.strengths, scores)
        best = int(np.argmin(np.abs(np.asarray(self.strengths) - self.selected)))
        (self.selected_,) = ax.plot(self.selected, scores[best].mean(), **BEST)
        ax.set_xscale("log")
        if len(self.strengths) <= _MAX_TICKS:
            ax.set_xticks(self.strengths, [f"{strength:.3g}" for strength in self.strengths])
            ax.set_xticks([], minor=True)
        ax.set_xlabel(self.strength_name)
        ax.set_ylabel("score")
        names = [
            "mean",
            f"range of {scores.shape[1]} folds",
            f"selected: {self.strength_name} = {self.selected:.3g}",
        ]
        add_legend(ax, [self.line_, self.band_, self.selected_], names)
        return self


def _last_step(estimator: Any) -> Any:
    """Return the fitted head inside estimators, searches and pipelines."""
    if hasattr(estimator, "best_estimator_"):
        return _last_step(estimator.best_estimator_)
    if hasattr(estimator, "head_"):
        return _last_step(estimator.head_)
    if isinstance(estimator, Pipeline):
        return _last_step(estimator.steps[-1][1])
    return estimator


class TuningHistoryDisplay:
    """Losses and validation scores of a fine-tuning by epoch.

    Use :meth:`from_estimator`, or :meth:`from_history` for a training with Keras. The axes are
    divided into two: losses on the left, scores on the right.

    Parameters
    ----------
    losses : dict of str to array-like of shape (n_epochs,)
        Losses by name.
    scores : array-like of shape (n_epochs,)
        Validation scores.
    best_epoch : int
        Epoch with the best model, counted from 1; 0 is the head before training.
    head_score : float, default=None
        Validation score of the head before training.
    score_name : str, default="validation score"
        Label of the axis of scores.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes that are divided.
    axes_ : ndarray of shape (2,), matplotlib Axes
        Axes of losses and of scores.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : list of matplotlib Line2D
        Losses, then the scores.
    head_line_ : matplotlib Line2D or None
        Score of the head before training, if it is known.
    best_ : list of matplotlib Line2D
        Marks of the best epoch.

    See Also
    --------
    FineTune : Parameters of fine-tuning.
    TransferClassifier : Estimator whose ``report_`` has the history.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from featx import TuningHistoryDisplay
    >>> history = {"loss": [0.9, 0.4, 0.3], "val_loss": [0.8, 0.6, 0.7],
    ...            "val_accuracy": [0.7, 0.9, 0.8]}
    >>> display = TuningHistoryDisplay.from_history(history)
    >>> display.best_epoch
    2
    >>> plt.show()
    """

    def __init__(
        self,
        *,
        losses: Mapping[str, Any],
        scores: Any,
        best_epoch: int,
        head_score: float | None = None,
        score_name: str = "validation score",
    ) -> None:
        self.losses = losses
        self.scores = scores
        self.best_epoch = best_epoch
        self.head_score = head_score
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Plot the fine-tuning of a fitted estimator.

        Parameters
        ----------
        estimator : TransferClassifier or TransferRegressor
            Estimator that was fitted with ``fine_tune``; a loaded one too.
        ax : matplotlib Axes, default=None
            Axes to divide; None makes a new figure.

        Returns
        -------
        TuningHistoryDisplay
            Display, already plotted.

        Raises
        ------
        NotFittedError
            The estimator is not fitted.
        InputError
            No epoch was trained.
        MissingExtraError
            matplotlib is not installed.

        Examples
        --------
        >>> import matplotlib.pyplot as plt, numpy as np
        >>> from featx import FineTune, TransferClassifier, TuningHistoryDisplay
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
        >>> images[::2] //= 4
        >>> tuning = FineTune(1, epochs=2)
        >>> classifier = TransferClassifier("tiny", fine_tune=tuning, random_state=0)
        >>> classifier = classifier.fit(images, ["dark", "light"] * 10)
        >>> TuningHistoryDisplay.from_estimator(classifier)
        <...>
        >>> plt.show()
        """
        check_is_fitted(estimator)
        estimator = getattr(estimator, "best_estimator_", estimator)
        report = getattr(estimator, "report_", {})
        history = report.get("history")
        if not history:
            trial = report.get("trial")
            reason = (
                "its trial found that training is not worth its time"
                if trial
                else ("pass fine_tune=FineTune(...) with one epoch or more, and fit again")
            )
            raise InputError(
                f"there is no epoch to show, since no layer of this {type(estimator).__name__} "
                f"was trained: {reason}"
            )
        return cls(
            losses={"training": history["loss"], "validation": history["val_loss"]},
            scores=history["val_score"],
            best_epoch=report["best_epoch"],
            head_score=report["head_score"],
        ).plot(ax)

    @classmethod
    def from_history(cls, history: Any, *, metric: str | None = None, ax: Any = None) -> Self:
        """Plot the history that ``fit`` of a Keras model returns.

        Parameters
        ----------
        history : keras.callbacks.History or dict of str to list of float
            History with ``"loss"``, and a metric with ``"val_"`` before its name.
        metric : str, default=None
            Metric to show, of which higher values are better, as in ``"accuracy"``. None is the
            first one that was also computed on validation samples.
        ax : matplotlib Axes, default=None
            Axes to divide; None makes a new figure.

        Returns
        -------
        TuningHistoryDisplay
            Display, already plotted.

        Raises
        ------
        InputError
            The history has no epoch, or lacks the losses or the metric.
        MissingExtraError
            matplotlib is not installed.
        """
        values = getattr(history, "history", history)
        names = [
            name.removeprefix("val_")
            for name in values
            if name.startswith("val_") and name != "val_loss"
        ]
        metric = names[0] if metric is None and names else metric
        if not values.get("loss") or metric not in names:
            raise InputError(
                f"the history has {', '.join(values) or 'no epoch'}: expected 'loss', and "
                f"'val_{metric or 'accuracy'}' or another metric of validation samples"
            )
        losses = {"training": values["loss"], "validation": values.get("val_loss")}
        scores = values[f"val_{metric}"]
        return cls(
            losses={name: loss for name, loss in losses.items() if loss},
            scores=scores,
            best_epoch=1 + int(np.argmax(scores)),
            score_name=f"validation {metric}",
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot losses and scores.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide; None makes a new figure.

        Returns
        -------
        TuningHistoryDisplay
            The display itself.
        """
        self.ax_ = ax = axes_or_new(ax, f"{type(self).__name__}.plot", size=(9, 3.8))
        self.figure_ = ax.figure
        ax.set_axis_off()
        parts = [ax.inset_axes(place) for place in ([0, 0, 0.41, 1], [0.59, 0, 0.41, 1])]
        self.axes_ = np.array(parts, dtype=object)
        self.lines_: list[Any] = []
        self.best_: list[Any] = []
        self._plot_losses(parts[0])
        self._plot_scores(parts[1])
        for part in parts:
            part.set_xlabel("epoch")
            part.xaxis.get_major_locator().set_params(integer=True)
        return self

    def _plot_losses(self, ax: Any) -> None:
        for color, losses in zip(COLORS, self.losses.values(), strict=False):
            self.lines_ += ax.plot(*_by_epoch(losses), "o-", ms=4, color=color)
        add_legend(ax, self.lines_, self.losses, **_ABOVE)
        if self.best_epoch:
            self.best_.append(ax.axvline(self.best_epoch, color=COLORS[2], linestyle=":"))
        ax.set_ylabel("loss")

    def _plot_scores(self, ax: Any) -> None:
        handles = ax.plot(*_by_epoch(self.scores), "o-", ms=4, color=COLORS[0])
        names = ["fine-tuned"]
        self.lines_ += handles
        self.head_line_ = None
        if self.head_score is not None:
            self.head_line_ = ax.axhline(self.head_score, color=COLORS[1], linestyle="--")
            handles.append(self.head_line_)
            names.append(f"head before training: {self.head_score:.3f}")
        best = self.scores[self.best_epoch - 1] if self.best_epoch else self.head_score
        if best is not None:
            handles += ax.plot(self.best_epoch, best, clip_on=False, **BEST)
            names.append(f"best epoch: {self.best_epoch}" if self.best_epoch else "best: the head")
            self.best_.append(handles[-1])
        set_text(ax.yaxis.label, self.score_name)
        add_legend(ax, handles, names, **_ABOVE)


def _by_epoch(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs, counted from 1, and the values of each."""
    return np.arange(1, 1 + len(values)), np.asarray(values, np.float64)
