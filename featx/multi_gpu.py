"""Embeddings on several GPUs: a process for each, whose rows the cache brings together.

A process that starts with one GPU in sight computes on that one, whatever the backend of Keras is.
Samples are handed out in parts, so that a faster GPU gets more of them, and each process stores
what it embeds, so that a run that is interrupted goes on where it was.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from numbers import Integral
from typing import Any, NamedTuple

import joblib
import numpy as np
from joblib.externals.loky.backend import get_context
from PIL import Image
from sklearn.base import clone
from sklearn.utils import Bunch

from featx._progress import progress_bar
from featx._validation import ParameterFaults
from featx._warning import warn_caller
from featx.engines.devices import has_accelerator
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    BadSampleWarning,
    CacheWriteWarning,
    EngineError,
    EngineWarning,
    InputError,
    NotCachedWarning,
    SampleFault,
    UnstableBackboneWarning,
)
from featx.extractor import FeatureExtractor
from featx.inputs.recognize import as_samples
from featx.inputs.samples import Samples

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SAMPLES_AT_ONCE = 16384  # some seconds of a GPU
_BYTES_AT_ONCE = 2**28  # of what is no path, and is sent to the processes
_PARTS_OF_EACH = 4  # at least, of each GPU, so that none waits long for the others
_NOT_SHARED = (NotCachedWarning, UnstableBackboneWarning, CacheWriteWarning)


def embed_on_gpus(extractor: FeatureExtractor, X: Any, *, gpus: int | Sequence[int]) -> Bunch:
    """Store the embeddings of samples, computed on several GPUs at once.

    Each GPU has a process of its own, which embeds parts of the samples; all of them store into the
    cache of the extractor, whose `fit_transform` and `transform` then find every row. Call it
    before anything else uses a GPU in this process: TensorFlow and JAX take most of the memory of
    each that they see.

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

    Raises
    ------
    ParameterError
        The extractor has no cache, or `gpus` are no GPUs; all faults are listed.
    BadSampleError
        Samples cannot be read, and `on_error` is ``"raise"``. Parts that are under way are finished
        first, and what was embedded is stored.
    BackboneError
        The processes cannot share what they embed: the network cannot be identified, is another in
        each of them, or the cache cannot be written.
    EngineError
        A process ended by itself; what was embedded is stored.

    Warns
    -----
    EngineWarning
        Keras found no GPU in a process, which runs on the CPU.

    Notes
    -----
    A script needs no ``if __name__ == "__main__"``. Pass a network of your own as the path of a
    ``.keras`` file, or as a callable that gives its initialisers a seed: one that was built here
    has taken memory of a GPU already.

    Copies of one image in two parts may be embedded twice.

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
    worker.float_range_ = _float_range(extractor, samples)  # likewise
    if worker.n_jobs is None:
        worker.n_jobs = max(1, joblib.cpu_count() // len(devices))
    gathered = _Gathered(dict.fromkeys(devices, 0))
    parts = _parts_of(samples, len(devices))
    with (
        progress_bar("embedding", total=len(samples), verbose=extractor.verbose) as advance,
        contextlib.closing(_run(worker, samples, parts, devices)) as run,
    ):
        for gpu, part, done in run:
            gathered.add(gpu, part, done)
            if done.error:  # nothing more is begun
                gathered.n_unseen += sum(map(len, parts))
                parts.clear()
            advance(len(part))
    if gathered.faults:
        raise BadSampleError(gathered.faults, len(samples), gathered.n_unseen)
    return Bunch(
        n_samples=len(samples),
        n_unread=gathered.n_unread,
        n_hits=gathered.n_hits,
        n_forward=sum(gathered.n_forward_of.values()),
        n_forward_of=gathered.n_forward_of,
    )


def _float_range(extractor: FeatureExtractor, samples: Samples) -> tuple[float, float] | None:
    """Return the range of floating-point pixels; None leaves the check to the processes."""
    learned = getattr(extractor, "float_range_", None)
    if learned is None:
        # Only the processes know whether the network takes pixels at all.
        with contextlib.suppress(InputError):
            return samples.float_range()
    return learned


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
    is_list = isinstance(gpus, (Sequence, np.ndarray)) and np.ndim(gpus) == 1
    numbers = [*gpus] if is_list else range(int(gpus)) if _is_number(gpus) else None
    if numbers is None or not all(map(_is_number, numbers)):
        faults.add("gpus", gpus, "how many GPUs, or a list of their numbers.")
    elif not numbers or len(set(numbers)) < len(numbers):
        faults.add("gpus", gpus, "one GPU or more, and each once.")
    elif names is not None and max(numbers) >= len(names):
        faults.add("gpus", gpus, f"GPUs that {_VISIBLE}={visible!r} lists.")
    faults.raise_any()
    return {int(number): names[number] if names else str(number) for number in numbers or ()}


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _parts_of(samples: Samples, n_gpus: int) -> deque[range]:
    """Divide samples into parts that follow one another."""
    size = min(_SAMPLES_AT_ONCE, math.ceil(len(samples) / (n_gpus * _PARTS_OF_EACH)))
    size = min(size, max(1, _BYTES_AT_ONCE // max(1, _bytes_of_one(samples))))
    starts = range(0, len(samples), size)
    return deque(range(start, min(start + size, len(samples))) for start in starts)


def _bytes_of_one(samples: Samples) -> int:
    """Return about how many bytes are sent to a process for a sample: for a path, next to none."""
    if samples.array_shape is not None:
        return math.prod(samples.array_shape) * np.dtype(np.float32).itemsize
    rows = np.unique(np.linspace(0, len(samples) - 1, 32).astype(np.int64))
    return max(map(_bytes_of, samples.take(rows)))


def _bytes_of(item: Any) -> int:
    if isinstance(item, (bytes, bytearray)):
        return len(item)
    if isinstance(item, Image.Image):
        return 4 * item.width * item.height
    return int(getattr(item, "nbytes", 0))


class _Done(NamedTuple):
    """What a process did with a part.

    Attributes
    ----------
    space : str
        The digest of what it computes.
    has_gpu : bool or None
        Whether the network ran on one; None if it did not run.
    n_unread, n_hits, n_forward : int
    error : BadSampleError or None
        What is wrong with samples of the part, their positions counted from its start.
    """

    space: str
    has_gpu: bool | None = None
    n_unread: int = 0
    n_hits: int = 0
    n_forward: int = 0
    error: BadSampleError | None = None


@dataclass
class _Gathered:
    """What all processes did so far."""

    n_forward_of: dict[int, int]
    n_unread: int = 0
    n_hits: int = 0
    n_unseen: int = 0
    faults: list[SampleFault] = field(default_factory=list)
    spaces: set[str] = field(default_factory=set)
    without_gpu: set[int] = field(default_factory=set)

    def add(self, gpu: int, part: range, done: _Done) -> None:
        """Add a part."""
        self.spaces.add(done.space)
        if len(self.spaces) > 1:
            raise BackboneError(
                "the network is another in each process, which cannot share what they embed: pass "
                "the path of a .keras file, or a callable that gives its initialisers a seed"
            )
        if done.has_gpu is False and gpu not in self.without_gpu:
            self.without_gpu.add(gpu)
            warn_caller(EngineWarning(f"Keras finds no GPU {gpu}: its process runs on the CPU"))
        self.n_unread += done.n_unread
        self.n_hits += done.n_hits
        self.n_forward_of[gpu] += done.n_forward
        if done.error:
            self.n_unseen += done.error.n_unseen
            self.faults += [
                fault._replace(position=part.start + fault.position) for fault in done.error.faults
            ]


def _run(
    worker: FeatureExtractor, samples: Samples, parts: deque[range], devices: dict[int, str]
) -> Generator[tuple[int, range, _Done]]:
    """Have parts embedded, each by the process that is free first, until there are none."""
    context = get_context("loky")  # whose processes do not run the script of their parent again
    processes = {}
    under_way: dict[Connection, range] = {}

    def hand_out(connection: Connection) -> None:
        if parts:
            under_way[connection] = part = parts.popleft()
            with contextlib.suppress(BrokenPipeError):  # which is met when it is waited for
                connection.send(samples.take(np.arange(part.start, part.stop)))

    try:
        for name in devices.values():
            mine, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, worker), env={_VISIBLE: name})
            process.start()
            theirs.close()
            processes[mine] = process
        gpu_of = dict(zip(processes, devices, strict=True))
        for connection in processes:  # once all are starting: the first waits for its process
            hand_out(connection)
        while under_way:
            ready = wait(list(under_way))
            for connection in [one for one in under_way if one in ready]:
                gpu, part = gpu_of[connection], under_way.pop(connection)
                yield gpu, part, _answer(connection, gpu, part)
                hand_out(connection)
    finally:
        for connection, process in processes.items():
            if connection in under_way:  # Ctrl-C need not wait: what is stored is whole
                process.terminate()
            connection.close()
        for process in processes.values():
            process.join()


def _answer(connection: Connection, gpu: int, part: range) -> _Done:
    """Receive what a process did; raise what it met."""
    try:
        answer = connection.recv()
    except (EOFError, ConnectionError) as exc:
        raise EngineError(
            f"the process of GPU {gpu} ended while it embedded samples {part.start} to "
            f"{part.stop - 1}; perhaps memory ran out. What it stored is found the next time"
        ) from exc
    if isinstance(answer, Exception):
        raise answer
    return answer


def _work(connection: Connection, worker: FeatureExtractor) -> None:
    """Embed parts until there are no more, or until the parent is gone."""
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            connection.send(_embedded(worker, connection.recv()))


def _embedded(worker: FeatureExtractor, items: Any) -> _Done | Exception:
    """Store the embeddings of some samples; return what was done, or the error that was met."""
    error = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadSampleWarning)  # which would count from the part's start
        for category in _NOT_SHARED:
            warnings.simplefilter("error", category)
        try:
            worker.transform(items)
        except _NOT_SHARED as exc:
            return BackboneError(f"the processes cannot share what they embed: {exc}")
        except BadSampleError as exc:
            error = exc
        except Exception as exc:
            return exc
    space = worker.current_source().space.digest
    if error:
        return _Done(space, error=error)
    report = worker.report_
    has_gpu = has_accelerator() if report.n_forward else None
    return _Done(space, has_gpu, report.n_unread, report.n_hits, report.n_forward)
