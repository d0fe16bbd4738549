"""Images that come with the dependencies, written out as folders."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx import load_image_folder
from featx.cli.demo import LETTERS, draw_letter, typeface_of, typefaces, write_digits, write_letters
from featx.exceptions import MissingExtraError


def test_write_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    write_digits(tmp_path)
    images = load_image_folder(tmp_path)
    assert len(images.data) == 1797
    digits = load_digits()
    counts = np.bincount(digits.target)
    assert [np.sum(images.target == name) for name in images.target_names] == counts.tolist()
    first = np.asarray(Image.open(tmp_path / str(digits.target[0]) / "0000.png"))
    assert first.shape == (64, 64)
    centres = first[4::8, 4::8].astype(float)
    assert np.corrcoef(centres.ravel(), digits.images[0].ravel())[0, 1] > 0.95


def test_write_letters_are_the_same_for_a_seed(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_letters(tmp_path / folder, n_per_letter=2, seed=seed)
    a, b, c = (load_image_folder(tmp_path / folder).data for folder in "abc")
    assert len(a) == 2 * len(LETTERS)
    pixels = [[Path(path).read_bytes() for path in paths] for paths in (a, b, c)]
    assert pixels[0] == pixels[1]
    assert pixels[0] != pixels[2]


def test_typefaces_all_draw_ten_different_letters():
    """A typeface without letters draws the same box, or nothing, for each of them."""
    files = typefaces()
    assert len(files) >= 15
    for file in files:
        drawn = {
            draw_letter(letter, file, np.random.default_rng(0)).tobytes() for letter in LETTERS
        }
        assert len(drawn) == len(LETTERS), file.stem


def test_letters_say_which_typeface_they_are_drawn_in(tmp_path):
    write_letters(tmp_path, n_per_letter=len(typefaces()))
    paths = load_image_folder(tmp_path).data
    assert {typeface_of(path) for path in paths} == {file.stem for file in typefaces()}


def test_typefaces_without_matplotlib_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install matplotlib"):
        typefaces()
