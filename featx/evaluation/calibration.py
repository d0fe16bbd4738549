"""Whether probabilities mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

_N_BINS = 15
_LARGEST_TEMPERATURE = 100.0
_ROUNDING = 1e-9  # of a log loss


def calibration(y_true: np.ndarray, proba: np.ndarray, *, classes: np.ndarray) -> dict[str, Any]:
    """Measure how far the probabilities of predictions are from the shares that are right.

    The expected calibration error of Guo et al. 2017 (arXiv 1706.04599): samples are put into 15
    bins by the probability of the class that is predicted; of each bin, the mean probability is
    compared with the share of right predictions, and the gaps are averaged by samples. The same
    paper divides scores by a temperature; the one that would suit these very samples best tells in
    which direction probabilities are wrong.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,)
    proba : ndarray of shape (n_samples, n_classes)
    classes : ndarray of shape (n_classes,), sorted
        The labels of the columns.

    Returns
    -------
    dict
        Plain data: ``error``, from 0 to 1; ``log_loss``, in nats; ``temperature``, over 1 where
        probabilities are too sure, under 1 where they are too careful, None where any would do or
        none is high or low enough, as where all predictions are right; ``log_loss_at_temperature``;
        ``bins``, for each with samples in it their ``n_samples``, mean ``probability`` and
        ``accuracy``, as a reliability diagram shows them.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1])
    >>> sure = calibration(y, np.tile([0.99, 0.01], (4, 1)), classes=np.array([0, 1]))
    >>> round(sure["error"], 2), sure["temperature"] > 1
    (0.24, True)
    """
    places = np.searchsorted(classes, y_true)
    sureness = proba.max(axis=1)
    is_right = proba.argmax(axis=1) == places
    bins = np.minimum((sureness * _N_BINS).astype(int), _N_BINS - 1)
    filled = [
        {
            "n_samples": int(np.sum(bins == number)),
            "probability": float(sureness[bins == number].mean()),
            "accuracy": float(is_right[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]
    gaps = [part["n_samples"] * abs(part["probability"] - part["accuracy"]) for part in filled]
    temperature = best_temperature(places, proba)
    mended = proba if temperature is None else at_temperature(proba, temperature)
    labels = np.arange(len(classes))
    return {
        "error": float(sum(gaps) / len(places)),
        "log_loss": float(log_loss(places, proba, labels=labels)),
        "temperature": temperature,
        "log_loss_at_temperature": float(log_loss(places, mended, labels=labels)),
        "bins": filled,
    }


def at_temperature(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return what probabilities would be if the scores behind them were divided by a temperature.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
    temperature : float

    Returns
    -------
    ndarray of shape (n_samples, n_classes), float64

    Examples
    --------
    >>> at_temperature(np.array([[0.8, 0.2]]), 2.0).round(3)
    array([[0.667, 0.333]])
    """
    scores = np.log(np.maximum(np.asarray(proba, np.float64), np.finfo(np.float64).tiny))
    scores = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(places: np.ndarray, proba: np.ndarray) -> float | None:
    """Return the temperature between 0.01 and 100 at which samples have the lowest log loss.

    None if it is lowest at an end, or the same at both.

    Parameters
    ----------
    places : ndarray of shape (n_samples,), int
        Columns of the true classes.
    proba : ndarray of shape (n_samples, n_classes)
    """

    def loss(log_temperature: float) -> float:
        chances = at_temperature(proba, float(np.exp(log_temperature)))
        true = np.take_along_axis(chances, places[:, np.newaxis], axis=1)
        return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())

    end = np.log(_LARGEST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-end, end), method="bounded")
    is_inside = found.fun < min(loss(-end), loss(end)) - _ROUNDING
    return float(np.exp(found.x)) if is_inside else None
