"""Names of classes, images and spaces are shown as text, and written unchanged."""

import csv
import json
import os
import re

import h5py
import numpy as np
import pytest
from command_line import CODES
from PIL import Image

from featx import EmbeddingCache
from featx._text import as_utf8, one_line
from featx.digests.hashing import digest_of
from featx.digests.key_table import keys_from
from featx.digests.space import Space

CLASSES = [
    "[red]evil[bold]",
    ":warning:",
    "#hash",
    "esc\x1b[2J\x1b]0;title\x07",
    "new\nline",
    "=cmd|' C calc'!A0",
    'quote"and,comma',
    "tab\tname",
    "\u202egpj",
    os.fsdecode(b"a\xff"),
]
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udc80-\udcff]")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}[b]\n.png")
    return tmp_path / "photos"


def with_label_as_file(name):
    """Return a name as featx' labels have it: the bytes that are not UTF-8 may be escapes."""
    return {name, as_utf8(name)}


def are_the_same(names, expected):
    return len(names) == len(expected) and all(
        name in with_label_as_file(right) for name, right in zip(names, expected, strict=True)
    )


@pytest.mark.filterwarnings("ignore::featx.exceptions.FolderWarning")
def test_fit_evaluate_predict_show_names_as_text(run, photos, tmp_path):
    model = tmp_path / "m.featx"
    options = ("--backbone", "tiny", "--head", "knn", "-q", "--json")
    code, text, err = run("fit", photos, "--out", model, *options)
    assert code == 0, err
    assert are_the_same(json.loads(text)["classes"], sorted(CLASSES))
    code, text, _ = run("evaluate", model, photos)
    assert code == 0
    assert not CONTROLS.search(text)
    for name in CLASSES:
        assert f" {one_line(name)} " in text
    code, text, _ = run("evaluate", model, photos, "--json")
    assert are_the_same(list(json.loads(text)["classes"]), sorted(CLASSES))
    code, text, _ = run("predict", model, photos, "--proba")
    assert not CONTROLS.search(text.replace("\t", ""))
    assert [line.count("\t") for line in text.splitlines()] == [1 + len(CLASSES)] * 20
    code, text, _ = run("predict", model, photos, "--json")
    images = [os.path.relpath(row["image"], photos) for row in json.loads(text)]
    assert sorted(images) == sorted(f"{name}/{n}[b]\n.png" for name in CLASSES for n in (0, 1))


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["path", "label", "embedding_0"]
    embeddings = np.array([row[2:] for row in rows], np.float32)
    return embeddings, [row[0] for row in rows], [row[1] for row in rows]


def read_npz(path):
    with np.load(path) as arrays:
        return arrays["embeddings"], arrays["paths"].tolist(), arrays["labels"].tolist()


def read_h5(path):
    with h5py.File(path) as file:
        paths, labels = (file[name].asstr()[:].tolist() for name in ("paths", "labels"))
        return file["embeddings"][:], paths, labels


def read_parquet(path):
    from pyarrow import parquet

    table = parquet.read_table(path).to_pydict()
    return np.array(table["embedding"], np.float32), table["path"], table["label"]


