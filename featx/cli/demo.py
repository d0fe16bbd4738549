"""``run_demo``, the work of ``featx demo``: what each stage is for, on real images, offline.

Both sets of images are scikit-learn's handwritten digits, 8x8 pixels of gray, written as a folder
of PNG files per class. *Digits* are enlarged: the embeddings of ``"tiny"`` are all that is needed,
and a second run computes none. In *speckled digits*, the ink is not darker than the paper, but
noisier: pixels say nothing, ``"tiny"`` has seen no such images, and fine-tuning wins.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from featx._threads import blas_threads_for
from featx.cache.cache import EmbeddingCache
from featx.cache.folder import CACHE_PARTS
from featx.cli.predictions import mistakes_in
from featx.engines.devices import device_name
from featx.estimators import TransferClassifier
from featx.evaluation.intervals import wilson_interval
from featx.evaluation.paired import compare_paired
from featx.exceptions import InputError, MissingExtraError
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.inputs.folders import load_image_folder
from featx.saving.persistence import load, save

_MODEL, _REPORT = "digits.featx", "report.html"
_SIDE = 64
_PIXELS = 32  # side of the images whose pixels are features
_FINE_TUNE = FineTune("all", epochs=8, learning_rate=2e-3, batch_size=32, patience=None)
_N_MISTAKES = 3


class DemoRow(NamedTuple):
    """A row of the table: the accuracy of a classifier on images that it was not fitted on."""

    images: str
    n_train: int
    n_test: int
    classifier: str
    accuracy: float
    interval: list[float]  # of 95% confidence
    n_forward: int  # images that went through the backbone
    seconds: float


class _ImageSet(NamedTuple):
    """Labeled images in two parts."""

    name: str
    train: np.ndarray  # paths
    test: np.ndarray
    y_train: np.ndarray
    y_test: np.ndarray


class _Score(NamedTuple):
    """A fitted classifier, its row of the table, and the test images that it gets right."""

    classifier: Any
    row: DemoRow
    is_right: np.ndarray


def run_demo(folder: Path, *, on_step: Callable[[str], None]) -> dict[str, Any]:
    """Write images, cache, model and report below a folder, and return the scores.

    The folder is new or that of an earlier demo, which is cleared. `on_step` is called with a
    description of each step before it starts. Return ``machine``, ``rows`` (list of
    :class:`DemoRow`), ``gain`` of fine-tuning (see ``compare_paired``), ``mistakes`` (list of
    dicts), ``cache_bytes``, the paths ``images``, ``cache``, ``model``, ``example`` and ``report``
    (None if packages for reports are missing), and ``prediction``.

    Raise InputError if the folder holds files that are not from a demo.
    """
    _check_demo_folder(folder)
    on_step("writing images")
    digits, speckled = _write_demo_images(folder / "images")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    cache = EmbeddingCache(folder / "cache")
    frozen = TransferClassifier(FeatureExtractor("tiny", cache=cache), "logistic", random_state=0)
    tuned = clone(frozen).set_params(fine_tune=_FINE_TUNE)
    scores = []
    for images, name, classifier in (
        (digits, "raw pixels", _pixel_classifier()),
        (digits, "tiny", frozen),
        (digits, "tiny, second run", frozen),
        (speckled, "raw pixels", _pixel_classifier()),
        (speckled, "tiny", frozen),
        (speckled, "tiny, fine-tuned", tuned),
    ):
        on_step(f"{images.name}: {name}")
        scores.append(_score(images, name, clone(classifier), cache))
    on_step("saving and loading a model")
    model, example = folder / _MODEL, str(digits.test[0])
    save(scores[2].classifier, model)
    prediction = load(model, cache=cache).predict([example])[0]
    return {
        "machine": device_name(),
        "rows": [score.row for score in scores],
        "gain": compare_paired(scores[-1].is_right, scores[-2].is_right),
        "mistakes": list(_mistakes(scores[-1].classifier, speckled)),
        "report": _write_report(scores[-1].classifier, speckled, folder / _REPORT, on_step),
        "cache_bytes": cache.info()["size_bytes"],
        "images": str(folder / "images"),
        "cache": str(cache.path),
        "model": str(model),
        "example": example,
        "prediction": str(prediction),
    }


def _check_demo_folder(folder: Path) -> None:
    """Check that a folder is new or holds only files of a demo, since it will be cleared."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: expected a new name or a demo's folder")
    parts = {
        "": {"images", "cache", _MODEL, _REPORT},
        "images": {"digits", "speckled"},
        "cache": CACHE_PARTS,
    }
    for part, known in parts.items():
        place = folder / part
        foreign = set(os.listdir(place)) - set(known) if place.is_dir() else set()
        if foreign:
            raise InputError(
                f"{str(place)!r} holds files that are not from a demo, such as {min(foreign)!r}. "
                "The demo clears its folder: expected a new name or a demo's folder"
            )


