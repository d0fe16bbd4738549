"""Which engine: by name, or the best for the device of those that are installed.

An engine that Keras exports to is asked for two samples before it is trusted.
"""

from __future__ import annotations

import importlib.util
import platform
from typing import TYPE_CHECKING

import joblib
import numpy as np

from featx.engines.base import Engine
from featx.engines.keras_engine import KerasEngine
from featx.engines.onnx_engine import ONNXEngine
from featx.engines.openvino_engine import OpenVINOEngine
from featx.exceptions import EngineError

if TYPE_CHECKING:
    import keras

ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (KerasEngine, OpenVINOEngine, ONNXEngine)
}
_PACKAGES = {"openvino": ("openvino",), "onnx": ("onnxruntime", "tf2onnx")}
# Engines agree within 1e-4 in float32; 16 bits keep 8 (bfloat16) or 11 of a number.
_TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 1e-1, "float16": 1e-2}


def missing_packages(name: str) -> list[str]:
    """List the packages that an engine needs and that are not installed."""
    return [package for package in _PACKAGES.get(name, ()) if not importlib.util.find_spec(package)]


def faster_engine(precision: str) -> str | None:
    """Name the engine that is faster than Keras here, if there is one and it is installed.

    On a CPU that is OpenVINO; ONNX Runtime is not always faster than Keras' folded graph, and takes
    up to half a minute to convert (2026-11).
    """
    if has_accelerator() or precision not in OpenVINOEngine.precisions:
        return None
    return None if missing_packages("openvino") else "openvino"


def has_accelerator() -> bool:
    """Tell whether Keras' backend would run on something other than a CPU."""
    import keras

    return not all(device.startswith("cpu") for device in keras.distribution.list_devices())


def check_device(precision: str) -> None:
    """Check that a precision makes sense here.

    Raises
    ------
    EngineError
        It is one for GPUs, and there is none.
    """
    if precision in ("tf32", "float16") and not has_accelerator():
        raise EngineError(
            f"precision={precision!r} is for GPUs, and Keras finds none: pass 'float32' or "
            "'bfloat16'"
        )


def device_name() -> str:
    """Say on what Keras' backend runs, such as ``"cpu:0, x86_64, 2 cores"``."""
    import keras

    device = keras.distribution.list_devices()[0]
    return f"{device}, {platform.machine()}, {joblib.cpu_count()} cores"


def make_engine(
    name: str, graph: keras.Model, batch_size: int, *, precision: str, probe: np.ndarray
) -> Engine:
    """Make an engine and check what it gives.

    Parameters
    ----------
    name : {"keras", "openvino", "onnx"}
    graph : keras.Model
        From inputs to float32 embeddings, in one tensor.
    batch_size : int
    precision : str
    probe : ndarray of shape (n, ...)
        Some inputs; two of them are tried.

    Raises
    ------
    EngineError
        The graph cannot be converted, or gives other embeddings than Keras does.
    """
    from featx.engines.precision import in_precision
    from featx.engines.rewriting import rewritten

    if name == "keras":
        graph = rewritten(in_precision(graph, precision))
        return KerasEngine(graph, batch_size, precision=precision)
    graph = rewritten(graph)
    try:
        engine = ENGINES[name](graph, batch_size, precision=precision)
        outputs = engine.run(probe[:2])
    except Exception as exc:
        raise EngineError(f"{name} cannot run this network: {exc}") from exc
    difference = _difference(outputs, np.asarray(graph(probe[:2], training=False)))
    if not difference <= _TOLERANCES[precision]:
        raise EngineError(
            f"{name} gives embeddings that differ from Keras' by {difference:.1g} of their length"
        )
    return engine


def _difference(rows: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of two rows, relative to their length."""
    length = np.linalg.norm(expected.astype(np.float64), axis=-1)
    difference = np.linalg.norm(rows.astype(np.float64) - expected, axis=-1)
    return float(np.max(difference / np.maximum(length, np.finfo(np.float32).tiny)))
