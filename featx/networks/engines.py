"""Who runs the graph: one compiled function from a batch of inputs to a batch of embeddings.

The batch shape is fixed and the last batch padded, so that nothing is traced twice. ``float32``
means float32: on a GPU, TensorFloat-32 is off while the engine runs. Only Keras' own calls are
used where Keras has one, so that the engine runs on its TensorFlow, JAX and PyTorch backends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


_NUMBERS_PER_BATCH = 5_000_000


class KerasEngine:
    """Runs a Keras model in inference mode.

    Parameters
    ----------
    model : keras.Model
        From inputs ``(n, ...)`` to embeddings. It is compiled, so it must be featx's own.
    batch_size : int
    """

    name = "keras"

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        import keras

        self.batch_size = batch_size
        self._model = model
        # XLA makes a network ten times slower on a CPU (facts of 2026-11: 1088 -> 110 images/s),
        # and Keras would choose it; JAX knows no other way.
        model.compile(jit_compile=keras.backend.backend() == "jax")

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Embed one batch.

        Parameters
        ----------
        inputs : ndarray of shape (n, ...), n at most the batch size

        Returns
        -------
        ndarray of shape (n, ...), float32
        """
        n_padded = self.batch_size - len(inputs)
        if n_padded:
            padding = np.zeros((n_padded, *inputs.shape[1:]), inputs.dtype)
            inputs, n_samples = np.concatenate([inputs, padding]), len(inputs)
        else:
            n_samples = len(inputs)
        with _full_precision():
            return np.asarray(self._model.predict_on_batch(inputs), np.float32)[:n_samples]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Switch TensorFloat-32 off, which keeps 10 bits of each factor, and back afterwards."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        from tensorflow import config

        allowed = config.experimental.tensor_float_32_execution_enabled()
        config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            config.experimental.enable_tensor_float_32_execution(allowed)
    elif backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    else:
        yield


def batch_size_for(shape: tuple[int, ...]) -> int:
    """Choose a batch size from the shape of one input.

    About five million numbers to a batch, which is 32 images of 224x224: on 2 CPU cores
    MobileNetV2 ran there a quarter faster than with 8, and no slower than with 64 (2026-11).

    Examples
    --------
    >>> batch_size_for((224, 224, 3)), batch_size_for((64, 64, 3)), batch_size_for((20,))
    (32, 256, 256)
    """
    fitting = _NUMBERS_PER_BATCH // max(1, int(np.prod(shape)))
    return int(min(256, max(8, 2 ** (fitting.bit_length() - 1) if fitting else 8)))
