"""Engine and ConvertedEngine, the interfaces of engines: from batches of one size to embeddings."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import keras


class Engine(ABC):
    """Runs a frozen graph on batches of a fixed size; the last one is padded.

    The model maps inputs (n, ...) to float32 embeddings. `name` is what
    ``FeatureExtractor(engine=...)`` takes, `precisions` are those in which the engine can compute.
    `n_in_flight` batches are started before the first is awaited: while the device works on one,
    the next is copied to it.
    """

    name: str
    precisions: tuple[str, ...]
    n_in_flight = 2

    def __init__(self, model: keras.Model, batch_size: int, *, precision: str = "float32") -> None:
        self.batch_size = batch_size
        self._precision = precision
        self._load(model)

    @abstractmethod
    def _load(self, model: keras.Model) -> None:
        """Compile or convert the model."""

    def resized(self, batch_size: int) -> Self:
        """Return an engine for batches of another size, which shares what was loaded."""
        engine = copy.copy(self)
        engine.batch_size = batch_size
        return engine

    @abstractmethod
    def start(self, inputs: np.ndarray) -> Any:
        """Start work on a full batch, uint8 or float32; the result goes to :meth:`finish`."""

    @abstractmethod
    def finish(self, pending: Any) -> np.ndarray:
        """Wait for a batch, and return its embeddings, (batch_size, ...), float32."""

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Embed at most one batch, and return as many rows, float32."""
        return self.finish(self.start(self.padded(inputs)))[: len(inputs)]

    def padded(self, inputs: np.ndarray) -> np.ndarray:
        """Fill a batch up with zeros."""
        n_padded = self.batch_size - len(inputs)
        if not n_padded:
            return np.ascontiguousarray(inputs)
        return np.concatenate([inputs, np.zeros((n_padded, *inputs.shape[1:]), inputs.dtype)])


class ConvertedEngine(Engine):
    """Runs a graph that another library converted, and that can be stored as bytes.

    `package` is the distribution whose version decides what the bytes mean.
    """

    package: str

    @classmethod
    def restored(cls, graph: bytes | memoryview, batch_size: int) -> Self:
        """Return an engine for a graph of :meth:`graph_bytes`, in float32, without Keras.

        Whatever the library raises of damaged bytes is raised.
        """
        engine = cls.__new__(cls)
        engine.batch_size = batch_size
        engine._precision = "float32"
        engine._restore(graph)
        return engine

    @abstractmethod
    def graph_bytes(self) -> bytes:
        """Return the converted graph."""

    @abstractmethod
    def _restore(self, graph: bytes | memoryview) -> None:
        """Load a graph of :meth:`graph_bytes`."""
