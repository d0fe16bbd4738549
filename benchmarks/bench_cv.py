"""Cost of cross-validating heads on frozen features, against the naive ways and the floor.

500 real images, MobileNetV2 (alpha 0.35) at 96 pixels, a grid of 10 strengths of a scaled logistic
regression, 5 folds. Every method runs in a process of its own, from uint8 arrays in memory, with
its libraries imported before the clock starts, with one BLAS thread; the methods take turns, and
the table shows medians.

    floor       one compiled pass over all images, then the grid search on the ready matrix
    search      the grid search alone, on the ready matrix
    featx cold  TransferClassifier in GridSearchCV, empty cache
    featx warm  the same once more, in a fresh process
    pipeline    the backbone inside the Pipeline, as most tutorials do
    memory      the same with Pipeline(memory=...)
    scikeras    KerasClassifier around a frozen base, fewer candidates, scaled to the whole grid

The images are flowers, dogs and cats from the shared data sets if these are at hand (--shared),
else scikit-learn's digits; without the weight file the weights are random, which costs the same.

Usage: python benchmarks/bench_cv.py [--smoke] [--repeats 3] [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

SIZE = 96
ALPHA = 0.35
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
METHODS = ("floor", "search", "featx cold", "featx warm", "pipeline", "memory", "scikeras")
SCIKERAS_EPOCHS = 5
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONWARNINGS": "ignore",
    # On 500 rows two BLAS threads mostly wait for one another, which drowns everything else.
    "OPENBLAS_NUM_THREADS": "1",
}


def strengths(smoke):
    """Return the values of C that are searched."""
    return np.logspace(-4, 1, 2 if smoke else 10).tolist()


def make_images(shared, n_images):
    """Load n_images real images of SIZE pixels, and their labels."""
    from PIL import Image
    from sklearn.datasets import load_digits

    from featx import load_image_folder

    if not shared.is_dir():
        digits = load_digits()
        gray = (digits.images[:n_images] * 255 / 16).astype(np.uint8)
        images = [np.asarray(Image.fromarray(g).resize((SIZE, SIZE)).convert("RGB")) for g in gray]
        return np.stack(images), digits.target[:n_images].astype(str)
    folders = ("flower_photos/train", "flower_photos/val", "dogs_cats")
    sets = [load_image_folder(shared / "data" / folder) for folder in folders]
    paths = np.concatenate([s.data for s in sets])
    labels = np.concatenate([s.target for s in sets])
    chosen = np.sort(np.random.default_rng(0).permutation(len(paths))[:n_images])
    images = [np.asarray(Image.open(p).convert("RGB").resize((SIZE, SIZE))) for p in paths[chosen]]
    return np.stack(images), labels[chosen]


def raw_backbone(weights):
    """Build the network with preprocessing and pooling, as a user of Keras would."""
    import keras

    base = keras.applications.MobileNetV2(
        alpha=ALPHA, include_top=False, weights=weights, input_shape=(SIZE, SIZE, 3)
    )
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = base(keras.layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


def compiled_pass(weights, images):
    """Embed all images with one compiled function: the least that anyone must pay."""
    import tensorflow as tf

    model = raw_backbone(weights)
    function = tf.function(lambda batch: model(batch, training=False))
    size = 64
    padding = (-len(images)) % size
    padded = np.concatenate([images, images[:1].repeat(padding, axis=0)])
    batches = [padded[i : i + size] for i in range(0, len(padded), size)]
    outputs = [function(tf.constant(batch)).numpy() for batch in batches]
    return np.concatenate(outputs)[: len(images)].astype(np.float64)


def head():
    """Return the head that every method but scikeras trains."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def search(estimator, name, images, labels, *, folds, smoke):
    """Search the grid; return the best mean accuracy."""
    from sklearn.model_selection import GridSearchCV

    grid = GridSearchCV(estimator, {name: strengths(smoke)}, cv=folds)
    return grid.fit(images, labels).best_score_


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
                _MODEL = raw_backbone(self.weights)
            return _MODEL.predict(X, verbose=0)

        def __sklearn_is_fitted__(self):
            return True

    KerasFeatures.__qualname__ = "KerasFeatures"
    globals()["KerasFeatures"] = KerasFeatures
    return KerasFeatures(weights)


_MODEL = None


def run_pipeline(weights, images, labels, *, folds, smoke, memory=None):
    """Search with the backbone inside the pipeline."""
    from sklearn.pipeline import Pipeline

    steps = [("features", naive_transformer(weights)), ("head", head())]
    pipeline = Pipeline(steps, memory=memory)
    name = "head__logisticregression__C"
    return search(pipeline, name, images, labels, folds=folds, smoke=smoke)


def run_scikeras(weights, images, labels, *, folds):
    """Cross-validate one candidate with scikeras: frozen base, a Dense layer on top."""
    import keras
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import cross_val_score

    n_classes = len(np.unique(labels))

    def build():
        features = raw_backbone(weights)
        outputs = keras.layers.Dense(n_classes, "softmax")(features.output)
        model = keras.Model(features.input, outputs)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    classifier = KerasClassifier(build, epochs=SCIKERAS_EPOCHS, batch_size=32, verbose=0)
    numbers = np.unique(labels, return_inverse=True)[1]
    return float(np.mean(cross_val_score(classifier, images, numbers, cv=folds)))


