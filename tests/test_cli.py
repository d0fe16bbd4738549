"""The command: every job, what it prints, and exit codes that mean something."""

import json
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from featx import EmbeddingCache, FeatureExtractor, FineTune, __version__, save
from featx.cli.main import main
from featx.cli.options import make_fine_tune
from featx.heads.named import CLASSIFIER_HEADS

CODES = {"input": 3, "backbone": 4, "saved": 5, "disk": 6, "fault": 70, "interrupted": 130}


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes, dark and light, with six images each."""
    rng = np.random.default_rng(0)
    for name, offset in (("dark", 0), ("light", 127)):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 128, (64, 64, 3)).astype(np.uint8) + np.uint8(offset)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(capsys):
    """Run the command in this process; return its exit code, output and messages."""

    def call(*arguments):
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as exc:
            code = exc.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def model(run, photos, tmp_path):
    path = tmp_path / "photos.featx"
    code, _, err = run("fit", photos, "--out", path, "--backbone", "tiny", "-q")
    assert code == 0, err
    return path


def test_command_is_installed_and_says_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "featx", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


def test_command_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from featx.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "print({'tensorflow', 'keras', 'sklearn', 'h5py', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    for job in [
        "demo",
        "extract",
        "fit",
        "predict",
        "evaluate",
        "export",
        "cv",
        "cache",
        "backbones",
    ]:
        assert f"\n  {job} " in done.stdout


@pytest.mark.parametrize("job", ["fit", "cv"])
def test_help_lists_every_head_and_the_default(job, run):
    help_text = " ".join(run(job, "--help")[1].split())
    *others, last = CLASSIFIER_HEADS
    assert f"--head TEXT {', '.join(others)} or {last} [default: logistic]" in help_text


def test_help_lists_every_parameter_of_fine_tuning(run):
    names = set(FineTune().get_params()) - {"unfreeze"}
    listed = run("fit", "--help")[1].partition("--tune NAME=VALUE")[2].partition("  --")[0]
    assert names <= set(re.findall(r"\w+", listed))


def test_fit_fine_tunes_and_export_writes_what_predicts_the_same(run, photos, tmp_path):
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
    code, _, err = run("export", model, out)
    assert (code, "--force" in err) == (CODES["input"], True)
    code, _, err = run("export", model, tmp_path / "model.h5")
    assert (code, ".tflite" in err) == (CODES["input"], True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tune", "epochs=2"], "works with --fine-tune only"),
        (["--fine-tune", 1, "--tune", "epoch=2"], "Did you mean 'epochs'"),
        (["--fine-tune", 1, "--tune", "epochs=0"], "--tune epochs=0"),
        (["--fine-tune", 1, "--tune", "batch_size=0"], "--tune batch_size=0"),
        (["--fine-tune", 1.5], "--fine-tune 1.5"),
    ],
)
def test_fit_faulty_fine_tuning_options_are_named(options, expected, run, photos, tmp_path):
    code, _, err = run("fit", photos, "--out", tmp_path / "model.featx", *options)
    assert code in (2, CODES["input"])
    assert expected in err


def test_extract_writes_embeddings_paths_and_labels(run, photos, tmp_path):
    out = tmp_path / "rows.npz"
    code, text, _ = run("extract", photos, "--out", out, "--backbone", "tiny", "-q")
    assert code == 0
    assert "12 forward passes, 0 from the cache" in text
    with np.load(out) as arrays:
        assert arrays["embeddings"].shape == (12, 400)
        assert arrays["labels"].tolist() == ["dark"] * 6 + ["light"] * 6
        assert arrays["paths"][0] == str(photos / "dark" / "0.png")


def test_extract_options_reach_the_extractor(run, photos, tmp_path):
    out = tmp_path / "rows.npz"
    options = "--weights none --param alpha=0.35 --input-size 32 --pooling max --batch-size 5"
    options += " --layer block_1_expand_relu --cache none --n-jobs 1 --preprocessing unit -q"
    code, text, _ = run(
        "extract", photos, "--out", out, "--backbone", "mobilenet_v2", "--json", *options.split()
    )
    assert code == 0
    result = json.loads(text)
    assert result["shape"] == [12, 48]
    assert result["report"]["n_forward"] == 12
    assert EmbeddingCache().info()["n_rows"] == 0


@pytest.mark.parametrize("command", ["extract", "fit"])
def test_file_that_is_there_is_kept_unless_forced(run, photos, tmp_path, command):
    out = tmp_path / "rows.npz"
    out.write_text("mine")
    code, _, err = run(command, photos, "--out", out, "--backbone", "tiny", "-q")
    assert code == CODES["input"]
    assert "pass --force" in err
    assert out.read_text() == "mine"
    code, _, _ = run(command, photos, "--out", out, "--backbone", "tiny", "-q", "--force")
    assert code == 0
    assert zipfile.is_zipfile(out)


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


def test_predict_takes_folders_too(run, photos, model, tmp_path):
    code, text, _ = run("predict", model, photos / "dark", photos / "light" / "0.png")
    assert code == 0
    labels = [line.rpartition("\t")[2] for line in text.splitlines()]
    assert labels == ["dark"] * 6 + ["light"]
    (tmp_path / "bare").mkdir()
    code, _, err = run("predict", model, tmp_path / "bare")
    assert code == CODES["input"]
    assert "1 folders hold no image" in err


def test_fit_prints_json(run, photos, tmp_path):
    arguments = ("fit", photos, "--out", tmp_path / "m.featx", "--backbone", "tiny", "-q")
    code, text, _ = run(*arguments, "--head", "ridge", "--json")
    assert code == 0
    result = json.loads(text)
    assert result["classes"] == ["dark", "light"]
    assert result["report"]["n_forward"] == 12


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


def test_cv_compares_heads_and_backbones(run, photos):
    arguments = ("cv", photos, "--folds", 3, "--head", "ridge", "--head", "knn", "-q")
    arguments += ("--backbone", "tiny", "--preprocessing", "tf")
    code, text, _ = run(*arguments, "--json")
    assert code == 0
    rows = json.loads(text)
    assert [(row["head"], row["n_forward"]) for row in rows] == [("ridge", 12), ("knn", 0)]
    assert [row["p_value"] for row in rows] == [1, 1]
    code, text, _ = run(*arguments)
    assert "1.000 ± 0.000" in text
    assert "accuracy, 3 folds" in text


def test_cv_shows_what_is_done_when_a_later_backbone_fails(run, photos, tmp_path):
    inputs = keras.Input((64, 64, 3))
    means = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, keras.layers.Rescaling(1e38)(means)).save(tmp_path / "endless.keras")
    arguments = ("cv", photos, "--folds", 3, "-q", "--head", "knn", "--backbone", "tiny")
    arguments += ("--backbone", tmp_path / "endless.keras")
    code, text, err = run(*arguments)
    assert (code, "error: Input X contains infinity" in err) == (CODES["input"], True)
    assert "tiny" in text
    assert "1.000 ± 0.000" in text
    code, text, _ = run(*arguments, "--json")
    assert code == CODES["input"]
    assert [row["backbone"] for row in json.loads(text)] == ["tiny"]


def test_backbones_lists_all(run):
    code, text, _ = run("backbones")
    assert code == 0
    assert "mobilenet_v2" in text
    _, text, _ = run("backbones", "--json")
    assert json.loads(text)[0]["name"] == "tiny"


def test_cache_info_compact_evict_export_clear(run, photos, model, tmp_path):
    code, text, _ = run("cache", "info")
    assert code == 0
    assert "12 rows" in text
    _, text, _ = run("cache", "info", "--json")
    assert json.loads(text)["n_rows"] == 12
    assert run("cache", "compact")[1] == "1 shards became 1\n"
    file, copy = tmp_path / "rows.h5", tmp_path / "copy"
    code, text, _ = run("cache", "export", file, "--folder", photos)
    assert (code, text.endswith(f"kB in {file}\n")) == (0, True)
    assert run("cache", "import", file, "--cache", copy)[1].startswith("12 of 12 rows added")
    assert EmbeddingCache(copy).info()["n_rows"] == 12
    code, text, err = run("cache", "clear", "--yes", "--cache", copy)
    assert (code, "12 rows of 1 spaces" in err, text.endswith("kB freed\n")) == (0, True, True)
    assert EmbeddingCache(copy).info()["n_rows"] == 0
    assert run("cache", "evict", "--max-bytes", "1GB")[1] == "0 bytes freed\n"
    assert run("cache", "evict", "--older-than", "30d")[1] == "0 bytes freed\n"
    code, text, err = run("cache", "evict", "--max-bytes", "10 b", "--yes", "--json")
    assert "12 rows of tiny" in err
    assert json.loads(text)[0]["n_rows"] == 12
    assert EmbeddingCache().info()["n_rows"] == 0


def test_cache_of_several_spaces_is_exported_one_by_one(run, photos, model, tmp_path):
    run("extract", photos, "--out", tmp_path / "m.npz", "--backbone", "tiny", "--layer", "stage3")
    first, second = (space["digest"][:8] for space in EmbeddingCache().info()["spaces"])
    _, text, _ = run("cache", "info")
    assert first in text
    assert second in text
    code, _, err = run("cache", "export", tmp_path / "rows.h5")
    assert code == CODES["input"]
    assert (
        f"holds 2 spaces: choose one by the beginning of its digest, as in --space '{first}'" in err
    )
    assert f"; {second} tiny, layer" in err
    assert run("cache", "export", tmp_path / "rows.h5", "--space", second)[0] == 0
    code, _, err = run("cache", "export", tmp_path / "rows.h5", "--space", second)
    assert (code, "pass --force" in err) == (CODES["input"], True)
    code, _, err = run("cache", "export", tmp_path / "rows.h5", "--space", "xyz", "--force")
    assert "error: --space 'xyz': no spaces have a digest that begins so" in err


@pytest.mark.parametrize("length", ["a while", "d", "", "-"])
def test_cache_evict_length_of_time_that_is_none_is_wrong_usage(length, run, cache_folder):
    cache_folder.mkdir()
    code, _, err = run("cache", "evict", "--older-than", length)
    assert code == 2
    assert "expected a length of time as in 30d" in err


CACHE_JOBS = (
    ("info",),
    ("verify",),
    ("compact",),
    ("evict", "--max-bytes", "0", "--yes"),
    ("export", "rows.h5"),
    ("clear", "--yes"),
)


@pytest.mark.parametrize("job", CACHE_JOBS, ids=lambda job: job[0])
def test_cache_that_was_named_and_is_not_there_is_an_error(job, run, tmp_path, cache_folder):
    code, out, err = run("cache", *job, "--cache", tmp_path / "nosuch")
    assert (code, out) == (CODES["input"], "")
    assert err.startswith(f"error: --cache {tmp_path / 'nosuch'}: there is no such cache")
    code, out, err = run("cache", *job)
    assert (code, out) == (CODES["input"], "")
    assert err.startswith(f"error: FEATX_CACHE={cache_folder}: there is no such cache")


@pytest.mark.parametrize("job", CACHE_JOBS, ids=lambda job: job[0])
def test_folder_of_other_files_is_no_cache(job, run, photos):
    code, out, err = run("cache", *job, "--cache", photos)
    assert (code, out) == (CODES["input"], "")
    assert "there is no cache in this folder, but other files" in err
    assert len(list(photos.rglob("*.png"))) == 12


def test_default_cache_and_empty_folders_hold_nothing_yet(run, tmp_path, monkeypatch):
    assert run("cache", "verify", "--cache", tmp_path)[:2] == (0, "all 0 rows are sound\n")
    monkeypatch.delenv("FEATX_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    assert run("cache", "verify")[:2] == (0, "all 0 rows are sound\n")
    assert "0 rows" in run("cache", "info")[1]


def test_cache_evict_asks_first(run, model, monkeypatch):
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "n")
    assert run("cache", "evict", "--max-bytes", "0")[:2] == (0, "0 bytes freed\n")
    assert EmbeddingCache().info()["n_rows"] == 12


def test_cache_verify_sample_computes_rows_again(run, photos, model):
    options = ("--sample", "3", "--folder", photos, "--backbone", "tiny", "-q")
    code, text, _ = run("cache", "verify", *options)
    assert code == 0
    assert "3 rows computed again: largest relative difference" in text
    code, _, err = run("cache", "verify", "--sample", "3")
    assert (code, "--sample needs --folder" in err) == (2, True)


@pytest.mark.parametrize("size", ["1 parsec", "MB", "", "-"])
def test_cache_evict_size_that_is_none_is_wrong_usage(size, run, cache_folder):
    cache_folder.mkdir()
    code, _, err = run("cache", "evict", "--max-bytes", size)
    assert code == 2
    assert "expected a size as in 500MB" in err


def test_cache_clear_asks_first(run, model, monkeypatch):
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: "n")
    assert run("cache", "clear")[:2] == (0, "0 bytes freed\n")
    assert EmbeddingCache().info()["n_rows"] == 12


@pytest.mark.filterwarnings("default")
def test_cache_verify_damage_is_exit_code_one(run, model):
    code, text, _ = run("cache", "verify")
    assert (code, text) == (0, "all 12 rows are sound\n")
    (shard,) = EmbeddingCache().path.rglob("*.h5")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1  # in the middle of the rows
    shard.write_bytes(data)
    code, text, _ = run("cache", "verify", "--json")
    reason = "1 of 12 rows are damaged"
    assert (code, json.loads(text)["damaged"]) == (1, {str(shard): reason})
    code, text, err = run("cache", "verify", "--repair")
    assert code == 1
    assert f"{shard}: {reason}" in text
    assert err.startswith("CacheDamageWarning: damage in the cache")
    assert run("cache", "verify")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "nowhere", "--out", "m"], "input", "no such folder"),
        (["fit", "PHOTOS", "--out", "nowhere/m"], "input", "no such folder to write to"),
        (["extract", "PHOTOS", "--out", "nowhere/m"], "input", "no such folder to write to"),
        (["fit", "PHOTOS", "--out", "m", "--backbone", "tinny"], "input", "Did you mean 'tiny'"),
        (["fit", "PHOTOS", "--out", "m", "--head", "logistik"], "input", "logistic"),
        (["cv", "PHOTOS", "--backbone", "tiny", "--folds", "7"], "input", "7 folds need 7"),
        (["fit", "PHOTOS", "--out", "m", "--weights", "no.h5"], "input", "no.h5"),
        (["fit", "PHOTOS", "--out", "m", "--backbone", "BROKEN"], "backbone", "cannot be loaded"),
        (["predict", "nowhere", "x.png"], "saved", "nowhere"),
        (["predict", "BROKEN", "x.png"], "saved", "BROKEN"),
        (["predict", "MODEL", "x.png"], "input", r"[0] x.png: no such file"),
    ],
)
def test_error_is_one_message_and_an_exit_code(
    arguments, code, message, run, photos, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BROKEN.keras").write_text("no model")
    places = {"PHOTOS": photos, "MODEL": model, "BROKEN": tmp_path / "BROKEN.keras"}
    got, out, err = run(*(places.get(argument, argument) for argument in arguments))
    assert (got, out) == (CODES[code], "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command"),
        (["fit", "photos"], "Missing option '--out'"),
        (["extract", "PHOTOS", "--out", "m", "--param", "alpha"], "expected NAME=VALUE"),
    ],
)
def test_wrong_usage_is_exit_code_two(arguments, message, run, photos):
    code, _, err = run(*(photos if a == "PHOTOS" else a for a in arguments))
    assert code == 2
    assert message in err


def test_forest_is_saved_and_loaded_only_with_its_types_named(run, photos, tmp_path):
    path = tmp_path / "forest.featx"
    arguments = ("fit", photos, "--out", path, "--backbone", "tiny", "-q", "--head", "forest")
    code, _, err = run(*arguments)
    assert code == CODES["saved"]
    assert "--trusted sklearn.tree._tree.Tree" in err
    assert not path.exists()
    assert EmbeddingCache().info()["n_rows"] == 0
    trusted = ("--trusted", "sklearn.tree._tree.Tree")
    assert run(*arguments, *trusted)[0] == 0
    assert run("evaluate", path, photos)[0] == CODES["saved"]
    assert run("evaluate", path, photos, *trusted)[0] == 0


def test_parameter_values_reach_the_backbone(run, photos, tmp_path):
    arguments = ("extract", photos, "--out", tmp_path / "m.npz", "--backbone", "mobilenet_v2")
    arguments += ("--weights", "none", "--input-size", 32, "-q")
    assert run(*arguments, "--param", "alpha=.35", "--param", "name=mine")[0] == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        (".35", 0.35),
        ("1.", 1.0),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("(96, 96)", (96, 96)),
        ("{'dark': 2}", {"dark": 2}),
        ('"balanced"', "balanced"),
        ("'balanced'", "balanced"),
        ("balanced", "balanced"),
        ("block_(3|4)", "block_(3|4)"),
        ("block_[34]", "block_[34]"),
        ("08", "08"),
        ("(" * 500, "(" * 500),
    ],
)
def test_parameter_value_is_json_or_python_or_text(text, value):
    params = make_fine_tune({"tune": (f"class_weight={text}",), "unfreeze": text}).get_params()
    for got in (params["class_weight"], params["unfreeze"]):
        assert (type(got), got) == (type(value), value)


def test_interrupted_run_is_exit_code_130(run, photos, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("featx.samples.folders.load_image_folder", interrupt)
    code, _, err = run("fit", photos, "--out", tmp_path / "m")
    assert (code, err) == (CODES["interrupted"], "\ninterrupted\n")


@pytest.mark.filterwarnings("default")
def test_predict_and_evaluate_images_that_cannot_be_read(run, photos, model):
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
    assert "1 of 13 samples could not be read and were left out of evaluation" in err


def test_evaluate_class_that_the_model_does_not_know_is_named(run, photos, model):
    (photos / "dark").rename(photos / "dusk")
    code, _, err = run("evaluate", model, photos)
    assert code == CODES["input"]
    assert "does not know: dusk. It knows dark, light." in err


def test_predict_with_a_saved_extractor_says_what_it_is(run, photos, tmp_path):
    extractor = FeatureExtractor("tiny").fit(np.zeros((1, 64, 64, 3), np.uint8))
    save(extractor, tmp_path / "extractor.featx")
    code, _, err = run("predict", tmp_path / "extractor.featx", photos)
    assert code == CODES["saved"]
    assert "is a saved FeatureExtractor: expected a TransferClassifier" in err


def test_fit_into_a_folder_is_refused_before_the_pass(run, photos, tmp_path):
    code, _, err = run("fit", photos, "--out", tmp_path, "--backbone", "tiny")
    assert code == CODES["input"]
    assert "is a folder: expected the name of a file" in err


def test_predict_with_another_cache(run, photos, model, tmp_path):
    assert run("predict", model, photos, "--cache", tmp_path / "other")[0] == 0
    assert EmbeddingCache(tmp_path / "other").info()["n_rows"] == 12


def test_fault_of_featx_shows_its_traceback(run, monkeypatch):
    def fail():
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("featx.networks.applications.list_backbones", fail)
    code, _, err = run("backbones")
    assert code == CODES["fault"]
    assert "ZeroDivisionError: a fault" in err
    assert "please report it" in err


def test_cache_verify_without_a_cache_is_wrong_usage(run):
    assert run("cache", "verify", "--cache", "none")[0] == 2


def test_faulty_options_are_called_as_they_are_typed(run, photos):
    code, _, err = run("cv", photos, "--pooling", "average", "--weights", "gone.h5", "-q")
    assert code == CODES["input"]
    assert "--pooling 'average': expected" in err
    assert "--weights 'gone.h5': expected" in err
    assert "extractor__" not in err


def test_package_that_an_engine_misses_is_named_with_its_cure(run, photos, monkeypatch):
    monkeypatch.setattr("featx.extractor_checks.missing_packages", lambda engine: ["tf2onnx"])
    code, _, err = run("cv", photos, "--engine", "onnx", "-q")
    assert code == CODES["input"]
    cure = "expected tf2onnx to be installed: pip install tf2onnx."
    assert f"--engine 'onnx': {cure}" in err


def test_unknown_backbone_leads_to_the_command_that_lists_them(run, photos):
    _, _, err = run("cv", photos, "--backbone", "mobilnet", "-q")
    assert "--backbone 'mobilnet': no network has this name" in err
    assert "featx backbones names them all" in err


@pytest.mark.filterwarnings("default")
def test_near_duplicates_lead_to_what_can_be_done_about_them(run, photos):
    for number in range(5):
        (photos / "dark" / f"copy{number}.png").write_bytes(
            (photos / "dark" / f"{number}.png").read_bytes()
        )
    code, _, err = run("cv", photos, "--backbone", "tiny", "-q")
    assert code == 0
    assert "NearDuplicateWarning: " in err
    assert "Remove all but one, or cross-validate with compare_heads in Python" in err
    assert "groups=" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("cache", "evict"),
        ("cache", "evict", "--max-bytes", "-5"),
        ("cache", "evict", "--older-than", "-3d"),
        ("cache", "info", "--cache", "none"),
        ("cache", "verify", "--sample", "-5"),
        ("demo", "--letters", "0"),
        ("cv", "photos", "--folds", "1"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_wrong_usage(arguments, run, cache_folder):
    cache_folder.mkdir()
    assert run(*arguments)[0] == 2
