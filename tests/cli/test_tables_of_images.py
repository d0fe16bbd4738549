"""Commands on a table of images, with a column of labels and one of groups."""

import csv
import json
import shutil

import pytest
from command_line import CODES


@pytest.fixture
def table(photos):
    """A table of the photos, beside their folder; six owners have two of a class each."""
    rows = [
        (f"{photos.name}/{name}/{n}.png", name, f"{name}{n // 2}")
        for name in ("dark", "light")
        for n in range(6)
    ]
    path = photos.parent / "photos.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "tone", "owner"), *rows])
    return path


COLUMNS = ("--sample", "file", "--target", "tone")
TINY = ("--backbone", "tiny", "-q")


def test_cv_on_table_agrees_with_folder(run, photos, table):
    arguments = ("--head", "knn", "--folds", 3, *TINY, "--json")
    of_folder = json.loads(run("cv", photos, *arguments)[1])
    code, text, err = run("cv", table, *COLUMNS, *arguments)
    assert code == 0, err
    scores = [
        [row["scores"] for row in found["results"]] for found in (of_folder, json.loads(text))
    ]
    assert scores[0] == scores[1]
    assert json.loads(text)["embedding"][0]["n_forward"] == 0


def test_cv_groups_of_table_are_a_column(run, table):
    arguments = (*COLUMNS, "--groups", "owner", "--head", "knn", *TINY)
    code, _, err = run("cv", table, *arguments, "--folds", 5)
    assert (code, err) == (0, "")
    code, _, err = run("cv", table, *COLUMNS, "--groups", "ownr", *TINY)
    assert code == CODES["input"]
    assert "--groups 'ownr': expected a column of" in err
    assert "Did you mean 'owner'?" in err


def test_fit_and_evaluate_take_tables(run, photos, table, tmp_path):
    model, mistakes = tmp_path / "model.featx", tmp_path / "mistakes.csv"
    arguments = ("--out", model, *TINY, "--head", "knn")
    code, text, err = run("fit", table, *COLUMNS, "--groups", "owner", *arguments)
    assert code == 0, err
    assert "12 images of 2 classes in 6 groups, 12 embeddings computed" in text
    code, text, err = run("evaluate", model, table, *COLUMNS, "--json", "--out", mistakes)
    assert code == 0, err
    assert json.loads(text)["accuracy"] == 1
    assert json.loads(text)["n_in_training"] == 12
    of_folder = json.loads(run("evaluate", model, photos, "--json")[1])
    assert of_folder["confusion"] == json.loads(text)["confusion"]
    code, text, err = run("compare", model, model, table, *COLUMNS, "--json")
    assert (code, json.loads(text)["n_samples"]) == (0, 12), err


def test_fit_calibrate_keeps_groups_together(run, table, tmp_path):
    rows = list(csv.reader(table.read_text().splitlines()))
    one_owner = [rows[0], *([file, tone, tone] for file, tone, _ in rows[1:])]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(one_owner)
    arguments = (*COLUMNS, "--out", tmp_path / "model.featx", *TINY, "--calibrate")
    code, _, err = run("fit", table, *arguments, "--groups", "owner")
    assert code == CODES["input"]
    assert "group" in err


def test_fit_numbers_of_table_are_classes(run, table, tmp_path):
    table.write_text(table.read_text().replace(",dark,", ",0,").replace(",light,", ",1,"))
    model = tmp_path / "model.featx"
    assert run("fit", table, *COLUMNS, "--out", model, *TINY, "--head", "knn")[0] == 0
    code, text, _ = run("evaluate", model, table, *COLUMNS, "--json")
    assert (code, json.loads(text)["accuracy"]) == (0, 1)
    assert json.loads(run("predict", model, table, "--json")[1])[0]["label"] == 0


def test_check_takes_table_with_and_without_labels(run, photos, table, tmp_path):
    (photos / "light" / "5.png").write_bytes((photos / "dark" / "0.png").read_bytes())
    out = tmp_path / "issues.csv"
    code, text, err = run("check", table, *COLUMNS, *TINY, "--out", out)
    assert code == 0, err
    issues = list(csv.DictReader(out.read_text().splitlines()))
    assert any("exact" in row["issue"] and row["path"].endswith("5.png") for row in issues), issues
    code, text, err = run("check", table, "--sample", "file", "--target", "none", *TINY)
    assert code == 0, err
    assert "labels were not checked" in text


