"""Measure what it costs to cross-validate heads on frozen features.

500 real images, MobileNetV2 (alpha 0.35) at its own 224 pixels, a grid of 10 strengths of a scaled
logistic regression, 5 folds. Every method starts from image files, in a process of its own, with
its libraries imported before the clock starts; the methods take turns, the table shows medians.

    floor       decode once, one compiled pass, the grid search on the ready matrix
    search      the grid search alone, on the ready matrix
    featx cold  TransferClassifier in GridSearchCV, empty cache
    featx warm  the same once more, in a fresh process
    pipeline    decode once, then the backbone inside a Pipeline, as most tutorials do
    memory      the same with Pipeline(memory=...)
    scikeras    decode once, then KerasClassifier around a frozen base; one candidate, its time
                scaled to the grid

The images are flowers, dogs and cats from the shared data sets if these are at hand (--shared),
else scikit-learn's digits; without the weight file the weights are random, which costs the same.
Linear algebra gets as many threads as its library takes, or --blas-threads in every method.

Usage: python benchmarks/bench_cv.py [--smoke] [--repeats 3] [--blas-threads N] [--methods A B ...]
                                     [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from children import answer_of
from photos import ALPHA, SIZE, compiled_pass, decoded, find_photos, find_weights, plain_network

METHODS = ("floor", "search", "featx cold", "featx warm", "pipeline", "memory", "scikeras")
SCIKERAS_EPOCHS = 5
GOALS = {
    ("featx cold", "floor"): "at most 1.10",
    ("featx warm", "search"): "at most 1.05",
    ("pipeline", "featx cold"): "at least 15",
    ("memory", "featx cold"): "at least 5",
    ("scikeras", "featx cold"): "",
}


def strengths(smoke):
    """Return the values of C that are searched."""
    return np.logspace(-4, 1, 2 if smoke else 10).tolist()


def head():
    """Return the head that every method but scikeras trains."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def search(estimator, name, X, labels, *, folds, smoke):
    """Search the grid; return the best mean accuracy."""
    from sklearn.model_selection import GridSearchCV

    grid = GridSearchCV(estimator, {name: strengths(smoke)}, cv=folds)
    return grid.fit(X, labels).best_score_


_MODEL = None


def naive_transformer(weights):
    """Return a transformer that calls model.predict whenever it is asked."""
    from sklearn.base import BaseEstimator, TransformerMixin

    class KerasFeatures(TransformerMixin, BaseEstimator):
        def __init__(self, weights=None):
            self.weights = weights

        def fit(self, X, y=None):
            return self

        def transform(self, X):
            global _MODEL
            if _MODEL is None:
                _MODEL = plain_network(self.weights)
            return _MODEL.predict(X, verbose=0)

        def __sklearn_is_fitted__(self):
            return True

    # Pipeline(memory=) pickles it, so it must be found by its name.
    KerasFeatures.__qualname__ = "KerasFeatures"
    globals()["KerasFeatures"] = KerasFeatures
    return KerasFeatures(weights)


def run_floor(job):
    """Pay once for decoding and for the pass, then search."""
    (matrix,) = compiled_pass(plain_network(job.weights), decoded(job.paths))
    np.save(job.work / "matrix.npy", matrix)
    name = "logisticregression__C"
    return search(head(), name, matrix, job.labels, **job.options), len(matrix)


def run_search(job):
    """Search on the matrix that the floor left behind."""
    matrix = np.load(job.work / "matrix.npy")
    name = "logisticregression__C"
    return search(head(), name, matrix, job.labels, **job.options), 0


def run_featx(job):
    """Search with featx from the paths."""
    from featx import EmbeddingCache, FeatureExtractor, TransferClassifier

    cache = EmbeddingCache(job.work / "cache")
    n_before = cache.info()["n_forward"]
    params = {"alpha": ALPHA}
    extractor = FeatureExtractor(
        "mobilenet_v2", weights=job.weights, backbone_params=params, input_size=SIZE, cache=cache
    )
    classifier = TransferClassifier(extractor, head())
    score = search(classifier, "head__C", job.paths, job.labels, **job.options)
    return score, cache.info()["n_forward"] - n_before


