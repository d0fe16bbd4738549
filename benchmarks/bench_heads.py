"""Measure what choosing the strength of a head costs, beside its arithmetic and scikit-learn.

    ridge     RidgeProbe, 45 strengths x 5 folds, against one Gram matrix and one
              eigendecomposition in float64, and against RidgeClassifierCV over 10 strengths, by
              turns
    linear    LinearProbe, 45 strengths x 5 folds, the whole path and as it ends by itself, against
              one fit of LogisticRegression at the strength that was chosen, by turns, and against
              GridSearchCV over LogisticRegression with two jobs: once, some of the strengths on
              some of the folds, which stand for all
    growth    both probes, the whole path, on half and a quarter of the rows and of the features,
              and on 2 and 100 classes
    photos    the same on embeddings of the photos at hand: MobileNetV2, else "tiny" on digits

Rows are drawn like embeddings, float32: classes that overlap, positive features whose spreads decay
as a power, as those of pooled networks do.

Usage: python benchmarks/bench_heads.py [--smoke] [--rows 50000] [--features 1280] [--classes 10]
           [--sections ridge linear growth photos] [--grid-folds 1] [--grid-every 5] [--repeats 3]
           [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from joblib import Parallel, delayed
from photos import find_photos, find_weights
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from featx import FeatureExtractor, LinearProbe, RidgeProbe
from featx._threads import blas_threads_for

N_FOLDS = 5


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
    exact, y = make_rows(args.rows, args.features, args.classes)
    X = exact.astype(np.float32)  # as the cache gives them
    probe, peer = RidgeProbe(), RidgeClassifierCV(np.logspace(-4, 5, 10))
    methods = {
        "arithmetic": lambda: arithmetic(exact),
        "RidgeProbe, float64 rows": lambda: probe.fit(exact, y),
        "RidgeProbe": lambda: probe.fit(X, y),
        "RidgeClassifierCV": lambda: peer.fit(X, y),
    }
    seconds = take_turns(methods, args.repeats)
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


def measure_linear(X, y, args):
    """Time LinearProbe by turns with one fit, and GridSearchCV once."""
    folds = list(StratifiedKFold(N_FOLDS).split(X, y))
    whole, short = LinearProbe(cv=folds, patience=None), LinearProbe(cv=folds)
    short.fit(X, y)
    one = LogisticRegression(C=short.C_, max_iter=1000)

    def one_fit():
        with blas_threads_for(X.nbytes):  # on a small matrix threads wait for one another
            one.fit(X, y)

    methods = {
        "one fit": one_fit,
        "LinearProbe": lambda: short.fit(X, y),
        "LinearProbe, whole path": lambda: whole.fit(X, y),
    }
    seconds = take_turns(methods, args.repeats)
    some = folds[: args.grid_folds]
    grid = GridSearchCV(
        LogisticRegression(max_iter=1000),
        {"C": whole.path_["Cs"][:: args.grid_every]},
        cv=some,
        n_jobs=2,
        refit=False,
    )
    Parallel(n_jobs=2)(delayed(abs)(-1) for _ in range(4))  # starts the workers
    n_tried = len(some) * len(whole.path_["Cs"][:: args.grid_every])
    grid_s = timed(lambda: grid.fit(X, y)) * N_FOLDS * len(whole.path_["Cs"]) / n_tried
    print("GridSearchCV", f"{grid_s:.1f} s for {N_FOLDS} folds", flush=True)
    theirs = [grid.cv_results_[f"split{number}_test_score"] for number in range(len(some))]
    ours = whole.path_["scores"][:: args.grid_every, : len(some)].T
    times = {name: median(values) for name, values in seconds.items()}
    return {
        "shape": [*X.shape, len(np.unique(y))],
        "seconds": times | {"GridSearchCV": grid_s},
        "folds of GridSearchCV": len(some),
        "GridSearchCV / LinearProbe": grid_s / times["LinearProbe"],
        "GridSearchCV / whole path": grid_s / times["LinearProbe, whole path"],
        "LinearProbe / one fit": ratio(seconds, "LinearProbe", "one fit"),
        "whole path / one fit": ratio(seconds, "LinearProbe, whole path", "one fit"),
        "C": short.C_,
        "strengths walked": len(short.path_["Cs"]),
        "score": short.best_score_,
        "best score of those": [float(np.mean(each, 0).max()) for each in (ours, theirs)],
        "largest difference of a score": float(np.abs(ours - theirs).max()),
    }


def embedded_photos(args):
    """Return embeddings of the photos at hand, float32, and their labels."""
    weights = find_weights(args.shared)
    with tempfile.TemporaryDirectory() as work:
        paths, labels = find_photos(args.shared, Path(work), 620)
        extractor = (
            FeatureExtractor("mobilenet_v2", weights=weights, backbone_params={"alpha": 0.35})
            if weights
            else FeatureExtractor("tiny")
        )
        rows = extractor.set_params(cache=str(Path(work) / "cache")).fit_transform(paths)
    return rows, labels


def timed(method):
    """Return the seconds that a method takes."""
    start_s = time.perf_counter()
    method()
    return time.perf_counter() - start_s


def take_turns(methods, repeats):
    """Run each method in turn; return the seconds of each run."""
    seconds = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            seconds[name].append(timed(method))
            print(name, f"{seconds[name][-1]:.2f} s", flush=True)
    return seconds


GOALS = {
    "RidgeProbe / arithmetic": ("at most", 3),
    "RidgeClassifierCV / RidgeProbe": ("at least", 20),
    "GridSearchCV / LinearProbe": ("at least", 8),
    "whole path / one fit": ("at most", 10),
}


def report(result):
    """Return what was measured as tables."""
    lines = ["| what | seconds |", "|---|---|"]
    lines += [f"| {name} | {value:.3g} |" for name, value in result["seconds"].items()]
    lines += ["", "| ratio | measured | goal |", "|---|---|---|"]
    for name, (bound, goal) in GOALS.items():
        if name in result:
            is_met = result[name] <= goal if bound == "at most" else result[name] >= goal
            missed = "" if is_met else " **missed**"
            lines.append(f"| {name} | {result[name]:.3g} | {bound} {goal}{missed} |")
    return "\n".join(lines)


def ratio(seconds, method, other):
    """Return the median of the ratios, turn by turn."""
    return median(a / b for a, b in zip(seconds[method], seconds[other], strict=True))


def measure_rows(args):
    """Time LinearProbe on rows that were drawn."""
    X, y = make_rows(args.rows, args.features, args.classes)
    return measure_linear(X.astype(np.float32), y, args)


def measure_growth(args):
    """Time the probes where one number grows and the others stay."""
    shape = {"rows": args.rows // 2, "features": args.features // 2, "classes": args.classes}
    values = {
        "rows": [args.rows // 4, args.rows // 2, args.rows],
        "features": [args.features // 4, args.features // 2, args.features],
        "classes": [2, 10, 100],
    }
    found = {}
    for name, sizes in values.items():
        for size in sizes:
            n_rows, n_features, n_classes = (shape | {name: size}).values()
            X, y = make_rows(n_rows, n_features, n_classes)
            probes = {"RidgeProbe": RidgeProbe(), "LinearProbe": LinearProbe(patience=None)}
            X = X.astype(np.float32)
            methods = {
                name: lambda probe=probe, X=X, y=y: probe.fit(X, y)
                for name, probe in probes.items()
            }
            seconds = take_turns(methods, args.repeats)
            for probe, times in seconds.items():
                found[f"{probe}, {n_rows} x {n_features} x {n_classes}"] = median(times)
    return {"seconds": found}


def measure_photos(args):
    """Time LinearProbe on embeddings."""
    return measure_linear(*embedded_photos(args), args)


SECTIONS = {
    "ridge": measure_ridge,
    "linear": measure_rows,
    "growth": measure_growth,
    "photos": measure_photos,
}


def main():
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--grid-folds", type=int, default=1)
    parser.add_argument("--grid-every", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.rows, args.features, args.repeats = 500, 40, 1
        args.sections = ["ridge", "linear", "growth"]
    results = {}
    for section in args.sections:
        results[section] = SECTIONS[section](args)
        print(report(results[section]))
        if args.out:
            args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
