"""The command as a whole: extract, cv, backbones, and the exit codes."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from command_line import CODES

from featx import __version__


def test_command_prints_its_version():
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


def test_extract_writes_embeddings_paths_and_labels(run, photos, tmp_path):
    out = tmp_path / "rows.npz"
    code, text, _ = run("extract", photos, "--out", out, "--backbone", "tiny", "-q")
    assert code == 0
    assert "12 embeddings computed, 0 read from the cache" in text
    with np.load(out) as arrays:
        assert arrays["embeddings"].shape == (12, 400)
        assert arrays["labels"].tolist() == ["dark"] * 6 + ["light"] * 6
        assert arrays["paths"][0] == str(photos / "dark" / "0.png")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Keras finds no GPU:featx.exceptions.EngineWarning")
def test_extract_on_gpus_reports_their_passes(run, photos, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    out = tmp_path / "rows.npz"
    options = ("--out", out, "--backbone", "tiny", "-q", "--gpus", 1)
    code, text, _ = run("extract", photos, *options)
    assert code == 0
    assert "12 embeddings computed, 0 read from the cache" in text
    with np.load(out) as arrays:
        assert np.isfinite(arrays["embeddings"]).all()


@pytest.mark.parametrize(("command", "name"), [("extract", "rows.npz"), ("fit", "m.featx")])
def test_out_existing_is_kept_unless_forced(run, photos, tmp_path, command, name):
    out = tmp_path / name
    out.write_text("mine")
    code, _, err = run(command, photos, "--out", out, "--backbone", "tiny", "-q")
    assert code == CODES["input"]
    assert "pass --force" in err
    assert out.read_text() == "mine"
    code, _, _ = run(command, photos, "--out", out, "--backbone", "tiny", "-q", "--force")
    assert code == 0
    assert zipfile.is_zipfile(out)


def test_backbones_lists_all(run):
    code, text, _ = run("backbones")
    assert code == 0
    assert "mobilenet_v2" in text
    _, text, _ = run("backbones", "--json")
    assert json.loads(text)[0]["name"] == "tiny"


def test_backbones_of_name_shows_layers_and_blocks(run):
    code, text, _ = run("backbones", "Tiny")
    assert code == 0
    assert all(name in text for name in ("stage5", "embedding", "64 x 64 x 3"))
    code, text, _ = run("backbones", "tiny", "--json")
    found = json.loads(text)
    assert (found["name"], len(found["blocks"])) == ("tiny", 5)
    assert sum(block["n_params"] for block in found["blocks"]) == found["n_parameters"]
    assert found["layers"][-1]["shape"] == [400]


def test_backbones_of_unknown_name_suggests_one(run):
    code, _, err = run("backbones", "tinny")
    assert (code, "Did you mean 'tiny'" in err) == (CODES["input"], True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "nowhere", "--out", "m"], "input", "no such folder"),
        (["fit", "PHOTOS", "--out", "nowhere/m"], "input", "no such folder to write to"),
        (["extract", "PHOTOS", "--out", "nowhere/m.npz"], "input", "no such folder to write to"),
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
def test_error_is_one_message_and_exit_code(
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
        (["extract", "PHOTOS", "--out", "m.npz", "--param", "alpha"], "expected NAME=VALUE"),
    ],
)
def test_wrong_usage_is_exit_code_two(arguments, message, run, photos):
    code, _, err = run(*(photos if a == "PHOTOS" else a for a in arguments))
    assert code == 2
    assert message in err


def test_interrupted_run_is_exit_code_130(run, photos, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("featx.inputs.folders.load_image_folder", interrupt)
    code, _, err = run("fit", photos, "--out", tmp_path / "m")
    assert (code, err) == (CODES["interrupted"], "\ninterrupted\n")


def test_bug_of_featx_shows_its_traceback(run, monkeypatch):
    def fail():
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("featx.backbones.registry.list_backbones", fail)
    code, _, err = run("backbones")
    assert code == CODES["fault"]
    assert "ZeroDivisionError: a fault" in err
    assert "please report it" in err
