"""A Keras model over many samples, in batches of one size that are read ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx._threads import run_ahead

if TYPE_CHECKING:
    import keras


def predict_in_batches(
    model: keras.Model,
    read: Callable[[np.ndarray], list[np.ndarray]],
    rows: np.ndarray,
    *,
    batch_size: int,
    n_threads: int = 1,
) -> np.ndarray:
    """Compute what a model gives for samples, in their order.

    Keras' own ``predict`` sets a data pipeline up at each call and traces the last batch once more,
    which takes longer than the samples do where they are few.

    Parameters
    ----------
    model : keras.Model
        Of one output.
    read : callable
        From some of the rows to the inputs of the model, tensor by tensor.
    rows : ndarray of shape (n,), int64
        At least one.
    batch_size : int
    n_threads : int, default=1
        In which `read` is called.

    Returns
    -------
    ndarray of shape (n, ...)
    """
    batches = (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))
    outputs = []
    for inputs in run_ahead(read, batches, n_threads=n_threads):
        n_lacking = batch_size - len(inputs[0])
        if n_lacking:
            inputs = [np.concatenate([x, np.repeat(x[:1], n_lacking, axis=0)]) for x in inputs]
        outputs.append(model.predict_on_batch(as_keras_inputs(inputs)))
    return np.concatenate(outputs)[: len(rows)]


def as_keras_inputs(tensors: Sequence[Any]) -> Any:
    """Return tensors, of numbers or of a model, as featx hands them to Keras.

    One is by itself, several are a tuple: Keras warns where a model was made of others.
    """
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