def test_report_takes_table(run, table, tmp_path):
    out = tmp_path / "report.html"
    arguments = (*COLUMNS, "--groups", "owner", *TINY, "--folds", 3, "--out", out)
    code, text, err = run("report", table, *arguments)
    assert code == 0, err
    assert "12 images" in text
    assert "dark/0.png" in out.read_text()


@pytest.mark.parametrize("command", ["cv", "fit", "check", "report"])
def test_columns_of_folder_are_wrong_usage(command, run, photos, tmp_path):
    out = ("--out", tmp_path / "x.html") if command == "report" else ()
    out = ("--out", tmp_path / "x.featx") if command == "fit" else out
    code, _, err = run(command, photos, "--target", "label", *out, *TINY)
    assert (code, "describe a table" in err) == (2, True)


def test_missing_columns_of_table_name_options(run, table):
    code, _, err = run("cv", table, *TINY)
    assert code == CODES["input"]
    assert "--sample 'path': expected a column of" in err
    assert "--target 'label': expected a column of" in err
    assert "Its columns: file, tone, owner" in err


def test_evaluate_several_labels_says_so(run, photos, table, tmp_path):
    model = tmp_path / "model.featx"
    assert run("fit", photos, "--out", model, *TINY, "--head", "knn")[0] == 0
    table.write_text(table.read_text().replace(",dark,", ",dark;old,"))
    code, _, err = run("evaluate", model, table, *COLUMNS)
    assert code == CODES["input"]
    assert "no single class for each image" in err
    code, _, err = run("cv", table, *COLUMNS, *TINY)
    assert (code, "several labels for each sample" in err) == (CODES["input"], True)


def test_evaluate_groups_of_table_widen_intervals(run, photos, table, tmp_path):
    model = tmp_path / "model.featx"
    assert run("fit", photos, "--out", model, *TINY, "--head", "knn")[0] == 0
    arguments = ("evaluate", model, table, *COLUMNS, "--json")
    plain, grouped = (json.loads(run(*arguments, *more)[1]) for more in ((), ("--groups", "owner")))
    assert grouped["n_groups"] == 6
    assert grouped["intervals"]["accuracy"][0] < plain["intervals"]["accuracy"][0]


def test_report_of_splits_with_shared_groups_raises(run, photos, tmp_path):
    splits = tmp_path / "splits"
    for split in ("train", "test"):
        shutil.copytree(photos, splits / split)
    lines = [
        f"{split}/{name}/{n}.png,{name}{n if split == 'train' else n + shift}"
        for split, shift in (("train", 0), ("test", 5))
        for name in ("dark", "light")
        for n in range(6)
    ]
    groups = tmp_path / "groups.csv"
    groups.write_text("\n".join(["path,group", *lines]))
    code, _, err = run("report", splits, *TINY, "--groups", groups, "--out", tmp_path / "x.html")
    assert code == CODES["input"]
    assert "2 groups of" in err
    assert "dark5, light5" in err


def test_table_of_missing_files_names_base(run, photos, table, tmp_path):
    moved = tmp_path / "elsewhere" / "photos.csv"
    moved.parent.mkdir()
    shutil.move(table, moved)
    code, _, err = run("cv", moved, *COLUMNS, *TINY)
    assert code == CODES["input"]
    assert "none of its first 12 files exists" in err
    assert "--base FOLDER" in err
    code, _, err = run("cv", moved, *COLUMNS, "--base", tmp_path, "--head", "knn", *TINY)
    assert (code, err) == (0, "")


def test_check_keeps_groups_together(run, photos, table):
    code, text, err = run("check", table, *COLUMNS, *TINY, "--groups", "owner", "--json")
    assert (code, json.loads(text)["labels_not_checked"]) == (0, None), err
    one = table.read_text().replace("dark0", "same").replace("light0", "same")
    table.write_text(one.replace("dark1", "same").replace("light1", "same"))
    table.write_text(table.read_text().replace("dark2", "same").replace("light2", "same"))
    code, text, err = run("check", table, *COLUMNS, *TINY, "--groups", "owner", "--json")
    assert (code, "group" in json.loads(text)["labels_not_checked"]) == (0, True), err
