"""ONNXEngine: ONNX Runtime as an engine, on CPUs."""

from __future__ import annotations

import contextlib
import functools
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx._progress import activity
from featx.engines.base import ConvertedEngine
from featx.exceptions import EngineError

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
            with activity("converting to ONNX"), _quiet_onnx_converter():
                add_missing_operations()
                model.export(str(file), format="onnx", verbose=False, input_signature=signature)
            self._restore(file.read_bytes())

    def _restore(self, graph: bytes | memoryview) -> None:
        import onnxruntime

        self._graph = bytes(graph)
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(self._graph, providers=providers)
        names = [each.name for each in self._session.get_inputs()]
        check_onnx_inputs(names)
        self._input = names[0]

    def graph_bytes(self) -> bytes:
        """Return the ONNX model."""
        return self._graph

    def start(self, inputs: np.ndarray) -> Any:
        """Run a batch to its end; other threads can work meanwhile."""
        return self._session.run(None, {self._input: inputs})[0]

    def finish(self, pending: Any) -> np.ndarray:
        """Return the embeddings of the batch."""
        return np.asarray(pending, np.float32)


def check_onnx_inputs(names: Sequence[str]) -> None:
    """Raise EngineError if a converted graph has inputs beside that of the model."""
    if len(names) > 1:
        raise EngineError(
            f"its conversion to ONNX is incomplete: {', '.join(map(repr, names[1:]))} has no value"
        )


@functools.cache
def add_missing_operations() -> None:
    """Tell the converter the ONNX form of an operation that it lacks: erfc(x) = 1 - erf(x).

    It is that of the exact GELU of vision transformers.
    """
    from tf2onnx import handler, utils

    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **kwargs: Any) -> None:
            dtypes, shapes = [graph.get_dtype(node.output[0])], [graph.get_shape(node.output[0])]
            dtype = utils.map_onnx_to_numpy_type(dtypes[0])
            one = graph.make_const(utils.make_name("one"), np.ones((), dtype))
            erf = graph.make_node("Erf", node.input, dtypes=dtypes, shapes=shapes)
            inputs, outputs = [one.output[0], erf.output[0]], node.output
            graph.remove_node(node.name)
            graph.make_node("Sub", inputs, outputs=outputs, dtypes=dtypes, shapes=shapes)

    handler.tf_op("Erfc")(Erfc)


@contextlib.contextmanager
def _quiet_onnx_converter() -> Iterator[None]:
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
