"""Files that commands write: complete and where they were asked for, or not at all."""

import io
import os
import signal
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest
from command_line import CODES, fit_tiny
from PIL import Image

from featx import EmbeddingCache


def make_link(path):
    path.with_name("target").write_text("precious")
    path.symlink_to("target")


def make_socket(path):
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as made:
        patch.chdir(path.parent)  # names of sockets are short
        made.bind(path.name)


def make_device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


SPECIAL = {
    "a folder": os.mkdir,
    "a link": make_link,
    "a named pipe": getattr(os, "mkfifo", None),
    "a socket": make_socket,
    "a device": make_device,
}
WRITING = {
    "out.featx": ("fit", "PHOTOS", "--out", "out.featx", "--backbone", "tiny"),
    "out.csv": ("extract", "PHOTOS", "--out", "out.csv", "--backbone", "tiny"),
    "out.npz": ("cache", "export", "out.npz"),
    "out.keras": ("export", "no model", "out.keras"),
    "out.bin": ("export", "no model", "out.xml"),
}


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("kind", SPECIAL)
def test_force_replaces_regular_files_only(
    kind, name, run, photos, tmp_path, cache_folder, monkeypatch
):
    cache_folder.mkdir()
    monkeypatch.chdir(tmp_path)
    SPECIAL[kind](tmp_path / name)
    before = os.lstat(name)
    code, text, err = run(*(photos if a == "PHOTOS" else a for a in WRITING[name]), "--force")
    assert (code, text) == (CODES["input"], "")
    assert f"{name!r} is {kind}" in err
    after = os.lstat(name)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert os.listdir(cache_folder) == []
    if kind == "a link":
        assert (tmp_path / "target").read_text() == "precious"


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_force_keeps_permissions_and_leaves_no_parts(run, photos, tmp_path):
    outs = {"rows.npz": 0o640, "m.featx": 0o600, "rows.h5": 0o606, "m.keras": 0o400}
    for name, mode in outs.items():
        (tmp_path / name).write_text("old")
        (tmp_path / name).chmod(mode)
    before = sorted(os.listdir(tmp_path))
    options = ("--backbone", "tiny", "-q", "--force")
    for arguments in (
        ("extract", photos, "--out", tmp_path / "rows.npz", *options),
        ("fit", photos, "--out", tmp_path / "m.featx", *options),
        ("cache", "export", tmp_path / "rows.h5", "--force"),
        ("export", tmp_path / "m.featx", tmp_path / "m.keras", "--force"),
    ):
        code, _, err = run(*arguments)
        assert code == 0, err
    for name, mode in outs.items():
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
        assert (tmp_path / name).stat().st_size > 100
    assert sorted(set(os.listdir(tmp_path)) - {"cache"}) == before


def test_export_openvino_keeps_weights_unless_forced(run, tmp_path):
    (tmp_path / "m.bin").write_text("mine")
    code, _, err = run("export", "no model", tmp_path / "m.xml")
    assert (code, f"{tmp_path / 'm.bin'}' exists already" in err) == (CODES["input"], True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("extract", "PHOTOS", "--out", "rows"), ".csv or .h5 or .npz or .parquet"),
        (("extract", "PHOTOS", "--out", "rows.txt"), ".csv or .h5 or .npz or .parquet"),
        (("extract", "PHOTOS", "--out", "rows.csv.gz"), ".csv or .h5 or .npz or .parquet"),
        (("fit", "PHOTOS", "--out", "model.npz"), "the ending .featx, or none"),
        (("fit", "PHOTOS", "--out", "model.onnx"), "the ending .featx, or none"),
        (("cache", "export", "rows.xlsx"), "expected 'h5', 'npz', 'parquet' or 'csv'"),
        (("cache", "export", "rows"), "expected 'h5', 'npz', 'parquet' or 'csv'"),
        (("cache", "export", "rows.npz", "--format", "pickle"), "expected 'h5', 'npz'"),
        (("export", "no model", "model.pb"), ".tflite, or none"),
        (("demo", "--out", "rows.csv"), "the demo writes a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_out_with_other_ending_is_refused_first(
    arguments, expected, run, photos, tmp_path, monkeypatch, cache_folder
):
    cache_folder.mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*(photos if a == "PHOTOS" else a for a in arguments))
    assert (code, out) == (CODES["input"], "")
    assert expected in err
    assert sorted(os.listdir(tmp_path)) == ["cache", "photos"]
    assert os.listdir(cache_folder) == []


