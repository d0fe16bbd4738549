"""OpenVINOEngine: OpenVINO as an engine, on CPUs.

Keras' graphs of images, exported to OpenVINO, begin with a transpose to channels first and then
scale the pixels; OpenVINO's plugin for CPUs puts them back into channels last to convolve. With the
transpose moved behind the scaling, the two changes of order meet and are dropped (MobileNetV2 0.35
at 224 pixels: 0.98 -> 0.86 ms an image, 2 cores, 2026-11).
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featx._progress import activity
from featx.engines.base import ConvertedEngine
from featx.engines.compile import traced
from featx.exceptions import EngineError

if TYPE_CHECKING:
    import keras
    import openvino


_SMALL_INPUT = 50_000  # numbers: 129x129 pixels in color
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_LENGTH = struct.Struct("<Q")
_ELEMENTWISE = {"Add": "add", "Subtract": "subtract", "Multiply": "multiply", "Divide": "divide"}


class OpenVINOEngine(ConvertedEngine):
    """Runs a Keras model that was converted to OpenVINO."""

    name = "openvino"
    package = "openvino"
    precisions = ("float32", "bfloat16")

    def _load(self, model: keras.Model) -> None:
        with activity("converting to OpenVINO"):
            self._graph = _converted_to_openvino(model)
        transpose_late(self._graph)
        self._compile()

    def _restore(self, graph: bytes | memoryview) -> None:
        import openvino

        (n_bytes,) = _LENGTH.unpack_from(graph)
        start = _LENGTH.size + n_bytes
        xml, weights = bytes(graph[_LENGTH.size : start]), bytes(graph[start:])
        self._graph = openvino.Core().read_model(xml, weights)
        self._compile()

    def graph_bytes(self) -> bytes:
        """Return the length of the graph's XML, 8 bytes, the XML, and the weights."""
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "graph.xml"
            openvino.serialize(self._graph, file)
            xml, weights = file.read_bytes(), file.with_suffix(".bin").read_bytes()
        return _LENGTH.pack(len(xml)) + xml + weights

    def resized(self, batch_size: int) -> Self:
        """Return an engine that was compiled for another size."""
        engine = super().resized(batch_size)
        engine._compile()
        return engine

    def _compile(self) -> None:
        import openvino

        graph = self._graph.clone()  # other threads may compile it for another size
        graph.reshape([self.batch_size, *graph.inputs[0].partial_shape[1:]])
        # Small inputs get a stream for each core, since cores wait for one another at each layer;
        # others get one stream with all cores, which is as fast and takes half the memory.
        numbers = math.prod(int(side) for side in graph.inputs[0].shape[1:])
        hint = "THROUGHPUT" if numbers <= _SMALL_INPUT else "LATENCY"
        options = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": _PRECISIONS[self._precision],
            # Threads that load the next batches need cores too (files: 370 -> 396 images/s).
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = openvino.Core().compile_model(graph, "CPU", options)
        n_requests = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.n_in_flight = 1 + int(n_requests)
        self._idle: deque[Any] = deque()  # requests, which threads may share one after another

    def start(self, inputs: np.ndarray) -> Any:
        """Queue a batch."""
        try:
            request = self._idle.popleft()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.start_async({0: inputs}, share_inputs=True)
        return request, inputs

    def finish(self, pending: Any) -> np.ndarray:
        """Wait for a batch that was queued."""
        request, _ = pending
        request.wait()
        outputs = np.array(request.get_output_tensor(0).data, np.float32)
        self._idle.append(request)
        return outputs


@contextlib.contextmanager
def without_statistics() -> Iterator[None]:
    """Keep OpenVINO from sending statistics of a conversion, as on a machine of a build.

    It forks the process to send them, which takes a second where TensorFlow is loaded.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("CI", None)
        else:
            os.environ["CI"] = before


def transpose_late(graph: openvino.Model) -> None:
    """Move the transpose of a graph's input behind the arithmetic with constants that follows it.

    The graph is changed in place; its outputs stay the same. Other graphs are not changed.
    """
    node = graph.inputs[0].node
    while node and node.get_type_name() in ("Parameter", "Convert"):
        node = _only_reader_of_node(node)
    if node is None or node.get_type_name() != "Transpose":
        return
    while swapped := _swapped_transpose(node):
        node = swapped
    graph.validate_nodes_and_infer_types()


def _only_reader_of_node(node: openvino.Node) -> openvino.Node | None:
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 else None


def _swapped_transpose(transpose: openvino.Node) -> openvino.Node | None:
    """Put a transpose behind the operation that reads it, and return it; None if it must stay."""
    from openvino import opset13 as operations

    reader = _only_reader_of_node(transpose)
    if reader is None or reader.get_type_name() not in _ELEMENTWISE:
        return None
    operands = [value.get_node() for value in reader.input_values()]
    constant = next((each for each in operands if each.get_type_name() == "Constant"), None)
    order = transpose.input_value(1).get_node()
    if constant is None or order.get_type_name() != "Constant":
        return None
    axes, shape = order.get_data(), tuple(constant.get_output_shape(0))
    is_numpy = reader.get_attributes().get("auto_broadcast") == "numpy"
    if len(axes) < max(1, len(shape)) or not is_numpy:
        return None
    full = operations.reshape(constant, np.array((1,) * (len(axes) - len(shape)) + shape), False)
    transposed = operations.transpose(full, np.argsort(axes))
    source = transpose.input_value(0)
    arguments = [transposed if each is constant else source for each in operands]
    moved = getattr(operations, _ELEMENTWISE[reader.get_type_name()])(*arguments)
    behind = operations.transpose(moved, order)
    for target in list(reader.output(0).get_target_inputs()):
        target.replace_source_output(behind.output(0))
    return behind


def _converted_to_openvino(model: keras.Model) -> openvino.Model:
    """Convert a model; raise EngineError if OpenVINO has no form of one of its operations."""
    import openvino

    try:
        with without_statistics():
            return openvino.convert_model(traced(model), share_weights=False)
    except Exception as exc:
        missing = re.search(r"No conversion rule found for operations: (.+)", str(exc))
        if missing is None:
            raise
        raise EngineError(f"OpenVINO has no form of the operation {missing[1].strip()}") from exc
