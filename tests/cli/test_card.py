"""The command that writes the card of a saved model."""

import json

import pytest
import yaml
from command_line import CODES

from featx import FeatureExtractor, TransferRegressor, load_image_folder, save


def test_card_takes_output_of_evaluate(run, photos, model, tmp_path):
    report, out = tmp_path / "report.json", tmp_path / "README.md"
    report.write_text(run("evaluate", model, photos, "--json")[1])
    code, text, err = run("card", model, "--report", report, "--out", out)
    assert code == 0, err
    assert text == f"model card in {out}\n"
    card = out.read_text(encoding="utf-8")
    matter = yaml.safe_load(card.split("---\n")[1])
    assert matter["model-index"][0]["results"][0]["metrics"][0]["value"] == 1.0
    assert "| accuracy | 1.000 | 0.758 to 1.000 |" in card
    assert str(tmp_path) not in card
    code, _, err = run("card", model, "--out", out)
    assert (code, "--force" in err) == (CODES["input"], True)


def test_card_is_shown_without_out(run, model):
    code, text, err = run("card", model)
    assert code == 0, err
    assert text.startswith("---\nlibrary_name: featx\n")
    code, text, _ = run("card", model, "--json")
    assert json.loads(text)["metadata"]["library_name"] == "featx"


def test_card_of_regressor_is_written(run, photos, tmp_path):
    images = load_image_folder(photos).data
    save(TransferRegressor("tiny").fit(images, range(12)), tmp_path / "model.featx")
    code, text, err = run("card", tmp_path / "model.featx")
    assert (code, "# Image regressor on tiny" in text) == (0, True), err


def test_card_of_extractor_raises(run, photos, tmp_path):
    images = load_image_folder(photos).data
    save(FeatureExtractor("tiny").fit(images), tmp_path / "model.featx")
    code, _, err = run("card", tmp_path / "model.featx")
    assert code == CODES["saved"]
    assert "is a saved FeatureExtractor: expected a TransferClassifier" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not a JSON file"),
        (b"\xff\xfe{", "is not a JSON file"),
        (b"[" * 100_000, "is not a JSON file"),
        (b"[1]", "holds no report"),
        (b'{"metrics": {"classes": {"cat": {}}}}', "the report is of another model"),
    ],
)
def test_card_faulty_report_raises(content, message, run, model, tmp_path):
    report = tmp_path / "report.json"
    report.write_bytes(content)
    code, _, err = run("card", model, "--report", report)
    assert code == CODES["input"]
    assert message in err


def test_card_missing_report_raises(run, model, tmp_path):
    code, _, err = run("card", model, "--report", tmp_path / "missing.json")
    assert code == CODES["disk"]
    assert "missing.json" in err


def test_card_other_ending_raises_before_loading(run, tmp_path):
    code, _, err = run("card", "missing.featx", "--out", tmp_path / "card.html")
    assert (code, "expected the ending .md" in err) == (CODES["input"], True)