def run_featx(weights, images, labels, *, folds, smoke, cache):
    """Search with featx; return the best mean accuracy and the rows computed."""
    from featx import EmbeddingCache, FeatureExtractor, TransferClassifier

    extractor = FeatureExtractor(
        "mobilenet_v2",
        weights=weights,
        backbone_params={"alpha": ALPHA},
        input_size=SIZE,
        cache=cache,
    )
    classifier = TransferClassifier(extractor, head())
    score = search(classifier, "head__C", images, labels, folds=folds, smoke=smoke)
    return score, EmbeddingCache(cache).info()["n_forward"]


def run_method(method, work, weights, *, folds, smoke):
    """Run one method in this process; return seconds, score and image passes."""
    data = np.load(work / "images.npz")
    images, labels = data["images"], data["labels"]
    options = {"folds": folds, "smoke": smoke}
    n, per_fold = len(images), len(strengths(smoke)) * folds
    import sklearn.model_selection  # noqa: F401

    if method not in ("search", "featx warm"):
        import keras
        import tensorflow as tf  # noqa: F401

        keras.utils.set_random_seed(0)
    if method.startswith("featx"):
        import featx.estimators  # noqa: F401
    factor, passes = 1.0, n
    head()
    start = time.perf_counter()
    if method == "floor":
        matrix = compiled_pass(weights, images)
        score = search(head(), "logisticregression__C", matrix, labels, **options)
        seconds = time.perf_counter() - start
        np.save(work / "matrix.npy", matrix)
    elif method == "search":
        matrix = np.load(work / "matrix.npy")
        start = time.perf_counter()
        score = search(head(), "logisticregression__C", matrix, labels, **options)
        seconds, passes = time.perf_counter() - start, 0
    elif method.startswith("featx"):
        cache = work / "cache"
        before = 0 if method == "featx cold" else n
        score, passes = run_featx(weights, images, labels, cache=cache, **options)
        seconds, passes = time.perf_counter() - start, passes - before
    elif method == "scikeras":
        score = run_scikeras(weights, images, labels, folds=folds)
        factor = len(strengths(smoke))
        seconds = (time.perf_counter() - start) * factor
        passes = int(factor * (SCIKERAS_EPOCHS * (folds - 1) + 1) * n)
    else:
        memory = str(work / "memory") if method == "memory" else None
        score = run_pipeline(weights, images, labels, memory=memory, **options)
        seconds = time.perf_counter() - start
        # Each fit embeds the training part, each score the other part; the refit all. With
        # memory, fits of one fold share their pass, scores do not.
        passes = per_fold * n + n if memory is None else folds * n + per_fold * n // folds
    return {"seconds": seconds, "score": float(score), "passes": int(passes)}


def in_child(method, work, weights, *, folds, smoke):
    """Run one method in a process of its own."""
    command = [sys.executable, __file__, "--method", method, "--work", str(work)]
    command += ["--folds", str(folds)] + (["--weights", str(weights)] if weights else [])
    command += ["--smoke"] if smoke else []
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{method} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args):
    """Let the methods take turns; return the runs of each."""
    import shutil

    runs = {method: [] for method in METHODS}
    weights = args.shared / "weights" / WEIGHTS
    weights = weights.resolve() if weights.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images, labels = make_images(args.shared, 40 if args.smoke else 500)
        np.savez(work / "images.npz", images=images, labels=labels)
        for _ in range(1 if args.smoke else args.repeats):
            for name in ("cache", "memory"):
                shutil.rmtree(work / name, ignore_errors=True)
            for method in METHODS:
                result = in_child(method, work, weights, folds=args.folds, smoke=args.smoke)
                print(f"# {method}: {result['seconds']:.2f} s", file=sys.stderr, flush=True)
                runs[method].append(result)
    return runs


def report(runs):
    """Print the table of ratios; return them."""
    seconds = {method: median(r["seconds"] for r in results) for method, results in runs.items()}
    print("| method | seconds | image passes | accuracy | against floor | against search |")
    print("|---|---|---|---|---|---|")
    for method, results in runs.items():
        print(
            f"| {method} | {seconds[method]:.2f} | {results[0]['passes']} | "
            f"{results[0]['score']:.3f} | {seconds[method] / seconds['floor']:.2f} | "
            f"{seconds[method] / seconds['search']:.2f} |"
        )
    ratios = {
        "cold against floor": seconds["featx cold"] / seconds["floor"],
        "warm against search": seconds["featx warm"] / seconds["search"],
        "pipeline against cold": seconds["pipeline"] / seconds["featx cold"],
        "memory against cold": seconds["memory"] / seconds["featx cold"],
        "scikeras against cold": seconds["scikeras"] / seconds["featx cold"],
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x")
    return {"seconds": seconds, "ratios": ratios, "runs": runs, "machine": platform.platform()}


def main():
    """Run the benchmark, or one method of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_cv.json"))
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        options = {"folds": args.folds, "smoke": args.smoke}
        print(json.dumps(run_method(args.method, args.work, args.weights, **options)))
        return
    if args.smoke:
        args.folds = 2
    result = report(measure(args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
