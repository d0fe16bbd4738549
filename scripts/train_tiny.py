"""Train the embedded backbone "tiny" and write it to ``featx/data/tiny.keras``.

    python scripts/train_tiny.py --shared ../shared

What it is. A plain residual network of 294,000 parameters that turns images of 64x64 pixels,
scaled to -1..1, into vectors of 400 numbers: the averages of its stages of 48, 96 and 256
channels. It is trained from random weights on two tasks at once: to predict, up to a linear map,
what two real ImageNet networks see in the same view at 128 pixels (cosine, weight 3), and to name
the class of CIFAR-10 images (cross-entropy, weight 1). Both heads are left off afterwards.

Data. 15,000 CIFAR-10 training images and the 750 of ``cifar10_jpg/train``, with labels; the 200
photos of ``flower_photos/train`` and scikit-learn's two sample images, as crops without labels.
Of each image the whole and random crops; some crops are sharpened, or made gray, inverted, reduced
to edges or to two levels; some views are mosaics of four images. The teachers always see the same
view as the student.

Left out, in every form: ``dogs_cats``, ``sign_digits``, ``medmnist_64``, ``fashion_mnist_png``,
``flower_photos/val``, ``cifar10_jpg/test``, scikit-learn's digits, letters drawn from fonts. No
image of ``cifar10_jpg/test`` occurs among the training images, pixel for pixel.

Seeds. Everything is drawn from seed 0. Threads sum in varying order, so that another run agrees
in its figures within their noise, not bit for bit.

Hardware and results. About an hour on two CPU cores; figures in ``featx/data/TINY.md``.
"""

from __future__ import annotations

import argparse
import io
import itertools
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from evaluate_tiny import SIZE, evaluate
from keras import layers
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA

SEED = 0
TEACHER_SIZE = 128
VIEW = (TEACHER_SIZE, TEACHER_SIZE)
N_TARGETS = 256
N_CLASSES = 10
UNLABELED = -1
BATCH_SIZE = 128
VIEWS_PER_CIFAR_IMAGE = 8
VIEWS_PER_FLOWER_PHOTO = 200
VIEWS_PER_SAMPLE_IMAGE = 600
N_MOSAICS = 30_000
STYLED_SHARE = 0.2
SHARPENED_SHARE = 0.3
TEACHER_FILES = (
    "mobilenet_2_5_224_tf_no_top.h5",
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
)


class Source(NamedTuple):
    """A training image, its CIFAR-10 label or `UNLABELED`, and how many views to take of it."""

    image: Image.Image
    label: int
    n_views: int


class Views(NamedTuple):
    """What the network is trained on: images, CIFAR-10 labels and the teachers' vectors."""

    images: np.ndarray  # (n, 64, 64, 3) uint8
    labels: np.ndarray  # (n,) int32, -1 where there is none
    targets: np.ndarray  # (n, 256) float32, of length one


def convolution(x: keras.KerasTensor, filters: int, size: int, strides: int, name: str):
    """Apply a convolution without bias and a BatchNormalization."""
    x = layers.Conv2D(
        filters, size, strides, padding="same", use_bias=False,
        kernel_initializer="he_normal", name=f"{name}_conv",
    )(x)  # fmt: skip
    return layers.BatchNormalization(name=f"{name}_bn")(x)


def residual_block(x: keras.KerasTensor, filters: int, strides: int, name: str):
    """Apply two 3x3 convolutions beside a shortcut; the last ReLU carries the block's name."""
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = convolution(x, filters, 1, strides, f"{name}_shortcut")
    x = convolution(x, filters, 3, strides, f"{name}_a")
    x = layers.ReLU(name=f"{name}_a_relu")(x)
    x = convolution(x, filters, 3, 1, f"{name}_b")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=name)(x)


