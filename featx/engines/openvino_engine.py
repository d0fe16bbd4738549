"""OpenVINO as an engine, on CPUs."""

from __future__ import annotations

import copy
import math
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engines.base import Engine
from featx.engines.transposing import transpose_late

if TYPE_CHECKING:
    import keras

_SMALL_INPUT = 50_000  # numbers: 129x129 pixels in colour
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEngine(Engine):
    """Runs a Keras model that was exported to OpenVINO."""

    name = "openvino"
    precisions = ("float32", "bfloat16")

    def _load(self, model: keras.Model) -> None:
        import openvino

        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # the file is gone when the graph runs
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "graph.xml")
            model.export(file, format="openvino", verbose=False)
            graph = core.read_model(file)
        transpose_late(graph)
        self._core, self._graph, self._hint = core, graph, _PRECISIONS[self._precision]
        self._compile()

    def resized(self, batch_size: int) -> OpenVINOEngine:
        """Return an engine that was compiled for another size."""
        engine = copy.copy(self)
        engine.batch_size = batch_size
        engine._compile()
        return engine

    def _compile(self) -> None:
        graph = self._graph.clone()  # other threads may compile it for another size
        graph.reshape([self.batch_size, *graph.inputs[0].partial_shape[1:]])
        # For small inputs a stream for each core, since cores wait for one another at each layer;
        # else one stream with all cores, which is as fast and takes half the memory.
        numbers = math.prod(int(side) for side in graph.inputs[0].shape[1:])
        hint = "THROUGHPUT" if numbers <= _SMALL_INPUT else "LATENCY"
        options = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_PRECISION_HINT": self._hint,
            # Threads that load the next batches want the cores too (files: 370 -> 396 images/s).
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = self._core.compile_model(graph, "CPU", options)
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
