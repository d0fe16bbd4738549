"""Measure a prediction service: threads that each predict one image at a time.

Side by side, for one thread and for many: requests that are stored (warm), new arrays and new JPEG
files, with a cache and without. For each: requests/s, the median and the 99th percentile of the
time a request takes, the cores it keeps busy, and the memory at the start and at the end. One
thread that keeps 1.3 of two cores busy leaves room for 2 / 1.3 times its requests, no more.

Usage: python benchmarks/bench_service.py [--smoke] [--repeats 3] [--threads 16] [--seconds 10]
                                          [--backbone tiny] [--minutes 0] [--out FILE]

With `--minutes` one more run follows: new files, with a cache, for so long; its memory is noted
every ten seconds.
"""

from __future__ import annotations

import argparse
import gc
import io
import itertools
import json
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from featx import FeatureExtractor, TransferClassifier

GOALS = {"many threads / one": 1.6, "p99 / p50": 5.0, "growth, MiB": 100.0}
KINDS = ("warm", "arrays", "files")
N_WARM = 64


class Requests:
    """Images to predict; all but the warm ones differ from those before."""

    def __init__(self, kind, size, work):
        self.kind, self.size, self.work = kind, size, work
        self._numbers = itertools.count()
        work.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (N_WARM, size, size, 3), dtype=np.uint8)
        self.images = list(pixels)
        self._jpegs = []
        for image in pixels[:8]:
            buffer = io.BytesIO()
            smooth = Image.fromarray(image).resize((16, 16)).resize((320, 240))
            smooth.save(buffer, "JPEG", quality=90)
            self._jpegs.append(buffer.getvalue())

    def next(self):
        """Return the next request, in the form that `predict` takes."""
        number = next(self._numbers)
        if self.kind == "warm":
            return self.images[number % N_WARM][np.newaxis]
        if self.kind == "arrays":
            image = self.images[number % N_WARM].copy()
            image.reshape(-1)[:8] = np.frombuffer(number.to_bytes(8, "big"), np.uint8)
            return image[np.newaxis]
        # JPEG takes bytes behind its end, and a file that is an hour old is remembered.
        path = self.work / f"{number:08}.jpg"
        path.write_bytes(self._jpegs[number % len(self._jpegs)] + number.to_bytes(8, "big"))
        os.utime(path, (time.time() - 3600,) * 2)
        return [str(path)]


def resident_mib():
    """Return the memory of this process, 0 if the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmRSS"].split()[0]) / 1024


def serve(classifier, requests, *, n_threads, seconds, every_s=None):
    """Predict from many threads for some seconds; return figures, and the memory over time."""
    times, memory = [[] for _ in range(n_threads)], []

    def work(mine):
        while not mine or time.perf_counter() < start + seconds:
            request = requests.next()
            begun = time.perf_counter()
            classifier.predict(request)
            mine.append(time.perf_counter() - begun)

    gc.collect()
    before, start, cpu_start = resident_mib(), time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=work, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    while every_s and any(thread.is_alive() for thread in threads):
        memory.append(resident_mib())
        time.sleep(every_s)
    for thread in threads:
        thread.join()
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    gc.collect()
    all_times = np.concatenate([np.array(mine) for mine in times])
    p50, p99 = np.percentile(all_times, [50, 99])
    return {
        "requests": len(all_times),
        "requests/s": len(all_times) / wall_s,
        "p50, ms": 1e3 * p50,
        "p99, ms": 1e3 * p99,
        "cores": cpu_s / wall_s,
        "start, MiB": before,
        "end, MiB": resident_mib(),
    } | ({"memory, MiB": memory} if memory else {})


def make_classifier(args, cache):
    """Fit a head on a few images, as a service would load it."""
    rng = np.random.default_rng(1)
    size = args.size
    images = rng.integers(0, 256, (20, size, size, 3), dtype=np.uint8)
    named = {} if args.backbone == "tiny" else {"weights": None, "input_size": size}
    extractor = FeatureExtractor(args.backbone, cache=cache, **named)
    return TransferClassifier(extractor).fit(images, np.arange(20) % 2)


def measure(args, work):
    """Take turns between one thread and many; return the medians of each row."""
    runs = {}
    for turn, cached, kind in itertools.product(range(args.repeats), (True, False), KINDS):
        if kind == "warm" and not cached:
            continue  # without a cache nothing is warm
        place = work / f"{turn}-{cached}-{kind}"
        classifier = make_classifier(args, str(place / "cache") if cached else None)
        for n_threads in (1, args.threads):
            requests = Requests(kind, args.size, place / f"files-{n_threads}")
            for _ in range(N_WARM if kind == "warm" else 4):
                classifier.predict(requests.next())
            found = serve(classifier, requests, n_threads=n_threads, seconds=args.seconds)
            if cached:
                found["shards"] = classifier.extractor_.resolved_cache().info()["n_shards"]
            runs.setdefault((kind, cached, n_threads), []).append(found)
    return [
        {"kind": kind, "cache": cached, "threads": n_threads}
        | {name: median(run[name] for run in found) for name in found[0]}
        for (kind, cached, n_threads), found in runs.items()
    ]


def ratios_of(rows):
    """Return the ratios that have goals, for each kind of request."""
    by_kind = {(row["kind"], row["cache"], row["threads"]): row for row in rows}
    ratios = {}
    for (kind, cached, n_threads), row in by_kind.items():
        if n_threads == 1:
            continue
        one = by_kind[kind, cached, 1]
        ratios[f"{kind}, {'cache' if cached else 'no cache'}"] = {
            "many threads / one": row["requests/s"] / one["requests/s"],
            "p99 / p50": row["p99, ms"] / row["p50, ms"],
            "growth, MiB": row["end, MiB"] - row["start, MiB"],
        }
    return ratios


def report(rows, ratios):
    """Print the rows, and the ratios beside their goals."""
    names = [name for name in rows[0] if name not in ("kind", "cache", "threads", "shards")]
    print("| requests | cache | threads | " + " | ".join(names) + " |")
    print("|" + "---|" * (3 + len(names)))
    for row in rows:
        cells = " | ".join(f"{row[name]:.4g}" for name in names)
        print(f"| {row['kind']} | {row['cache']} | {row['threads']} | {cells} |")
    print(
        "\n| requests | " + " | ".join(f"{name} ({goal:g})" for name, goal in GOALS.items()) + " |"
    )
    print("|" + "---|" * (1 + len(GOALS)))
    for name, found in ratios.items():
        print(f"| {name} | " + " | ".join(f"{found[goal]:.3g}" for goal in GOALS) + " |")


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, help="pixels; 64 for tiny, else 224")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.backbone, args.repeats, args.seconds, args.threads = "tiny", 1, 0.3, 4
    args.size = args.size or (64 if args.backbone == "tiny" else 224)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    results = {"machine": machine, "backbone": args.backbone}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results["rows"] = measure(args, work)
        results["ratios"] = ratios_of(results["rows"])
        report(results["rows"], results["ratios"])
        if args.minutes:
            classifier = make_classifier(args, str(work / "long" / "cache"))
            requests = Requests("files", args.size, work / "long" / "files")
            serve(classifier, requests, n_threads=args.threads, seconds=5)
            seconds = 60 * args.minutes
            results["long"] = serve(
                classifier, requests, n_threads=args.threads, seconds=seconds, every_s=10
            )
            results["long"]["shards"] = classifier.extractor_.resolved_cache().info()["n_shards"]
            print(f"\nlong run: {json.dumps(results['long'])}")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
