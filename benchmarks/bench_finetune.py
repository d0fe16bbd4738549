"""Measure what fine-tuning costs above the frontier, and what it buys.

    epoch     one epoch: featx, a bare Keras loop over ready activations, and the usual Keras recipe
              from pixels (``base(x, training=False)``, top layers unfrozen, images decoded and in
              memory), by turns; for the last stage of ResNet50 and the last block of MobileNetV2
    search    the workload of Nautilus (Nakandala and Kumar, SIGMOD 2022): 3 depths x 3 learning
              rates x 3 folds x 5 epochs, and all of it again after 20 % more labeled images, with
              MobileNetV2 0.35 at 224 px; the recipe's runs of one depth are all alike, so one of
              each depth and round is run and stands for nine
    accuracy  held-out accuracy of the head, of the fine-tuned model, and of what fine-tuning from a
              random head comes to, with MobileNetV2 0.35 on real sets, mean over seeds; what is
              unfrozen, learning rate and batch size of each set are those of SETS

Without the shared data and weights (--shared), scikit-learn's digits and random weights stand in,
which cost the same.

Usage: python benchmarks/bench_finetune.py [--smoke] [--sections epoch search accuracy]
                                           [--images 1500] [--repeats 3] [--first-seed 0]
                                           [--shared ../shared] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import keras
import numpy as np
from photos import find_weights
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split

from featx import EmbeddingCache, FeatureExtractor, FineTune, TransferClassifier, load_image_folder
from featx.cli.demo import write_digits
from featx.finetune.model import TrainedModel
from featx.finetune.plan import TrainingPlan
from featx.inputs.recognize import as_samples

BATCH_SIZE = 32


class LabeledSet(NamedTuple):
    """Labeled images, how they are fine-tuned on, and the gain over the head that is aimed at."""

    folders: list[str]
    input_size: int
    goal: float
    unfreeze: int | str = "all"
    learning_rate: float = 1e-3
    batch_size: int = BATCH_SIZE
    refit: bool = False


# Each is trained once more on all its images: a fifth held out is 42 of 210, or 210 of 1,050.
SETS = {
    "sign_digits": LabeledSet(["sign_digits"], 96, goal=0.06, batch_size=16, refit=True),
    "cifar10_jpg": LabeledSet(
        ["cifar10_jpg/train", "cifar10_jpg/test"], 96, goal=0.05, batch_size=16, refit=True
    ),
    "fashion_mnist_png": LabeledSet(
        ["fashion_mnist_png/train", "fashion_mnist_png/test"], 96, goal=0.02, refit=True
    ),
    "dogs_cats": LabeledSet(
        ["dogs_cats"], 160, goal=0.0, unfreeze=3, learning_rate=1e-4, refit=True
    ),
    "flower_photos": LabeledSet(
        ["flower_photos/train", "flower_photos/val"],
        160,
        goal=0.0,
        unfreeze=3,
        learning_rate=1e-4,
        refit=True,
    ),
}


class RandomHead(LogisticRegression):
    """A linear head that nobody trained, as Keras initializes it; what LP-FT is compared with."""

    def fit(self, X, y, sample_weight=None):
        """Learn the classes only."""
        super().fit(X, y, sample_weight)
        rng = np.random.default_rng(0)
        limit = np.sqrt(6 / sum(self.coef_.shape))  # Glorot and Bengio 2010
        self.coef_ = rng.uniform(-limit, limit, self.coef_.shape)
        self.intercept_ = np.zeros_like(self.intercept_)
        return self


def images_of(args, names, work):
    """Return paths and labels of image folders, or digits in their place."""
    if not args.shared.is_dir():
        write_digits(work / "digits")
        folders = [load_image_folder(work / "digits")]
    else:
        folders = [load_image_folder(args.shared.resolve() / "data" / name) for name in names]
    paths = np.concatenate([folder.data for folder in folders])
    labels = np.concatenate([folder.target for folder in folders])
    chosen = np.random.default_rng(0).permutation(len(paths))[: 80 if args.smoke else None]
    return paths[chosen], labels[chosen]


def extractor_of(args, name, size, cache):
    """Return an extractor with real weights where there are any."""
    weights, params = None, None
    if name == "mobilenet_v2":
        params = {"alpha": 0.35}
        weights = find_weights(args.shared)
    return FeatureExtractor(
        name, weights=weights, backbone_params=params, input_size=size, cache=cache
    )


def decoded(paths, size):
    """Decode images, which the usual recipe is spared in its epochs."""
    pixels = []
    for path in paths:
        with Image.open(path) as image:
            pixels.append(np.asarray(image.convert("RGB").resize((size, size))))
    return np.stack(pixels)


class EpochClock(keras.callbacks.Callback):
    """Takes the seconds of each epoch, judging included."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.start_s = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self.start_s)


