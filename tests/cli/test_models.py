"""The commands that make and use saved models: fit, predict, evaluate, export."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from command_line import CODES
from sklearn.neighbors import KNeighborsClassifier

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier, load_image_folder, save
from featx.exceptions import UntrustedTypesError


def test_fit_and_evaluate_and_predict(run, photos, model):
    code, text, _ = run("evaluate", model, photos)
    assert code == 0
    for shown in (
        "accuracy 1.000 (0.758 to 1.000",
        "calibration error",
        "macro",
        "weighted",
        "confusion",
    ):
        assert shown in text
    code, text, _ = run("evaluate", model, photos, "--json")
    assert json.loads(text)["confusion"]["counts"] == [[6, 0], [0, 6]]
    images = [photos / "light" / "0.png", photos / "dark" / "3.png"]
    code, text, _ = run("predict", model, *images)
    assert code == 0
    assert text.splitlines() == [f"{images[0]}\tlight", f"{images[1]}\tdark"]


def test_fit_prints_json(run, photos, tmp_path):
    arguments = ("fit", photos, "--out", tmp_path / "m.featx", "--backbone", "tiny", "-q")
    code, text, _ = run(*arguments, "--head", "ridge", "--json")
    assert code == 0
    result = json.loads(text)
    assert result["classes"] == ["dark", "light"]
    assert result["report"]["n_forward"] == 12


def test_fit_out_is_folder_raises_before_pass(run, photos, tmp_path):
    code, _, err = run("fit", photos, "--out", tmp_path, "--backbone", "tiny")
    assert code == CODES["input"]
    assert "is a folder: expected the name of a file" in err


def test_fit_fine_tuned_model_is_exported(run, photos, tmp_path):
    model, out = tmp_path / "tuned.featx", tmp_path / "tuned.keras"
    options = ["--fine-tune", 1, "--tune", "epochs=1", "--backbone", "tiny", "--json"]
    code, text, err = run("fit", photos, "--out", model, *options)
    assert code == 0, err
    report = json.loads(text)["report"]
    assert report["kept"] in ("head", "tuned")
    assert "training " in err
    code, text, err = run("export", model, out)
    assert (code, out.is_file()) == (0, True), err
    assert "keras model in" in text
    assert "on a GPU, set the environment variables" in text
    code, _, err = run("export", model, out)
    assert (code, "--force" in err) == (CODES["input"], True)
    code, _, err = run("export", model, tmp_path / "model.h5")
    assert (code, ".tflite" in err) == (CODES["input"], True)


@pytest.mark.long
def test_forest_is_saved_and_loaded_without_trust(run, photos, tmp_path):
    path = tmp_path / "forest.featx"
    assert run("fit", photos, "--out", path, "--backbone", "tiny", "-q", "--head", "forest")[0] == 0
    assert run("evaluate", path, photos)[0] == 0


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


def test_predict_takes_folders_too(run, photos, model, tmp_path):
    code, text, _ = run("predict", model, photos / "dark", photos / "light" / "0.png")
    assert code == 0
    labels = [line.rpartition("\t")[2] for line in text.splitlines()]
    assert labels == ["dark"] * 6 + ["light"]
    (tmp_path / "bare").mkdir()
    code, _, err = run("predict", model, tmp_path / "bare")
    assert code == CODES["input"]
    assert "1 folders hold no image" in err


def test_predict_probabilities(run, photos, model, tmp_path):
    image = photos / "dark" / "1.png"
    _, text, _ = run("predict", model, image, "--proba")
    assert text.startswith(f"{image}\tdark\tdark=")
    _, text, _ = run("predict", model, image, "--proba", "--json")
    (row,) = json.loads(text)
    assert row["label"] == "dark"
    assert sum(row["proba"].values()) == pytest.approx(1)
    ridge = tmp_path / "ridge.featx"
    run("fit", photos, "--out", ridge, "--backbone", "tiny", "-q", "--head", "ridge")
    code, _, err = run("predict", ridge, image, "--proba")
    assert code == CODES["input"]
    assert "no probabilities" in err


@pytest.fixture
def saved(photos, tmp_path):
    """A function that saves a classifier fitted on the photos with other labels."""

    def fit_and_save(labels, head="logistic"):
        path = tmp_path / "other.featx"
        classifier = TransferClassifier(FeatureExtractor("tiny"), head)
        save(classifier.fit(load_image_folder(photos).data, labels), path)
        return path

    return fit_and_save


def test_predict_several_outputs_has_probabilities_each(run, photos, saved):
    model = saved(np.c_[["dark"] * 6 + ["light"] * 6, ["a", "b"] * 6])
    image = photos / "dark" / "0.png"
    code, text, err = run("predict", model, image, "--proba", "--json")
    assert code == 0, err
    (row,) = json.loads(text)
    assert row["label"] == ["dark", "a"]
    assert [set(by_class) for by_class in row["proba"]] == [{"dark", "light"}, {"a", "b"}]
    assert [sum(by_class.values()) for by_class in row["proba"]] == pytest.approx([1, 1])
    code, text, err = run("predict", model, image, "--proba")
    assert code == 0, err
    names = [field.partition("=")[0] for field in text.rstrip("\n").split("\t")[2:]]
    assert names == ["1:dark", "1:light", "2:a", "2:b"]


@pytest.mark.parametrize("unit", ["D", "ns"])
def test_predict_dates_are_written_as_text(unit, run, photos, saved):
    model = saved(np.array(["2020-01-01"] * 6 + ["2020-01-02"] * 6, f"datetime64[{unit}]"))
    code, text, err = run("predict", model, photos / "light" / "0.png", "--proba", "--json")
    assert code == 0, err
    (row,) = json.loads(text)
    assert row["label"].startswith("2020-01-02")
    assert row["label"] in row["proba"]
    code, text, _ = run("predict", model, photos / "light" / "0.png")
    assert (code, text.split("\t")[1].strip()) == (0, row["label"])


def test_predict_with_another_cache(run, photos, model, tmp_path):
    assert run("predict", model, photos, "--cache", tmp_path / "other")[0] == 0
    assert EmbeddingCache(tmp_path / "other").info()["n_rows"] == 12


def test_predict_with_saved_extractor_is_an_error(run, photos, tmp_path):
    extractor = FeatureExtractor("tiny").fit(np.zeros((1, 64, 64, 3), np.uint8))
    save(extractor, tmp_path / "extractor.featx")
    code, _, err = run("predict", tmp_path / "extractor.featx", photos)
    assert code == CODES["saved"]
    assert "is a saved FeatureExtractor: expected a TransferClassifier" in err


@pytest.mark.filterwarnings("default")
def test_unreadable_images_are_errors_unless_nan(run, photos, model):
    (photos / "dark" / "bad.png").write_text("no image")
    for job in ("predict", "evaluate"):
        code, _, err = run(job, model, photos)
        assert code == CODES["input"]
        assert "or pass --on-error nan" in err
    code, text, _ = run("predict", model, photos, "--on-error", "nan", "--json", "--proba")
    rows = {row["image"]: row for row in json.loads(text)}
    assert code == 0
    assert len(rows) == 13
    assert rows[str(photos / "dark" / "bad.png")]["label"] is None
    assert rows[str(photos / "dark" / "0.png")]["proba"]["dark"] > 0.5
    code, text, err = run("evaluate", model, photos, "--on-error", "nan", "--json")
    assert (code, json.loads(text)["n_samples"]) == (0, 12)
    assert "1 of 13 samples cannot be read" in err
    assert err.count("BadSampleWarning") == 1


def test_predict_pattern_without_files_is_an_error(run, photos, model):
    code, _, err = run("predict", model, photos / "*" / "*.jpg", "--on-error", "nan")
    assert code == CODES["input"]
    assert "*.jpg'. A shell does not expand a pattern" in err


@pytest.mark.parametrize("labels", [["dark"] * 6 + ["light"] * 6, [0] * 6 + [1] * 6])
def test_evaluate_several_outputs_is_an_error(labels, run, photos, saved):
    model = saved(np.c_[labels, labels[::-1]])
    code, _, err = run("evaluate", model, photos)
    assert code == CODES["input"]
    assert "predicts 2 labels for each image, but a folder per class has one" in err


def test_export_include_resize_reaches_the_model(run, model, photos, tmp_path):
    out = tmp_path / "any.keras"
    code, _, err = run("export", model, out, "--include-resize")
    assert code == 0, err
    images = np.zeros((2, 30, 41, 3), np.uint8)
    assert keras.saving.load_model(out)(images).shape == (2, 2)


def test_export_onto_other_folder_shows_path(run, model, photos):
    code, _, err = run("export", model, photos)
    assert code == CODES["input"]
    assert f"error: {str(photos)!r}: expected a new name, or a folder that holds only" in err


def test_evaluate_unknown_class_is_named(run, photos, model):
    (photos / "dark").rename(photos / "dusk")
    code, _, err = run("evaluate", model, photos)
    assert code == CODES["input"]
    assert "does not know: dusk. It knows dark, light." in err


@pytest.mark.parametrize("head", ["svm", "nearest_mean"])
def test_calibrated_model_needs_no_trusted(run, photos, tmp_path, head):
    out = tmp_path / "calibrated.featx"
    arguments = ("--backbone", "tiny", "--head", head, "--calibrate", "-q")
    code, _, err = run("fit", photos, "--out", out, *arguments)
    assert code == 0, err
    code, text, err = run("predict", out, photos, "--proba", "--json")
    assert code == 0, err
    assert all(sum(each["proba"].values()) == pytest.approx(1) for each in json.loads(text))


def test_calibrate_faults_come_before_passes(run, photos, tmp_path):
    arguments = ("fit", photos, "--out", tmp_path / "m.featx", "--backbone", "tiny", "--calibrate")
    code, _, err = run(*arguments, "--head", "rigde", "--engine", "fast")
    assert (code, "2 faulty options" in err) == (CODES["input"], True)
    code, _, err = run(*arguments, "--fine-tune", "1")
    assert (code, "--calibrate works without --fine-tune only" in err) == (2, True)
    for number in (3, 4, 5):
        (photos / "dark" / f"{number}.png").unlink()
    code, _, err = run(*arguments)
    assert (code, "calibrates in 5 folds" in err) == (CODES["input"], True)
    assert EmbeddingCache().info()["n_rows"] == 0


def test_fit_of_cached_rows_imports_no_tensorflow(model, photos, tmp_path):
    arguments = ["fit", str(photos), "--out", str(tmp_path / "m.featx"), "--backbone", "tiny", "-q"]
    code = (
        f"import sys; from featx.cli.main import main; main({arguments!r}); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert "0 embeddings computed, 12 read from the cache" in child.stdout
