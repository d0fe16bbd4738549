"""Embeddings on several GPUs: a process for each, whose rows the cache brings together.

A process that starts with one GPU in sight computes on that one, whatever the backend of Keras is.
Samples are handed out in parts, so that a faster GPU gets more of them, and each process stores
what it embeds, so that a run that is interrupted goes on where it was.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from numbers import Integral
from typing import Any, NamedTuple

import joblib
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor
from sklearn.base import clone
from sklearn.utils import Bunch

from featx._validation import ParameterFaults
from featx._warning import warn_caller
from featx.engines.devices import has_accelerator
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    EngineWarning,
    NotCachedWarning,
    SampleFault,
)
from featx.extractor import FeatureExtractor
from featx.progress import progress_bar
from featx.samples.base import Samples
from featx.samples.inputs import as_samples

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SAMPLES_AT_ONCE = 16384  # some seconds of a GPU
_BYTES_AT_ONCE = 2**28  # of arrays, which are sent to the processes
_PARTS_OF_EACH = 4  # at least, of each GPU, so that none waits long for the others
_QUEUED = 2  # parts: one is worked on, one follows


def embed_on_gpus(extractor: FeatureExtractor, X: Any, gpus: int | Sequence[int]) -> Bunch:
    """Store the embeddings of samples, computed on several GPUs at once.

    Each GPU has a process of its own, which embeds parts of the samples; all of them store into the
    cache of the extractor, whose `fit_transform` and `transform` then find every row. Call it
    before anything else uses a GPU in this process: TensorFlow and JAX take most of the memory of
    each that they see. Copies of one image in different parts may be embedded once in each.

    Parameters
    ----------
    extractor : FeatureExtractor
        With a cache. It is not changed, and need not be fitted. Its `n_jobs` are the threads of one
        process; None shares the cores.
    X : samples
        As for :meth:`FeatureExtractor.transform`.
    gpus : int or sequence of int
        How many GPUs, or the numbers of those to use, as CUDA counts them. Where
        ``CUDA_VISIBLE_DEVICES`` is set, numbers count among those that it lists.

    Returns
    -------
    Bunch
        n_samples, n_unread, n_hits, n_forward : int
            As in the `report_` of an extractor.
        n_forward_of : dict of int to int
            The forward passes of each GPU.
        seconds : float

    Raises
    ------
    ParameterError
        The extractor has no cache, or `gpus` are no GPUs; all faults are listed.
    BadSampleError
        Samples cannot be read, and `on_error` is ``"raise"``. Parts that are under way are finished
        first, and what was embedded is stored.
    BackboneError
        What the network computes cannot be identified, and so not be cached.

    Warns
    -----
    EngineWarning
        Keras found no GPU in a process, which ran on the CPU.

    Notes
    -----
    A script needs no ``if __name__ == "__main__"``, but a network that is passed as an object is
    built again in each process.

    Examples
    --------
    >>> from featx import FeatureExtractor, embed_on_gpus, load_image_folder
    >>> paths = load_image_folder("photos").data  # doctest: +SKIP
    >>> extractor = FeatureExtractor("resnet50")
    >>> report = embed_on_gpus(extractor, paths, gpus=4)  # doctest: +SKIP
    >>> embeddings = extractor.fit_transform(paths)  # doctest: +SKIP
    """
    devices = _checked_devices(extractor, gpus)
    samples = as_samples(X)
    worker = clone(extractor).set_params(verbose=0)
    worker.array_shape_ = samples.array_shape  # of all samples, which may not be that of a part
    if worker.n_jobs is None:
        worker.n_jobs = max(1, joblib.cpu_count() // len(devices))
    report = Bunch(n_samples=len(samples), n_unread=0, n_hits=0, n_forward=0)
    report.n_forward_of = dict.fromkeys(devices, 0)
    faults: list[SampleFault] = []
    n_unseen = 0
    without: set[int] = set()
    start_s = time.perf_counter()
    parts = _parts_of(samples, len(devices))
    with progress_bar("embedding", total=len(samples), verbose=extractor.verbose) as advance:
        for gpu, part, done in _run(worker, samples, parts, devices):
            report.n_unread += done.n_unread
            report.n_hits += done.n_hits
            report.n_forward += done.n_forward
            report.n_forward_of[gpu] += done.n_forward
            if not done.has_gpu:
                without.add(gpu)
            if done.error:
                faults += (
                    one._replace(position=part.start + one.position) for one in done.error.faults
                )
                n_unseen += done.error.n_unseen + sum(map(len, parts))
                parts.clear()
            advance(len(part))
    if faults:
        raise BadSampleError(faults, len(samples), n_unseen)
    if without:
        numbers = " and ".join(map(str, sorted(without)))
        warn_caller(EngineWarning(f"Keras found no GPU {numbers}: what was for it ran on the CPU"))
    report.seconds = time.perf_counter() - start_s
    return report


def _checked_devices(extractor: Any, gpus: Any) -> dict[int, str]:
    """Return what CUDA_VISIBLE_DEVICES is to be for each GPU, by its number."""
    faults = ParameterFaults("embed_on_gpus")
    if not isinstance(extractor, FeatureExtractor):
        faults.add("extractor", extractor, "a FeatureExtractor.")
    else:
        faults.check_part(extractor.check_params, prefix="extractor.")
        if extractor.cache is None:
            faults.add("extractor.cache", None, "a cache, where the processes store embeddings.")
    visible = os.environ.get(_VISIBLE)
    names = None if visible is None else [name for name in visible.split(",") if name]
    numbers = range(int(gpus)) if isinstance(gpus, Integral) else gpus
    is_list = isinstance(numbers, (Sequence, np.ndarray)) and not isinstance(numbers, str)
    if isinstance(gpus, bool) or not is_list or not all(map(_is_number, numbers)):
        faults.add("gpus", gpus, "how many GPUs, or a list of their numbers.")
    elif not len(numbers) or len(set(numbers)) < len(numbers):
        faults.add("gpus", gpus, "one GPU or more, and each once.")
    elif names is not None and max(numbers) >= len(names):
        faults.add("gpus", gpus, f"GPUs that {_VISIBLE}={visible!r} lists.")
    faults.raise_any()
    return {int(number): names[number] if names else str(number) for number in numbers}


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _parts_of(samples: Samples, n_gpus: int) -> deque[range]:
    """Divide samples into parts that follow one another."""
    size = min(_SAMPLES_AT_ONCE, math.ceil(len(samples) / (n_gpus * _PARTS_OF_EACH)))
    if samples.array_shape is not None:
        n_bytes = math.prod(samples.array_shape) * np.dtype(np.float32).itemsize
        size = min(size, max(1, _BYTES_AT_ONCE // n_bytes))
    starts = range(0, len(samples), size)
    return deque(range(start, min(start + size, len(samples))) for start in starts)


class _Done(NamedTuple):
    """What a process did with a part.

    Attributes
    ----------
    n_unread, n_hits, n_forward : int
    has_gpu : bool
        Whether the network, if it ran, ran on one.
    error : BadSampleError or None
        What is wrong with samples of it, their positions counted from its own start.
    """

    n_unread: int
    n_hits: int
    n_forward: int
    has_gpu: bool
    error: BadSampleError | None = None


def _run(
    worker: FeatureExtractor, samples: Samples, parts: deque[range], devices: dict[int, str]
) -> Iterator[tuple[int, range, _Done]]:
    """Have parts embedded, each by the process that is free first, until there are none."""
    pending: dict[Future[_Done], tuple[int, range]] = {}
    executors = {
        gpu: ProcessPoolExecutor(1, env={_VISIBLE: name}, initializer=_begin, initargs=(worker,))
        for gpu, name in devices.items()
    }

    def hand_out(gpu: int) -> None:
        if parts:
            part = parts.popleft()
            items = samples.take(np.arange(part.start, part.stop))
            pending[executors[gpu].submit(_embed, items)] = gpu, part

    try:
        for gpu in [*devices] * _QUEUED:
            hand_out(gpu)
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                gpu, part = pending.pop(future)
                yield gpu, part, future.result()
                hand_out(gpu)
    finally:
        for executor in executors.values():  # Ctrl-C need not wait: what is stored is whole
            executor.shutdown(kill_workers=bool(pending))


_worker: FeatureExtractor  # of this process, whose network is built once


def _begin(worker: FeatureExtractor) -> None:
    global _worker
    _worker = worker


def _embed(items: Any) -> _Done:
    """Store the embeddings of some samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCachedWarning)
        try:
            _worker.transform(items)
        except NotCachedWarning as exc:
            raise BackboneError(f"the processes cannot share what they embed: {exc}") from exc
        except BadSampleError as exc:
            return _Done(0, 0, 0, has_gpu=True, error=exc)
    report = _worker.report_
    has_gpu = not report.n_forward or has_accelerator()
    return _Done(report.n_unread, report.n_hits, report.n_forward, has_gpu)
