"""The demo: embeddings beat pixels, a second run embeds nothing; and the images it writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits

from featx import load_image_folder
from featx.cli import demo, output
from featx.cli.demo import (
    LETTERS,
    DemoRow,
    draw_letter,
    typeface_of,
    typefaces,
    write_digits,
    write_letters,
)
from featx.cli.main import main
from featx.exceptions import MissingExtraError


@pytest.mark.long
def test_demo_embeddings_beat_pixels_in_one_pass(tmp_path, capsys, monkeypatch):
    # Fine-tuning starts from the head, so that one epoch does to beat pixels.
    monkeypatch.setattr(demo, "_FINE_TUNE", clone(demo._FINE_TUNE).set_params(epochs=1))
    main(["demo", "--out", str(tmp_path / "demo"), "--json"])
    text, messages = capsys.readouterr()
    assert len([line for line in messages.splitlines() if line.startswith("- ")]) == 10
    result = json.loads(text)
    rows = [DemoRow(**row) for row in result["rows"]]
    assert [row.n_forward for row in rows[:3] + rows[4:7]] == [0, 1797, 0, 0, 400, 0]
    for pixels, first, second, tuned in (rows[:4], rows[4:]):
        assert first.mean > pixels.mean + 0.02
        assert (second.mean, second.spread) == (first.mean, first.spread)
        assert tuned.mean > pixels.mean + 0.02
    assert rows[4].mean < 0.3
    assert rows[5].mean > 0.8
    for name in ("images", "cache", "model", "example"):
        assert Path(result[name]).exists()
    assert result["prediction"] == Path(result["example"]).parent.name
    output.print_demo({**result, "rows": rows})
    shown = capsys.readouterr().out
    for expected in ("raw pixels", "first run", "second run", "fine-tuned", result["model"]):
        assert expected in shown


def test_write_digits_writes_those_of_scikit_learn(tmp_path):
    write_digits(tmp_path)
    images = load_image_folder(tmp_path)
    assert len(images.data) == 1797
    digits = load_digits()
    counts = np.bincount(digits.target)
    assert [np.sum(images.target == name) for name in images.target_names] == counts.tolist()
    first = np.asarray(Image.open(tmp_path / str(digits.target[0]) / "0000.png"))
    assert first.shape == (64, 64)
    centers = first[4::8, 4::8].astype(float)
    assert np.corrcoef(centers.ravel(), digits.images[0].ravel())[0, 1] > 0.95


def test_write_letters_twice_gives_equal_files(tmp_path):
    for folder in "ab":
        write_letters(tmp_path / folder, n_per_letter=2)
    a, b = (load_image_folder(tmp_path / folder).data for folder in "ab")
    assert len(a) == 2 * len(LETTERS)
    assert [Path(path).read_bytes() for path in a] == [Path(path).read_bytes() for path in b]


def test_typefaces_draw_ten_different_letters():
    """A typeface without letters draws the same box, or nothing, for each of them."""
    files = typefaces()
    assert len(files) >= 15
    for file in files:
        drawn = {
            draw_letter(letter, file, np.random.default_rng(0)).tobytes() for letter in LETTERS
        }
        assert len(drawn) == len(LETTERS), file.stem


def test_write_letters_names_typefaces_in_files(tmp_path):
    write_letters(tmp_path, n_per_letter=len(typefaces()))
    paths = load_image_folder(tmp_path).data
    assert {typeface_of(path) for path in paths} == {file.stem for file in typefaces()}


def test_typefaces_without_matplotlib_names_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install matplotlib"):
        typefaces()
