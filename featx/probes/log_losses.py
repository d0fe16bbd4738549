"""Log-losses of scores and their derivatives, in the library of the array that holds the scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.probes.arrays import like, namespace, precision

_FARTHEST = 60.0  # a score from that of the own class; e to the power of it is far from overflow


def losses_and_residuals(scores: Any, is_own: Any) -> tuple[Any, Any]:
    """Return what scores lose, and how that changes with them.

    Parameters
    ----------
    scores : array of shape (m, f, k), float32 or float64
        Of f sets of coefficients; k is the number of classes, or 1 for two. Is changed.
    is_own : array of shape (m, k), of the same dtype
        1 for the class of a sample, else 0; for two classes 1 for the second.

    Returns
    -------
    losses : array of shape (m, f)
    residuals : array of shape (m, f, k)
        Derivatives of the losses by the scores.

    Examples
    --------
    >>> losses, residuals = losses_and_residuals(np.zeros((1, 1, 2)), np.array([[1.0, 0.0]]))
    >>> losses.round(3), residuals
    (array([[0.693]]), array([[[-0.5,  0.5]]]))
    """
    xp = namespace(scores)
    own = is_own[:, None, :]
    if scores.shape[2] == 1:
        signs = 2 * own - 1
        margins = xp.clip(signs * scores, max=_FARTHEST)
        small = xp.exp(-xp.abs(margins))
        losses = xp.log1p(small) - xp.clip(margins, max=0.0)
        residuals = -signs * xp.where(margins < 0, xp.ones_like(small), small) / (1 + small)
        return losses[:, :, 0], residuals
    scores -= xp.linalg.vecdot(scores, own)[:, :, None]
    top = xp.zeros_like(scores[:, :, :1])
    if bool(xp.max(scores) > _FARTHEST):
        top = xp.clip(xp.max(scores, axis=2, keepdims=True), min=0.0)
        scores -= top
    # Numbers smaller than float32 has them whole would make the products ten times slower.
    shares = xp.exp(xp.clip(scores, min=-_FARTHEST))
    # Its own is what the others are not: in float32, 1 less a probability near 1 is 0.
    others = xp.linalg.vecdot(shares, 1 - own)[:, :, None]
    unit = xp.exp(-top)
    losses = top + xp.log1p(unit - 1 + others)
    total = unit + others
    shares /= total
    return losses[:, :, 0], xp.where(own > 0, -others / total, shares)


def log_probabilities(scores: Any) -> Any:
    """Return the logarithms of the probabilities of classes, (m, k).

    Parameters
    ----------
    scores : array of shape (m, k), or (m,) for two classes

    Examples
    --------
    >>> np.exp(log_probabilities(np.array([0.0, 50.0])))[:, 0].round(24)
    array([5.00e-01, 1.93e-22])
    """
    xp = namespace(scores)
    if scores.ndim == 1:
        zeros = xp.zeros_like(scores)
        logs = [-xp.logaddexp(zeros, scores), -xp.logaddexp(zeros, -scores)]
        return xp.stack(logs, axis=1)
    scores = scores - xp.max(scores, axis=1, keepdims=True)
    return scores - xp.log(xp.sum(xp.exp(scores), axis=1, keepdims=True))


def curvatures(residuals: Any, is_own: Any, weights: Any) -> Any:
    """Return the sums of the second derivatives of weighted losses by the scores.

    Parameters
    ----------
    residuals : array of shape (m, f, k)
        As :func:`losses_and_residuals` returns them.
    is_own : array of shape (m, k)
    weights : array of shape (m, f)

    Returns
    -------
    array of shape (f, k, k)
    """
    xp = namespace(residuals)
    if residuals.shape[2] == 1:
        shares = xp.abs(residuals)  # of the class that is not its own
        return xp.sum(shares * (1 - shares) * weights[:, :, None], axis=0)[:, :, None]
    shares = residuals + is_own[:, None, :]
    weighted = shares * weights[:, :, None]
    products = xp.matmul(xp.permute_dims(weighted, (1, 2, 0)), xp.permute_dims(shares, (1, 0, 2)))
    unit = like(np.eye(shares.shape[2]), shares, precision(shares))
    return unit * xp.sum(weighted, axis=0)[:, :, None] - products
