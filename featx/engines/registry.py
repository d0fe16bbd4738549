"""``make_engine``, ``faster_engine``: engines by name, their agreement with Keras; precisions.

Before another engine is used, its embeddings of two samples are compared with those of Keras.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engines.base import ConvertedEngine, Engine
from featx.engines.devices import has_accelerator
from featx.engines.keras_engine import KerasEngine
from featx.engines.onnx_engine import ONNXEngine
from featx.engines.openvino_engine import OpenVINOEngine
from featx.engines.runner import is_out_of_memory
from featx.exceptions import EngineError

if TYPE_CHECKING:
    import keras


# Engines whose graphs can be stored, the fastest first.
CONVERTED: dict[str, type[ConvertedEngine]] = {
    engine.name: engine for engine in (OpenVINOEngine, ONNXEngine)
}
ENGINES: dict[str, type[Engine]] = {KerasEngine.name: KerasEngine, **CONVERTED}
_POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_PACKAGES = {"openvino": ("openvino",), "onnx": ("onnxruntime", "tf2onnx")}
# Engines agree within 1e-4 in float32. 16-bit numbers have 8 (bfloat16) or 11 bits of precision.
# Rounding adds up, more on some images than on others: photographs through MobileNet 0.25 differ by
# 0.12 in the median and by up to 0.35. A faulty engine differs by about 1 on all images. So in 16
# bits only the closer of the two rows has to agree.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.25, "float16": 0.05}


def missing_packages(name: str) -> list[str]:
    """List the packages that an engine needs and that are not installed."""
    return [package for package in _PACKAGES.get(name, ()) if not importlib.util.find_spec(package)]


def faster_engine(precision: str) -> str | None:
    """Return the name of an installed engine that is faster than Keras on this device, if any.

    On a CPU that is OpenVINO; ONNX Runtime is not always faster than Keras' folded graph, and takes
    up to half a minute to convert (2026-11).
    """
    import keras

    if has_accelerator() or precision not in OpenVINOEngine.precisions:
        return None
    if keras.backend.backend() != "tensorflow":
        return None  # OpenVINO 2026.4 cannot read what Keras exports from JAX
    return None if missing_packages("openvino") else "openvino"


def make_engine(
    name: str,
    graph: keras.Model,
    batch_size: int,
    *,
    precision: str,
    probe: np.ndarray,
    widths: Sequence[int] | None = None,
) -> Engine:
    """Make an engine and check its embeddings.

    `graph` maps inputs to float32 embeddings (n, n_features), and is not changed. Two inputs of
    `probe` are compared, unless Keras runs the graph in float32. `widths` are the numbers of
    features of layers whose embeddings are side by side; None for one layer.

    Raise EngineError if the graph cannot be converted, or its embeddings differ from Keras'.
    """
    from featx.engines.fold import rewritten_for_inference

    try:
        plain = rewritten_for_inference(graph)
        if name == "keras" and precision in ("float32", "tf32"):
            return KerasEngine(plain, batch_size, precision=precision)
        ready = (
            rewritten_for_inference(in_precision(graph, precision)) if name == "keras" else plain
        )
        engine = ENGINES[name](ready, batch_size, precision=precision)
        # Compiled as one graph, since JAX would otherwise compile each operation by itself.
        expected = KerasEngine(plain, len(probe[:2])).run(probe[:2])
        rows = engine.run(probe[:2])
    except Exception as exc:
        if is_out_of_memory(exc):
            raise
        raise EngineError(f"{name} cannot run this network in {precision}: {exc}") from exc
    check_engine_rows(name, rows, expected, widths, precision=precision)
    return engine


def check_engine_rows(
    name: str,
    rows: np.ndarray,
    expected: np.ndarray,
    widths: Sequence[int] | None,
    *,
    precision: str = "float32",
) -> None:
    """Raise EngineError if the rows of an engine, (n, n_features), differ from Keras' rows.

    `widths` are the numbers of features of layers whose embeddings are side by side; None for one
    layer.
    """
    if rows.shape != expected.shape:
        raise EngineError(f"{name} gives rows of shape {rows.shape}: expected {expected.shape}")
    in_16_bits = precision in ("bfloat16", "float16")
    difference = _largest_row_difference(rows, expected, widths, of_closest=in_16_bits)
    if difference == np.inf:
        raise EngineError(
            f"{name} gives NaN or infinite values in {precision}, where Keras gives none in float32"
        )
    if not difference <= _TOLERANCES[precision]:
        raise EngineError(
            f"{name} gives embeddings in {precision} that differ from Keras' by {difference:.1g} "
            "of their length"
        )


def _largest_row_difference(
    rows: np.ndarray, expected: np.ndarray, widths: Sequence[int] | None, *, of_closest: bool
) -> float:
    """Return the largest difference of any layer, relative to the length of its rows.

    The difference of a layer is that of the farthest row, or of the closest nonzero one.
    """
    is_finite = np.isfinite(expected).all(axis=1)
    rows, expected = rows[is_finite], expected[is_finite]
    if not len(expected):
        return 0.0  # the network is faulty, not the engine; `check_finite` reports it
    if not np.isfinite(rows).all():
        return np.inf
    ends = np.cumsum(widths or [rows.shape[1]])[:-1]
    differences = []
    for part, right in zip(np.split(rows, ends, 1), np.split(expected, ends, 1), strict=True):
        length = np.linalg.norm(right.astype(np.float64), axis=1)
        difference = np.linalg.norm(part.astype(np.float64) - right, axis=1)
        difference /= np.maximum(length, np.finfo(np.float32).tiny)
        nonzero = difference[length > 0]
        differences.append(min(nonzero) if of_closest and len(nonzero) else max(difference))
    return float(max(differences))


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Return a functional model that computes in a precision; weights stay float32.

    It is the model itself for float32 and TensorFloat-32, else a copy.
    """
    policy = _POLICIES.get(precision)
    if policy is None:
        return model
    import keras

    def in_policy(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.Layer) and layer.dtype_policy.name == "float32":
            config["dtype"] = policy
        return type(layer).from_config(config)

    try:
        copy = keras.models.clone_model(model, clone_function=in_policy, recursive=True)
        copy.set_weights(model.get_weights())
        for layer in copy._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # else it would not use the new statistics
    except Exception as exc:
        raise EngineError(
            f"this network cannot be copied to compute in {precision}: {exc}"
        ) from exc
    return copy