def build_tiny() -> keras.Model:
    """Build the backbone: (n, 64, 64, 3) scaled to -1..1 -> (n, 400)."""
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = layers.ReLU(name="stem")(convolution(pixels, 16, 3, 2, "stem"))
    x = residual_block(x, 32, 1, "stage1")
    x = residual_block(x, 48, 2, "stage2_down")
    x = residual_block(x, 48, 1, "stage2")
    stage3 = residual_block(x, 48, 2, "stage3")
    stage4 = residual_block(stage3, 96, 1, "stage4")
    stage5 = layers.ReLU(name="stage5")(convolution(stage4, 256, 1, 1, "stage5"))
    pooled = [
        layers.GlobalAveragePooling2D(name=f"{name}_pool")(stage)
        for name, stage in {"stage3": stage3, "stage4": stage4, "stage5": stage5}.items()
    ]
    return keras.Model(pixels, layers.Concatenate(name="embedding")(pooled), name="tiny")


def image_files(folder: Path) -> list[Path]:
    """Return the sorted files of a folder that holds one folder per class."""
    paths = sorted(folder.glob("*/*"))
    if not paths:
        raise SystemExit(f"no images in {folder}: --shared must name the shared folder")
    return paths


def cifar_images(shared: Path) -> Iterator[tuple[Image.Image, str]]:
    """Yield the CIFAR-10 training images, with the names of their classes."""
    archive = shared / "data" / "cifar10_train_15k.tar"
    if not archive.exists():
        raise SystemExit(f"{archive} is missing: --shared must name the shared folder")
    with tarfile.open(archive) as tar:
        for member in sorted(filter(tarfile.TarInfo.isfile, tar), key=lambda m: m.name):
            image = Image.open(io.BytesIO(tar.extractfile(member).read()))
            yield image.convert("RGB"), Path(member.name).parent.name
    for path in image_files(shared / "data" / "cifar10_jpg" / "train"):
        yield Image.open(path).convert("RGB"), path.parent.name


def sources(shared: Path) -> list[Source]:
    """Return every image that is trained on: none of them measures the network."""
    cifar = list(cifar_images(shared))
    classes = sorted({name for _, name in cifar})
    labeled = [Source(img, classes.index(name), VIEWS_PER_CIFAR_IMAGE) for img, name in cifar]
    flowers = [
        Source(Image.open(path).convert("RGB"), UNLABELED, VIEWS_PER_FLOWER_PHOTO)
        for path in image_files(shared / "data" / "flower_photos" / "train")
    ]
    samples = [
        Source(Image.fromarray(photo), UNLABELED, VIEWS_PER_SAMPLE_IMAGE)
        for photo in load_sample_images().images
    ]
    return labeled + flowers + samples


