"""Measure heads that are fitted on more rows than fit in memory: seconds, and memory at most.

Rows like embeddings are stored in a cache, and each head is fitted in a process of its own on a
view of them (``EmbeddingCache.open``). The memory is what the process has at most, the interpreter
and its libraries included; pages of files that the system keeps are not counted, arrays are.

    RidgeProbe   45 strengths x 5 folds
    LinearProbe  the strengths of --strengths x 5 folds
    PCA          256 components of the same rows, whitened

Usage: python benchmarks/bench_streaming.py [--smoke] [--rows 1000000] [--features 1280]
           [--classes 10] [--strengths 5] [--heads RidgeProbe LinearProbe PCA] [--work FOLDER]
           [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_heads import make_rows
from children import answer_of

from featx import EmbeddingCache, LinearProbe, MomentPCA, RidgeProbe
from featx.digests.key_table import keys_from_matrix
from featx.digests.space import Space

ROWS_AT_ONCE = 20_000


def store_rows(folder, *, n_rows, n_features, n_classes):
    """Store rows in a cache, a few at a time, and their labels beside it."""
    space = Space({"feature_shape": [n_features], "dtype": "float32"}, label="bench")
    store = EmbeddingCache(folder / "cache").store(space)
    labels = np.empty(n_rows, np.int64)
    rows, all_labels = make_rows(ROWS_AT_ONCE, n_features, n_classes)
    rng = np.random.default_rng(1)
    for start in range(0, n_rows, ROWS_AT_ONCE):
        size = min(ROWS_AT_ONCE, n_rows - start)
        # Each part is the first, with noise of its own that is as large as what rows differ by.
        part = rows[:size] + 0.7 * rows.std() * rng.standard_normal((size, n_features))
        labels[start : start + size] = all_labels[:size]
        keys = keys_from_matrix(rng.integers(0, 256, (size, 16), dtype=np.uint8))
        store.append(keys, part.astype(np.float32))
    np.save(folder / "labels.npy", labels)


def memory_bytes(field):
    """Return what this process has in memory ("VmRSS"), or had at most ("VmHWM"); Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def fit(head, folder, n_strengths):
    """Fit a head on the view; return what it took."""
    Cs = np.logspace(-6, 5, 45)[:: max(1, 45 // n_strengths)]
    view = EmbeddingCache(folder / "cache").open()
    heads = {
        "RidgeProbe": RidgeProbe(),
        "LinearProbe": LinearProbe(Cs),
        "PCA": MomentPCA(min(256, view.shape[1]), whiten=True),
    }
    labels = np.load(folder / "labels.npy")
    before = memory_bytes("VmRSS")
    start_s = time.perf_counter()
    estimator = heads[head].fit(view, labels)
    seconds = time.perf_counter() - start_s
    peak = memory_bytes("VmHWM")
    row = {"seconds": seconds, "peak_bytes": peak, "before_bytes": before}
    row["rows_bytes"] = view.nbytes
    if hasattr(estimator, "path_"):
        scores = estimator.path_["scores"]
        row |= {"n_strengths": len(scores), "score": float(scores.mean(axis=1).max())}
    return row


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="300 MB")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--strengths", type=int, default=45)
    parser.add_argument("--heads", nargs="+", default=["RidgeProbe", "LinearProbe", "PCA"])
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_streaming.json"))
    parser.add_argument("--fit", nargs=2, metavar=("HEAD", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        head, folder = args.fit
        print(json.dumps(fit(head, Path(folder), args.strengths)))
        return
    if args.smoke:
        args.rows, args.features, args.strengths = 600_000, 128, 1
    results = {}
    if args.work:
        args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        store_rows(Path(folder), n_rows=args.rows, n_features=args.features, n_classes=args.classes)
        for head in args.heads:
            results[head] = answer_of(
                __file__, "--fit", head, folder, "--strengths", args.strengths
            )
            print(head, results[head], file=sys.stderr, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
