"""Measure the search of a day: 3 layers, 2 poolings, 3 heads with 5 values each, 5 folds.

500 real photos from files, MobileNetV2 (alpha 0.35) at 224 pixels. 450 fits and as many scores, and
the best candidate fitted once more, in one process and with two workers of joblib. featx gives
small heads one BLAS thread, as joblib does its workers; --blas-threads 1 does so for everyone. Each
method runs in a process of its own, with its libraries imported before the clock starts; the
methods take turns, the table shows medians.

    ready    decode once, one compiled pass with six outputs, then a grid search of each head on
             each of the six matrices
    featx    GridSearchCV over a TransferClassifier whose extractor stores all six in one pass;
             with two workers after `extractor.fit_transform(paths)`

Usage: python benchmarks/bench_search.py [--smoke] [--repeats 3] [--n-jobs 1 2] [--blas-threads N]
                                         [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import platform
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from children import answer_of
from photos import ALPHA, SIZE, compiled_pass, decoded, find_photos, find_weights, plain_network

LAYERS = ["block_6_expand_relu", "block_13_expand_relu", None]
POOLINGS = ["avg", "max"]
METHODS = ("ready", "featx")
GOAL = 1.10


def heads(smoke):
    """Return three heads, each with the name of a parameter and its values."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_values = 2 if smoke else 5
    cases = [
        (LogisticRegression(max_iter=1000), "C", [0.001, 0.01, 0.1, 1.0, 10.0]),
        (RidgeClassifier(), "alpha", [1.0, 10.0, 100.0, 1000.0, 10000.0]),
        (KNeighborsClassifier(), "n_neighbors", [1, 3, 5, 10, 20]),
    ]
    for estimator, name, values in cases:
        head = make_pipeline(StandardScaler(), estimator)
        yield head, f"{type(estimator).__name__.lower()}__{name}", values[:n_values]


def run_ready(job):
    """Pay once for decoding and for the pass, then search on the six matrices."""
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV

    model = plain_network(job.weights, LAYERS, POOLINGS)
    matrices = compiled_pass(model, decoded(job.paths))
    searches = [
        (
            GridSearchCV(head, {name: values}, cv=job.folds, n_jobs=job.n_jobs, refit=False).fit(
                matrix, job.labels
            ),
            matrix,
        )
        for head, name, values in heads(job.smoke)
        for matrix in matrices
    ]
    best, matrix = max(searches, key=lambda each: each[0].cv_results_["mean_test_score"].max())
    number = int(best.cv_results_["mean_test_score"].argmax())
    refitted = clone(best.estimator).set_params(**best.cv_results_["params"][number])
    refitted.fit(matrix, job.labels)
    scores = [search.cv_results_["mean_test_score"] for search, _ in searches]
    return np.concatenate(scores), len(job.paths)


def note_pass(file, n_done, n_total):
    """Write down that a pass is done, from whichever process it ran in."""
    if n_done == n_total:
        with open(file, "a", encoding="ascii") as notes:
            notes.write(f"{n_total}\n")


def run_featx(job):
    """Search with featx from the paths."""
    from sklearn.model_selection import GridSearchCV

    from featx import EmbeddingCache, FeatureExtractor, TransferClassifier

    notes = job.work / "passes"
    extractor = FeatureExtractor(
        "mobilenet_v2",
        weights=job.weights,
        backbone_params={"alpha": ALPHA},
        input_size=SIZE,
        cache=EmbeddingCache(job.work / "cache"),
        also_cache=list(itertools.product(LAYERS, POOLINGS)),
        verbose=functools.partial(note_pass, notes),
    )
    if job.n_jobs > 1:
        extractor.fit_transform(job.paths)
    grid = [
        {
            "head": [head],
            "extractor__layer": LAYERS,
            "extractor__pooling": POOLINGS,
            f"head__{name}": values,
        }
        for head, name, values in heads(job.smoke)
    ]
    search = GridSearchCV(TransferClassifier(extractor), grid, cv=job.folds, n_jobs=job.n_jobs)
    search.fit(job.paths, job.labels)
    n_passes = sum(map(int, notes.read_text().split()))
    return search.cv_results_["mean_test_score"], n_passes


RUNNERS = {"ready": run_ready, "featx": run_featx}


def run_method(job):
    """Run one method in this process; return seconds, scores in order and image passes."""
    with np.load(job.work / "photos.npz") as data:
        job.paths, job.labels = data["paths"], data["labels"]
    import keras
    import tensorflow as tf  # noqa: F401

    import featx.estimators  # noqa: F401

    list(heads(job.smoke))
    keras.utils.set_random_seed(0)
    shutil.rmtree(job.work / "cache", ignore_errors=True)
    (job.work / "passes").unlink(missing_ok=True)
    start_s = time.perf_counter()
    scores, n_passes = RUNNERS[job.method](job)
    wall_time_s = time.perf_counter() - start_s
    return {
        "wall_time_s": wall_time_s,
        "n_passes": n_passes,
        "n_candidates": len(scores),
        "scores": list(map(float, scores)),
    }


def measure(args):
    """Let the methods take turns; return the runs of each, by number of jobs."""
    runs = {}
    weights = find_weights(args.shared)
    with tempfile.TemporaryDirectory() as folder:
        paths, labels = find_photos(args.shared, Path(folder), 40 if args.smoke else 500)
        np.savez(Path(folder) / "photos.npz", paths=paths, labels=labels)
        # Files that changed a moment ago are hashed again each time.
        time.sleep(0 if args.shared.is_dir() else 3)
        options = ["--work", folder, "--folds", args.folds]
        options += ["--weights", weights] if weights else []
        options += ["--smoke"] if args.smoke else []
        for _ in range(args.repeats):
            for n_jobs, method in itertools.product(args.n_jobs, METHODS):
                result = answer_of(
                    __file__,
                    *("--method", method, "--n-jobs", n_jobs, *options),
                    blas_threads=args.blas_threads,
                    is_smoke=args.smoke,
                )
                runs.setdefault(n_jobs, {}).setdefault(method, []).append(result)
                print(f"# {method}, {n_jobs}: {result['wall_time_s']:.1f} s", flush=True)
    return runs


def report(runs):
    """Print the table of medians and ratios; return them."""
    print("| jobs | ready, s | featx, s | featx / ready | goal | image passes | best accuracy |")
    print("|---|---|---|---|---|---|---|")
    ratios = {}
    for n_jobs, of in runs.items():
        seconds = {name: median(run["wall_time_s"] for run in of[name]) for name in METHODS}
        ratios[n_jobs] = median(
            ours["wall_time_s"] / theirs["wall_time_s"]
            for ours, theirs in zip(of["featx"], of["ready"], strict=True)
        )
        passes = sorted({run["n_passes"] for run in of["featx"]})
        print(
            f"| {n_jobs} | {seconds['ready']:.1f} | {seconds['featx']:.1f} "
            f"| {ratios[n_jobs]:.2f} | at most {GOAL:.2f} | {', '.join(map(str, passes))} "
            f"| {max(of['featx'][0]['scores']):.3f} |"
        )
    return {"ratios": ratios, "runs": runs, "machine": platform.platform()}


def main():
    """Run the benchmark, or one method of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--n-jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--blas-threads", type=int, help="in every method; default: all cores")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_search.json"))
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        (args.n_jobs,) = args.n_jobs
        print(json.dumps(run_method(args)))
        return
    if args.smoke:
        args.folds, args.repeats = 2, 1
    result = report(measure(args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