@pytest.mark.filterwarnings("ignore::featx.exceptions.FolderWarning")
def test_extract_files_hold_names_unchanged(run, photos, tmp_path):
    readers = {".npz": read_npz, ".csv": read_csv, ".h5": read_h5}
    try:
        import pyarrow  # noqa: F401

        readers[".PARQUET"] = read_parquet
    except ImportError:
        pass
    right = None
    for ending, read in readers.items():
        out = tmp_path / f"rows{ending}"
        code, _, err = run("extract", photos, "--out", out, "--backbone", "tiny", "-q")
        assert code == 0, err
        embeddings, paths, labels = read(out)
        right = embeddings if right is None else right
        np.testing.assert_array_equal(embeddings, right)
        assert are_the_same(labels, [name for name in sorted(CLASSES) for _ in range(2)])
        assert as_utf8(paths[-1]) == as_utf8(f"{photos}/{sorted(CLASSES)[-1]}/1[b]\n.png")
    code, _, err = run("cache", "export", tmp_path / "c.csv", "--folder", photos)
    assert code == 0, err
    with open(tmp_path / "c.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["key", "names", "labels", "embedding_0"]
    np.testing.assert_array_equal(np.array([row[3:] for row in rows], np.float32), right)


@pytest.mark.parametrize(
    "label",
    [
        "[red]evil[/red], closing [/bold] tag, :warning:",
        "esc \x1b[2J\x1b]0;owned\x07, not UTF-8 \udcff, two\nlines",
    ],
    ids=ascii,
)
def test_import_label_is_shown_as_text(label, run, tmp_path):
    identity = {"graph": "x", "dtype": "float32", "feature_shape": [8], "input_shape": [4, 4, 3]}
    mine = EmbeddingCache(tmp_path / "mine")
    store = mine.store(Space(identity, label=label))
    store.append(keys_from([digest_of(b"1")], count=1), np.ones((1, 8), np.float32))
    mine.export(tmp_path / "rows.h5")
    copy = ("--cache", tmp_path / "copy")
    assert run("cache", "import", tmp_path / "rows.h5", *copy)[0] == 0
    shown = one_line(label)
    assert f"│ {shown} │" in run("cache", "info", *copy)[1]
    assert json.loads(run("cache", "info", *copy, "--json")[1])["spaces"][0]["label"] == shown
    _, _, err = run("cache", "evict", "--max-bytes", "0", "--yes", *copy)
    assert f"1 rows of {shown}, last used" in err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["no\x1b[2J\ncommand"], r"no\x1b[2J"),
        (["fit", "--no\x1b[2J"], r"--no\x1b[2J"),
        (["fit", "no\x1b[2J\nfolder", "--out", "m.featx"], r"no\x1b[2J\nfolder"),
        (["fit", "x", "--out", "m\x1b[2J\n.npz"], r"m\x1b[2J\n.npz"),
        (["predict", "no\x1b[2J.featx", "x.png"], r"no\x1b[2J.featx"),
        (["cache", "info", "--cache", "no\x1b[2J"], r"no\x1b[2J"),
        (["extract", "x", "--out", "m.npz", "--param", "\x1b[2J"], r"\x1b[2J"),
    ],
    ids=ascii,
)
def test_message_shows_what_was_typed_as_text(
    arguments, shown, run, tmp_path, monkeypatch, cache_folder
):
    cache_folder.mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code in (2, CODES["input"], CODES["saved"])
    assert out == ""
    assert "\x1b" not in err
    assert shown in err


@pytest.mark.filterwarnings("default")
def test_warning_shows_names_as_text(run, tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a" / "1.png")
    (tmp_path / "photos" / "a" / "notes\x1b[2J.txt").touch()
    _, _, err = run("fit", tmp_path / "photos", "--out", tmp_path / "m", "--backbone", "no")
    assert err.startswith("FolderWarning: ")
    assert r"notes\x1b[2J.txt" in err
    assert "\x1b" not in err


def test_json_is_alone_on_standard_output(run, monkeypatch):
    def talkative():
        print("Downloading data from somewhere")
        return []

    monkeypatch.setattr("featx.backbones.registry.list_backbones", talkative)
    code, text, err = run("backbones", "--json")
    assert (code, json.loads(text)) == (0, [])
    assert err == "Downloading data from somewhere\n"


def test_json_nan_and_infinity_become_null(run, monkeypatch):
    found = {"mean": float("nan"), "scores": [1.0, float("inf")], "\x7f": "\x1b"}
    row = type("Row", (), {"_asdict": lambda self: found})()
    monkeypatch.setattr("featx.backbones.registry.list_backbones", lambda: [row])
    code, text, _ = run("backbones", "--json")
    assert (code, text.isascii()) == (0, True)
    assert not CONTROLS.search(text)
    assert json.loads(text) == [{"mean": None, "scores": [1.0, None], "\x7f": "\x1b"}]
