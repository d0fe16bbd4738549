"""MistakesDisplay: the pictures whose predictions have the largest loss."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted

from featx._targets import as_labels, as_values, comparable
from featx._training_data import rows_that_were_read
from featx._transfer import TransferEstimator
from featx._validation import ParameterFaults
from featx.evaluation.metrics import checked_labels, checked_proba
from featx.evaluation.small_images import small_images
from featx.exceptions import InputError
from featx.heads.fit import as_head_input, predict
from featx.inputs.reader import Reader
from featx.inputs.recognize import as_samples
from featx.inputs.samples import Samples
from featx.reporting.plots import GRAY, axes_or_new, import_pyplot, set_text, short_name

_N_COLUMNS = 4
_CELL_INCHES = (2.2, 2.7)
_FONT_SIZE = 8
_CHAR_WIDTH = 0.65  # of the font size
_TEXT_POINTS = 46  # height of three lines of text
_MIN_CHARS = 22


class Mistake(NamedTuple):
    """A sample whose prediction is wrong.

    Attributes
    ----------
    row : int
        Row of the sample.
    name : str
        Path of the file, or the kind of object that the sample is.
    true, predicted : object
        True and predicted label or value.
    confidence : float or None
        Probability of the predicted label.
    loss : float or None
        Negative logarithm of the probability of the true label, in nats, or the absolute error of
        a value; None for labels without probabilities.
    image : PIL.Image.Image or None
        Picture in RGB; None if the sample cannot be read.
    fault : str
        Reason why the sample cannot be read; empty if it can.
    """

    row: int
    name: str
    true: Any
    predicted: Any
    confidence: float | None
    loss: float | None
    image: Any
    fault: str


class MistakesDisplay:
    """Grid of the pictures whose predictions have the largest loss.

    Use :meth:`from_estimator` or :meth:`from_predictions` to make one. Each picture has the row and
    the file name of the sample, its true and its predicted label, and the probability of the
    latter.

    Parameters
    ----------
    mistakes : sequence of Mistake
        Mistakes to show, those with the largest loss first. Each has the attributes ``row``,
        ``name``, ``true``, ``predicted``, ``confidence``, ``loss``, ``image`` and ``fault``.
    n_mistakes : int
        Number of all mistakes.
    n_samples : int
        Number of samples that were predicted.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes that are divided.
    axes_ : ndarray of shape (n_shown,), matplotlib Axes
        Axes of the pictures.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    report : Page with the mistakes, scores and suspect labels of an estimator.
    find_label_issues : Samples whose label is probably wrong.

    Examples
    --------
    >>> import matplotlib.pyplot as plt, numpy as np
    >>> from featx import MistakesDisplay
    >>> images = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)
    >>> proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.99, 0.01]])
    >>> display = MistakesDisplay.from_predictions(
    ...     images, ["cat", "cat", "dog"], ["cat", "dog", "cat"], proba=proba
    ... )
    >>> [(each.row, each.true, each.confidence) for each in display.mistakes]
    [(2, 'dog', 0.99), (1, 'cat', 0.6)]
    >>> plt.show()
    """

    def __init__(self, *, mistakes: Any, n_mistakes: int, n_samples: int) -> None:
        self.mistakes = mistakes
        self.n_mistakes = n_mistakes
        self.n_samples = n_samples

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, n_images: int = 12, ax: Any = None
    ) -> Self:
        """Plot the mistakes of a fitted classifier, or the largest errors of a regressor.

        Samples that cannot be read are left out if the extractor has ``on_error="nan"``.

        Parameters
        ----------
        estimator : TransferClassifier, TransferRegressor or other estimator
            Fitted estimator that takes images.
        X : samples
            Images: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,)
            True labels or values.
        n_images : int, default=12
            Number of pictures at most.
        ax : matplotlib Axes, default=None
            Axes to divide; None makes a new figure.

        Returns
        -------
        MistakesDisplay
            Display, already plotted.

        Raises
        ------
        NotFittedError
            The estimator is not fitted.
        ParameterError, InputError, ValueError, MissingExtraError
            See :meth:`from_predictions`.

        Examples
        --------
        >>> import matplotlib.pyplot as plt, numpy as np
        >>> from featx import MistakesDisplay, TransferClassifier
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
        >>> images[:4] //= 4
        >>> classifier = TransferClassifier("tiny").fit(images, ["dark"] * 4 + ["light"] * 4)
        >>> labels = ["dark"] * 4 + ["light"] * 3 + ["dark"]
        >>> display = MistakesDisplay.from_estimator(classifier, images, labels)
        >>> display.n_mistakes, display.mistakes[0].row
        (1, 7)
        >>> plt.show()
        """
        import_pyplot(f"{cls.__name__}.from_estimator")  # before the pass
        _check_n_images(n_images)
        check_is_fitted(estimator)
        samples = as_samples(X)
        y = as_labels(y)
        _check_same_length(samples, y)
        rows, y_pred, proba = _predictions(estimator, samples)
        samples = samples.read_by(_reader_of(estimator))
        classes = getattr(estimator, "classes_", None) if proba is not None else None
        outcome = _Outcome.of(y[rows], y_pred, proba, classes)._replace(rows=rows)
        return cls._of_outcome(samples, outcome, n_images, ax)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        y_true: Any,
        y_pred: Any,
        *,
        proba: Any = None,
        classes: Any = None,
        n_images: int = 12,
        ax: Any = None,
    ) -> Self:
        """Plot the mistakes among predictions.

        Parameters
        ----------
        X : samples
            Images: see :meth:`FeatureExtractor.transform`.
        y_true, y_pred : array-like of shape (n_samples,)
            True and predicted labels, or values.
        proba : array-like of shape (n_samples, n_classes), default=None
            Probabilities that ``predict_proba`` returned. Without them, mistakes in labels have no
            loss, and are in the order of the samples.
        classes : array-like of shape (n_classes,), default=None
            Labels of the columns of `proba`; None is all labels, sorted.
        n_images : int, default=12
            Number of pictures at most.
        ax : matplotlib Axes, default=None
            Axes to divide; None makes a new figure.

        Returns
        -------
        MistakesDisplay
            Display, already plotted.

        Raises
        ------
        ParameterError
            `n_images` is not a positive integer.
        InputError
            `X` does not hold images, values are not labels or numbers, there are several for each
            sample, or `proba` does not fit them.
        ValueError
            Lengths differ.
        MissingExtraError
            matplotlib is not installed.
        """
        import_pyplot(f"{cls.__name__}.from_predictions")
        _check_n_images(n_images)
        samples = as_samples(X)
        outcome = _Outcome.of(y_true, y_pred, proba, classes)
        _check_same_length(samples, outcome.y_true)
        return cls._of_outcome(samples, outcome, n_images, ax)

    @classmethod
    def _of_outcome(cls, samples: Samples, outcome: _Outcome, n_images: int, ax: Any) -> Self:
        worst = outcome.worst()
        return cls(
            mistakes=outcome.mistakes(samples, worst[:n_images]),
            n_mistakes=len(worst),
            n_samples=len(outcome.y_true),
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Plot the pictures.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to divide; None makes a new figure.

        Returns
        -------
        MistakesDisplay
            The display itself.
        """
        grid = _Grid.new(len(self.mistakes)) if ax is None else _Grid.inside(ax, len(self.mistakes))
        self.ax_ = ax = axes_or_new(ax, f"{type(self).__name__}.plot", size=grid.inches)
        self.figure_ = ax.figure
        ax.set_axis_off()
        ax.set_title(self._title(), fontsize=10)
        parts = []
        for number, mistake in enumerate(self.mistakes):
            place = grid.place(number)
            parts.append(ax.inset_axes(place))
            _plot_picture(parts[-1], mistake)
            text = ax.annotate(
                "", place[:2], (0, -4), xycoords="axes fraction", textcoords="offset points"
            )
            text.set(fontsize=_FONT_SIZE, verticalalignment="top")
            set_text(text, _text_below(mistake, grid.n_chars))
        self.axes_ = np.array(parts, dtype=object)
        return self

    def _title(self) -> str:
        n_shown = len(self.mistakes)
        if not self.n_mistakes:
            return f"no mistakes among {self.n_samples} samples"
        first = self.mistakes[0]
        if first.loss is not None and first.confidence is None:
            return f"{self.n_samples} samples; {n_shown} with the largest errors"
        order = "" if first.loss is None or self.n_mistakes == n_shown else " with the largest loss"
        counts = f"{self.n_mistakes} mistakes among {self.n_samples} samples"
        return counts if self.n_mistakes == n_shown else f"{counts}; {n_shown}{order} shown"


