"""Measure what choosing the strength of a head costs, beside its arithmetic and scikit-learn.

    ridge     RidgeProbe, 45 strengths x 5 folds, against one Gram matrix and one
              eigendecomposition, and against RidgeClassifierCV over 10 strengths, by turns

Rows are drawn like embeddings: classes that overlap, positive features whose spreads decay as a
power, as those of pooled networks do.

Usage: python benchmarks/bench_heads.py [--smoke] [--rows 50000] [--features 1280] [--classes 10]
                                        [--repeats 3] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import cross_val_score

from featx import RidgeProbe


def make_rows(n_rows, n_features, n_classes, seed=0):
    """Return rows like pooled embeddings, float64, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_rows)
    rank = min(n_features, 4 * n_classes + 200)
    spreads = np.arange(1, rank + 1) ** -0.5
    centers = rng.normal(size=(n_classes, rank)) * 0.3
    hidden = (rng.normal(size=(n_rows, rank)) + centers[labels]) * spreads
    rows = hidden @ rng.normal(size=(rank, n_features))
    rows += 0.3 * rng.normal(size=rows.shape)
    return np.maximum(rows, 0), labels


def arithmetic(X):
    """Do once what no exact method can do without."""
    np.linalg.eigh(X.T @ X)


def measure_ridge(args):
    """Time RidgeProbe by turns with its arithmetic and with RidgeClassifierCV."""
    X, y = make_rows(args.rows, args.features, args.classes)
    probe, peer = RidgeProbe(), RidgeClassifierCV(np.logspace(-4, 5, 10))
    methods = {
        "arithmetic": lambda: arithmetic(X),
        "RidgeProbe": lambda: probe.fit(X, y),
        "RidgeClassifierCV": lambda: peer.fit(X, y),
    }
    seconds = {name: [] for name in methods}
    for _ in range(args.repeats):
        for name, method in methods.items():
            start_s = time.perf_counter()
            method()
            seconds[name].append(time.perf_counter() - start_s)
            print(name, f"{seconds[name][-1]:.2f} s", flush=True)
    expected = cross_val_score(RidgeClassifier(probe.alpha_), X, y).mean()
    return {
        "shape": [*X.shape, args.classes],
        "seconds": {name: median(values) for name, values in seconds.items()},
        "RidgeProbe / arithmetic": ratio(seconds, "RidgeProbe", "arithmetic"),
        "RidgeClassifierCV / RidgeProbe": ratio(seconds, "RidgeClassifierCV", "RidgeProbe"),
        "alpha": probe.alpha_,
        "score": probe.best_score_,
        "score of cross_val_score": expected,
    }


GOALS = {
    "RidgeProbe / arithmetic": ("at most", 3),
    "RidgeClassifierCV / RidgeProbe": ("at least", 20),
}


def report(ridge):
    """Return what was measured as tables."""
    lines = ["| what | seconds |", "|---|---|"]
    lines += [f"| {name} | {value:.3g} |" for name, value in ridge["seconds"].items()]
    lines += ["", "| ratio | measured | goal |", "|---|---|---|"]
    for name, (bound, goal) in GOALS.items():
        is_met = ridge[name] <= goal if bound == "at most" else ridge[name] >= goal
        lines.append(
            f"| {name} | {ridge[name]:.3g} | {bound} {goal}{'' if is_met else ' **missed**'} |"
        )
    return "\n".join(lines)


def ratio(seconds, method, other):
    """Return the median of the ratios, turn by turn."""
    return median(a / b for a, b in zip(seconds[method], seconds[other], strict=True))


def main():
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a second instead of minutes")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.rows, args.features, args.repeats = 500, 40, 1
    results = {"ridge": measure_ridge(args)}
    print(report(results["ridge"]))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
