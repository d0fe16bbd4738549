"""``predict_in_batches``: outputs of a Keras model for many samples, in batches of one size."""

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
    """Return the outputs of a model with one output for samples, (n, ...), in their order.

    `read` turns some of the rows, at least one in all, into the inputs of the model, tensor by
    tensor; `n_threads` call it. Keras' own ``predict`` sets up a data pipeline at each call and
    traces the last batch again, which takes longer than a few samples do.
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
    """Return a single tensor as it is, and several as a tuple.

    Models are built and called with the same structure, since Keras warns if it differs.
    """
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
