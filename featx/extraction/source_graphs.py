"""SourceGraphs: stored graphs of the sources of a pass, with which it starts without Keras.

The first pass of a backbone over new samples stores the converted graph of its layers in the cache,
if another engine than Keras can run it. A later process that knows the space of the backbone from
its recipe then starts from this graph: TensorFlow and Keras are not imported, and nothing is built
or compiled by them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.cache.graph_store import MAX_GRAPH_BYTES, GraphKey, GraphStore
from featx.digests.keras_settings import STANDARD
from featx.engines.base import ConvertedEngine
from featx.engines.devices import fpmath_variables, may_have_accelerator
from featx.engines.graph_bytes import (
    converted_graph,
    engine_from,
    engine_version,
    reference_inputs,
)
from featx.engines.keras_engine import KerasEngine
from featx.engines.registry import CONVERTED
from featx.exceptions import EngineError

_DTYPES = ("uint8", "float32")  # of inputs


# Where this process stored each graph: a second cache gets a copy, without another conversion.
_STORED: dict[GraphKey, GraphStore] = {}


def _find_stored_graph(key: GraphKey) -> memoryview | None:
    return _STORED[key].find(key) if key in _STORED else None


class SourceGraphs:
    """Stored graphs of some layers of a backbone; none if they cannot be identified by a recipe.

    `engine` is that of :class:`FeatureExtractor`.
    """

    def __init__(
        self, sources: Sequence[EmbeddingSource], engine: str, cache: EmbeddingCache | None
    ) -> None:
        self._sources, self._engine = sources, engine
        self._spaces = tuple(source.space.digest for source in sources)
        is_possible = engine != "keras" and all(map(_graph_can_be_stored, sources))
        self._cache = cache if is_possible else None

    def is_any(self) -> bool:
        """Return True if a pass may start from a graph; whether it is sound shows on loading."""
        if self._cache is None or not self._can_start():
            return False
        engines = CONVERTED if self._engine == "auto" else (self._engine,)
        keys = (self._key(engine, dtype) for engine in engines for dtype in _DTYPES)
        return any(key is not None and self._cache.graphs.has(key) for key in keys)

    def load(self, engine: str, dtype: str, batch_size: int) -> ConvertedEngine | None:
        """Return an engine for inputs of a dtype; None if no sound graph is stored.

        Warns
        -----
        CacheDamageWarning
            The graph is damaged, or gives other rows than Keras gave; it is quarantined.
        """
        key = self._key(engine, dtype)
        if self._cache is None or key is None or not self._can_start():
            return None
        stored = self._cache.graphs.find(key)
        if stored is None:
            return None
        try:
            return engine_from(
                engine, stored, self._inputs(dtype), batch_size=batch_size, widths=self._widths
            )
        except EngineError as exc:
            self._cache.graphs.refuse(key, str(exc))
        return None

    def missing(self, engine: str, dtype: str) -> GraphKey | None:
        """Return the key of a graph that is not stored, and may be; None if there is none."""
        key = self._key(engine, dtype)
        if self._cache is None or key is None or self._cache.graphs.has(key):
            return None
        return key if self._cache.facts.recall(_conversion_failure_key(key)) is None else None

    def store(
        self, key: GraphKey, keras_engine: KerasEngine, converted: ConvertedEngine | None
    ) -> None:
        """Store the graph that Keras runs, if possible; it is converted if it is not yet."""
        if self._cache is None or 4 * keras_engine.model.count_params() > MAX_GRAPH_BYTES:
            return
        graphs = self._cache.graphs
        with contextlib.suppress(OSError):  # the next pass tries again
            try:
                graph = _find_stored_graph(key) or self._graph(key, keras_engine, converted)
                graphs.store(key, graph)
                _STORED[key] = graphs
            except EngineError as exc:
                self._cache.facts.remember(_conversion_failure_key(key), str(exc))

    def _graph(
        self, key: GraphKey, keras_engine: KerasEngine, converted: ConvertedEngine | None
    ) -> bytes:
        with STANDARD.applied():
            inputs = self._inputs(key.dtype)
            return converted_graph(key.engine, keras_engine, inputs, self._widths, converted)

    def _can_start(self) -> bool:
        if fpmath_variables():
            return False  # where float32 is computed in fewer bits, Keras refuses to run
        return self._engine != "auto" or not may_have_accelerator()

    def _key(self, engine: str, dtype: str) -> GraphKey | None:
        version = engine_version(engine)
        return GraphKey(self._spaces, engine, version, dtype) if version else None

    def _inputs(self, dtype: str) -> np.ndarray:
        return reference_inputs(self._sources[0].input_shape, dtype)

    @property
    def _widths(self) -> list[int]:
        return [source.space.n_features for source in self._sources]


def _graph_can_be_stored(source: EmbeddingSource) -> bool:
    # Engines round 16 bits differently, and each precision would need tolerances of its own.
    is_float32 = source.space.description.get("precision") == "float32"
    return source.is_cacheable and source.has_recipe and is_float32


def _conversion_failure_key(key: GraphKey) -> dict[str, object]:
    return {"failed conversion": key.to_json()}
