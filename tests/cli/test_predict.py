"""``featx predict``: labels and probabilities of images, printed and in files."""

import csv
import io
import json

import h5py
import numpy as np
import pytest
from command_line import CODES

from featx import EmbeddingCache, FeatureExtractor, save


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


def test_predict_pattern_without_files_is_an_error(run, photos, model):
    code, _, err = run("predict", model, photos / "*" / "*.jpg", "--on-error", "nan")
    assert code == CODES["input"]
    assert "*.jpg'. A shell does not expand a pattern" in err


@pytest.fixture
def listed(photos):
    """A CSV file beside two of the photos that names them, and one that is no image."""
    (photos / "bad.png").write_text("no image")
    path = photos / "list.csv"
    path.write_text("File,taken\ndark/0.png,2024\nbad.png,2025\nlight/0.png,2025\n")
    return path


def columns_of(path):
    """Return the columns of a prediction file, and its probabilities by class."""
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        proba = [[float(v or "nan") for v in columns.pop(f"proba_{c}")] for c in ("dark", "light")]
        return columns, dict(zip(("dark", "light"), proba, strict=True))
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()
        proba = [
            [np.nan if v is None else v for v in table.pop(f"proba_{c}")] for c in ("dark", "light")
        ]
        return table, dict(zip(("dark", "light"), proba, strict=True))
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = {name: file[name].tolist() for name in file.files}
    else:
        with h5py.File(path) as file:
            strings = {n: file[n].asstr()[:].tolist() for n in ("path", "label", "classes")}
            arrays = {"proba": file["proba"][:].tolist(), **strings}
    classes, proba = arrays.pop("classes"), np.array(arrays.pop("proba")).T.tolist()
    return arrays, dict(zip(classes, proba, strict=True))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".npz", ".h5"])
def test_predict_out_has_labels_and_probabilities(ending, run, model, listed, tmp_path):
    out = tmp_path / f"out{ending}"
    code, text, err = run("predict", model, listed, "--on-error", "nan", "--proba", "--out", out)
    assert code == 0, err
    assert text == f"3 predictions in {out}\n"
    columns, proba = columns_of(out)
    names = ("dark/0.png", "bad.png", "light/0.png")
    assert columns["path"] == [str(listed.parent / name) for name in names]
    assert columns["label"] == ["dark", None if ending == ".parquet" else "", "light"]
    assert np.isnan([proba["dark"][1], proba["light"][1]]).all()
    assert proba["dark"][0] > 0.5 > proba["dark"][2]
    assert np.add(proba["dark"], proba["light"])[[0, 2]] == pytest.approx(1, abs=1e-5)


def test_predict_out_several_outputs_have_columns(run, photos, saved, tmp_path):
    model = saved(np.c_[["dark"] * 6 + ["light"] * 6, ["a", "b"] * 6])
    out = tmp_path / "out.csv"
    assert run("predict", model, photos, "--proba", "--out", out)[0] == 0
    header, *rows = out.read_text().splitlines()
    assert header == "path,label_1,label_2,proba_1_dark,proba_1_light,proba_2_a,proba_2_b"
    assert len(rows) == 12


def test_predict_out_is_checked_before_work(run, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("precious")
    code, _, err = run("predict", "missing.featx", "missing", "--out", out)
    assert (code, "pass --force" in err) == (CODES["input"], True)
    code, _, err = run("predict", "missing.featx", "missing", "--out", tmp_path / "out.txt")
    assert (code, "expected the ending .csv or" in err) == (CODES["input"], True)


def test_predict_reads_standard_input(run, photos, model, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"light/1.png\ndark/2.png\n")))
    monkeypatch.chdir(photos)
    code, text, err = run("predict", model, "-")
    assert code == 0, err
    assert text == "light/1.png\tlight\ndark/2.png\tdark\n"


def test_extract_takes_csv_file(run, photos, tmp_path):
    (photos / "list.csv").write_text("taken,photo\n2024,dark/0.png\n2025,light/0.png\n")
    out = tmp_path / "rows.npz"
    options = ("--sample", "photo", "--out", out, "--backbone", "tiny", "-q")
    code, _, err = run("extract", photos / "list.csv", *options)
    assert code == 0, err
    with np.load(out) as file:
        names = [str(photos / name) for name in ("dark/0.png", "light/0.png")]
        assert (file["paths"].tolist(), "labels" in file) == (names, False)


@pytest.mark.parametrize("out", [(), ("--json",), ("--out", "out.csv")])
def test_predict_unreadable_images_end_the_output(out, run, photos, model, listed, monkeypatch):
    monkeypatch.chdir(photos)
    code, text, err = run("predict", model, listed, *out)
    assert code == CODES["input"]
    assert "1 of 3 samples cannot be read:\n  [1] " in err
    assert "or pass --on-error nan" in err
    labels = [line.partition("\t")[2] for line in text.splitlines()]
    assert labels == ([] if out else ["dark", "light"])
    assert not (photos / "out.csv").exists()
