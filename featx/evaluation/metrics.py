"""Numbers that a colleague can check: scikit-learn's metrics of predictions, as plain data."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from featx.evaluation.calibration import calibration
from featx.evaluation.intervals import intervals
from featx.exceptions import InputError, ParameterError
from featx.targets import as_labels

_MEASURES = ("precision", "recall", "f1-score", "support")


def evaluate(
    y_true: Any,
    y_pred: Any,
    *,
    proba: Any = None,
    classes: Any = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measure how well labels were predicted, how sure that is, and what probabilities are worth.

    It is for classifiers, of one label for each sample.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        Labels, those predicted as ``predict`` gives them.
    proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities, as ``predict_proba`` gives them.
    classes : array-like of shape (n_classes,), default=None
        The labels of the columns of `proba`, as in ``classes_``; None is all that are in `y_true`
        or `y_pred`, sorted.
    confidence : float, default=0.95
        Of the intervals.

    Returns
    -------
    dict
        Plain data: ``accuracy``; ``classes``, for each its ``precision``, ``recall``, ``f1-score``
        and ``support``; ``macro`` and ``weighted``, the same averaged; ``confusion``, with
        ``labels`` and ``counts`` (rows are true classes, columns predicted ones); ``intervals``,
        see :func:`~featx.evaluation.intervals.intervals`; with probabilities,
        ``calibration``, see :func:`~featx.evaluation.calibration.calibration`.

    Raises
    ------
    ParameterError
        `confidence` is no such share.
    InputError
        There are no samples, labels are no labels, or `proba` does not suit them.
    ValueError
        Lengths differ.

    Examples
    --------
    >>> from featx import evaluate
    >>> result = evaluate(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> round(result["accuracy"], 3), result["confusion"]["counts"]
    (0.667, [[1, 1], [0, 1]])
    """
    if not (isinstance(confidence, Real) and 0 < confidence < 1):
        raise ParameterError(f"confidence={confidence!r}: expected a share between 0 and 1")
    y_true, y_pred = _checked_labels(y_true, "y_true"), _checked_labels(y_pred, "y_pred")
    check_consistent_length(y_true, y_pred, proba)
    if not len(y_true):
        raise InputError("there are no samples to evaluate")
    labels = np.unique(np.concatenate([y_true, y_pred]))
    names = [str(label) for label in labels]
    measure = partial(
        precision_recall_fscore_support, y_true, y_pred, labels=labels, zero_division=0.0
    )
    averages = {
        name: dict(zip(_MEASURES, (*measure(average=name)[:3], len(y_true)), strict=True))
        for name in ("macro", "weighted")
    }
    counts = np.array([[len(y_true)]])
    if len(labels) > 1:  # else scikit-learn warns
        counts = confusion_matrix(y_true, y_pred, labels=labels)
    ends = intervals(counts, confidence=confidence)
    ends["classes"] = dict(zip(names, ends["classes"], strict=True))
    result = {
        "accuracy": float(np.mean(y_true == y_pred)),
        "n_samples": len(y_true),
        "classes": {
            name: dict(zip(_MEASURES, (*map(float, values), int(support)), strict=True))
            for name, *values, support in zip(names, *measure(), strict=True)
        },
        **averages,
        "confusion": {"labels": names, "counts": counts.tolist()},
        "intervals": ends,
    }
    if proba is not None:
        columns = labels if classes is None else as_labels(classes, name="classes")
        proba = _checked_proba(proba, columns, y_true)
        order = np.argsort(columns)
        result["calibration"] = calibration(y_true, proba[:, order], classes=columns[order])
    return result


def _checked_labels(y: Any, name: str) -> np.ndarray:
    y = as_labels(y, name=name)
    if y.ndim != 1 and y.shape[1:] != (1,):
        cure = "; pass probabilities as proba=" if name == "y_pred" and y.ndim == 2 else ""
        raise InputError(
            f"{name} has shape {y.shape}: expected one label for each sample, (n_samples,){cure}"
        )
    y = y.ravel()
    if y.dtype.kind == "f" and len(y) and type_of_target(y, input_name=name) == "continuous":
        raise InputError(
            f"{name} holds numbers such as {y[y != np.trunc(y)][0]:.6g}, which are no labels: "
            "evaluate is for classifiers. Regressors have score(), and sklearn.metrics."
        )
    return y


def _checked_proba(proba: Any, classes: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    proba = np.asarray(proba, np.float64)
    if len(np.unique(classes)) != len(classes) or len(classes) < 2:
        raise InputError(f"classes={classes.tolist()}: expected two or more, each once")
    if proba.ndim != 2 or proba.shape[1] != len(classes):
        raise InputError(
            f"proba has shape {proba.shape}: expected a column for each of the {len(classes)} "
            "classes; pass classes= if some are in no label"
        )
    unknown = np.setdiff1d(y_true, classes)
    if len(unknown):
        raise InputError(f"proba has no column for the labels {unknown[:10].tolist()}")
    if (proba < 0).any() or not np.allclose(proba.sum(axis=1), 1.0, atol=1e-3):
        raise InputError("proba has rows that are no probabilities: expected sums of 1")
    return proba / proba.sum(axis=1, keepdims=True)  # which float32 is not exact about
