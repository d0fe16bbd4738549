"""Measure what several views of each image buy, and what they cost.

Accuracy of the head "probe", which chooses its strength by cross-validation, on embeddings of
MobileNetV2 0.35 with ImageNet weights: trained on ten images of each class, and on four fifths of
the set. The first view is the image itself; the others are changed by augment="standard", or
mirrored. Every method sees the same splits, and predicts from the same number of views as it was
trained on, but for "test only", which is trained on the images themselves.

Seconds of embedding the images of the first set, at most 160, with views and without, into an empty
cache; by turns.

Without the shared data (--shared) "tiny" on scikit-learn's digits is measured.

Usage: python benchmarks/bench_views.py [--smoke] [--sections accuracy seconds] [--shared ../shared]
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
from statistics import median

# On a few hundred rows two BLAS threads mostly wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from bench_accuracy import SETS, extractors, image_sets
from sklearn.model_selection import StratifiedShuffleSplit

from featx import EmbeddingCache, TransferClassifier

SECTIONS = ["accuracy", "seconds"]
N_FEW = 10  # images of each class
SETS |= {
    "cifar10_jpg": ("cifar10_jpg/train", "cifar10_jpg/test"),
    "fashion_mnist_png": ("fashion_mnist_png/train", "fashion_mnist_png/test"),
}


def methods(n_views):
    """Return extractors by what is done with views: for training, and for prediction."""
    standard = {"views": n_views, "augment": "standard"}
    mirrored = {"views": 2, "augment": keras.layers.RandomFlip("horizontal")}
    return {
        "no views": ({}, {}),
        "standard": (standard, standard),
        "standard, training only": (standard, {}),
        "standard, test only": ({}, standard),
        "mirrored at random": (mirrored, mirrored),
    }


def measure_set(extractor, paths, labels, *, n_views, n_repeats, max_images):
    """Return accuracies by size of the training set and method, each of shape (n_repeats,)."""
    rng = np.random.default_rng(0)
    if len(paths) > max_images:
        chosen = np.sort(rng.permutation(len(paths))[:max_images])
        paths, labels = paths[chosen], labels[chosen]
    found = {}
    n_classes = len(np.unique(labels))
    for size, train_size in {"few": N_FEW * n_classes, "most": 0.8}.items():
        splitter = StratifiedShuffleSplit(
            n_repeats, train_size=train_size, test_size=0.2, random_state=0
        )
        for train, test in splitter.split(paths, labels):
            for name, (trained, judged) in methods(n_views).items():
                classifier = TransferClassifier(
                    extractor.set_params(views=1, augment=None).set_params(**trained), "probe"
                ).fit(paths[train], labels[train])
                classifier.extractor_.set_params(views=1, augment=None).set_params(**judged)
                score = classifier.score(paths[test], labels[test])
                found.setdefault(size, {}).setdefault(name, []).append(score)
    return found


def measure_seconds(extractor, paths, *, n_views, n_repeats):
    """Return seconds of embedding images with and without views; what compiles is done before."""
    ways = {"no views": {"views": 1, "augment": None}}
    ways["standard"] = {"views": n_views, "augment": "standard"}
    seconds, n_forward = {name: [] for name in ways}, {}
    for turn in range(1 + n_repeats):
        for name, params in ways.items():
            with tempfile.TemporaryDirectory() as cache:
                extractor.set_params(cache=cache, **params)
                start_s = time.perf_counter()
                extractor.fit(paths).transform(paths)
                n_forward[name] = extractor.report_.n_forward
                if turn:
                    seconds[name].append(time.perf_counter() - start_s)
    found = {name: median(values) for name, values in seconds.items()}
    return {
        "views": n_views,
        "n_forward": n_forward,
        "seconds": found,
        "a view / an image": (found["standard"] / found["no views"] - 1) / (n_views - 1),
    }


def measure_sets(args, cache, work):
    """Print and return what views buy, by set, size of the training set and method."""
    n_views, n_repeats = (2, 2) if args.smoke else (args.views, args.repeats)
    results = {}
    for name, paths, labels in image_sets(args.shared, work):
        *_, extractor = extractors(args.shared, cache, "float32").values()
        results[name] = measure_set(
            extractor,
            np.asarray(paths),
            labels,
            n_views=n_views,
            n_repeats=n_repeats,
            max_images=150 if args.smoke else 1000,
        )
        for size, scores in results[name].items():
            for method, values in scores.items():
                gain = np.subtract(values, scores["no views"])
                print(
                    f"| {name} | {size} | {method} | {np.mean(values):.3f} | "
                    f"{np.mean(gain):+.3f} ± {np.std(gain, ddof=1) / np.sqrt(len(gain)):.3f} |",
                    flush=True,
                )
    return results


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two views, two splits")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/bench_views.json"))
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cache = EmbeddingCache(work / "cache")
        if "accuracy" in args.sections:
            results["accuracy"] = measure_sets(args, cache, work)
        if "seconds" in args.sections:
            _, paths, _ = next(image_sets(args.shared, work))
            *_, extractor = extractors(args.shared, cache, "float32").values()
            n_images, n_views, n_repeats = (20, 2, 1) if args.smoke else (160, args.views, 3)
            results["seconds"] = measure_seconds(
                extractor, paths[:n_images], n_views=n_views, n_repeats=n_repeats
            )
            print(results["seconds"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1))
    print(f"\nwritten to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