def _check_n_images(n_images: Any) -> None:
    faults = ParameterFaults("MistakesDisplay")
    faults.check_positive_int("n_images", n_images)
    faults.raise_any()


def _check_same_length(samples: Samples, y: np.ndarray) -> None:
    if len(y) != len(samples):
        raise InputError(
            f"X has {len(samples)} samples and y has {len(y)}: expected the same number"
        )


def _reader_of(estimator: Any) -> Reader | None:
    """Return the reader of a transfer estimator, or of a pipeline that starts with an extractor."""
    steps = getattr(estimator, "steps", None)
    extractor = steps[0][1] if steps else getattr(estimator, "extractor_", None)
    return getattr(extractor, "reader", None)


def _predictions(estimator: Any, samples: Samples) -> tuple[np.ndarray, Any, Any]:
    """Return the rows that could be read, their predictions, and probabilities if there are any."""
    has_proba = hasattr(estimator, "predict_proba")
    if not isinstance(estimator, TransferEstimator):
        X, rows = samples.given, np.arange(len(samples))
        return rows, estimator.predict(X), estimator.predict_proba(X) if has_proba else None
    embeddings = np.asarray(estimator.transform(samples))
    rows = np.flatnonzero(rows_that_were_read(embeddings))
    inputs = as_head_input(embeddings[rows])
    head = estimator.head_
    return rows, predict(head, inputs), head.predict_proba(inputs) if has_proba else None


