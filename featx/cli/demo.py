"""The main job on two real image sets, offline: what ``featx demo`` runs.

Images are written out as a folder of PNG files per class; from there on it is the public API that
a user would call. Raw pixels are compared with the embeddings of ``"tiny"``, these with what
fine-tuning makes of them, and a first run, which embeds each image once, with a second, which
embeds none.

Real images that come with the dependencies, written out as a folder of PNG files per class.

Two sets. *Digits*: scikit-learn's handwritten digits, 8x8 pixels of gray, enlarged. *Letters*: A to
J drawn in the typefaces that matplotlib brings, shifted, turned and scaled; the file names say
which typeface, so that folds can be split by typeface.
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
from featx.cache.cache import CACHE_PARTS, EmbeddingCache
from featx.estimators import TransferClassifier
from featx.exceptions import InputError, MissingExtraError
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.inputs.folders import load_image_folder
from featx.saving.persistence import load, save

SIZE = 64
LETTERS = "ABCDEFGHIJ"
# Typefaces with signs, or nothing, in the place of letters; those named "Display" are such too.
_NO_LETTERS = ("LastResort", "STIXNonUni", "STIXSiz", "cmex", "cmmi", "cmsy")


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits as ``folder/<digit>/<number>.png``."""
    digits = load_digits()
    for number, (levels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        image = Image.fromarray((levels * (255 / 16)).astype(np.uint8))
        enlarged = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        _save(enlarged, folder / str(label) / f"{number:04}.png")


def write_letters(folder: Path, *, n_per_letter: int = 40, seed: int = 0) -> None:
    """Draw letters as ``folder/<letter>/<typeface>-<number>.png``.

    Parameters
    ----------
    folder : Path
    n_per_letter : int, default=40
        Images of each letter, spread over the typefaces.
    seed : int, default=0

    Raises
    ------
    MissingExtraError
        matplotlib, whose typefaces are drawn, is not installed.
    """
    files = typefaces()
    rng = np.random.default_rng(seed)
    for letter in LETTERS:
        for number in range(n_per_letter):
            file = files[number % len(files)]
            image = draw_letter(letter, file, rng)
            _save(image, folder / letter / f"{file.stem}-{number:03}.png")


def typefaces() -> list[Path]:
    """List the typefaces that letters are drawn in.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
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
    """Read from a letter's path which typeface it is drawn in.

    Examples
    --------
    >>> typeface_of("letters/A/DejaVuSans-Bold-003.png")
    'DejaVuSans-Bold'
    """
    return Path(path).stem.rpartition("-")[0]


def draw_letter(letter: str, typeface: Path, rng: np.random.Generator) -> Image.Image:
    """Draw one letter: 24 to 44 pixels high, turned up to 20 degrees, shifted, gray on gray.

    Returns
    -------
    PIL.Image.Image
        Mode "L", 64x64 pixels.
    """
    paper, ink = _grays(rng)
    font = _font(typeface, int(rng.integers(24, 45)))
    image = Image.new("L", (SIZE, SIZE), paper)
    centre = (SIZE / 2 + rng.uniform(-8, 8), SIZE / 2 + rng.uniform(-8, 8))
    ImageDraw.Draw(image).text(centre, letter, fill=ink, font=font, anchor="mm")
    return image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=paper)


def _grays(rng: np.random.Generator) -> tuple[int, int]:
    """Choose paper and ink at least 80 levels apart, either of them the lighter."""
    while True:
        paper, ink = rng.integers(0, 256, 2).tolist()
        if abs(paper - ink) >= 80:
            return paper, ink


@functools.cache
def _font(typeface: Path, height: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(typeface), height)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


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
