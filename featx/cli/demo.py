"""The main job on two real image sets, offline: what ``featx demo`` runs.

Images are written out as a folder of PNG files per class; from there on it is the public API that
a user would call. Raw pixels are compared with the embeddings of ``"tiny"``, these with what
fine-tuning makes of them, and a first run, which embeds each image once, with a second, which
embeds none.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    BaseShuffleSplit,
    GroupShuffleSplit,
    StratifiedShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.blas import blas_threads_for
from featx.cli.demo_data import typeface_of, write_digits, write_letters
from featx.estimators import TransferClassifier
from featx.exceptions import InputError
from featx.extractor import FeatureExtractor
from featx.persistence import load, save
from featx.samples.folders import load_image_folder
from featx.storage.cache import CACHE_PARTS, EmbeddingCache
from featx.tuning.params import FineTune

_MODEL = "letters.featx"
_PIXELS = 32
_LABELS_PER_CLASS = 20
_N_FOLDS = 2  # of which fine-tuning takes ten seconds each
_FINE_TUNE = FineTune("all", epochs=12, learning_rate=1e-3, batch_size=16, patience=None)


class DemoSet(NamedTuple):
    """One of the two image sets.

    Attributes
    ----------
    name : str
    paths, labels : ndarray of shape (n_samples,)
    groups : ndarray of shape (n_samples,) or None
        Samples of one group never part between training and test.
    folds : cross-validator
    """

    name: str
    paths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    folds: BaseShuffleSplit


class DemoRow(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    images, features : str
    mean, spread : float
        Accuracy over two splits, and its standard deviation.
    n_forward : int
        Images that went through the backbone.
    seconds : float
    """

    images: str
    features: str
    mean: float
    spread: float
    n_forward: int
    seconds: float


def run_demo(
    folder: Path,
    *,
    n_per_letter: int = 40,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Run the demo.

    Parameters
    ----------
    folder : Path
        Where images, cache and model go. A cache that is there is cleared, so that the first run
        is a first run.
    n_per_letter : int, default=40
        Size of the set of letters.
    on_step : callable
        Told in words what happens next.

    Returns
    -------
    dict
        ``rows`` (list of :class:`DemoRow`), ``images``, ``cache`` and ``model`` (paths),
        ``example`` (a path), ``prediction``.

    Raises
    ------
    InputError
        The folder holds files that no demo wrote, so it must not be cleared.
    MissingExtraError
        matplotlib is not installed.
    """
    _check_own(folder)
    on_step("writing images")
    sets = write_sets(folder / "images", n_per_letter=n_per_letter)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    cache = EmbeddingCache(folder / "cache")
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=cache), head="logistic")
    rows = []
    for images in sets:
        on_step(f"{images.name}: raw pixels")
        rows.append(_score_pixels(images))
        for run in ("first run", "second run"):
            on_step(f"{images.name}: embeddings, {run}")
            rows.append(_score(f"tiny, {run}", images, classifier, cache))
        on_step(f"{images.name}: fine-tuned")
        tuned = clone(classifier).set_params(fine_tune=_FINE_TUNE, random_state=0)
        rows.append(_score("tiny, fine-tuned", images, tuned, cache))
    on_step("saving and loading a model")
    letters = sets[-1]
    model = folder / _MODEL
    save(classifier.fit(letters.paths, letters.labels), model)
    example = str(letters.paths[0])
    prediction = load(model, cache=cache).predict([example])[0]
    return {
        "rows": rows,
        "images": str(folder / "images"),
        "cache": str(cache.path),
        "model": str(model),
        "example": example,
        "prediction": str(prediction),
    }


def _check_own(folder: Path) -> None:
    """Check that a folder is new or holds only what a demo wrote, since it will be cleared."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: expected a new name or a demo's folder")
    parts = {"": {"images", "cache", _MODEL}, "images": {"letters", "digits"}, "cache": CACHE_PARTS}
    for part, known in parts.items():
        place = folder / part
        foreign = set(os.listdir(place)) - set(known) if place.is_dir() else set()
        if foreign:
            raise InputError(
                f"{str(place)!r} holds files that no demo wrote, such as {min(foreign)!r}: the "
                "demo clears its folder. Expected a new name or a demo's folder"
            )


def write_sets(folder: Path, *, n_per_letter: int) -> list[DemoSet]:
    """Write both sets out and read them back as folders of images."""
    shutil.rmtree(folder, ignore_errors=True)
    write_letters(folder / "letters", n_per_letter=n_per_letter)
    write_digits(folder / "digits")
    digits = load_image_folder(folder / "digits")
    letters = load_image_folder(folder / "letters")
    few_labels = StratifiedShuffleSplit(_N_FOLDS, train_size=10 * _LABELS_PER_CLASS, random_state=0)
    typefaces = np.array([typeface_of(path) for path in letters.data])
    by_typeface = GroupShuffleSplit(_N_FOLDS, test_size=0.2, random_state=0)
    name = f"digits, {_LABELS_PER_CLASS} per class"
    return [
        DemoSet(name, digits.data, digits.target, None, few_labels),
        DemoSet("letters, new typefaces", letters.data, letters.target, typefaces, by_typeface),
    ]


def _score_pixels(images: DemoSet) -> DemoRow:
    start_s = time.perf_counter()
    pixels = np.stack([_gray_pixels(path) for path in images.paths])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with blas_threads_for(pixels.nbytes):
        scores = cross_val_score(head, pixels, images.labels, groups=images.groups, cv=images.folds)
    seconds = time.perf_counter() - start_s
    return DemoRow(images.name, "raw pixels", float(scores.mean()), float(scores.std()), 0, seconds)


def _gray_pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((_PIXELS, _PIXELS)), np.float64).ravel()


def _score(
    features: str, images: DemoSet, classifier: TransferClassifier, cache: EmbeddingCache
) -> DemoRow:
    before = cache.info()["n_forward"]
    start_s = time.perf_counter()
    scores = cross_val_score(
        classifier, images.paths, images.labels, groups=images.groups, cv=images.folds
    )
    seconds = time.perf_counter() - start_s
    n_forward = cache.info()["n_forward"] - before
    return DemoRow(
        images.name,
        features,
        float(scores.mean()),
        float(scores.std()),
        n_forward,
        seconds,
    )
