"""Measure what it costs to keep embeddings, beside what is bare and what people use.

Rows of 1,280 random float32 numbers, in temporary files that lie in the page cache. Every method
opens its files again; methods take turns, the tables show medians. featx's figures include looking
keys up and checking each row against its checksum.

    store       shards of 64 MiB, each synced, against np.save and fsync
    read        all rows, and a random 80 % of them, against np.load and np.memmap
    warm pass   transform of 100,000 image files whose rows are stored, against bare os.stat
    peers       the same rows from embetter's cached() and joblib.Memory, a call for each sample
    growth      10,000 to 1,000,000 rows: seconds for a million of them
    ten rows    out of all, against reading all of them
    memory      how much reading all rows, and compacting, takes beside the result

Usage: python benchmarks/bench_cache.py [--smoke] [--repeats 3] [--rows 100000] [--large 1000000]
                                        [--work FOLDER] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from featx import EmbeddingCache, FeatureExtractor
from featx.digests.key_table import keys_from_matrix
from featx.digests.space import Space
from featx.inputs.recognize import as_samples

N_FEATURES = 1280
ROWS_OF_A_SHARD = 64 * 2**20 // (4 * N_FEATURES)
SPACE = Space({"feature_shape": [N_FEATURES], "dtype": "float32"}, label="bench")
GOALS = {
    "store / np.save": ("at most", 2.0),
    "read all / np.load": ("at most", 1.0),
    "read 80 % / np.memmap": ("at most", 1.5),
    "warm pass / (3 bare stats + read)": ("at most", 1.0),
    "embetter / featx": ("at least", 5.0),
    "joblib.Memory / featx": ("at least", 5.0),
    "ten rows / all rows": ("at most", 0.01),
}


def timed(function, *arguments):
    """Return the seconds that a call takes, and what it returned."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def take_turns(methods, repeats):
    """Time each method in turn, several times; return the median seconds of each."""
    seconds = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            seconds[name].append(timed(method)[0])
            print(f"# {name}: {seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return {name: median(values) for name, values in seconds.items()}


def make_rows(n_rows, seed=0):
    """Return n rows, and as many keys."""
    rng = np.random.default_rng(seed)
    keys = keys_from_matrix(rng.integers(0, 256, (n_rows, 16), dtype=np.uint8))
    return keys, rng.random((n_rows, N_FEATURES), dtype=np.float32)


def store(folder, keys, rows):
    """Store rows as a pass does, shard by shard."""
    opened = EmbeddingCache(folder).store(SPACE)
    for start in range(0, len(keys), ROWS_OF_A_SHARD):
        span = slice(start, start + ROWS_OF_A_SHARD)
        opened.append(keys[span], rows[span])


def save(path, rows):
    """Write one .npy file and wait until it is on the disk."""
    with open(path, "wb") as file:
        np.save(file, rows)
        file.flush()
        os.fsync(file.fileno())


def find(folder, keys):
    """Read rows with everything opened again; all of them have to be there."""
    rows, found = EmbeddingCache(folder).store(SPACE).find(keys)
    assert found.all()
    return rows


def measure_files(work, n_rows, repeats):
    """Compare storing and reading with bare files."""
    keys, rows = make_rows(n_rows)
    npy, cache = work / "rows.npy", work / "cache"
    subset = np.random.default_rng(1).permutation(n_rows)[: n_rows * 8 // 10]

    def store_in_new_cache():
        shutil.rmtree(cache, ignore_errors=True)
        store(cache, keys, rows)

    seconds = take_turns({"np.save": lambda: save(npy, rows), "store": store_in_new_cache}, repeats)
    assert (find(cache, keys[subset]) == np.load(npy, mmap_mode="r")[subset]).all()
    seconds |= take_turns(
        {
            "np.load": lambda: np.load(npy),
            "read all": lambda: find(cache, keys),
            "np.memmap": lambda: np.asarray(np.load(npy, mmap_mode="r")[subset]),
            "read 80 %": lambda: find(cache, keys[subset]),
        },
        repeats,
    )
    return seconds


def write_files(folder, n_files):
    """Write small PNG files, no two of the same content, and let them settle."""
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    paths = [folder / f"{number // 1000:04}" / f"{number:07}.png" for number in range(n_files)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue() + str(number).encode())
    time.sleep(3)  # files that changed a moment ago are not trusted
    return list(map(str, paths))


def measure_paths(work, n_files, repeats):
    """Compare a warm pass over files with one stat for each of them and the reading."""
    paths = write_files(work / "files", n_files)
    cache = EmbeddingCache(work / "path-cache")
    extractor = FeatureExtractor("tiny", cache=cache)
    space = extractor.fit(paths[:1]).space_
    keys, _ = as_samples(paths).keys(cache.files)
    cache.files.flush()
    rows = np.random.default_rng(0).random((n_files, space.n_features), dtype=np.float32)
    cache.store(space).append(keys, rows)

    def warm():
        fresh = FeatureExtractor("tiny", cache=EmbeddingCache(cache.path))
        fresh.fit_transform(paths)
        assert fresh.report_.n_forward == 0

    return take_turns(
        {
            "bare stats": lambda: [os.stat(path) for path in paths],
            "read": lambda: EmbeddingCache(cache.path).store(space).find(keys),
            "warm pass": warm,
        },
        repeats,
    )


def measure_peers(work, n_rows, repeats):
    """Compare warm reads with caches that keep a file or an entry for each sample."""
    keys, rows = make_rows(n_rows)
    names = [f"/images/{number:07}.png" for number in range(n_rows)]
    numbers = {name: number for number, name in enumerate(names)}
    store(work / "peer-cache", keys, rows)
    methods = {"featx": lambda: find(work / "peer-cache", keys)}

    import joblib

    remember = joblib.Memory(work / "memory", verbose=0).cache
    embed_one = remember(lambda name: rows[numbers[name]], ignore=[])
    methods["joblib.Memory"] = lambda: np.stack([embed_one(name) for name in names])
    if importlib.util.find_spec("embetter"):
        from embetter.utils import cached

        class Encoder:
            def transform(self, X, y=None):
                return np.stack([rows[numbers[name]] for name in X]) if len(X) else np.empty(0)

        encoder = cached(str(work / "diskcache"), Encoder())
        methods["embetter"] = lambda: encoder.transform(names)
    for method in methods.values():
        method()  # fills the cache
    return take_turns(methods, repeats)


def measure_growth(work, counts, repeats):
    """Time storing, finding keys and reading for ever more rows."""
    table = []
    for n_rows in counts:
        folder = work / f"growth-{n_rows}"
        keys, rows = make_rows(n_rows)
        store_s, _ = timed(store, folder, keys, rows)
        del rows
        opened = EmbeddingCache(folder).store(SPACE)
        open_s, _ = timed(opened.shards)
        ten = np.random.default_rng(1).permutation(n_rows)[:10]
        opened.find(keys[ten])
        seconds = take_turns(
            {
                "look up": lambda opened=opened, keys=keys: opened.holds(keys),
                "ten rows": lambda opened=opened, keys=keys, ten=ten: opened.find(keys[ten]),
                "all rows": lambda opened=opened, keys=keys: opened.find(keys),
            },
            repeats,
        )
        table.append({"rows": n_rows, "store": store_s, "open": open_s, **seconds})
        shutil.rmtree(folder)
    return table


PEAK = """
import re, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import bench_cache
from featx import EmbeddingCache
from featx.cache.maintenance import compact
store = EmbeddingCache(sys.argv[2]).store(bench_cache.SPACE)
keys = store.keys()
store.append(keys[:1], store.find(keys[:1])[0])
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = peak()
store.find(keys) if sys.argv[3] == "read all" else compact(store)
print(peak() - before)
"""


def measure_memory(work, n_rows):
    """Return the peak of memory, in MiB, that jobs take in a process of their own."""
    if not Path("/proc/self/clear_refs").exists():
        return {}  # only Linux tells
    store(work / "memory-cache", *make_rows(n_rows))
    peaks = {"result": 4 * N_FEATURES * n_rows / 2**20}
    for job in ("read all", "compact"):
        command = [sys.executable, "-c", PEAK, str(Path(__file__).resolve().parent)]
        command += [str(work / "memory-cache"), job]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[job] = int(done.stdout) / 1024
    return peaks


def report(seconds, growth, peaks):
    """Print what was measured, and the ratios beside their goals."""
    print("| what | seconds |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.4f} |")
    ratios = {
        "store / np.save": seconds["store"] / seconds["np.save"],
        "read all / np.load": seconds["read all"] / seconds["np.load"],
        "read 80 % / np.memmap": seconds["read 80 %"] / seconds["np.memmap"],
        "warm pass / (3 bare stats + read)": seconds["warm pass"]
        / (3 * seconds["bare stats"] + seconds["read"]),
        "joblib.Memory / featx": seconds["joblib.Memory"] / seconds["featx"],
        "ten rows / all rows": growth[-1]["ten rows"] / growth[-1]["all rows"],
    }
    if "embetter" in seconds:
        ratios["embetter / featx"] = seconds["embetter"] / seconds["featx"]
    print("\n| ratio | measured | goal |\n|---|---|---|")
    for name, ratio in ratios.items():
        kind, goal = GOALS[name]
        missed = "" if (ratio <= goal if kind == "at most" else ratio >= goal) else " **missed**"
        print(f"| {name} | {ratio:.4g} | {kind} {goal:g}{missed} |")
    steps = ("store", "open", "look up", "all rows")
    print("\nSeconds for a million rows:\n")
    print("| rows | " + " | ".join(steps) + " |\n|" + "---|" * (1 + len(steps)))
    for line in growth:
        cells = " | ".join(f"{line[step] * 1e6 / line['rows']:.3f}" for step in steps)
        print(f"| {line['rows']:,} | {cells} |")
    print("\nMiB at most, beside what was there before: " + json.dumps(peaks))
    return ratios


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peer-rows", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, help="where temporary files go (6 GB)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_cache.json"))
    args = parser.parse_args()
    if args.smoke:
        args.rows, args.peer_rows, args.large, args.repeats = 500, 50, 1000, 1
    counts = sorted({max(10, args.large // 100), max(10, args.large // 10), args.large})
    with tempfile.TemporaryDirectory(dir=args.work) as folder, contextlib.chdir(folder):
        work = Path(folder)
        seconds = measure_files(work, args.rows, args.repeats)
        seconds |= measure_paths(work, args.rows, args.repeats)
        seconds |= measure_peers(work, args.peer_rows, args.repeats)
        growth = measure_growth(work, counts, args.repeats)
        peaks = measure_memory(work, args.rows)
    ratios = report(seconds, growth, peaks)
    result = {
        "seconds": seconds,
        "ratios": ratios,
        "growth": growth,
        "peaks": peaks,
        "args": vars(args),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps(result | {"machine": platform.platform()}, indent=1, default=str)
    )
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
