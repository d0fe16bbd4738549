"""The demo: what each stage gains; and the images it writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from featx import load_image_folder
from featx.cli import demo, output
from featx.cli.demo import DemoRow, write_digits, write_speckled_digits
from featx.cli.main import main


@pytest.mark.long
def test_demo_shows_what_each_stage_gains(tmp_path, capsys):
    main(["demo", "--out", str(tmp_path / "demo"), "--json"])
    text, messages = capsys.readouterr()
    assert len([line for line in messages.splitlines() if line.startswith("- ")]) == 9
    result = json.loads(text)
    rows = [DemoRow(**row) for row in result["rows"]]
    pixels, first, second, speckled_pixels, frozen, tuned = rows
    assert [row.n_forward for row in rows[:5]] == [0, 1797, 0, 0, 1797]
    assert first.accuracy > pixels.accuracy + 0.02
    assert (second.accuracy, second.interval) == (first.accuracy, first.interval)
    assert speckled_pixels.accuracy < 0.2
    assert frozen.accuracy > speckled_pixels.accuracy + 0.3
    assert tuned.accuracy > frozen.accuracy + 0.1
    assert result["gain"]["interval"][0] > 0.05
    for name in ("images", "cache", "model", "example", "report"):
        assert Path(result[name]).exists()
    assert result["prediction"] == Path(result["example"]).parent.name
    for mistake in result["mistakes"]:
        assert Path(mistake["file"]).parent.name == mistake["true"] != mistake["predicted"]
    output.print_demo({**result, "rows": rows})
    assert "fine-tuned" in capsys.readouterr().out


def test_demo_without_packages_for_reports_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    write_digits(tmp_path / "digits")
    images = demo._split(tmp_path / "digits", "digits", n_per_class=2)
    images = images._replace(test=images.test[:30], y_test=images.y_test[:30])
    classifier = demo.TransferClassifier("tiny", "nearest_mean").fit(images.train, images.y_train)
    steps = []
    page = tmp_path / "report.html"
    assert demo._write_report(classifier, images, page, steps.append) is None
    assert steps == []
    assert not (tmp_path / "report.html").exists()


def test_mistakes_are_sorted_by_confidence(tmp_path):
    class Fixed:
        classes_ = np.array(["a", "b"])

        def predict_proba(self, X):
            return np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.05, 0.95]])

    paths, labels = np.array(["1", "2", "3", "4"]), np.array(["b", "b", "a", "a"])
    images = demo._ImageSet("letters", paths, paths, labels, labels)
    assert list(demo._mistakes(Fixed(), images)) == [
        {"file": "4", "true": "a", "predicted": "b", "confidence": 0.95},
        {"file": "1", "true": "b", "predicted": "a", "confidence": 0.9},
    ]


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


def test_write_speckled_digits_differ_in_noise_only(tmp_path):
    write_speckled_digits(tmp_path)
    digits = load_digits()
    deviations = []
    for number in range(100):
        path = tmp_path / str(digits.target[number]) / f"{number:04}.png"
        deviations.append(np.asarray(Image.open(path), float) - 127)
    means, spreads = np.mean(deviations, axis=(1, 2)), np.mean(np.abs(deviations), axis=0)
    assert np.abs(means).max() < 5
    ink = np.kron(digits.images[:100].mean(axis=0), np.ones((8, 8)))
    assert np.corrcoef(spreads.ravel(), ink.ravel())[0, 1] > 0.9