class _Outcome(NamedTuple):
    """True and predicted labels or values, (n_samples,), with confidences and losses if known."""

    y_true: np.ndarray
    y_pred: np.ndarray
    confidence: np.ndarray | None
    loss: np.ndarray | None
    rows: np.ndarray | None = None  # of the samples, if some have no prediction

    @classmethod
    def of(cls, y_true: Any, y_pred: Any, proba: Any, classes: Any) -> Self:
        """Check labels, values and probabilities, and compute losses."""
        if _are_values(y_true) or _are_values(y_pred):
            return cls._of_values(as_values(y_true), as_values(y_pred))
        given = {"y_true": checked_labels(y_true, "y_true")}
        given["y_pred"] = checked_labels(y_pred, "y_pred")
        check_consistent_length(*given.values(), proba)
        if proba is None:
            true, predicted = comparable(**given)
            return cls(true, predicted, None, None)
        if classes is not None:
            given["classes"] = as_labels(classes, name="classes")
        true, predicted, *columns = comparable(**given)
        known = columns[0] if columns else np.unique(np.concatenate([true, predicted]))
        proba = checked_proba(proba, known, true)
        order = np.argsort(known)
        rows = np.arange(len(true))
        p_true = proba[rows, order[np.searchsorted(known, true, sorter=order)]]
        confidence = proba[rows, order[np.searchsorted(known, predicted, sorter=order)]]
        return cls(true, predicted, confidence, -np.log(np.maximum(p_true, np.finfo(float).tiny)))

    @classmethod
    def _of_values(cls, y_true: np.ndarray, y_pred: np.ndarray) -> Self:
        for name, values in (("y_true", y_true), ("y_pred", y_pred)):
            if values.ndim != 1 and values.shape[1:] != (1,):
                raise InputError(
                    f"{name} has shape {values.shape}: expected one value for each sample"
                )
        check_consistent_length(y_true, y_pred)
        y_true, y_pred = y_true.ravel(), y_pred.ravel()
        return cls(y_true, y_pred, None, np.abs(y_true - y_pred))

    def worst(self) -> np.ndarray:
        """Return the places of mistakes, those with the largest loss first."""
        wrong = np.flatnonzero(self.y_true != self.y_pred)
        return wrong if self.loss is None else wrong[np.argsort(-self.loss[wrong], kind="stable")]

    def mistakes(self, samples: Samples, places: np.ndarray) -> list[Mistake]:
        """Return the mistakes in some places, with their pictures."""
        rows = places if self.rows is None else self.rows[places]
        return [
            Mistake(
                row=small.row,
                name=samples.name(small.row),
                true=self.y_true[place].item(),
                predicted=self.y_pred[place].item(),
                confidence=None if self.confidence is None else float(self.confidence[place]),
                loss=None if self.loss is None else float(self.loss[place]),
                image=small.image,
                fault=small.fault,
            )
            for place, small in zip(places, small_images(samples, rows), strict=True)
        ]


