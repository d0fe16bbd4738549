"""Measure how many wrong labels `find_label_issues` finds, and what it takes for a million rows.

The labels of 5 % of the images of each set are turned to another class at random. Found is the
fraction of these among the first 2n suspects, where n is their number, and among the 2n lowest
scores, which may include labels that are not suspect; the mean over seeds. Beside it are rankings
by cleanlab on the same out-of-fold probabilities, if it is installed: the 2n lowest of its scores
by self-confidence and by normalized margin, and the first 2n suspects of its filter. The sets may
hold wrong labels of their own.

The expected number of wrong labels is divided by that of the turned ones, as is that of the
confident joint of Northcutt, Jiang and Chuang (2021, JAIR 70). Covered is the fraction of the seeds
in which the interval holds the number of the turned ones.

Seconds and memory are those of rows of 128 numbers in ten classes, on a lazy array of the cache, in
a process of its own; pages of files that the system keeps are not counted.

Without the shared data (--shared) "tiny" on scikit-learn's digits is measured.

Usage: python benchmarks/bench_label_issues.py [--smoke] [--sections quality size] [--seeds 10]
                                               [--rows 100000 1000000] [--shared ../shared]
                                               [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from bench_accuracy import extractors
from bench_streaming import memory_bytes, store_rows
from bench_views import image_sets
from children import answer_of

from featx import EmbeddingCache, find_label_issues

SECTIONS = ["quality", "size"]
SETS = ("flower_photos", "dogs_cats", "sign_digits", "cifar10_jpg", "digits")
FRACTION = 0.05
N_FEATURES = 128


def turned(labels, seed):
    """Return class indices of which some are turned to another class, and the rows of these."""
    rng = np.random.default_rng(seed)
    classes, indices = np.unique(labels, return_inverse=True)
    rows = rng.choice(len(labels), round(FRACTION * len(labels)), replace=False)
    indices[rows] = (indices[rows] + rng.integers(1, len(classes), len(rows))) % len(classes)
    return indices, rows


def rankings_of_cleanlab(labels, proba):
    """Return rows, the most suspect first, by the name of the ranking."""
    try:
        from cleanlab.filter import find_label_issues as filtered
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        print("cleanlab is not installed: its rankings are left out", file=sys.stderr)
        return {}
    proba = proba.astype(np.float64)
    scored = {
        name: np.argsort(get_label_quality_scores(labels, proba, method=name), kind="stable")
        for name in ("self_confidence", "normalized_margin")
    }
    by_filter = filtered(labels, proba, return_indices_ranked_by="self_confidence", n_jobs=1)
    return {**scored, "filter": by_filter}


def joint_issues(labels, proba):
    """Return the number of wrong labels that the calibrated confident joint expects."""
    n_classes = proba.shape[1]
    thresholds = np.array([proba[labels == k, k].mean() for k in range(n_classes)])
    is_confident = proba >= thresholds
    counted = is_confident.any(axis=1)
    joint = np.zeros((n_classes, n_classes))
    likely = np.where(is_confident, proba, -1).argmax(axis=1)
    np.add.at(joint, (labels[counted], likely[counted]), 1)
    off_diagonal = 1 - np.diag(joint) / np.maximum(joint.sum(axis=1), 1)
    return float((np.bincount(labels, minlength=n_classes) * off_diagonal).sum())


def measure_seed(embeddings, labels, seed):
    """Return what is found if labels are turned with a seed."""
    given, rows = turned(labels, seed)
    start_s = time.perf_counter()
    found = find_label_issues(embeddings, given)
    row = {"seconds": time.perf_counter() - start_s}
    by_score = np.argsort(found.scores, kind="stable")
    ranked = {"suspects": found.indices, "scores": by_score}
    ranked |= rankings_of_cleanlab(given, found.proba)
    for name, order in ranked.items():
        row[name] = float(np.isin(rows, order[: 2 * len(rows)]).mean())
    low, high = found.n_expected_interval
    true = np.unique(labels, return_inverse=True)[1]
    return row | {
        "suggested": float((found.suggested[rows] == true[rows]).mean()),
        "n_expected / n": found.n_expected / len(rows),
        "joint / n": joint_issues(given, found.proba) / len(rows),
        "covered": float(low <= len(rows) <= high),
    }


def measure_quality(shared, *, n_seeds, max_images):
    """Print the table; return its rows."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder) / "cache")
        for name, data, labels in image_sets(shared, Path(folder)):
            if name not in SETS:
                continue
            chosen = np.sort(np.random.default_rng(0).permutation(len(data))[:max_images])
            network, extractor = list(extractors(shared, cache, "float32").items())[-1]
            embeddings = extractor.fit_transform(np.asarray(data)[chosen])
            seeds = [measure_seed(embeddings, labels[chosen], seed) for seed in range(n_seeds)]
            means = {key: float(np.mean([each[key] for each in seeds])) for key in seeds[0]}
            row = {"set": name, "network": network, "n_images": len(chosen), **means}
            if not rows:
                print(f"| {' | '.join(row)} |\n{'|---' * len(row)}|")
            rows.append(row)
            shown = (f"{each:.2f}" if isinstance(each, float) else each for each in row.values())
            print(f"| {' | '.join(map(str, shown))} |", flush=True)
    return rows


def measure_rows(folder):
    """Return what the rows of a cache take, in this process."""
    lazy, labels = EmbeddingCache(folder / "cache").open(), np.load(folder / "labels.npy")
    given, rows = turned(labels, 0)
    before = memory_bytes("VmRSS")
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    found = find_label_issues(lazy, given)
    return {
        "seconds": time.perf_counter() - start_s,
        "cpu_seconds": time.process_time() - start_cpu_s,
        "before_bytes": before,
        "peak_bytes": memory_bytes("VmHWM"),
        "rows_bytes": lazy.nbytes,
        "suspects": float(np.isin(rows, found.indices[: 2 * len(rows)]).mean()),
    }


def measure_size(sizes, *, is_smoke):
    """Print what each number of rows takes; return it."""
    results = {}
    for n_rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store_rows(Path(folder), n_rows=n_rows, n_features=N_FEATURES, n_classes=10)
            results[n_rows] = answer_of(__file__, "--measure", folder, is_smoke=is_smoke)
            print(n_rows, results[n_rows], flush=True)
    return results


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few images and rows, two seeds")
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_label_issues.json"))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure_rows(args.measure)))
        return
    max_images = None
    if args.smoke:
        args.seeds, args.rows, max_images = 2, [2000], 300
    results = {}
    if "quality" in args.sections:
        results["quality"] = measure_quality(args.shared, n_seeds=args.seeds, max_images=max_images)
    if "size" in args.sections:
        results["size"] = measure_size(args.rows, is_smoke=args.smoke)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1))
    print(f"\nwritten to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
