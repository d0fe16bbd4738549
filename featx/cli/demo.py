"""``run_demo``, the work of ``featx demo``: a complete example on two real image sets, offline.

Raw pixels are compared with the embeddings of ``"tiny"``, and these with a fine-tuned ``"tiny"``. A
first run embeds each image once; a second run embeds none.

The images come with the dependencies, and are written as a folder of PNG files per class. *Digits*:
scikit-learn's handwritten digits, 8x8 pixels of gray, enlarged. *Letters*: A to J, drawn in the
typefaces of matplotlib, shifted, rotated and scaled; the file names hold the typeface, so that
splits can be by typeface.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    BaseShuffleSplit,
    GroupShuffleSplit,
    StratifiedShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx._threads import blas_threads_for
from featx.cache.cache import EmbeddingCache
from featx.cache.folder import CACHE_PARTS
from featx.estimators import TransferClassifier
from featx.exceptions import InputError, MissingExtraError
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.inputs.folders import load_image_folder
from featx.saving.persistence import load, save

_MODEL = "letters.featx"
LETTERS = "ABCDEFGHIJ"
_SIDE = 64
_PIXELS = 32  # side of the images whose pixels are features
_LABELS_PER_CLASS = 20
_N_SPLITS = 2  # fine-tuning takes ten seconds for each
_FINE_TUNE = FineTune("all", epochs=12, learning_rate=1e-3, batch_size=16, patience=None)
# Typefaces with signs or nothing in place of letters, as in those named "Display".
_NO_LETTERS = ("LastResort", "STIXNonUni", "STIXSiz", "cmex", "cmmi", "cmsy")


class DemoRow(NamedTuple):
    """A row of the table: the accuracy of some features on some images."""

    images: str
    features: str
    mean: float  # of the accuracy over two splits
    spread: float
    n_forward: int  # images that went through the backbone
    seconds: float


class _ImageSet(NamedTuple):
    """Labeled images with the splits on which they are scored."""

    name: str
    paths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None  # samples of one group stay on one side of a split
    splits: BaseShuffleSplit


def run_demo(folder: Path, *, n_per_letter: int, on_step: Callable[[str], None]) -> dict[str, Any]:
    """Write images, cache and model below a folder, and return the scores.

    The folder is new or that of an earlier demo, which is cleared. `on_step` is called with a
    description of each step before it starts. Return ``rows`` (list of :class:`DemoRow`), the paths
    ``images``, ``cache``, ``model`` and ``example``, and ``prediction``.

    Raise InputError if the folder holds files that are not from a demo, MissingExtraError if
    matplotlib is not installed.
    """
    _check_demo_folder(folder)
    on_step("writing images")
    sets = _write_demo_images(folder / "images", n_per_letter=n_per_letter)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    cache = EmbeddingCache(folder / "cache")
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=cache), head="logistic")
    rows = []
    for images in sets:
        on_step(f"{images.name}: raw pixels")
        rows.append(_score_pixels(images))
        for run in ("first run", "second run"):
            on_step(f"{images.name}: embeddings, {run}")
            rows.append(_score_demo_classifier(images, f"tiny, {run}", classifier, cache))
        on_step(f"{images.name}: fine-tuned")
        tuned = clone(classifier).set_params(fine_tune=_FINE_TUNE, random_state=0)
        rows.append(_score_demo_classifier(images, "tiny, fine-tuned", tuned, cache))
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


def _check_demo_folder(folder: Path) -> None:
    """Check that a folder is new or holds only files of a demo, since it will be cleared."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: expected a new name or a demo's folder")
    parts = {"": {"images", "cache", _MODEL}, "images": {"letters", "digits"}, "cache": CACHE_PARTS}
    for part, known in parts.items():
        place = folder / part
        foreign = set(os.listdir(place)) - set(known) if place.is_dir() else set()
        if foreign:
            raise InputError(
                f"{str(place)!r} holds files that are not from a demo, such as {min(foreign)!r}. "
                "The demo clears its folder: expected a new name or a demo's folder"
            )