def run_pipeline(job, memory=None):
    """Search with the backbone inside the pipeline."""
    from sklearn.pipeline import Pipeline

    steps = [("features", naive_transformer(job.weights)), ("head", head())]
    pipeline = Pipeline(steps, memory=memory)
    name = "head__logisticregression__C"
    score = search(pipeline, name, decoded(job.paths), job.labels, **job.options)
    n, folds, n_strengths = len(job.paths), job.options["folds"], len(strengths(job.smoke))
    # Each fit embeds the training part, each score the other part, the refit all. With memory,
    # fits of one fold share their pass, scores do not.
    passes = (folds if memory else folds * n_strengths) * (n - n // folds) + n_strengths * n + n
    return score, passes


def run_memory(job):
    """Search with the backbone inside a pipeline that remembers its fits."""
    return run_pipeline(job, memory=str(job.work / "memory"))


def run_scikeras(job):
    """Cross-validate one candidate with scikeras: frozen base, a Dense layer on top."""
    import keras
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import cross_val_score

    n_classes, folds = len(np.unique(job.labels)), job.options["folds"]

    def build():
        features = plain_network(job.weights)
        outputs = keras.layers.Dense(n_classes, "softmax")(features.output)
        model = keras.Model(features.input, outputs)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    classifier = KerasClassifier(build, epochs=SCIKERAS_EPOCHS, batch_size=32, verbose=0)
    numbers = np.unique(job.labels, return_inverse=True)[1]
    scores = cross_val_score(classifier, decoded(job.paths), numbers, cv=folds)
    return float(np.mean(scores)), (SCIKERAS_EPOCHS * (folds - 1) + 1) * len(job.paths)


RUNNERS = {
    "floor": run_floor,
    "search": run_search,
    "featx cold": run_featx,
    "featx warm": run_featx,
    "pipeline": run_pipeline,
    "memory": run_memory,
    "scikeras": run_scikeras,
}


class Job(argparse.Namespace):
    """What one method is to do: paths, labels, weights, folder, options of the search."""

    @property
    def options(self):
        """Return what `search` takes beside the data."""
        return {"folds": self.folds, "smoke": self.smoke}


def run_method(job):
    """Run one method in this process; return seconds, score and image passes."""
    with np.load(job.work / "photos.npz") as data:
        job.paths, job.labels = data["paths"], data["labels"]
    import sklearn.model_selection  # noqa: F401

    if job.method not in ("search", "featx warm"):
        import keras
        import tensorflow as tf  # noqa: F401

        keras.utils.set_random_seed(0)
    if job.method.startswith("featx"):
        import featx.estimators  # noqa: F401
    head()
    start = time.perf_counter()
    score, passes = RUNNERS[job.method](job)
    seconds = time.perf_counter() - start
    scale = len(strengths(job.smoke)) if job.method == "scikeras" else 1
    return {"seconds": scale * seconds, "score": float(score), "passes": int(scale * passes)}


def measure(args):
    """Let the methods take turns; return the runs of each."""
    runs = {method: [] for method in args.methods}
    weights = find_weights(args.shared)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths, labels = find_photos(args.shared, work, 40 if args.smoke else 500)
        options = ["--work", work, "--folds", args.folds]
        options += ["--weights", weights] if weights else []
        options += ["--smoke"] if args.smoke else []
        np.savez(work / "photos.npz", paths=paths, labels=labels)
        # Files that changed a moment ago are hashed again each time, which would not be a warm run.
        time.sleep(0 if args.shared.is_dir() else 3)
        for _ in range(1 if args.smoke else args.repeats):
            for name in ("cache", "memory"):
                shutil.rmtree(work / name, ignore_errors=True)
            for method in args.methods:
                result = answer_of(
                    __file__,
                    *("--method", method, *options),
                    blas_threads=args.blas_threads,
                    is_smoke=args.smoke,
                )
                print(f"# {method}: {result['seconds']:.2f} s", file=sys.stderr, flush=True)
                runs[method].append(result)
    return runs


def report(runs):
    """Print the table of medians and ratios; return them."""
    seconds = {method: median(r["seconds"] for r in results) for method, results in runs.items()}
    print("| method | seconds | image passes | accuracy |")
    print("|---|---|---|---|")
    for method, results in runs.items():
        passes, score = results[0]["passes"], results[0]["score"]
        print(f"| {method} | {seconds[method]:.2f} | {passes:,} | {score:.3f} |")
    print("\n| ratio | measured | goal |")
    print("|---|---|---|")
    ratios = {}
    for (method, other), goal in GOALS.items():
        if method in seconds and other in seconds:
            ratios[f"{method} / {other}"] = seconds[method] / seconds[other]
            print(f"| {method} / {other} | {seconds[method] / seconds[other]:.2f} | {goal} |")
    return {"seconds": seconds, "ratios": ratios, "runs": runs, "machine": platform.platform()}


def main():
    """Run the benchmark, or one method of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--blas-threads", type=int, help="in every method; default: all cores")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_cv.json"))
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args(namespace=Job())
    if args.method:
        print(json.dumps(run_method(args)))
        return
    if args.smoke:
        args.folds = 2
    result = report(measure(args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
