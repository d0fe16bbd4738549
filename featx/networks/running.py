"""The engines of a backbone, kept for the next pass, and how a pass over it runs."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from featx.engines.base import Engine
from featx.engines.batch_sizes import batch_size_for
from featx.engines.choice import check_device, device_name, faster_engine, make_engine
from featx.engines.runner import Runner, RunnerOptions
from featx.networks.backbones import embedding_graph
from featx.networks.resolution import Resolved
from featx.storage.cache import EmbeddingCache

_MAX_ENGINES = 8

_ENGINES: OrderedDict[tuple[str, ...], Engine] = OrderedDict()


def make_runner(
    taps: Sequence[Resolved],
    *,
    engine: str,
    batch_size: int | str,
    cache: EmbeddingCache | None,
) -> Runner:
    """Prepare a pass.

    Parameters
    ----------
    taps : sequence of Resolved
        Layers and poolings of one backbone, which is built or loaded now.
    engine : {"auto", "keras", "openvino", "onnx"}
    batch_size : int or "auto"
    cache : EmbeddingCache or None
        Where batch sizes that were found are remembered.

    Raises
    ------
    WeightsError, BackboneError, EngineError
        The backbone cannot be had, or not in this precision on this device.
    """
    backbones = [tap.build() for tap in taps]
    precision = backbones[0].spec.precision
    check_device(precision)
    faster = faster_engine(precision) if engine == "auto" else None
    subject = _batch_size_subject(taps, engine)
    known = cache.notes.recall(subject) if cache and batch_size == "auto" else None
    options = RunnerOptions(
        engine="keras" if engine == "auto" else engine,
        faster=faster,
        batch_size=_first_batch_size(batch_size, known, taps[0].input_shape),
        is_fixed=batch_size != "auto" or known is not None,
    )

    def kept(name: str, probe: np.ndarray) -> Engine:
        # The spaces name the weights: a model that was changed in place gets another engine.
        key = (name, probe.dtype.name, precision, *(tap.space.digest for tap in taps))
        if key not in _ENGINES:
            graph = embedding_graph(backbones, probe.dtype.name)
            size = runner.batch_size
            _ENGINES[key] = make_engine(name, graph, size, precision=precision, probe=probe)
        _ENGINES.move_to_end(key)
        while len(_ENGINES) > _MAX_ENGINES:
            _ENGINES.popitem(last=False)
        return _ENGINES[key]

    def remember(found: int) -> None:
        if cache:
            # What cannot be remembered is found out once more.
            with contextlib.suppress(OSError):
                cache.notes.remember(subject, found)

    runner = Runner(kept, options, on_batch_size=remember)
    return runner


def _batch_size_subject(taps: Sequence[Resolved], engine: str) -> dict[str, Any]:
    spaces = [tap.space.digest for tap in taps]
    return {"batch size of": spaces, "engine": engine, "device": device_name()}


def _first_batch_size(asked: int | str, known: Any, input_shape: tuple[int, ...]) -> int:
    if not isinstance(asked, str):
        return int(asked)
    return known if isinstance(known, int) else batch_size_for(input_shape)