def test_out_with_too_long_name_is_refused(run, photos, tmp_path):
    code, _, err = run("fit", photos, "--out", tmp_path / f"{'m' * 300}.featx")
    assert (code, "File name too long" in err) == (CODES["disk"], True)


def test_out_with_longest_name_is_written(run, photos, tmp_path):
    out = tmp_path / f"{'m' * 249}.featx"
    assert run("fit", photos, "--out", out, "--backbone", "tiny", "-q")[0] == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["1.png", "2.png"], None),
        (["1.png", "a/2.png", "b/c/3.png"], ["", "a", "b"]),
        (["a/1.png", "b/c/2.png"], ["a", "b"]),
    ],
    ids=["loose", "mixed", "classes"],
)
def test_extract_embeds_every_image_of_a_folder(images, labels, run, tmp_path):
    for number, name in enumerate(images):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 50,) * 3).save(tmp_path / "p" / name)
    out = tmp_path / "rows.npz"
    code, _, err = run("extract", tmp_path / "p", "--out", out, "--backbone", "tiny", "-q")
    assert code == 0, err
    with np.load(out) as arrays:
        assert arrays["paths"].tolist() == [str(tmp_path / "p" / name) for name in images]
        assert len(arrays["embeddings"]) == len(images)
        assert (arrays["labels"].tolist() if "labels" in arrays else None) == labels
    other = tmp_path / "other.npz"
    assert run("cache", "export", other, "--folder", tmp_path / "p")[0] == 0
    with np.load(other) as arrays:
        assert len(arrays["embeddings"]) == len(images)


@pytest.mark.filterwarnings("ignore::featx.exceptions.FolderWarning")
@pytest.mark.parametrize("names", [[], ["notes.txt"]])
def test_extract_folder_without_images_is_an_error(names, run, tmp_path):
    (tmp_path / "p").mkdir()
    for name in names:
        (tmp_path / "p" / name).touch()
    code, _, err = run("extract", tmp_path / "p", "--out", tmp_path / "m.npz")
    assert (code, "hold no image" in err) == (CODES["input"], True)


@pytest.mark.parametrize("entry", ["mine.txt", "images/holiday.png", "cache/mine"])
def test_demo_keeps_folders_with_other_files(entry, run, tmp_path):
    (tmp_path / "d" / entry).parent.mkdir(parents=True)
    (tmp_path / "d" / entry).touch()
    code, out, err = run("demo", "--out", tmp_path / "d")
    assert (code, out) == (CODES["input"], "")
    assert "holds files that are not from a demo" in err
    assert (tmp_path / "d" / entry).exists()


def test_output_to_closed_pipe_exits_with_141(run, monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert run("backbones")[0::2] == (141, "")
        assert run("backbones", "--json")[0::2] == (0, "")  # which now goes nowhere


def test_closed_streams_are_no_error(run, monkeypatch):
    with monkeypatch.context() as patch:
        for name in ("stdin", "stdout", "stderr"):
            patch.setattr(sys, name, None)
        assert run("backbones")[0] == 0
        opened = [sys.stdin, sys.stdout, sys.stderr]
    for stream in opened:
        stream.close()


def test_text_beyond_the_encoding_is_escaped(run, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(raw, "latin-1"))
    code, _, _ = run("predict", "漢.featx", "x.png")
    assert code == CODES["saved"]
    assert b"\\u6f22.featx" in raw.getvalue()


@pytest.mark.parametrize("job", [("clear",), ("evict", "--max-bytes", "0")], ids=lambda job: job[0])
def test_question_without_answer_is_wrong_usage(job, run, photos, tmp_path, monkeypatch):
    fit_tiny(run, photos, tmp_path / "m.featx")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, err = run("cache", *job)
    assert (code, out) == (2, "")
    assert "pass --yes" in err
    assert EmbeddingCache().info()["n_rows"] == 12


ENDED_AT_WORK = """
import os, signal, sys
import featx.backbones.registry as applications

def work():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("part files are removed", file=sys.stderr)

applications.list_backbones = work
from featx.cli.main import main
sys.exit(main(["backbones"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_sigterm_unwinds_the_process():
    command = [sys.executable, "-c", ENDED_AT_WORK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "part files are removed" in done.stderr


def test_predict_missing_images_are_all_named(run, photos, tmp_path, monkeypatch):
    model = fit_tiny(run, photos, tmp_path / "m.featx")
    monkeypatch.chdir(tmp_path)
    code, _, err = run("predict", model, "--", "-rf.png", "gone.png", photos / "dark" / "0.png")
    assert code == CODES["input"]
    assert "2 of 3 samples" in err
    assert "[0] -rf.png: no such file\n  [1] gone.png: no such file" in err
