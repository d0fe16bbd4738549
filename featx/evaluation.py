"""Numbers that a colleague can check: scikit-learn's metrics of predictions, as plain data."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

_MEASURES = ("precision", "recall", "f1-score", "support")


def evaluate(y_true: Any, y_pred: Any) -> dict[str, Any]:
    """Measure how well labels were predicted.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)

    Returns
    -------
    dict
        Plain data: ``accuracy``; ``classes``, for each its ``precision``, ``recall``, ``f1-score``
        and ``support``; ``macro`` and ``weighted``, the same averaged; ``confusion``, with
        ``labels`` and ``counts`` (rows are true classes, columns predicted ones).

    Examples
    --------
    >>> result = evaluate(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> round(result["accuracy"], 3), result["confusion"]["counts"]
    (0.667, [[1, 1], [0, 1]])
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    labels = np.unique(np.concatenate([y_true, y_pred]))
    names = [str(label) for label in labels]
    measure = partial(
        precision_recall_fscore_support, y_true, y_pred, labels=labels, zero_division=0.0
    )
    averages = {
        name: dict(zip(_MEASURES, (*measure(average=name)[:3], len(y_true)), strict=True))
        for name in ("macro", "weighted")
    }
    return {
        "accuracy": float(np.mean(y_true == y_pred)),
        "n_samples": len(y_true),
        "classes": {
            name: dict(zip(_MEASURES, (*map(float, values), int(support)), strict=True))
            for name, *values, support in zip(names, *measure(), strict=True)
        },
        **averages,
        "confusion": {
            "labels": names,
            "counts": confusion_matrix(y_true, y_pred, labels=labels).tolist(),
        },
    }
