"""Engines of a backbone, which are kept for the next pass, and the runner of a pass."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from featx.backbones.backbone import embedding_graph
from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.engines.base import Engine
from featx.engines.compile import check_is_eager
from featx.engines.devices import check_can_run, check_device, device_name, has_accelerator
from featx.engines.registry import faster_engine, make_engine
from featx.engines.runner import LARGEST_BATCH, Runner, RunnerOptions, batch_size_for
from featx.exceptions import EngineError

_MAX_ENGINES = 8


class _Kept(NamedTuple):
    """An engine, None if it is not available, and the model whose id is part of the key."""

    engine: Engine | None
    model: Any


_ENGINES: OrderedDict[Hashable, _Kept] = OrderedDict()
_lock = threading.RLock()


def make_runner(
    sources: Sequence[EmbeddingSource],
    *,
    n_samples: int,
    engine: str,
    batch_size: int | str,
    cache: EmbeddingCache | None,
) -> Runner:
    """Return the runner of a pass, whose outputs are the embeddings of all sources side by side.

    The sources are layers and poolings of one backbone, which is built now. `n_samples` go through
    it, and `cache` remembers batch sizes. Raise WeightsError, BackboneError or EngineError if the
    backbone is not available, or not in this precision on this device.
    """
    check_can_run()
    check_is_eager()
    engines = _Engines(sources)
    check_device(engines.precision)
    faster = faster_engine(engines.precision) if engine == "auto" else None
    if faster and engines.is_known_to_fail(faster):
        faster = None
    # Engines round 16 bits differently, so one engine computes all rows of such a pass.
    starts_with_faster = faster is not None and engines.precision != "float32"
    fact_key = {
        "batch size of": [source.space.digest for source in sources],
        "engine": engine,
        "device": device_name(),
    }
    known = cache.facts.recall(fact_key) if cache and batch_size == "auto" else None
    if not (type(known) is int and 0 < known <= LARGEST_BATCH):
        known = None
    if not isinstance(batch_size, str):
        size = int(batch_size)
    else:
        size = known or batch_size_for(sources[0].input_shape, on_accelerator=has_accelerator())
    options = RunnerOptions(
        engine=faster if starts_with_faster and faster else "keras" if engine == "auto" else engine,
        faster=None if starts_with_faster else faster,
        # A few samples are not worth a large batch, most of which would be padding.
        batch_size=min(size, 1 << (n_samples - 1).bit_length()),
        is_fixed=batch_size != "auto" or known is not None,
    )

    def remember(found: int) -> None:
        if cache:
            # Without it, the next pass searches again.
            with contextlib.suppress(OSError):
                cache.facts.remember(fact_key, found)

    return Runner(engines.get, options, on_batch_size=remember)


class _Engines:
    """Engines for some layers of a backbone."""

    def __init__(self, sources: Sequence[EmbeddingSource]) -> None:
        self._sources = sources
        self._backbones = [source.load_backbone() for source in sources]
        self.precision = self._backbones[0].spec.precision

    def get(self, name: str, probe: np.ndarray, batch_size: int) -> Engine:
        """Return an engine for inputs like `probe`, and keep it for the next pass."""
        key = self._key(name, probe.dtype.name)
        with _lock:
            kept = _ENGINES.get(key)
        if kept and kept.engine:
            return kept.engine
        widths = [source.space.n_features for source in self._sources]
        options: dict[str, Any] = {"precision": self.precision, "probe": probe, "widths": widths}
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

    def is_known_to_fail(self, name: str) -> bool:
        """Return True if an engine was tried before and cannot run this network."""
        with _lock:
            return self._key(name) in _ENGINES

    def _key(self, name: str, dtype: str | None = None) -> Hashable:
        # The digest of the space covers the weights: a model that was changed in place gets another
        # engine. The id is needed because engines read the weights of this very graph, and those
        # of an equal graph may change.
        spaces = tuple(source.space.digest for source in self._sources)
        return (name, dtype, self.precision, spaces, id(self._backbones[0].truncated_model))

    def _keep(self, key: Hashable, engine: Engine | None) -> None:
        if not all(source.is_cacheable for source in self._sources):
            return  # the digest of its space differs each time
        with _lock:
            _ENGINES[key] = _Kept(engine, self._backbones[0].truncated_model)
            _ENGINES.move_to_end(key)
            while len(_ENGINES) > _MAX_ENGINES:
                _ENGINES.popitem(last=False)