def keras_epochs(model, inputs, targets, train, held, epochs, learning_rate=1e-4):
    """Train as Keras' guide does, and return the seconds of each epoch."""
    model.compile(
        keras.optimizers.AdamW(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    clock = EpochClock()
    model.fit(
        inputs[train],
        targets[train],
        validation_data=(inputs[held], targets[held]),
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[clock],
    )
    return clock.seconds


def usual_recipe(extractor, unfrozen, n_classes):
    """Build the model of Keras' guide to fine-tuning, from pixels."""
    backbone = extractor.current_source().load_backbone()
    base = keras.models.clone_model(backbone.model)
    base.set_weights(backbone.model.get_weights())
    for layer in base.layers:
        layer.trainable = layer.name in unfrozen
    inputs = keras.Input(backbone.input_shape)
    scaling = {"tf": (1 / 127.5, -1.0), "caffe": (1.0, -114.8)}[backbone.preprocessing]
    x = base(keras.layers.Rescaling(*scaling)(inputs), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(n_classes)(x))


def above_frontier(extractor, params, n_classes):
    """Return the part above the frontier as a plain Keras model, and the reader of its inputs."""
    plan = TrainingPlan(params, extractor)
    features = TrainedModel(plan).features
    scores = keras.layers.Dense(n_classes)(features.outputs[0])
    return keras.Model(features.inputs, scores), plan


def measure_epoch(args, work):
    """Compare an epoch of featx with a bare loop and with the usual recipe."""
    results = {}
    cases = {
        "resnet50, last stage": ("resnet50", 3, 160),
        "mobilenet_v2 0.35, last block": ("mobilenet_v2", 1, 224),
    }
    paths, labels = images_of(args, ["flower_photos/train"], work)
    targets = np.unique(labels, return_inverse=True)[1]
    for case, (name, unfreeze, size) in cases.items():
        size = 64 if args.smoke else size
        cache = EmbeddingCache(work / f"cache-{name}")
        params = FineTune(
            unfreeze, epochs=4, batch_size=BATCH_SIZE, learning_rate=1e-4, patience=None
        )
        extractor = extractor_of(args, name, size, cache)
        pixels = decoded(paths, size)
        seconds = {"featx": [], "bare loop": [], "recipe": []}
        for _ in range(args.repeats):
            fitted = TransferClassifier(extractor, fine_tune=params, random_state=0)
            fitted = fitted.fit(paths, labels)
            seconds["featx"].append(fitted.report_.epoch_s)
            unfrozen = fitted.report_.unfrozen
            frozen = extractor.fit(paths)
            top, plan = above_frontier(frozen, params, len(np.unique(labels)))
            keys = as_samples(paths).keys(cache.files)[0]
            (ready,) = plan.frontier.reader(cache, keys[np.newaxis])(np.arange(len(paths)))
            train, held = train_test_split(np.arange(len(paths)), test_size=0.2, random_state=0)
            bare = keras_epochs(top, ready, targets, train, held, params.epochs)
            seconds["bare loop"].append(median(bare))
            model = usual_recipe(frozen, unfrozen, len(np.unique(labels)))
            recipe = keras_epochs(model, pixels, targets, train, held, params.epochs)
            seconds["recipe"].append(median(recipe))
        results[case] = {
            "n_images": len(paths),
            "frontier_shape": list(ready.shape[1:]),
            "seconds": {method: median(values) for method, values in seconds.items()},
            "featx / bare loop": median(
                a / b for a, b in zip(seconds["featx"], seconds["bare loop"], strict=True)
            ),
            "recipe / featx": median(
                a / b for a, b in zip(seconds["recipe"], seconds["featx"], strict=True)
            ),
        }
        print(case, json.dumps(results[case]), flush=True)
    return results


def measure_search(args, work):
    """Compare the search of Nautilus with the usual recipe, depth by depth in turns."""
    paths, labels = images_of(args, ["cifar10_jpg/train", "cifar10_jpg/test"], work)
    paths, labels = paths[: args.images], labels[: args.images]
    size = 64 if args.smoke else 224
    epochs = 2 if args.smoke else 5
    depths, rates = [1, 2, 3], [1e-4, 3e-4, 1e-3]
    cache = EmbeddingCache(work / "cache-search")
    extractor = extractor_of(args, "mobilenet_v2", size, cache)
    frozen = extractor.fit(paths)
    plans = {depth: TrainingPlan(FineTune(depth), frozen) for depth in depths}
    extractor.set_params(
        also_cache=[(name, None) for plan in plans.values() for name in plan.frontier_layers]
    )
    pixels, targets = decoded(paths, size), np.unique(labels, return_inverse=True)[1]
    n_classes = len(np.unique(labels))
    first = np.arange(round(len(paths) / 1.2))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    seconds = []
    for rows in (first, np.arange(len(paths))):
        for depth in depths:
            start_s = time.perf_counter()
            params = FineTune(depth, epochs=epochs, batch_size=BATCH_SIZE, patience=None)
            estimator = TransferClassifier(extractor, fine_tune=params, random_state=0)
            grid = {"fine_tune__learning_rate": rates}
            search = GridSearchCV(estimator, grid, cv=folds, refit=False)
            search.fit(paths[rows], labels[rows])
            ours_s = time.perf_counter() - start_s
            inside, test = next(iter(folds.split(rows, targets[rows])))
            train, held = train_test_split(inside, test_size=0.2, random_state=0)
            start_s = time.perf_counter()
            model = usual_recipe(frozen, list(plans[depth].unfrozen.layers), n_classes)
            keras_epochs(model, pixels[rows], targets[rows], train, held, epochs)
            model.evaluate(pixels[rows][test], targets[rows][test], verbose=0)
            theirs_s = (time.perf_counter() - start_s) * len(rates) * folds.get_n_splits()
            seconds.append((ours_s, theirs_s))
            print(len(rows), depth, f"{ours_s:.0f} s, recipe {theirs_s:.0f} s", flush=True)
    ours_s, theirs_s = (sum(each) for each in zip(*seconds, strict=True))
    result = {
        "n_images": [len(first), len(paths)],
        "seconds": {"featx": ours_s, "recipe, of one fold and rate a depth": theirs_s},
        "recipe / featx": theirs_s / ours_s,
        "n_forward": {
            space["label"]: space["n_forward"]
            for space in cache.info()["spaces"]
            if space["digest"] == frozen.space_digest_ or "pooling None" in space["label"]
        },
    }
    print("search", json.dumps(result), flush=True)
    return result


def measure_accuracy(args, work):
    """Compare head, fine-tuned model and fine-tuning from a random head on real sets."""
    results = {}
    for name in args.sets:
        labeled = SETS[name]
        size = 64 if args.smoke else labeled.input_size
        paths, labels = images_of(args, labeled.folders, work)
        cache = EmbeddingCache(work / f"cache-{name}")
        backbone = "tiny" if args.smoke else "mobilenet_v2"
        extractor = extractor_of(args, backbone, size, cache)
        tune = FineTune(
            labeled.unfreeze,
            epochs=2 if args.smoke else 20,
            patience=None,
            learning_rate=labeled.learning_rate,
            batch_size=labeled.batch_size,
            refit=labeled.refit,
        )
        scores = {"head": [], "tuned": [], "random head": []}
        seconds, kept = [], []
        seeds = range(args.first_seed, args.first_seed + args.repeats)
        for seed in seeds:
            train, test = train_test_split(
                np.arange(len(paths)), test_size=0.3, stratify=labels, random_state=seed
            )
            head = TransferClassifier(extractor).fit(paths[train], labels[train])
            scores["head"].append(head.score(paths[test], labels[test]))
            for method, kind in (("tuned", "logistic"), ("random head", RandomHead())):
                start_s = time.perf_counter()
                tuned = TransferClassifier(extractor, kind, tune, random_state=seed)
                tuned.fit(paths[train], labels[train])
                if method == "tuned":
                    seconds.append(time.perf_counter() - start_s)
                    kept.append(tuned.report_.kept)
                scores[method].append(tuned.score(paths[test], labels[test]))
        means = {method: mean(values) for method, values in scores.items()}
        results[name] = {
            "n_images": len(paths),
            "seeds": list(seeds),
            "scores": scores,
            "mean": means,
            "gain": means["tuned"] - means["head"],
            "goal": labeled.goal,
            "kept": kept,
            "minutes": mean(seconds) / 60,
        }
        print(name, json.dumps(results[name]), flush=True)
    return results


SECTIONS = {"epoch": measure_epoch, "search": measure_search, "accuracy": measure_accuracy}


def main():
    """Measure what was asked for, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--images", type=int, default=1500, help="of the search")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="for accuracy")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.smoke:
        args.repeats, args.sets = 1, args.sets[:1]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        results = {name: SECTIONS[name](args, Path(folder)) for name in args.sections}
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