def _write_demo_images(folder: Path, *, n_per_letter: int) -> list[_ImageSet]:
    """Write both sets and read them back as folders of images."""
    shutil.rmtree(folder, ignore_errors=True)
    write_letters(folder / "letters", n_per_letter=n_per_letter)
    write_digits(folder / "digits")
    digits = load_image_folder(folder / "digits")
    letters = load_image_folder(folder / "letters")
    few_labels = StratifiedShuffleSplit(
        _N_SPLITS, train_size=10 * _LABELS_PER_CLASS, random_state=0
    )
    typefaces = np.array([typeface_of(path) for path in letters.data])
    by_typeface = GroupShuffleSplit(_N_SPLITS, test_size=0.2, random_state=0)
    name = f"digits, {_LABELS_PER_CLASS} per class"
    return [
        _ImageSet(name, digits.data, digits.target, None, few_labels),
        _ImageSet("letters, new typefaces", letters.data, letters.target, typefaces, by_typeface),
    ]


def _score_pixels(images: _ImageSet) -> DemoRow:
    start_s = time.perf_counter()
    pixels = np.stack([_gray_pixels(path) for path in images.paths])
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with blas_threads_for(pixels.nbytes):
        scores = _cross_validate(head, pixels, images)
    return _demo_row(images, "raw pixels", scores, 0, time.perf_counter() - start_s)


def _gray_pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((_PIXELS, _PIXELS)), np.float64).ravel()


def _score_demo_classifier(
    images: _ImageSet, features: str, classifier: TransferClassifier, cache: EmbeddingCache
) -> DemoRow:
    before = cache.info()["n_forward"]
    start_s = time.perf_counter()
    scores = _cross_validate(classifier, images.paths, images)
    seconds = time.perf_counter() - start_s
    return _demo_row(images, features, scores, cache.info()["n_forward"] - before, seconds)


def _cross_validate(estimator: Any, X: np.ndarray, images: _ImageSet) -> np.ndarray:
    return cross_val_score(estimator, X, images.labels, groups=images.groups, cv=images.splits)


def _demo_row(
    images: _ImageSet, features: str, scores: np.ndarray, n_forward: int, seconds: float
) -> DemoRow:
    mean, spread = float(scores.mean()), float(scores.std())
    return DemoRow(images.name, features, mean, spread, n_forward, seconds)


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as ``folder/<digit>/<number>.png``."""
    digits = load_digits()
    for number, (levels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        image = Image.fromarray((levels * (255 / 16)).astype(np.uint8))
        enlarged = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        _save_demo_image(enlarged, folder / str(label) / f"{number:04}.png")


def write_letters(folder: Path, *, n_per_letter: int) -> None:
    """Draw letters as ``folder/<letter>/<typeface>-<number>.png``, spread over the typefaces."""
    files = typefaces()
    rng = np.random.default_rng(0)
    for letter in LETTERS:
        for number in range(n_per_letter):
            file = files[number % len(files)]
            image = draw_letter(letter, file, rng)
            _save_demo_image(image, folder / letter / f"{file.stem}-{number:03}.png")


def typefaces() -> list[Path]:
    """Return the files of the typefaces in which letters are drawn, which are matplotlib's."""
    try:
        import matplotlib
    except ImportError as exc:
        raise MissingExtraError(
            "the demo draws letters in the typefaces of matplotlib, which is not installed: "
            "pip install matplotlib"
        ) from exc
    files = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    return [
        file
        for file in files
        if not file.stem.startswith(_NO_LETTERS) and not file.stem.endswith("Display")
    ]


def typeface_of(path: str) -> str:
    """Return the typeface in the name of a letter's file, as in ``DejaVuSans-Bold-003.png``."""
    return Path(path).stem.rpartition("-")[0]


def draw_letter(letter: str, typeface: Path, rng: np.random.Generator) -> Image.Image:
    """Draw a letter of 24 to 44 pixels, shifted and rotated by up to 20 degrees, gray on gray."""
    paper, ink = _letter_grays(rng)
    font = _letter_font(typeface, int(rng.integers(24, 45)))
    image = Image.new("L", (_SIDE, _SIDE), paper)
    center = (_SIDE / 2 + rng.uniform(-8, 8), _SIDE / 2 + rng.uniform(-8, 8))
    ImageDraw.Draw(image).text(center, letter, fill=ink, font=font, anchor="mm")
    return image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=paper)


def _letter_grays(rng: np.random.Generator) -> tuple[int, int]:
    """Choose paper and ink at least 80 levels apart; either may be lighter."""
    while True:
        paper, ink = rng.integers(0, 256, 2).tolist()
        if abs(paper - ink) >= 80:
            return paper, ink


@functools.cache
def _letter_font(typeface: Path, height: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(typeface), height)


def _save_demo_image(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
