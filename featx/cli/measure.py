"""NetworkCost: images per second and memory of a network here (``featx backbones --measure``).

    python -m featx.cli.measure NAME

measures one network, with random weights, and prints its :class:`NetworkCost` as a line of JSON.
:func:`measure_in_new_process` starts such a process for each network: its peak memory is then that
of one network alone, and a network that needs too much ends only its own process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from featx.backbones.registry import Network, find_network
from featx.exceptions import EngineError

if TYPE_CHECKING:
    from featx.engines.runner import Runner

_LEAST_S = 5.0
_LEAST_BATCHES = 2


class NetworkCost(NamedTuple):
    """What a network costs in a long pass over images that are in memory.

    `cpu_ms_per_image` is the time of all cores together. Unlike `images_per_s`, it hardly depends
    on other work on the machine. `peak_memory_mb` is the memory of the process beyond that of Keras
    before the network was built: weights, compiled network and activations; without the memory of a
    GPU, and None if the system reports none. A megabyte is 10**6 bytes.
    """

    engine: str
    device: str
    batch_size: int
    images_per_s: float
    cpu_ms_per_image: float
    peak_memory_mb: float | None


def measure_in_new_process(network: Network) -> NetworkCost:
    """Measure a network in a process of its own; raise EngineError if that fails."""
    child = subprocess.run(  # noqa: S603 - this very interpreter, on this very module
        [sys.executable, "-m", "featx.cli.measure", network.name],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise EngineError(
            f"{network.name} cannot be measured, since its process ended with {child.returncode}: "
            f"{reason}"
        )
    return NetworkCost(**json.loads(child.stdout.splitlines()[-1]))


def _measure_network(network: Network) -> NetworkCost:
    """Measure a network in this process."""
    import keras  # noqa: F401 - its memory is not that of the network

    from featx.engines.devices import device_name, has_accelerator
    from featx.engines.registry import faster_engine
    from featx.engines.runner import batch_size_for
    from featx.extraction.engine_cache import PassEngines
    from featx.extractor import FeatureExtractor

    shape = (network.input_size, network.input_size, 3)
    size = batch_size_for(shape, on_accelerator=has_accelerator())
    images = np.random.default_rng(0).integers(0, 256, (size, *shape), dtype=np.uint8)
    before = _process_memory_mb("VmRSS")
    extractor = FeatureExtractor(network.name, weights=None, cache=None).fit(images[:1])
    source = extractor.current_source()

    def runner(engine: str) -> Runner:
        return PassEngines([source], engine, cache=None).runner(size, size)

    engine = faster_engine("float32") or "keras"
    try:
        _run_repeated_batch(runner(engine), images, least_s=0.0)  # compiles the network
    except EngineError:
        engine = "keras"  # as in a pass
        _run_repeated_batch(runner(engine), images, least_s=0.0)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    n_images = _run_repeated_batch(runner(engine), images, least_s=_LEAST_S)
    rate = n_images / (time.perf_counter() - start_s)
    cpu_ms = 1000 * (time.process_time() - start_cpu_s) / n_images
    peak = _process_memory_mb("VmHWM")
    used = None if before is None or peak is None else peak - before
    return NetworkCost(engine, device_name(), size, rate, cpu_ms, used)


class _RepeatedBatchFeed:
    """A feed that gives the same batch again, twice at least, until a time has passed."""

    n_left = 0  # the batch size is fixed, so nobody asks

    def __init__(self, images: np.ndarray, least_s: float) -> None:
        self._images, self._end_s = images, time.perf_counter() + least_s
        self.n_given = 0

    def take(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and images of a batch; none at the end."""
        is_over = time.perf_counter() >= self._end_s
        if is_over and self.n_given >= _LEAST_BATCHES * len(self._images):
            n_samples = 0
        batch = self._images[:n_samples]
        self.n_given += len(batch)
        return np.arange(len(batch)), batch


def _run_repeated_batch(runner: Runner, images: np.ndarray, *, least_s: float) -> int:
    """Run a batch again and again, and return the number of images."""
    feed = _RepeatedBatchFeed(images, least_s)
    for _ in runner.run(feed):
        pass
    return feed.n_given


def _process_memory_mb(field: str) -> float | None:
    """Return a figure of this process' memory, in megabytes; None if Linux does not report it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        cost = _measure_network(find_network(sys.argv[1]))
    print(json.dumps(cost._asdict()))
