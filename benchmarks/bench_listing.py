"""Measure what it costs to list, identify and look up images whose rows are stored, by number.

Small PNG files in folders of 1,000, a class each, whose digests and rows are in a cache. Each way
runs in a process of its own, in turn; the table shows medians, per image. Times are those of the
processor, in the program and in the system: the files lie in the page cache, and other programs on
the machine do not count. Memory is the peak beside that of the imports, and includes all that was
kept from the stages before.

    bare       os.scandir and os.stat alone, which keep a list of paths
    folder     load_image_folder, then the stages below
    table      load_table of a CSV file with the same paths and labels, then the stages below

    list       paths and labels
    recognize  as_samples
    identify   ItemSamples.keys: os.stat, and digests from the index
    look up    SpaceStore.holds, without reading the rows

What two million images cost is extrapolated: per image, what the largest number costs, times the
growth that the last two numbers show.

Usage: python benchmarks/bench_listing.py [--smoke] [--repeats 3] [--images 5000 50000 200000]
                                          [--work FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from bench_cache import write_files
from bench_streaming import memory_bytes
from children import answer_of

from featx import EmbeddingCache, load_image_folder, load_table
from featx.digests.space import Space
from featx.inputs.recognize import as_samples

N_FEATURES = 96
SPACE = Space({"feature_shape": [N_FEATURES], "dtype": "float32"}, label="bench")
LARGE = 2_000_000
GOALS = {"microseconds": 15, "bytes": 300}
WAYS = ("bare", "folder", "table")


def make_images(work, n_images):
    """Write files, a table of them, and a cache with their digests and rows."""
    paths = write_files(work / "photos", n_images)
    with open(work / "photos.csv", "w", newline="", encoding="utf-8") as file:
        rows = ((path, Path(path).parent.name) for path in paths)
        csv.writer(file).writerows([("path", "label"), *rows])
    cache = EmbeddingCache(work / "cache")
    keys, _ = as_samples(paths).keys(cache.files)
    cache.files.flush()
    cache.store(SPACE).append(keys, np.zeros((n_images, N_FEATURES), np.float32))


def measure_bare(work):
    """List the files and ask for the state of each."""
    start_s = time.process_time()
    folders = [entry.path for entry in os.scandir(work / "photos")]
    paths = [entry.path for folder in folders for entry in os.scandir(folder)]
    for path in paths:
        os.stat(path)
    return {"list": time.process_time() - start_s}, len(paths)


def measure_stages(work, load):
    """Take the images from their folder or table to the mask of those that are stored."""
    cache = EmbeddingCache(work / "cache")
    times_s = [time.process_time()]
    photos = load()
    times_s.append(time.process_time())
    samples = as_samples(photos.data)
    times_s.append(time.process_time())
    keys, faults = samples.keys(cache.files)
    times_s.append(time.process_time())
    held = cache.store(SPACE).holds(keys)
    times_s.append(time.process_time())
    assert held.all()
    assert not faults
    stages = ("list", "recognize", "identify", "look up")
    return dict(zip(stages, np.diff(times_s).tolist(), strict=True)), len(held)


def measure(way, work):
    """Return the microseconds of each stage, and the peak of memory in bytes, per image."""
    loads = {
        "folder": lambda place: load_image_folder(place / "photos"),
        "table": lambda place: load_table(place / "photos.csv"),
    }

    def run(place):
        if way == "bare":
            return measure_bare(place)
        return measure_stages(place, lambda: loads[way](place))

    run(work / "few")  # imports what is loaded late
    before = memory_bytes("VmHWM")
    seconds, n_images = run(work / "many")
    peak = memory_bytes("VmHWM") - before
    stages = {stage: 1e6 * value / n_images for stage, value in seconds.items()}
    return {**stages, "microseconds": sum(stages.values()), "bytes": peak / n_images}


def take_turns(n_images, args):
    """Return the medians of each way, for one number of images."""
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for name, n_files in (("few", min(50, n_images)), ("many", n_images)):
            make_images(Path(folder) / name, n_files)
        runs = {way: [] for way in WAYS}
        for _ in range(args.repeats):
            for way in WAYS:
                arguments = ("--measure", way, folder)
                runs[way].append(answer_of(__file__, *arguments, is_smoke=args.smoke))
                print(f"# {n_images:,}, {way}: {runs[way][-1]}", file=sys.stderr, flush=True)
    return {
        way: {name: median(run[name] for run in found) for name in found[0]}
        for way, found in runs.items()
    }


def extrapolated(costs, counts):
    """Return the cost of an image among two million; it never falls with their number."""
    growth = max(1.0, costs[-1] / costs[-2]) if costs[-2] > 0 else 1.0
    return costs[-1] * growth ** (math.log(LARGE / counts[-1]) / math.log(counts[-1] / counts[-2]))


def report(results):
    """Print what was measured, and what two million images cost beside the goals."""
    counts = list(results)
    stages = ("list", "recognize", "identify", "look up")
    print("| images | way | " + " | ".join(stages) + " | microseconds | / bare | bytes |")
    print("|---|---|" + "---|" * (len(stages) + 3))
    for n_images, ways in results.items():
        for way, row in ways.items():
            cells = [f"{row[stage]:.2f}" if stage in row else "" for stage in stages]
            ratio = row["microseconds"] / ways["bare"]["microseconds"]
            cells += [f"{row['microseconds']:.2f}", f"{ratio:.2f}", f"{row['bytes']:.0f}"]
            print(f"| {n_images:,} | {way} | {' | '.join(cells)} |")
    large = {
        way: {name: extrapolated([results[n][way][name] for n in counts], counts) for name in GOALS}
        for way in WAYS
    }
    print(f"\nAn image among {LARGE:,}, extrapolated:\n")
    print("| way | microseconds | goal | bytes | goal |\n|---|---|---|---|---|")
    for way, row in large.items():
        cells = [
            f"{row[name]:.2f} | at most {goal}{'' if row[name] <= goal else ' **missed**'}"
            for name, goal in GOALS.items()
        ]
        print(f"| {way} | {' | '.join(cells)} |")
    return large


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="+", default=[5000, 50_000, 200_000])
    parser.add_argument("--work", type=Path, help="where temporary files go (1 GB)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_listing.json"))
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        way, folder = args.measure
        print(json.dumps(measure(way, Path(folder))))
        return
    if args.smoke:
        args.images, args.repeats = [50, 200], 1
    results = {n_images: take_turns(n_images, args) for n_images in sorted(args.images)}
    large = report(results)
    found = {"results": results, "large": large, "machine": platform.platform()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1))
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
