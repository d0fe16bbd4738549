"""Real images that come with the dependencies, written out as a folder of PNG files per class.

Two sets. *Digits*: scikit-learn's handwritten digits, 8x8 pixels of gray, enlarged. *Letters*: A to
J drawn in the typefaces that matplotlib brings, shifted, turned and scaled; the file names say
which typeface, so that folds can be split by typeface.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from featx.exceptions import MissingExtraError

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
