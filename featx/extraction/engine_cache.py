"""PassEngines: the engines of a backbone, kept for the next pass, and the runner of a pass."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from featx.backbones.backbone import Backbone, embedding_graph
from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.engines.base import ConvertedEngine, Engine
from featx.engines.compile import check_is_eager
from featx.engines.devices import check_can_run, check_device, device_name, may_have_accelerator
from featx.engines.graph_bytes import reference_inputs
from featx.engines.registry import CONVERTED, faster_engine, make_engine
from featx.engines.runner import LARGEST_BATCH, Runner, RunnerOptions, batch_size_for
from featx.exceptions import EngineError
from featx.extraction.source_graphs import SourceGraphs

if TYPE_CHECKING:
    from featx.engines.keras_engine import KerasEngine


_MAX_ENGINES = 8


class _EngineKey(NamedTuple):
    """What an engine runs.

    The digests of the spaces cover the weights: a model that was changed in place gets another
    engine. `model_id` is needed because engines read the weights of this very graph, and those of
    an equal graph may change; it is None for an engine from a stored graph.
    """

    name: str
    dtype: str | None  # of the inputs; None for an engine that cannot run the network
    spaces: tuple[str, ...]
    model_id: int | None


class _KeptEngine(NamedTuple):
    """An engine, None if it is not available, and the model whose id is part of the key."""

    engine: Engine | None
    model: Any


_ENGINES: OrderedDict[_EngineKey, _KeptEngine] = OrderedDict()
_lock = threading.RLock()


class PassEngines:
    """Engines for the layers of a pass, whose embeddings are side by side in their outputs.

    The sources are layers and poolings of one backbone, `engine` is that of
    :class:`FeatureExtractor`, and `cache` remembers batch sizes and converted graphs.
    """

    def __init__(
        self, sources: Sequence[EmbeddingSource], engine: str, cache: EmbeddingCache | None
    ) -> None:
        self._sources, self._engine, self._cache = sources, engine, cache
        self._spaces = tuple(source.space.digest for source in sources)
        self._graphs = SourceGraphs(sources, engine, cache)
        self._dtypes: set[str] = set()  # of the inputs of engines that were made in this pass

    def runner(self, n_samples: int, batch_size: int | str) -> Runner:
        """Return the runner of a pass of `n_samples`.

        The backbone is built now, unless a stored graph can take its place. Raise WeightsError,
        BackboneError or EngineError if it is not available, or not in this precision on this
        device.
        """
        check_can_run()
        check_is_eager()
        if self._graphs.is_any() and not self._is_built():
            # The first eighth is computed while others are decoded, and takes little memory.
            return self._runner(self._engine, None, batch_size, n_at_once=math.ceil(n_samples / 8))
        check_device(self._precision)
        name = "keras" if self._engine == "auto" else self._engine
        faster = faster_engine(self._precision) if self._engine == "auto" else None
        if faster and self._is_known_to_fail(faster):
            faster = None
        # Engines round 16 bits differently, so one engine computes all rows of such a pass.
        if faster and self._precision != "float32":
            name, faster = faster, None
        # A few samples are not worth a large batch, most of which would be padding.
        return self._runner(name, faster, batch_size, n_at_once=n_samples)

    def store_graphs(self) -> None:
        """Store what Keras ran as converted graphs, from which a later process starts.

        Nothing is stored if no other engine is installed, or can run this network.
        """
        for dtype in sorted(self._dtypes):
            name = self._engine
            if name == "auto":
                name = faster_engine(self._precision) or ""
            key = self._graphs.missing(name, dtype) if name in CONVERTED else None
            if key is not None:
                inputs = reference_inputs(self._sources[0].input_shape, dtype)
                by_keras = cast("KerasEngine", self._made("keras", inputs, len(inputs)))
                with _lock:
                    kept = _ENGINES.get(self._key(name, dtype))
                converted = cast("ConvertedEngine | None", kept.engine) if kept else None
                self._graphs.store(key, by_keras, converted)

    def _runner(
        self, name: str, faster: str | None, batch_size: int | str, *, n_at_once: int
    ) -> Runner:
        """Return a runner with the batch size that was passed, is known, or is to be found."""
        cache = self._cache
        fact_key = {
            "batch size of": list(self._spaces),
            "engine": self._engine,
            "device": device_name(),
        }
        known = cache.facts.recall(fact_key) if cache and batch_size == "auto" else None
        if not (type(known) is int and 0 < known <= LARGEST_BATCH):
            known = None
        if not isinstance(batch_size, str):
            size = int(batch_size)
        else:
            shape = self._sources[0].input_shape
            size = known or batch_size_for(shape, on_accelerator=may_have_accelerator())
        options = RunnerOptions(
            engine=name,
            faster=faster,
            batch_size=min(size, 1 << (n_at_once - 1).bit_length()),
            is_fixed=batch_size != "auto" or known is not None,
        )

        def remember(found: int) -> None:
            if cache:
                # Without it, the next pass searches again.
                with contextlib.suppress(OSError):
                    cache.facts.remember(fact_key, found)

        return Runner(self._get, options, on_batch_size=remember)

    def _get(self, name: str, probe: np.ndarray, batch_size: int) -> Engine:
        """Return an engine for inputs like `probe`, and keep it for the next pass.

        "auto" is an engine from a stored graph, or Keras if there is none.
        """
        dtype = probe.dtype.name
        return self._from_graph(name, dtype, batch_size) or self._made(
            "keras" if name == "auto" else name, probe, batch_size
        )

    def _from_graph(self, name: str, dtype: str, batch_size: int) -> Engine | None:
        """Return an engine from a stored graph; None if there is no such graph."""
        for each in CONVERTED if name == "auto" else {name} & CONVERTED.keys():
            key = _EngineKey(each, dtype, self._spaces, None)
            with _lock:
                kept = _ENGINES.get(key)
            engine = kept.engine if kept else self._graphs.load(each, dtype, batch_size)
            if engine:
                self._keep(key, engine)
                return engine
        return None

    def _made(self, name: str, probe: np.ndarray, batch_size: int) -> Engine:
        """Return an engine that is made from the backbone, or was."""
        key = self._key(name, probe.dtype.name)
        self._dtypes.add(probe.dtype.name)
        with _lock:
            kept = _ENGINES.get(key)
        if kept and kept.engine:
            return kept.engine
        widths = [source.space.n_features for source in self._sources]
        options: dict[str, Any] = {"precision": self._precision, "probe": probe, "widths": widths}
        try:
            with self._backbones[0].settings.applied():
                graph = embedding_graph(self._backbones, probe.dtype.name)
                engine = make_engine(name, graph, batch_size, **options)
        except EngineError:
            self._keep(key, None)
            self._keep(self._key(name), None)
            raise
        self._keep(key, engine)
        return engine

    @cached_property
    def _backbones(self) -> list[Backbone]:
        return [source.load_backbone() for source in self._sources]

    @property
    def _precision(self) -> str:
        return self._backbones[0].spec.precision

    def _is_built(self) -> bool:
        """Return True if this process made an engine from the backbone, which starts faster."""
        with _lock:
            return any(key.spaces == self._spaces and key.model_id for key in _ENGINES)

    def _is_known_to_fail(self, name: str) -> bool:
        """Return True if an engine was tried before and cannot run this network."""
        with _lock:
            return self._key(name) in _ENGINES

    def _key(self, name: str, dtype: str | None = None) -> _EngineKey:
        return _EngineKey(name, dtype, self._spaces, id(self._backbones[0].truncated_model))

    def _keep(self, key: _EngineKey, engine: Engine | None) -> None:
        if not all(source.is_cacheable for source in self._sources):
            return  # the digest of its space differs each time
        model = None if key.model_id is None else self._backbones[0].truncated_model
        with _lock:
            _ENGINES[key] = _KeptEngine(engine, model)
            _ENGINES.move_to_end(key)
            while len(_ENGINES) > _MAX_ENGINES:
                _ENGINES.popitem(last=False)
