"""``converted_graph``, ``engine_from``: graphs as bytes, from which engines start without Keras.

The bytes begin with the rows that Keras computed for two reference inputs. An engine that starts
from them must compute the same rows; so must an engine that is converted in this process.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from featx.engines.base import ConvertedEngine
from featx.engines.devices import note_stored_graph
from featx.engines.keras_engine import KerasEngine
from featx.engines.registry import CONVERTED, check_engine_rows
from featx.engines.runner import is_out_of_memory
from featx.exceptions import EngineError
from featx.inputs.kinds import kind_of

_N_REFERENCES = 2
_WEYL = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: multiples of it are spread evenly


@functools.cache
def engine_version(name: str) -> str | None:
    """Return the version of the package that runs stored graphs; None if it is not installed."""
    package = CONVERTED[name].package
    return version(package) if importlib.util.find_spec(package) else None


def reference_inputs(shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return two inputs of a backbone, (2, *shape): noise, and a ramp.

    They are computed with integers only, so that every version of NumPy gives the same.

    Examples
    --------
    >>> reference_inputs((2, 1, 3), "uint8").reshape(2, 6)
    array([[  0, 158,  60, 218, 120,  23],
           [  0,  42,  85, 128, 170, 213]], dtype=uint8)
    """
    places = np.arange(np.prod(shape, dtype=int), dtype=np.uint64)
    noise = places * np.uint64(_WEYL) >> np.uint64(56)
    ramp = places * np.uint64(256) // np.uint64(max(1, len(places)))
    pixels = np.stack([noise, ramp]).reshape(_N_REFERENCES, *shape)
    if not kind_of(shape).is_resized:
        return (pixels.astype(np.float32) / 128 - 1).astype(dtype)
    return pixels.astype(dtype)


def converted_graph(
    name: str,
    engine: KerasEngine,
    inputs: np.ndarray,
    widths: Sequence[int],
    converted: ConvertedEngine | None = None,
) -> bytes:
    """Convert the graph that Keras runs, in float32, and return it with its reference rows.

    `inputs` are the reference inputs, and `widths` the numbers of features of all layers.
    `converted` is the converted engine, if there is one. Raise EngineError if the graph cannot be
    converted, or if its rows differ from those of Keras.
    """
    expected = engine.resized(len(inputs)).run(inputs)
    if not np.isfinite(expected).all():
        raise EngineError("the reference rows are not finite")
    try:
        converted = converted or CONVERTED[name](engine.model, len(inputs))
        rows = _rows_of(converted, inputs)
        graph = converted.graph_bytes()
    except Exception as exc:  # of any type that the converters raise
        raise EngineError(f"{name} cannot run this network: {exc}") from exc
    check_engine_rows(name, rows, expected, widths)
    return expected.tobytes() + graph


def engine_from(
    name: str,
    stored: bytes | memoryview,
    inputs: np.ndarray,
    *,
    batch_size: int,
    widths: Sequence[int],
) -> ConvertedEngine:
    """Return an engine for the bytes of :func:`converted_graph`, once it computes the same rows.

    Raise EngineError if it cannot run the graph, or if its rows differ.
    """
    n_bytes = len(inputs) * sum(widths) * np.dtype(np.float32).itemsize
    note_stored_graph()
    try:
        expected = np.frombuffer(stored[:n_bytes], np.float32).reshape(len(inputs), -1)
        engine = CONVERTED[name].restored(stored[n_bytes:], batch_size)
        rows = _rows_of(engine, inputs)
    except Exception as exc:  # of any type that the libraries raise
        if is_out_of_memory(exc):
            raise
        raise EngineError(f"{name} cannot run a stored graph: {exc}") from exc
    check_engine_rows(name, rows, expected, widths)
    return engine


def _rows_of(engine: ConvertedEngine, inputs: np.ndarray) -> np.ndarray:
    size = engine.batch_size
    batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    return np.concatenate([engine.run(batch) for batch in batches])
