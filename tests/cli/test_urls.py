"""Commands on archives and URLs: what they read, and that they print no secrets of URLs."""

import csv
import json
import zipfile

import fsspec
import numpy as np
import pytest
from command_line import CODES
from file_server import FileServer


@pytest.fixture
def archive(photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos.parent))
    return tmp_path / "photos.zip"


@pytest.fixture
def server(photos):
    with FileServer() as server:
        server.files = {path.name: path.read_bytes() for path in (photos / "dark").iterdir()}
        yield server


def test_fit_evaluate_and_check_take_archives(run, archive, model, tmp_path):
    code, text, err = run("evaluate", model, archive, "--json")
    assert code == 0, err
    assert json.loads(text)["accuracy"] == 1
    fitted = tmp_path / "fitted.featx"
    code, text, err = run("fit", archive, "--out", fitted, "--backbone", "tiny", "--json")
    assert code == 0, err
    assert json.loads(text)["report"]["n_forward"] == 0
    code, text, err = run("check", archive, "--backbone", "tiny", "--json")
    assert code == 0, err


def test_extract_archive_has_labels_of_folders(run, photos, archive, tmp_path):
    rows = {}
    for place in (photos, archive):
        out = tmp_path / f"{place.name}.npz"
        code, _, err = run("extract", place, "--out", out, "--backbone", "tiny")
        assert code == 0, err
        rows[place] = np.load(out)
    for name in ("embeddings", "labels"):
        np.testing.assert_array_equal(rows[photos][name], rows[archive][name])
    assert rows[archive]["paths"][0] == f"zip://photos/dark/0.png::{archive}"


def test_predict_urls_are_printed_without_secrets(run, model, server, tmp_path):
    url = server.url("1.png").replace("//", "//me:word@") + "?token=b64"
    shown = server.url("1.png") + "?token=..."
    (tmp_path / "urls.txt").write_text(f"{url}\n{server.url('2.png')}\n")
    (tmp_path / "urls.csv").write_text(f"path,label\n{url},dark\n")
    for given in (url, f"@{tmp_path / 'urls.txt'}", tmp_path / "urls.csv"):
        code, text, err = run("predict", model, given)
        assert code == 0, err
        assert text.splitlines()[0] == f"{shown}\tdark"
    out = tmp_path / "out.csv"
    code, _, err = run("predict", model, url, "--out", out)
    assert code == 0, err
    assert next(csv.DictReader(out.read_text().splitlines()))["path"] == shown
    code, text, err = run("evaluate", model, tmp_path / "urls.csv", "--json")
    assert code == 0, err
    assert "word" not in text + err
    code, text, err = run("similar", url, tmp_path / "photos", "--backbone", "tiny")
    assert code == 0, err
    assert "word" not in text + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "{model}", "memory://me:word@x/table.csv"), "x/table.csv' has name, kind: "),
        (("evaluate", "{model}", "memory://me:word@x/labels.csv"), "x/labels.csv' has classes"),
        (("evaluate", "{model}", "memory://me:word@x", "--base", "y"), "memory://x' is none"),
        (("similar", "{photo}", "http://me:word@127.0.0.1/photos"), "127.0.0.1/photos' is no"),
    ],
)
def test_faults_of_urls_hide_secrets(run, model, photos, arguments, message):
    files = fsspec.filesystem("memory")
    files.pipe("/me:word@x/table.csv", b"name,kind\n1.png,dark\n")
    files.pipe("/me:word@x/labels.csv", f"path,label\n{photos}/dark/1.png,gray\n".encode())
    given = [one.format(model=model, photo=photos / "dark" / "1.png") for one in arguments]
    code, text, err = run(*given)
    assert code in (2, CODES["input"])
    assert message in err
    assert "word" not in text + err


def test_predict_missing_url_is_named(run, model, server):
    code, _, err = run("predict", model, server.url("none.png"), server.url("1.png"))
    assert code == CODES["input"]
    assert f"[0] {server.url('none.png')}: no such file" in err