def _write_demo_images(folder: Path) -> tuple[_ImageSet, _ImageSet]:
    """Write both sets, read them back as folders of images, and split them."""
    shutil.rmtree(folder, ignore_errors=True)
    write_digits(folder / "digits")
    write_speckled_digits(folder / "speckled")
    return (
        _split(folder / "digits", "digits", n_per_class=20),
        _split(folder / "speckled", "speckled digits", n_per_class=100),
    )


def _split(folder: Path, name: str, *, n_per_class: int) -> _ImageSet:
    images = load_image_folder(folder)
    n_train = n_per_class * len(images.target_names)
    parts = train_test_split(
        images.data, images.target, train_size=n_train, stratify=images.target, random_state=0
    )
    return _ImageSet(name, *parts)


def _pixel_classifier() -> Any:
    head = LogisticRegression(max_iter=1000)
    return make_pipeline(FunctionTransformer(_gray_pixels), StandardScaler(), head)


def _gray_pixels(paths: np.ndarray) -> np.ndarray:
    """Return the gray levels of images in 32x32 pixels, ``(n_images, 1024)``."""
    rows = np.empty((len(paths), _PIXELS**2))
    for row, path in zip(rows, paths, strict=True):
        with Image.open(path) as image:
            row[:] = np.asarray(image.convert("L").resize((_PIXELS, _PIXELS))).ravel()
    return rows


def _score(images: _ImageSet, name: str, classifier: Any, cache: EmbeddingCache) -> _Score:
    """Fit a classifier on the training images, and score it on the test images."""
    n_before, start_s = cache.info()["n_forward"], time.perf_counter()
    with blas_threads_for(0):
        is_right = classifier.fit(images.train, images.y_train).predict(images.test)
        is_right = is_right == images.y_test
    row = DemoRow(
        images.name,
        len(images.train),
        len(images.test),
        name,
        accuracy=float(is_right.mean()),
        interval=wilson_interval(int(is_right.sum()), len(is_right)),
        n_forward=cache.info()["n_forward"] - n_before,
        seconds=time.perf_counter() - start_s,
    )
    return _Score(classifier, row, is_right)


def _mistakes(classifier: TransferClassifier, images: _ImageSet) -> Iterator[dict[str, Any]]:
    """Return the most confident mistakes on the test images, the worst first."""
    proba = classifier.predict_proba(images.test)
    predicted = classifier.classes_[proba.argmax(axis=1)]
    for row in mistakes_in(images.y_test, predicted, proba)[:_N_MISTAKES]:
        yield {
            "file": str(images.test[row]),
            "true": str(images.y_test[row]),
            "predicted": str(predicted[row]),
            "confidence": float(proba[row].max()),
        }


def _write_report(
    classifier: TransferClassifier,
    images: _ImageSet,
    path: Path,
    on_step: Callable[[str], object],
) -> str | None:
    """Write a report on the test images, and return its path; None if packages are missing."""
    from featx.reporting.page import check_report_packages
    from featx.reporting.report import report

    try:
        check_report_packages()
    except MissingExtraError:
        return None
    on_step("writing a report")
    report(classifier, X_test=images.test, y_test=images.y_test).to_html(path)
    return str(path)


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as ``folder/<digit>/<number>.png``."""
    for image, path in _enlarged_digits(folder):
        image.save(path)


def write_speckled_digits(folder: Path) -> None:
    """Write the digits as noise that is stronger where the ink is, with the same mean everywhere.

    Structures look like this in speckle, as in ultrasound and radar: they differ in texture, not
    in brightness.
    """
    rng = np.random.default_rng(0)
    for image, path in _enlarged_digits(folder):
        contrast = 15 + 100 * (np.asarray(image) / 255)
        speckle = 127 + contrast * rng.normal(size=contrast.shape)
        Image.fromarray(np.clip(speckle, 0, 255).astype(np.uint8)).save(path)


def _enlarged_digits(folder: Path) -> Iterator[tuple[Image.Image, Path]]:
    """Return each digit in 64x64 pixels, and a path for it in the folder of its class."""
    digits = load_digits()
    for number, (levels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        small = Image.fromarray((levels * (255 / 16)).astype(np.uint8))
        image = small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        yield image, folder / str(label) / f"{number:04}.png"
