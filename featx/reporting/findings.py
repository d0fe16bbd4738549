"""What held-out predictions show, as plain data: scores, mistakes, confusions, a learning curve."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.utils.multiclass import type_of_target

from featx.evaluation.intervals import fraction_interval
from featx.evaluation.metrics import evaluate
from featx.heads.fit import as_head_input, fit_on_views, predict
from featx.reporting.held_out import HeldOut

_PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of the training samples of a fold
_N_FOLDS = 3  # of the learning curve, so that it costs less than the cross-validation
_N_RESAMPLES = 1000
_CONFIDENCE = 0.95
_LEAST_PROBABILITY = 1e-6  # so that a loss is finite


def scores_of(held_out: HeldOut) -> dict[str, Any]:
    """Return the metrics of predictions, with intervals: of classes, several labels or values."""
    if held_out.task == "classes":
        return evaluate(
            held_out.y_true,
            held_out.y_pred,
            proba=held_out.proba,
            classes=held_out.classes if held_out.proba is not None else None,
            groups=held_out.groups,
        )
    return (_scores_of_labels if held_out.task == "labels" else _scores_of_values)(held_out)


def _scores_of_labels(held_out: HeldOut) -> dict[str, Any]:
    """Return the metrics of each output, and how many samples have all outputs right."""
    y_true, y_pred = held_out.y_true, held_out.y_pred
    outputs = [
        evaluate(true, pred, groups=held_out.groups)
        for true, pred in zip(y_true.T, y_pred.T, strict=True)
    ]
    is_right = held_out.is_right()
    result = {
        "accuracy": float(is_right.mean()),
        "n_samples": len(y_true),
        "intervals": {"accuracy": fraction_interval(is_right, held_out.groups)},
        "outputs": outputs,
    }
    if type_of_target(y_true) == "multilabel-indicator":
        result["together"] = (y_true.T.astype(np.int64) @ y_true.astype(np.int64)).tolist()
    return result


def _scores_of_values(held_out: HeldOut) -> dict[str, Any]:
    """Return R², mean absolute error and root mean squared error, with bootstrap intervals."""
    scale = float(np.abs(held_out.y_true).max()) or 1.0  # squares of large values overflow
    y_true, y_pred = held_out.y_true / scale, np.asarray(held_out.y_pred, np.float64) / scale
    measures = {
        "r2": (r2_score, 1.0),
        "mean_absolute_error": (mean_absolute_error, scale),
        "root_mean_squared_error": (root_mean_squared_error, scale),
    }
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(y_true), size=len(y_true)) for _ in range(_N_RESAMPLES)]
    result: dict[str, Any] = {"n_samples": len(y_true), "intervals": {}}
    tails = [50 * (1 - _CONFIDENCE), 100 - 50 * (1 - _CONFIDENCE)]
    for name, (measure, unit) in measures.items():
        result[name] = float(measure(y_true, y_pred)) * unit
        resampled = [measure(y_true[rows], y_pred[rows]) for rows in draws]
        result["intervals"][name] = [float(end) * unit for end in np.percentile(resampled, tails)]
    return result


def baselines_of(held_out: HeldOut) -> dict[str, float]:
    """Return the scores without looking at samples.

    For classes, "majority" always predicts the most frequent class, and "chance" draws classes as
    often as they occur. For values, "mean" always predicts the mean.
    """
    if held_out.task == "values":
        spread = held_out.y_true - held_out.y_true.mean(axis=0)
        return {"mean_absolute_error": float(np.abs(spread).mean())}
    _, counts = np.unique(held_out.y_true, axis=0, return_counts=True)
    fractions = counts / counts.sum()
    return {"majority": float(fractions.max()), "chance": float(np.square(fractions).sum())}


def losses_of(held_out: HeldOut) -> np.ndarray:
    """Return how wrong each prediction is, (n,): larger is worse.

    It is the log loss where there are probabilities, the number of wrong outputs for several
    labels, the absolute error (of the worst output) for values, else 1 for a wrong label.
    """
    y_true, y_pred = held_out.y_true, held_out.y_pred
    if held_out.task == "values":
        return np.abs(y_true - y_pred).reshape(len(y_true), -1).max(axis=1)
    if held_out.proba is None:
        return (y_true != y_pred).reshape(len(y_true), -1).sum(axis=1).astype(np.float64)
    columns = np.searchsorted(held_out.classes, y_true)
    true = np.take_along_axis(held_out.proba, columns[:, np.newaxis], axis=1)[:, 0]
    return -np.log(np.maximum(true.astype(np.float64), _LEAST_PROBABILITY))


def mistakes_of(held_out: HeldOut) -> np.ndarray:
    """Return the wrong predictions, the worst first; for values, all, by their error."""
    losses = losses_of(held_out)
    order = np.argsort(-losses, kind="stable")
    if held_out.task == "values":
        return order
    return order[~held_out.is_right()[order]]


def confused_pairs(
    held_out: HeldOut, mistakes: np.ndarray
) -> list[tuple[dict[str, Any], list[int]]]:
    """Return pairs of true and predicted class, the most frequent first, and their mistakes."""
    pairs: dict[tuple[str, str], list[int]] = {}
    for place in mistakes.tolist():
        pair = str(held_out.y_true[place]), str(held_out.y_pred[place])
        pairs.setdefault(pair, []).append(place)
    n_true = Counter(map(str, held_out.y_true))
    found = [
        ({"true": true, "predicted": predicted, "n": len(places), "n_true": n_true[true]}, places)
        for (true, predicted), places in pairs.items()
    ]
    return sorted(found, key=lambda pair: -pair[0]["n"])


def learning_curve_of(held_out: HeldOut) -> dict[str, Any] | None:
    """Return the scores of heads fitted on parts of the training samples of three folds.

    The heads are fitted on stored embeddings. None is returned for an estimator that fine-tunes,
    for test samples, and for too few samples.
    """
    estimator = held_out.estimator
    if estimator.fine_tune is not None or held_out.folds is None:
        return None
    rng = np.random.default_rng(0)
    folds, all_scores = held_out.folds.parts[:_N_FOLDS], held_out.fold_scores()[:_N_FOLDS]
    if min(len(test) for _, test in folds) < 2:  # as by LeaveOneOut
        return None
    orders = [rng.permutation(train) for train, _ in folds]
    n_train = float(np.mean([len(order) for order in orders]))
    curve: dict[str, list[float]] = {"n_train": [], "mean": [], "spread": []}
    for part in _PARTS:
        scores = [
            _score_of_part(held_out, order[: round(part * len(order))], test)
            for order, (_, test) in zip(orders, folds, strict=True)
        ]
        if not np.isnan(scores).any():
            _add_point(curve, part * n_train, scores)
    if not curve["mean"] or np.isnan(scores).any():
        return None
    gains = np.subtract(all_scores, scores)
    _add_point(curve, n_train, all_scores)
    gain_error = float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
    return {**curve, "gain": float(np.mean(gains)), "gain_error": gain_error}


def _add_point(curve: dict[str, list[float]], n_train: float, scores: Sequence[float]) -> None:
    curve["n_train"].append(round(n_train))
    curve["mean"].append(float(np.mean(scores)))
    curve["spread"].append(float(np.std(scores)))


def _score_of_part(held_out: HeldOut, train: np.ndarray, test: np.ndarray) -> float:
    """Return the score on `test` of a head fitted on `train`; NaN if they are too few for it."""
    head = held_out.estimator.new_head(held_out.y_true)
    groups = None if held_out.groups is None else held_out.groups[train]
    views = held_out.embeddings[train][:, np.newaxis]
    try:
        with warnings.catch_warnings(action="ignore"):  # of few samples
            fit_on_views(head, views, held_out.y_true[train], sample_weight=None, groups=groups)
        predicted = predict(head, as_head_input(held_out.embeddings[test]))
    except ValueError:  # one class only, or fewer samples than neighbors or folds
        return float("nan")
    return held_out.score(held_out.y_true[test], predicted)
