"""Print the route of ``X``: what ``TransferClassifier.fit`` and ``predict`` enter, and how often.

    python scripts/trace_route.py

The numbers stand in ``docs/architecture.md``. Three calls are traced in a process of their own
each, with the backbone "tiny" and an empty cache folder: the first fit, the same fit with all rows
stored, and a prediction of one stored sample.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1] / "featx"


def _levels() -> dict[str, int]:
    """Return the level of each place, from the top down, as the contract on imports has it."""
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return {name.strip(): level for level, names in enumerate(layers) for name in names.split("|")}


LEVELS = _levels()  # a call from a lower place to a higher one is a climb


class Route:
    """Modules entered, climbs and counted calls, in all threads."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.climbs: set[tuple[str, str]] = set()
        self.n_calls: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Record a call: see :func:`sys.setprofile`."""
        if event != "call":
            return
        module = _module_of(frame)
        if module is None or frame.f_code.co_name == "<module>":
            return
        self.modules.add(module)
        self.n_calls[frame.f_code.co_qualname] += 1
        caller = _module_of(frame.f_back) if frame.f_back else None
        if caller and _level(caller) > _level(module) and frame.f_code.co_name[0] != "<":
            self.climbs.add((caller, module))


def _module_of(frame: FrameType) -> str | None:
    return _module_at(frame.f_code.co_filename)


@functools.cache
def _module_at(file_name: str) -> str | None:
    path = Path(file_name)
    return ".".join(path.relative_to(ROOT).with_suffix("").parts) if ROOT in path.parents else None


def _level(module: str) -> int:
    return LEVELS.get(module.partition(".")[0], -1)


def trace(call: Callable[[], object]) -> Route:
    """Return the route of a call."""
    route = Route()
    threading.setprofile(route)
    sys.setprofile(route)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return route


def _print_route(name: str, folder: Path) -> None:
    from featx import FeatureExtractor, TransferClassifier

    if name == "fit, first":  # loads Keras, which would take long under a trace
        FeatureExtractor("tiny", cache=None).fit_transform(np.zeros((1, 64, 64, 3), np.uint8))
    paths, labels = sorted(folder.glob("*.png")), [0, 1] * 4
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=folder / "cache"))
    if name == "predict, stored":
        classifier.fit(paths, labels)
        route = trace(lambda: classifier.predict(paths[:1]))
    else:
        route = trace(lambda: classifier.fit(paths, labels))
    shown = (
        "_check_several_samples",  # once for each X that is recognized
        "check_extractor_params",
        "ExtractorParams.__init__",
        "FeatureExtractor.__init__",
        "make_head",
    )
    calls = ", ".join(f"{call} {route.n_calls[call]}" for call in shown if route.n_calls[call])
    print(f"{name}: {len(route.modules)} modules, {len(route.climbs)} climbs; {calls}")
    for caller, module in sorted(route.climbs):
        print(f"  {caller} calls {module}")


def main() -> None:
    """Trace each call in a process of its own."""
    if len(sys.argv) == 3:
        _print_route(sys.argv[1], Path(sys.argv[2]))
        return
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(8):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, f"{number}.png"))
        for name in ("fit, first", "fit, stored", "predict, stored"):
            subprocess.run([sys.executable, __file__, name, folder], check=True)


if __name__ == "__main__":
    main()
