"""Numbers that a colleague can check: metrics of predictions, and a table of cross-validations.

The metrics are scikit-learn's; what is added here is plain data for people and machines.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from featx._validation import ParameterFaults
from featx.blas import blas_threads_for
from featx.exceptions import InputError
from featx.extractor import FeatureExtractor
from featx.head_fitting import as_head_input
from featx.heads import CLASSIFIER_HEADS, make_head, seed_head
from featx.training_data import training_embeddings, were_read

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


class Comparison(NamedTuple):
    """One line of a table of cross-validations.

    Attributes
    ----------
    backbone, head : str
    mean, spread : float
        Accuracy over the folds, and its standard deviation.
    seconds : float
        Wall time, embedding included.
    n_forward : int
        Samples that went through the backbone.
    scores : list of float
        Accuracy of each fold.
    """

    backbone: str
    head: str
    mean: float
    spread: float
    seconds: float
    n_forward: int
    scores: list[float]


def check_folds(y: Any, *, n_folds: int, groups: Any = None) -> None:
    """Check, before any long work, that every class has a sample for each fold.

    Raises
    ------
    InputError
        Classes are too small, all of them named, or there are fewer groups than folds.
    """
    if n_folds < 2:
        raise InputError(f"n_folds={n_folds}: expected at least 2")
    small = [f"{str(name)!r} ({n})" for name, n in Counter(list(y)).items() if n < n_folds]
    if small:
        raise InputError(
            f"{n_folds} folds need {n_folds} samples of each class, but there are fewer of "
            f"{', '.join(small[:10])}: ask for fewer folds, or add samples"
        )
    n_groups = n_folds if groups is None else len(set(groups))
    if n_groups < n_folds:
        raise InputError(f"{n_folds} folds need as many groups, but there are {n_groups}")


def compare(
    X: Any,
    y: Any,
    *,
    extractors: Sequence[FeatureExtractor],
    heads: Sequence[Any],
    n_folds: int = 5,
    groups: Any = None,
    random_state: int = 0,
) -> Iterator[Comparison]:
    """Cross-validate each head on the embeddings of each extractor.

    Samples that cannot be read are left out with ``on_error="nan"``, from training and test alike.

    Parameters
    ----------
    X : samples
    y : array-like of shape (n_samples,)
    extractors : sequence of FeatureExtractor
    heads : sequence of str or estimator
    n_folds : int, default=5
        Stratified, shuffled.
    groups : array-like of shape (n_samples,), default=None
        Samples of one group never part between training and test.
    random_state : int, default=0
        Of the shuffling, and of heads that take one.

    Yields
    ------
    Comparison
        One by one, as they are done.

    Raises
    ------
    ParameterError
        Extractors or heads are faulty: all faults at once, before any long work.
    InputError
        Likewise; see :func:`check_folds`.
    """
    faults = ParameterFaults("compare")
    for extractor in extractors:
        faults.check_part(extractor.check_params)
    for head in heads:
        faults.check_part(partial(make_head, head, CLASSIFIER_HEADS))
    faults.raise_any()
    check_folds(y, n_folds=n_folds, groups=groups)
    # A backbone that cannot be had is known before another has done its work.
    embedders = [clone(extractor).fit(X) for extractor in extractors]
    for embedder in embedders:
        start_s = time.perf_counter()
        embeddings = training_embeddings(embedder, X)
        rows = np.flatnonzero(were_read(embeddings))
        labels = np.asarray(y)[rows]
        of_rows = None if groups is None else np.asarray(groups)[rows]
        folds = list(_folds(labels, of_rows, n_folds=n_folds, random_state=random_state))
        matrix = as_head_input(embeddings[rows])
        n_forward = embedder.report_.n_forward
        for head in heads:
            estimator = make_head(head, CLASSIFIER_HEADS)
            seed_head(estimator, random_state)
            with blas_threads_for(matrix.nbytes):
                scores = cross_val_score(estimator, matrix, labels, cv=folds, error_score="raise")
            yield Comparison(
                backbone=embedder.label,
                head=head if isinstance(head, str) else type(head).__name__,
                mean=float(np.mean(scores)),
                spread=float(np.std(scores)),
                seconds=time.perf_counter() - start_s,
                n_forward=n_forward,
                scores=scores.tolist(),
            )
            start_s, n_forward = time.perf_counter(), 0


def _folds(
    y: np.ndarray, groups: np.ndarray | None, *, n_folds: int, random_state: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    check_folds(y, n_folds=n_folds, groups=groups)
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = splitter(n_folds, shuffle=True, random_state=random_state)
    return folds.split(np.zeros(len(y)), y, groups)
