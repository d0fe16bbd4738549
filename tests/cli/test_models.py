"""The commands that make and use saved models: fit, predict, evaluate, export."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from command_line import CODES

from featx import EmbeddingCache, load


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


@pytest.mark.long
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


def test_export_faults_come_before_keras(run, photos, saved, tmp_path, monkeypatch):
    knn = saved(["dark"] * 6 + ["light"] * 6, head="knn")
    monkeypatch.setattr("featx.backbones.resolve.build_backbone", None)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setitem(sys.modules, "keras", None)
    for model, code, fault in (
        (tmp_path / "missing.featx", "saved", "no such file"),
        (knn, "input", "is not linear"),
    ):
        found, _, err = run("export", model, tmp_path / "model.onnx")
        assert (found, fault in err) == (CODES[code], True), err


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


def test_fit_saves_a_model_without_progress(run, photos, tmp_path):
    model = tmp_path / "model.featx"
    assert run("fit", photos, "--backbone", "tiny", "--out", model)[0] == 0
    loaded = load(model)
    assert not any(each.verbose for each in (loaded, loaded.extractor_, loaded.extractor))


def test_export_calibrated_model_names_the_option(run, photos, tmp_path):
    model = tmp_path / "model.featx"
    assert run("fit", photos, "--backbone", "tiny", "-q", "--calibrate", "--out", model)[0] == 0
    code, _, err = run("export", model, tmp_path / "model.onnx")
    assert code == CODES["input"]
    assert "without --calibrate" in err
