"""Measure what whole processes cost: many images, every row stored, and a few new images.

    growth   time and memory as the number of images grows
    warm     what featx adds to a fresh interpreter when every row is stored
    start    a fresh interpreter that embeds 20 new images: from a stored graph, and with Keras

Usage: python benchmarks/bench_processes.py [--smoke] [--repeats 3] [--sections growth warm start]
                                            [--large 100000] [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from photos import ALPHA, SIZE, distinct_photos, find_weights

GROWTH_CODE = """
import json, sys, time
from pathlib import Path
import numpy as np
from featx import FeatureExtractor
pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
extractor = FeatureExtractor("tiny", cache=sys.argv[1]).fit(pixels)
extractor.transform(pixels)
paths = sorted(map(str, Path(sys.argv[2]).iterdir()))
start = time.perf_counter()
rows = extractor.transform(paths)
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({
    "images": len(paths),
    "seconds": seconds,
    "peak MiB without the rows": int(status["VmHWM"].split()[0]) / 1024 - rows.nbytes / 2**20,
    "n_forward": extractor.report_.n_forward,
}))
"""


def measure_growth(args, work):
    """Pass over more and more files, each time in a process of its own."""
    results = []
    for n_images in (64, 256) if args.smoke else (1000, 10_000, args.large):
        folder = work / f"growth-{n_images}"
        folder.mkdir()
        buffer = Path(distinct_photos(args.shared, work, 1)[0]).read_bytes()
        for number in range(n_images):
            (folder / f"{number:07}.jpg").write_bytes(buffer + number.to_bytes(8, "big"))
        command = [sys.executable, "-c", GROWTH_CODE, str(work / f"cache-{n_images}"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"# {results[-1]}", file=sys.stderr, flush=True)
    return results


WARM_CODE = """
import sys, time
start = time.perf_counter()
import numpy, sklearn.linear_model, sklearn.preprocessing, sklearn.pipeline
base = time.perf_counter()
if sys.argv[1] == "tensorflow":
    import tensorflow
else:
    from pathlib import Path
    from featx import FeatureExtractor
    paths = sorted(map(str, Path(sys.argv[2]).iterdir()))
    extractor = FeatureExtractor("tiny", cache=sys.argv[1])
    extractor.fit_transform(paths)
    assert extractor.report_.n_forward == (0 if len(sys.argv) > 3 else len(paths))
    if len(sys.argv) > 3:
        assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(time.perf_counter() - base)
"""


def measure_warm(args, work):
    """Time what comes on top of numpy and scikit-learn when 10,000 rows are stored."""
    folder = work / "warm"
    folder.mkdir()
    buffer = Path(distinct_photos(args.shared, work, 1)[0]).read_bytes()
    for number in range(100 if args.smoke else 10_000):
        (folder / f"{number:07}.jpg").write_bytes(buffer + number.to_bytes(8, "big"))
    time.sleep(3)

    def seconds(*arguments):
        command = [sys.executable, "-c", WARM_CODE, *arguments]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    cache = str(work / "warm-cache")
    seconds(cache, str(folder))
    turns = [
        (seconds("tensorflow"), seconds(cache, str(folder), "warm")) for _ in range(args.repeats)
    ]
    tensorflow, featx = (median(values) for values in zip(*turns, strict=True))
    return {"import tensorflow, s": tensorflow, "featx, s": featx, "share": featx / tensorflow}


N_NEW = 20
START_GOALS = {"seconds": 1.2, "seconds / Keras": 0.2, "peak memory / Keras": 1 / 3}
# The first argument is what the process does, the second its parameters, then come the images.
START_CODE = """
import json, sys, time
kind, params, paths = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
if kind == "command":
    from featx.cli.main import main
    main(["predict", params["path"], *paths, "--cache", params["cache"]])
elif kind == "extractor":
    from featx import FeatureExtractor
    extractor = FeatureExtractor(**params)
    extractor.fit_transform(paths)
else:
    from featx import load
    engine = params.pop("engine")
    classifier = load(**params)
    extractor = classifier.extractor_.set_params(engine=engine)
    classifier.predict(paths)
ended_s = time.time()
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "ended_s": ended_s,
    "CPU seconds": time.process_time(),
    "peak MiB": int(status["VmHWM"].split()[0]) / 1024,
    "engine": None if kind == "command" else extractor.report_.engine,
    "imports Keras": "keras" in sys.modules,
}))
"""


def measure_start(args, work):
    """Embed images that no process has seen, from the start of an interpreter to the last row."""
    from featx import FeatureExtractor, TransferClassifier, save

    cache, path = str(work / "start-cache"), str(work / "start.featx")
    network = {"backbone": "tiny"}
    if not args.smoke:
        network = {"backbone": "mobilenet_v2", "backbone_params": {"alpha": ALPHA}}
        weights = find_weights(args.shared)
        network |= {"weights": weights and str(weights), "input_size": SIZE}
    given = {"extractor": {**network, "cache": cache}, "saved file": {"path": path, "cache": cache}}
    kinds = [(kind, engine) for engine in ("keras", "auto") for kind in given]
    kinds.append(("command", "auto"))
    photos = iter(distinct_photos(args.shared, work, 10 + N_NEW * len(kinds) * args.repeats))
    first = [next(photos) for _ in range(10)]
    classifier = TransferClassifier(FeatureExtractor(**given["extractor"]))
    save(classifier.fit(first, [0, 1] * 5), path)

    def run(kind, engine):
        params = given.get(kind, given["saved file"])
        params = params if kind == "command" else {**params, "engine": engine}
        command = [sys.executable, "-c", START_CODE, kind, json.dumps(params)]
        started_s = time.time()
        paths = [next(photos) for _ in range(N_NEW)]
        done = subprocess.run([*command, *paths], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["imports Keras"] == (engine == "keras"), done.stderr
        return {"seconds": found.pop("ended_s") - started_s, **found}

    turns = [[run(*kind) for kind in kinds] for _ in range(args.repeats)]
    rows, columns = {}, ("seconds", "CPU seconds", "peak MiB")
    for (kind, engine), runs in zip(kinds, zip(*turns, strict=True), strict=True):
        row = {name: median(run[name] for run in runs) for name in columns}
        if engine == "auto":
            keras = rows[f"{'extractor' if kind == 'extractor' else 'saved file'}, keras"]
            row["seconds / Keras"] = row["seconds"] / keras["seconds"]
            row["CPU seconds / Keras"] = row["CPU seconds"] / keras["CPU seconds"]
            row["peak memory / Keras"] = row["peak MiB"] / keras["peak MiB"]
        rows[f"{kind}, {engine}"] = row
        print(f"# {kind}, {engine}: {row}", file=sys.stderr, flush=True)
    return {"goals, at most": START_GOALS, **rows}


SECTIONS = {"growth": measure_growth, "warm": measure_warm, "start": measure_start}


def main():
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a minute instead of many")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.repeats = 1 if args.smoke else args.repeats
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    results = {"machine": machine}
    with tempfile.TemporaryDirectory() as work:
        for section in args.sections:
            results[section] = SECTIONS[section](args, Path(work))
    print(json.dumps(results, indent=1))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
