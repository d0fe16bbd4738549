"""``embed_on_gpus``: embedding with one process per GPU and one cache for all.

A process that starts with a single visible GPU computes on it with any backend of Keras. Samples
are sent in parts, so that a faster GPU gets more of them. Each process stores its embeddings, so
that an interrupted run continues where it stopped.
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
_SAMPLES_PER_PART = 16384  # some seconds of work for a GPU
_BYTES_PER_PART = 2**28  # of images and arrays; paths are small
_PARTS_PER_GPU = 4  # at least, so that no GPU is idle for long at the end
_NOT_SHARED = (NotCachedWarning, UnstableBackboneWarning, CacheWriteWarning)


def embed_on_gpus(extractor: FeatureExtractor, X: Any, *, gpus: int | Sequence[int]) -> Bunch:
    """Store the embeddings of samples, computed on several GPUs at once.

    One process per GPU embeds parts of the samples and stores them in the cache of the extractor,
    whose `fit_transform` and `transform` then find every row. Call this function before anything
    else uses a GPU in this process: TensorFlow and JAX reserve most of the memory of every visible
    GPU.

    Parameters
    ----------
    extractor : FeatureExtractor
        Extractor with a cache. It is not changed, and need not be fitted. Its `n_jobs` is the
        number of decoding threads per process; None divides the cores among the processes.
    X : samples
        Samples as for :meth:`FeatureExtractor.transform`.
    gpus : int or sequence of int
        Number of GPUs, or their indices, as CUDA counts them. If ``CUDA_VISIBLE_DEVICES`` is set,
        indices refer to the GPUs that it lists.

    Returns
    -------
    Bunch
        Counts: ``n_samples``, ``n_unread``, ``n_hits`` and ``n_forward``, as in the ``report_`` of
        a :class:`FeatureExtractor`; ``n_forward_of``, dict from the index of each GPU to the number
        of samples that went through the backbone on it.

    Raises
    ------
    ParameterError
        The extractor has no cache, or `gpus` does not select GPUs; all faults are listed.
    BadSampleError
        Samples cannot be read, and `on_error` is ``"raise"``. Pending parts are finished first, and
        finished embeddings are stored.
    BackboneError
        The processes cannot share embeddings: the network cannot be identified, differs between
        processes, or the cache cannot be written.
    EngineError
        A process ended unexpectedly; finished embeddings are stored.

    Warns
    -----
    EngineWarning
        Keras found no GPU in a process, which therefore runs on the CPU.

    See Also
    --------
    FeatureExtractor : Extractor that finds the stored embeddings.

    Notes
    -----
    A script needs no ``if __name__ == "__main__"``. Pass your own network as the path of a
    ``.keras`` file, or as a callable that seeds its initializers, since building a network in this
    process reserves memory of a GPU.

    Duplicates of an image in two parts may be embedded twice.

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
    # Determined from all samples, since those of a part may differ.
    worker.array_shape_ = samples.array_shape
    worker.float_range_ = _float_range(extractor, samples)
    if worker.n_jobs is None:
        worker.n_jobs = max(1, joblib.cpu_count() // len(devices))
    total = _TotalOfParts(dict.fromkeys(devices, 0))
    parts = _parts_of_samples(samples, len(devices))
    with (
        progress_bar("embedding", total=len(samples), verbose=extractor.verbose) as advance,
        contextlib.closing(_run_parts_on_gpus(worker, samples, parts, devices)) as run,
    ):
        for gpu, part, result in run:
            total.add(gpu, part, result)
            if result.error:  # `on_error` is "raise": the remaining parts are not sent
                total.n_unseen += sum(map(len, parts))
                parts.clear()
            advance(len(part))
    if total.faults:
        raise BadSampleError(total.faults, len(samples), total.n_unseen)
    return Bunch(
        n_samples=len(samples),
        n_unread=total.n_unread,
        n_hits=total.n_hits,
        n_forward=sum(total.n_forward_of.values()),
        n_forward_of=total.n_forward_of,
    )


def _float_range(extractor: FeatureExtractor, samples: Samples) -> tuple[float, float] | None:
    """Return the range of floating-point pixels, or None to leave the check to the processes."""
    fitted = getattr(extractor, "float_range_", None)
    if fitted is None:
        # Only the processes know whether the network takes pixels.
        with contextlib.suppress(InputError):
            return samples.float_range()
    return fitted


def _checked_devices(extractor: Any, gpus: Any) -> dict[int, str]:
    """Return the value of CUDA_VISIBLE_DEVICES for the process of each GPU, by GPU index."""
    faults = ParameterFaults("embed_on_gpus")
    if not isinstance(extractor, FeatureExtractor):
        faults.add("extractor", extractor, "a FeatureExtractor.")
    else:
        faults.check_part(extractor.check_params, prefix="extractor__")
        if extractor.cache is None:
            faults.add("extractor__cache", None, "a cache, where the processes store embeddings.")
    visible = os.environ.get(_VISIBLE)
    names = None if visible is None else [name for name in visible.split(",") if name]
    is_list = isinstance(gpus, (Sequence, np.ndarray)) and np.ndim(gpus) == 1
    indices = [*gpus] if is_list else range(int(gpus)) if _is_index(gpus) else None
    if indices is None or not all(map(_is_index, indices)):
        faults.add("gpus", gpus, "a number of GPUs, or a list of their indices.")
    elif not indices or len(set(indices)) < len(indices):
        faults.add("gpus", gpus, "at least one GPU, each of them once.")
    elif names is not None and max(indices) >= len(names):
        faults.add("gpus", gpus, f"GPUs that {_VISIBLE}={visible!r} lists.")
    faults.raise_any()
    return {int(index): names[index] if names else str(index) for index in indices or ()}


def _is_index(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _parts_of_samples(samples: Samples, n_gpus: int) -> deque[range]:
    """Divide samples into consecutive parts."""
    size = min(_SAMPLES_PER_PART, math.ceil(len(samples) / (n_gpus * _PARTS_PER_GPU)))
    size = min(size, max(1, _BYTES_PER_PART // max(1, _sample_bytes(samples))))
    starts = range(0, len(samples), size)
    return deque(range(start, min(start + size, len(samples))) for start in starts)


def _sample_bytes(samples: Samples) -> int:
    """Estimate the bytes that are sent to a process per sample, leaving out paths."""
    if samples.array_shape is not None:
        return math.prod(samples.array_shape) * np.dtype(np.float32).itemsize
    rows = np.unique(np.linspace(0, len(samples) - 1, 32).astype(np.int64))
    return max(map(_bytes_of_item, samples.take(rows)))


def _bytes_of_item(item: Any) -> int:
    if isinstance(item, (bytes, bytearray)):
        return len(item)
    if isinstance(item, Image.Image):
        return 4 * item.width * item.height
    return int(getattr(item, "nbytes", 0))


class _PartResult(NamedTuple):
    """The result of a process for one part."""

    space: str  # digest
    has_gpu: bool | None = None  # None if the network did not run
    n_unread: int = 0
    n_hits: int = 0
    n_forward: int = 0
    error: BadSampleError | None = None  # positions are counted from the start of the part


@dataclass
class _TotalOfParts:
    """The sum of the results of all processes."""

    n_forward_of: dict[int, int]
    n_unread: int = 0
    n_hits: int = 0
    n_unseen: int = 0
    faults: list[SampleFault] = field(default_factory=list)
    spaces: set[str] = field(default_factory=set)
    without_gpu: set[int] = field(default_factory=set)

    def add(self, gpu: int, part: range, result: _PartResult) -> None:
        """Add the result of a part."""
        self.spaces.add(result.space)
        if len(self.spaces) > 1:
            raise BackboneError(
                "the network differs between the processes, so they cannot share embeddings: pass "
                "the path of a .keras file, or a callable that seeds its initializers"
            )
        if result.has_gpu is False and gpu not in self.without_gpu:
            self.without_gpu.add(gpu)
            warn_caller(EngineWarning(f"Keras finds no GPU {gpu}: its process runs on the CPU"))
        self.n_unread += result.n_unread
        self.n_hits += result.n_hits
        self.n_forward_of[gpu] += result.n_forward
        if result.error:
            self.n_unseen += result.error.n_unseen
            self.faults += [
                fault._replace(position=part.start + fault.position)
                for fault in result.error.faults
            ]


def _run_parts_on_gpus(
    worker: FeatureExtractor, samples: Samples, parts: deque[range], devices: dict[int, str]
) -> Generator[tuple[int, range, _PartResult]]:
    """Send each part to the process that is free first, and yield the results."""
    context = get_context("loky")  # its processes do not run the script of their parent again
    processes = {}
    pending: dict[Connection, range] = {}

    def send_part(connection: Connection) -> None:
        if parts:
            pending[connection] = part = parts.popleft()
            with contextlib.suppress(BrokenPipeError):  # _receive raises for it
                connection.send(samples.take(np.arange(part.start, part.stop)))

    try:
        for name in devices.values():
            connection, end = context.Pipe()
            process = context.Process(
                target=_embed_parts_until_closed, args=(end, worker), env={_VISIBLE: name}
            )
            process.start()
            end.close()
            processes[connection] = process
        gpu_of = dict(zip(processes, devices, strict=True))
        for connection in processes:  # after all were started, since sending waits for the process
            send_part(connection)
        while pending:
            ready = wait(list(pending))
            for connection in [one for one in pending if one in ready]:
                gpu, part = gpu_of[connection], pending.pop(connection)
                yield gpu, part, _receive_part_result(connection, gpu, part)
                send_part(connection)
    finally:
        for connection, process in processes.items():
            if connection in pending:  # on Ctrl-C or an error: stored shards are complete
                process.terminate()
            connection.close()
        for process in processes.values():
            process.join()


def _receive_part_result(connection: Connection, gpu: int, part: range) -> _PartResult:
    """Receive the result of a part, or raise the error of the process."""
    try:
        result = connection.recv()
    except (EOFError, ConnectionError) as exc:
        raise EngineError(
            f"the process of GPU {gpu} ended while it embedded samples {part.start} to "
            f"{part.stop - 1}; perhaps memory ran out. The next run continues from the rows that "
            "it stored"
        ) from exc
    if isinstance(result, Exception):
        raise result
    return result


def _embed_parts_until_closed(connection: Connection, worker: FeatureExtractor) -> None:
    """Embed parts until the connection is closed."""
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            connection.send(_embed_part(worker, connection.recv()))


def _embed_part(worker: FeatureExtractor, items: Any) -> _PartResult | Exception:
    """Store the embeddings of some samples, and return the result or an error."""
    error = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadSampleWarning)  # its positions are those in the part
        for category in _NOT_SHARED:
            warnings.simplefilter("error", category)
        try:
            worker.transform(items)
        except _NOT_SHARED as exc:
            return BackboneError(f"the processes cannot share embeddings: {exc}")
        except BadSampleError as exc:
            error = exc
        except Exception as exc:
            return exc
    space = worker.current_source().space.digest
    if error:
        return _PartResult(space, error=error)
    report = worker.report_
    has_gpu = has_accelerator() if report.n_forward else None
    return _PartResult(space, has_gpu, report.n_unread, report.n_hits, report.n_forward)