def _are_values(y: Any) -> bool:
    """Return True for numbers that are not labels."""
    y = as_labels(y)
    return y.dtype.kind == "f" and type_of_target(y).startswith("continuous")


class _Grid(NamedTuple):
    """A grid of cells, each a picture with three lines of text below it."""

    n_rows: int
    n_columns: int
    inches: tuple[float, float]  # width and height of all

    @classmethod
    def new(cls, n_cells: int) -> Self:
        """Return the grid of a new figure."""
        n_columns = min(_N_COLUMNS, max(n_cells, 2))
        n_rows = math.ceil(n_cells / n_columns)
        height = n_rows * _CELL_INCHES[1] if n_rows else 1.0
        return cls(n_rows, n_columns, (n_columns * _CELL_INCHES[0], height))

    @classmethod
    def inside(cls, ax: Any, n_cells: int) -> Self:
        """Return the grid in axes of the caller, with cells that are nearly square."""
        figure = ax.figure.get_figure(root=True)
        box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        n_columns = max(1, min(n_cells, round(math.sqrt(n_cells * box.width / box.height))))
        return cls(math.ceil(n_cells / n_columns), n_columns, (box.width, box.height))

    @property
    def n_chars(self) -> int:
        """Number of characters in a line below a picture."""
        return max(
            _MIN_CHARS, int(self.inches[0] / self.n_columns * 72 / (_CHAR_WIDTH * _FONT_SIZE))
        )

    def place(self, number: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a picture, as fractions of the axes."""
        width, height = 1 / self.n_columns, 1 / self.n_rows
        row, column = divmod(number, self.n_columns)
        text = min(0.6 * height, _TEXT_POINTS / 72 / self.inches[1])
        bottom = (self.n_rows - 1 - row) * height + text
        return (column + 0.03) * width, bottom, 0.94 * width, height - text


def _plot_picture(ax: Any, mistake: Mistake) -> None:
    """Plot a picture, or the reason why there is none."""
    ax.set(xticks=[], yticks=[])
    if mistake.image is not None:
        ax.imshow(mistake.image)
        ax.set_anchor("SW")
        ax.spines[:].set_visible(False)
        return
    ax.spines[:].set_color(GRAY)
    reason = textwrap.fill(short_name(f"cannot be read: {mistake.fault}", 60), 20)
    text = ax.text(0.5, 0.5, "", ha="center", va="center", transform=ax.transAxes)
    text.set_fontsize(_FONT_SIZE)
    set_text(text, reason)


def _text_below(mistake: Mistake, n_chars: int) -> str:
    """Return row and file name, true label, predicted label and confidence, each in a line."""
    path = Path(mistake.name)
    is_file = path.suffix or len(path.parts) > 1  # else it is the kind of another sample
    name = f"[{mistake.row}] {path.name if is_file else ''}".rstrip()
    confidence = "" if mistake.confidence is None else f" ({mistake.confidence:.2f})"
    room = n_chars - len("predicted: ") - len(confidence)
    lines = (
        short_name(name, n_chars),
        f"true: {short_name(_shown(mistake.true), room)}",
        f"predicted: {short_name(_shown(mistake.predicted), room)}{confidence}",
    )
    return "\n".join(lines)


def _shown(label: Any) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)