def random_box(image: Image.Image, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return a crop (left, upper, right, lower), its sides at 3:4 to 4:3.

    It covers 20 to 100 % of a photo, and 40 to 100 % of a CIFAR-10 image of 32 pixels.
    """
    area = rng.uniform(0.4 if image.width <= 32 else 0.2, 1.0)
    stretch = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)) / 2)
    width = image.width * min(1.0, np.sqrt(area) * stretch)
    height = image.height * min(1.0, np.sqrt(area) / stretch)
    left = rng.uniform(0, image.width - width)
    upper = rng.uniform(0, image.height - height)
    return left, upper, left + width, upper + height


def restyle(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return `image` as gray, inverted gray, edges or two levels: scans, prints and drawings."""
    gray = image.convert("L")
    style = rng.integers(4)
    if style == 1:
        gray = ImageOps.invert(gray)
    elif style == 2:
        gray = ImageOps.autocontrast(gray.filter(ImageFilter.FIND_EDGES).crop((2, 2, 126, 126)))
    elif style == 3:
        gray = gray.filter(ImageFilter.GaussianBlur(2)).point(
            (np.arange(256) > np.median(gray)) * 255
        )
    return gray.resize(image.size).convert("RGB")


def draw_views(source: Source, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Yield the views of one image at the teachers' size: the whole of it, then random crops."""
    yield source.image.resize(VIEW, Image.Resampling.BILINEAR)
    for _ in range(source.n_views - 1):
        box = random_box(source.image, rng)
        view = source.image.resize(VIEW, Image.Resampling.BILINEAR, box)
        if rng.random() < SHARPENED_SHARE:
            view = view.filter(ImageFilter.UnsharpMask(radius=3, percent=200, threshold=0))
        if rng.random() < STYLED_SHARE:
            view = restyle(view, rng)
        yield view


def draw_mosaic(images: list[Image.Image], rng: np.random.Generator) -> Image.Image:
    """Return four random images that share one view: small, hence crisp, as in large photos."""
    middle = TEACHER_SIZE * rng.uniform(0.3, 0.7, 2)
    x, y = middle.astype(int)
    mosaic = Image.new("RGB", VIEW)
    for left, upper, right, lower in (
        (0, 0, x, y), (x, 0, TEACHER_SIZE, y), (0, y, x, TEACHER_SIZE),
        (x, y, TEACHER_SIZE, TEACHER_SIZE),
    ):  # fmt: skip
        image = images[rng.integers(len(images))]
        tile = (int(right - left), int(lower - upper))
        mosaic.paste(image.resize(tile, Image.Resampling.BILINEAR), (int(left), int(upper)))
    return mosaic


def draw_all(
    everything: list[Source], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield every view (128, 128, 3) with its label."""
    for source in everything:
        for view in draw_views(source, rng):
            yield np.asarray(view), source.label
    images = [source.image for source in everything]
    for _ in range(N_MOSAICS):
        yield np.asarray(draw_mosaic(images, rng)), UNLABELED


def load_teachers(shared: Path) -> list[keras.Model]:
    """Return the real ImageNet networks, cut at their average-pooled features."""
    files = [shared / "weights" / name for name in TEACHER_FILES]
    for file in files:
        if not file.exists():
            raise SystemExit(f"{file} is missing: --shared must name the shared folder")
    networks = (keras.applications.MobileNet, keras.applications.MobileNetV2)
    return [
        network((*VIEW, 3), alpha=alpha, include_top=False, weights=file,
                pooling="avg", name=f"teacher_{alpha}".replace(".", "_"))
        for network, alpha, file in zip(networks, (0.25, 0.35), files, strict=True)
    ]  # fmt: skip


def distillation_targets(features: list[np.ndarray]) -> np.ndarray:
    """Return unit vectors (n, 256) that hold what the teachers' features have in common.

    Features are standardized, each teacher weighs the same, and the 256 leading principal
    components are half-whitened: divided by the square root of their spread.
    """
    scaled = [(f - f.mean(0)) / (f.std(0) + 1e-6) / np.sqrt(f.shape[1]) for f in features]
    pca = PCA(N_TARGETS, svd_solver="covariance_eigh")
    components = pca.fit_transform(np.hstack(scaled)) / pca.explained_variance_**0.25
    return keras.utils.normalize(components).astype("float32")


def make_views(shared: Path) -> Views:
    """Draw all views, show them to the teachers, and return them at the student's size."""
    pixels = keras.Input((*VIEW, 3))
    teachers = keras.Model(pixels, [teacher(pixels) for teacher in load_teachers(shared)])
    teach = tf.function(lambda x: teachers(tf.cast(x, "float32") / 127.5 - 1, training=False))
    views = draw_all(sources(shared), np.random.default_rng(SEED))
    images, labels, features = [], [], []
    while batch := list(itertools.islice(views, BATCH_SIZE)):
        large = np.stack([view for view, _ in batch])
        images += [np.asarray(Image.fromarray(view).reduce(2)) for view in large]
        labels += [label for _, label in batch]
        features.append([output.numpy() for output in teach(large)])
    by_teacher = [np.concatenate(outputs) for outputs in zip(*features, strict=True)]
    return Views(np.stack(images), np.array(labels, "int32"), distillation_targets(by_teacher))


def cached_views(shared: Path, work: Path) -> Views:
    """Return the views of an earlier run from `work`, or make and keep them."""
    file = work / "tiny-views.npz"
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".tmp.npz")
        np.savez(unfinished, **make_views(shared)._asdict())
        unfinished.replace(file)
    with np.load(file) as arrays:
        return Views(**arrays)


def augment(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror, shift by up to 4 pixels, change contrast and brightness; return float32 in -1..1."""
    n_images = len(images)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    shifts = rng.integers(0, 9, (n_images, 2))
    mirrors = rng.choice([1, -1], n_images)
    moved = np.stack([
        view[y : y + SIZE, x : x + SIZE][:, ::mirror]
        for view, (y, x), mirror in zip(padded, shifts, mirrors, strict=True)
    ])  # fmt: skip
    contrast = rng.uniform(0.7, 1.3, (n_images, 1, 1, 1)).astype("float32")
    brightness = rng.uniform(-0.2, 0.2, (n_images, 1, 1, 1)).astype("float32")
    return np.clip((moved.astype("float32") / 127.5 - 1) * contrast + brightness, -1, 1)


def batches(views: Views) -> Iterator[tuple[np.ndarray, tuple, tuple]]:
    """Yield augmented batches without end, for `fit`: pixels, (vectors, labels), loss weights."""
    rng = np.random.default_rng(SEED)
    while True:
        order = rng.permutation(len(views.images))
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            rows = np.sort(order[start : start + BATCH_SIZE])
            labels = views.labels[rows]
            has_label = (labels != UNLABELED).astype("float32")
            targets = (views.targets[rows], np.maximum(labels, 0))
            yield augment(views.images[rows], rng), targets, (np.ones_like(has_label), has_label)


def train(views: Views, epochs: int, learning_rate: float) -> keras.Model:
    """Return the backbone, trained with two heads that are then left off."""
    keras.utils.set_random_seed(SEED)
    tiny = build_tiny()
    top = tiny.get_layer("stage5_pool").output
    vectors = layers.Dense(N_TARGETS, name="vectors")(top)
    classes = layers.Dense(N_CLASSES, name="classes")(top)
    student = keras.Model(tiny.input, [vectors, classes])
    steps_per_epoch = len(views.images) // BATCH_SIZE
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps_per_epoch, warmup_target=learning_rate, warmup_steps=200
    )
    student.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.02),
        loss=[
            keras.losses.CosineSimilarity(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ],
        loss_weights=[3.0, 1.0],
        weighted_metrics=[[], ["accuracy"]],
    )
    student.fit(
        batches(views), epochs=epochs, steps_per_epoch=steps_per_epoch, shuffle=False, verbose=2
    )
    return tiny


def main() -> None:
    """Read the command line; train unless told otherwise; print the table."""
    parser = argparse.ArgumentParser(description="Train and measure the tiny backbone.")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the shared folder")
    parser.add_argument("--out", type=Path, default=Path("featx/data/tiny.keras"))
    parser.add_argument("--work", type=Path, help="keeps the views (2.6 GB) for another run")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--evaluate-only", action="store_true", help="measure the file at --out")
    arguments = parser.parse_args()
    if not arguments.evaluate_only:
        with tempfile.TemporaryDirectory() as scratch:
            start = time.perf_counter()
            views = cached_views(arguments.shared, arguments.work or Path(scratch))
            seconds = time.perf_counter() - start
            print(f"{len(views.images):,} views after {seconds:.0f} s", flush=True)
            tiny = train(views, arguments.epochs, arguments.learning_rate)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            tiny.save(arguments.out)
            print(f"trained after {time.perf_counter() - start:.0f} s", flush=True)
    evaluate(keras.models.load_model(arguments.out), arguments.shared)
    print(f"{arguments.out.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
