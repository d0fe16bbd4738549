"""ONNX Runtime as an engine, on CPUs."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engines.base import ConvertedEngine

if TYPE_CHECKING:
    import keras


class ONNXEngine(ConvertedEngine):
    """Runs a Keras model that was exported to ONNX."""

    name = "onnx"
    package = "onnxruntime"
    precisions = ("float32",)

    def _load(self, model: keras.Model) -> None:
        import keras

        given = model.inputs[0]
        signature = [keras.InputSpec(dtype=given.dtype, shape=given.shape)]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "graph.onnx"
            with _quiet():
                model.export(str(file), format="onnx", verbose=False, input_signature=signature)
            self._restore(file.read_bytes())

    def _restore(self, graph: bytes | memoryview) -> None:
        import onnxruntime

        self._graph = bytes(graph)
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(self._graph, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def graph_bytes(self) -> bytes:
        """Return the ONNX model."""
        return self._graph

    def start(self, inputs: np.ndarray) -> Any:
        """Run a batch to its end; other threads can work meanwhile."""
        return self._session.run(None, {self._input: inputs})[0]

    def finish(self, pending: Any) -> np.ndarray:
        """Return the embeddings of the batch."""
        return np.asarray(pending, np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the converter's notes on optimizations and deprecations."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
