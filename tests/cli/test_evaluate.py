"""The commands that score saved models on a folder per class: evaluate, compare."""

import csv
import json
import shutil

import numpy as np
import pytest
from command_line import CODES
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from featx import TransferClassifier, load_image_folder, save
from featx.exceptions import UntrustedTypesError


def test_evaluate_other_types_need_to_be_trusted(run, photos, tmp_path):
    path, images = tmp_path / "model.featx", load_image_folder(photos)
    head = KNeighborsClassifier(1, algorithm="kd_tree")
    classifier = TransferClassifier("tiny", head).fit(images.data, images.target)
    with pytest.raises(UntrustedTypesError) as caught:
        save(classifier, path)
    names = str(caught.value).partition("trusted=")[2].strip("[]'").split("', '")
    save(classifier, path, trusted=names)
    code, _, err = run("evaluate", path, photos)
    assert code == CODES["saved"]
    assert f"--trusted {names[0]}" in err
    assert run("evaluate", path, photos, *(f"--trusted={name}" for name in names))[0] == 0


@pytest.mark.parametrize("labels", [["dark"] * 6 + ["light"] * 6, [0] * 6 + [1] * 6])
def test_evaluate_several_outputs_is_an_error(labels, run, photos, saved):
    model = saved(np.c_[labels, labels[::-1]])
    code, _, err = run("evaluate", model, photos)
    assert code == CODES["input"]
    assert "predicts 2 labels for each image, but each image here has one" in err


def test_evaluate_unknown_class_is_named(run, photos, model):
    (photos / "dark").rename(photos / "dusk")
    code, _, err = run("evaluate", model, photos)
    assert code == CODES["input"]
    assert "does not know: dusk. It knows dark, light." in err


@pytest.fixture
def confused(photos, saved):
    """A model that has learned the wrong class of ten of the twelve images."""
    return saved(["light"] * 5 + ["dark"] * 6 + ["light"])


def mistakes_in(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_out_lists_confident_mistakes_first(run, photos, confused, tmp_path):
    out = tmp_path / "mistakes.csv"
    code, text, err = run("evaluate", confused, photos, "--out", out, "--json")
    assert code == 0, err
    (_, to_light), (to_dark, _) = json.loads(text)["confusion"]["counts"]
    rows = mistakes_in(out)
    assert list(rows[0]) == ["file", "true", "predicted", "confidence"]
    assert len(rows) == to_light + to_dark > 0
    assert all(row["true"] != row["predicted"] for row in rows)
    assert all(f"/{row['true']}/" in row["file"] for row in rows)
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    assert f"{len(rows)} mistakes in" in err


def test_evaluate_out_without_probabilities_has_mistakes(run, photos, saved, tmp_path):
    model, out = saved(["light"] * 6 + ["dark"] * 6, head="ridge"), tmp_path / "mistakes.csv"
    assert run("evaluate", model, photos, "--out", out)[0] == 0
    assert [row["confidence"] for row in mistakes_in(out)] == [""] * 12


def test_evaluate_out_is_checked_before_work(run, tmp_path):
    out = tmp_path / "mistakes.csv"
    out.write_text("precious")
    code, _, err = run("evaluate", "missing.featx", "missing", "--out", out)
    assert (code, "pass --force" in err) == (CODES["input"], True)
    assert out.read_text() == "precious"
    code, _, err = run("evaluate", "missing.featx", "missing", "--out", tmp_path / "a.txt")
    assert (code, "expected the ending .csv" in err) == (CODES["input"], True)


def test_evaluate_force_replaces_out(run, photos, model, tmp_path):
    out = tmp_path / "mistakes.csv"
    out.write_text("old")
    assert run("evaluate", model, photos, "--out", out, "--force")[0] == 0
    assert out.read_text() == "file,true,predicted,confidence\n"


def test_compare_shows_difference_from_first(run, photos, model, saved):
    other = saved(["light"] * 6 + ["dark"] * 6, head="ridge")
    code, text, err = run("compare", other, model, photos, "--json")
    assert code == 0, err
    result = json.loads(text)
    first, second = result["models"]
    assert (result["n_samples"], first["accuracy"], second["accuracy"]) == (12, 0, 1)
    assert first["from_first"] is None
    assert second["from_first"]["difference"] == 1
    assert second["from_first"]["p_value"] == pytest.approx(2 / 2**12)
    code, text, _ = run("compare", other, model, photos)
    assert code == 0
    for shown in ("on 12 images", "1.000 (0.758 to 1.000)", "+1.000 (+", "0.000488"):
        assert shown in text


def test_compare_needs_two_models(run, photos, model):
    code, _, err = run("compare", model, photos)
    assert (code, "expected two or more models" in err) == (2, True)


def test_compare_names_faults_of_all_models(run, photos, model, saved):
    other = saved(["dark"] * 6 + ["light"] * 6)
    (photos / "dark").rename(photos / "dusk")
    code, _, err = run("compare", model, other, photos)
    assert code == CODES["input"]
    assert all(f"the model {str(path)!r} does not know: dusk" in err for path in (model, other))


@pytest.mark.filterwarnings("default")
def test_compare_leaves_out_unreadable_images(run, photos, model, saved):
    other = saved(["dark"] * 6 + ["light"] * 6)
    (photos / "dark" / "bad.png").write_text("no image")
    code, text, _ = run("compare", model, other, photos, "--on-error", "nan", "--json")
    assert (code, json.loads(text)["n_samples"]) == (0, 12)


def test_evaluate_tells_of_training_images(run, photos, model, tmp_path):
    test = tmp_path / "test"
    shutil.copytree(photos, test)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(test / "dark" / "new.png")
    sentence = f"12 of 13 images were in the training data of {model}: these scores are too good"
    assert sentence in run("evaluate", model, test)[1]
    assert json.loads(run("evaluate", model, test, "--json")[1])["n_in_training"] == 12
    code, text, err = run("compare", model, model, test)
    assert (code, text.count(sentence)) == (0, 1), err
    rows = json.loads(run("compare", model, model, test, "--json")[1])["models"]
    assert [row["n_in_training"] for row in rows] == [12, 12]
    for image in test.glob("*/?.png"):
        pixels = np.asarray(Image.open(image)) ^ 1
        Image.fromarray(pixels).save(image)
    assert "training data" not in run("evaluate", model, test)[1]
