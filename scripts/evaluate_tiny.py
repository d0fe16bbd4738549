"""Measure the embedded backbone "tiny" against raw pixels and random weights.

Every image is decoded and squashed to 64x64 RGB as featx does it, embedded once, and scored by a
scaled logistic regression: 5-fold accuracy, mean and standard deviation over five shufflings, since
one split of 300 images is uncertain by two points. The strength is chosen by cross-validation
inside the training part of each fold, from 0.0001 to 1, for all features alike (the linear probe of
Kornblith et al. 2019, arXiv 1805.08974). None of these images was used in training, apart from the
photos in ``flower_photos/train``, which were seen as unlabeled crops; the row "flower_photos, val
only" leaves them out.

    python scripts/evaluate_tiny.py --shared ../shared --model featx/data/tiny.keras

prints the table of the model card, and the throughput of the network. See ``train_tiny.py`` for
the training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from featx.inputs.images import conform_pixels, decode_to

SIZE = 64
N_REPEATS = 5
FOLDERS = {
    "dogs_cats": ["dogs_cats"],
    "flower_photos": ["flower_photos/train", "flower_photos/val"],
    "flower_photos, val only": ["flower_photos/val"],
    "sign_digits": ["sign_digits"],
    "medmnist_64": ["medmnist_64"],
    "fashion_mnist_png": ["fashion_mnist_png/train", "fashion_mnist_png/test"],
    "cifar10_jpg, test": ["cifar10_jpg/test"],
}
GOALS = {
    "dogs_cats": 0.80,
    "flower_photos": 0.65,
    "sign_digits": 0.76,
    "digits": 0.985,
    "digits, 20 labels per class": 0.94,
}

Embed = Callable[[np.ndarray], np.ndarray]


def load_folders(shared: Path, folders: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 64, 64, 3) and labels (n,) of folders that hold one folder per class."""
    paths = [path for folder in folders for path in sorted((shared / "data" / folder).glob("*/*"))]
    if not paths:
        raise SystemExit(f"no images in {shared}/data/{folders[0]}: is --shared right?")
    images = np.stack([decode_to(path.read_bytes(), (SIZE, SIZE, 3)) for path in paths])
    return images, np.array([path.parent.name for path in paths])


def load_digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1,797 digits as gray uint8 images (1797, 64, 64, 3), and labels."""
    digits = load_digits()
    grays = (digits.images * 255 / 16).astype("uint8")
    return np.stack([conform_pixels(gray, (SIZE, SIZE, 3)) for gray in grays]), digits.target


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """Return the baseline features: gray images of 32x32 pixels, flattened to (n, 1024)."""
    small = [Image.fromarray(image).convert("L").resize((32, 32)) for image in images]
    return np.stack([np.asarray(image, "float32").ravel() for image in small])


def embedder(model: keras.Model, batch_size: int = 128) -> Embed:
    """Return a function from uint8 images to embeddings, compiled, with the model's scaling."""

    @tf.function(reduce_retracing=True)
    def forward(images: tf.Tensor) -> tf.Tensor:
        return model(tf.cast(images, "float32") / 127.5 - 1, training=False)

    def embed(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), batch_size)
        return np.concatenate([forward(images[i : i + batch_size]).numpy() for i in starts])

    return embed


def with_random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Return the same architecture with freshly drawn weights."""
    keras.utils.set_random_seed(seed)
    return keras.models.clone_model(model)


def probe() -> Pipeline:
    """Return the unfitted linear probe, which chooses its strength by itself."""
    return make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-4, 0, 5),
            l1_ratios=(0,),
            cv=5,
            max_iter=1000,
            scoring="accuracy",
            use_legacy_attributes=False,
        ),
    )


def five_fold(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the mean accuracy over five folds, for each of five shufflings."""
    shufflings = (StratifiedKFold(5, shuffle=True, random_state=seed) for seed in range(N_REPEATS))
    return np.array([cross_val_score(probe(), X, y, cv=folds).mean() for folds in shufflings])


def few_labels(X: np.ndarray, y: np.ndarray, per_class: int = 20) -> np.ndarray:
    """Return five accuracies, each trained on `per_class` rows per class and tested on the rest."""
    n_train = per_class * len(np.unique(y))
    draws = StratifiedShuffleSplit(N_REPEATS, train_size=n_train, random_state=0)
    return cross_val_score(probe(), X, y, cv=draws)


Protocol = Callable[[np.ndarray, np.ndarray], np.ndarray]


def protocols(shared: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, Protocol]]:
    """Yield every row of the table: its name, images, labels and the function that scores it."""
    for name, folders in FOLDERS.items():
        yield name, *load_folders(shared, folders), five_fold
    yield "digits", *load_digit_images(), five_fold
    yield "digits, 20 labels per class", *load_digit_images(), few_labels


def images_per_second(embed: Embed, n_images: int = 2048) -> float:
    """Return the throughput on uint8 noise: the best of five rounds after one to warm up."""
    noise = np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), dtype="uint8")
    embed(noise)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        embed(noise)
        seconds.append(time.perf_counter() - start)
    return n_images / min(seconds)


def evaluate(model: keras.Model, shared: Path) -> dict[str, np.ndarray]:
    """Print the table of all sets and features in Markdown; return the scores of `model`."""
    features = {
        "raw pixels": raw_pixels,
        "random weights": embedder(with_random_weights(model)),
        "tiny": embedder(model),
    }
    print("| set | images | " + " | ".join(features) + " | goal |")
    print("|---|---|" + "---|" * len(features) + "---|")
    tiny_scores = {}
    for name, images, labels, score in protocols(shared):
        embeddings = {key: embed(images) for key, embed in features.items()}
        with threadpool_limits(1):  # on matrices this small, more only wait for one another
            scores = {key: score(rows, labels) for key, rows in embeddings.items()}
        cells = [f"{s.mean():.3f} ± {s.std():.3f}" for s in scores.values()]
        goal = f"{GOALS[name]:.3f}" if name in GOALS else ""
        print(f"| {name} | {len(images)} | " + " | ".join(cells) + f" | {goal} |", flush=True)
        tiny_scores[name] = scores["tiny"]
    throughput = images_per_second(features["tiny"])
    print(f"\n{model.count_params():,} parameters, {throughput:,.0f} images/s")
    return tiny_scores


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description="Score the tiny backbone on the shared sets.")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--model", type=Path, default=Path("featx/data/tiny.keras"))
    arguments = parser.parse_args()
    evaluate(keras.models.load_model(arguments.model), arguments.shared)


if __name__ == "__main__":
    main()
