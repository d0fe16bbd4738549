"""Measure heads on a GPU, through scikit-learn's Array API and torch, beside the CPU.

The probes, and the heads "logistic", "ridge" and "lda" as featx makes them, or the nearest that
scikit-learn can train there, on rows drawn like embeddings, float32. Both train by turns, after a
short turn on few rows, which sets libraries up; the table shows medians of seconds, the copy to the
device included, and how far the GPU's scores of the rows are from the CPU's, relative to the
largest. Ridge and LDA have the solver that the Array API takes, on both sides; on a CPU there are
faster ones.

Usage: SCIPY_ARRAY_API=1 python benchmarks/bench_heads_gpu.py [--smoke] [--rows 50000]
           [--features 1280] [--classes 10] [--repeats 3] [--heads LinearProbe ...]
           [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
from bench_heads import make_rows
from sklearn import config_context
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import KNNProbe, LinearProbe, RidgeProbe
from featx.probes._arrays import to_numpy

HEADS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "ridge": make_pipeline(StandardScaler(), RidgeClassifier(solver="svd")),
    "lda": LinearDiscriminantAnalysis(solver="svd"),
    "LinearProbe": make_pipeline(StandardScaler(), LinearProbe()),
    "RidgeProbe": make_pipeline(StandardScaler(), RidgeProbe()),
    "KNNProbe": KNNProbe(),
}
WARM_UP_ROWS = 2000


def scores_of(head, rows):
    """Return what a head decides by."""
    has_scores = hasattr(head, "decision_function")
    return head.decision_function(rows) if has_scores else head.predict_proba(rows)


def measure(args):
    """Return for each head the seconds and the difference, or why it could not be trained."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, labels = make_rows(args.rows, args.features, args.classes)
    rows = rows.astype(np.float32)
    results = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}

    def on_gpu(head, n_rows):
        with config_context(array_api_dispatch=True):
            sent = torch.asarray(rows[:n_rows], device=device)
            fitted = clone(head).fit(sent, torch.asarray(labels[:n_rows], device=device))
            if device == "cuda":
                torch.cuda.synchronize()
        return fitted

    def on_cpu(head, n_rows):
        return clone(head).fit(rows[:n_rows], labels[:n_rows])

    for name in args.heads:
        head, fitted, seconds = HEADS[name], {}, {}
        try:
            for n_rows in (WARM_UP_ROWS, *[args.rows] * args.repeats):
                for where, fit in {"CPU": on_cpu, "GPU": on_gpu}.items():
                    start = time.perf_counter()
                    fitted[where] = fit(head, n_rows)
                    seconds.setdefault(where, []).append(time.perf_counter() - start)
            with config_context(array_api_dispatch=True):
                sent = torch.asarray(rows, device=device)
                scores = to_numpy(scores_of(fitted["GPU"], sent))
        except Exception as exc:
            results[name] = f"{type(exc).__name__}: {exc}"
        else:
            expected = scores_of(fitted["CPU"], rows)
            results[name] = {
                "seconds": {where: median(values[1:]) for where, values in seconds.items()},
                "difference": float(np.abs(scores - expected).max() / np.abs(expected).max()),
            }
        print(f"# {name}: {results[name]}", file=sys.stderr, flush=True)
    return results


def main():
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a second instead of minutes")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.rows, args.features, args.repeats = 500, 40, 1
    results = measure(args)
    print(json.dumps(results, indent=1))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
