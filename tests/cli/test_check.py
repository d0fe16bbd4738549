"""`featx check` lists what is wrong with the images of a folder and their labels."""

import csv
import json
import re

import numpy as np
import pytest
from command_line import CODES
from PIL import Image, ImageDraw, ImageOps

OPTIONS = ("--backbone", "tiny", "-q")


def drawing(rng, brightest):
    """Draw a picture of 120 rectangles, whose colors are at most as bright as `brightest`."""
    image = Image.new("RGB", (160, 120), tuple(brightest))
    draw = ImageDraw.Draw(image)
    for _ in range(120):
        x, y = rng.integers(-20, 150, 2).tolist()
        width, height = rng.integers(10, 50, 2).tolist()
        color = tuple((brightest * rng.uniform(0.1, 1)).astype(int).tolist())
        draw.rectangle((x, y, x + width, y + height), color)
    return image


@pytest.fixture
def photos(tmp_path):
    """Write two classes of twelve pictures each, in reddish and in bluish colors."""
    rng = np.random.default_rng(0)
    for name, brightest in (("red", [255, 160, 120]), ("blue", [100, 160, 255])):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            drawing(rng, np.array(brightest)).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def found_in(path):
    """Return the rows of a CSV file of findings, as sets of issue, path and detail."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [] or list(rows[0]) == ["path", "label", "issue", "score", "detail"]
    return rows


def issues_of(rows, path):
    return {row["issue"]: row["detail"] for row in rows if row["path"] == str(path)}


def test_check_finds_what_is_wrong(run, photos, tmp_path):
    red, blue = photos / "red", photos / "blue"
    image = Image.open(red / "5.png")
    image.point(lambda level: level // 5).save(red / "dark.png")
    image.resize((16, 12)).save(red / "tiny.png")
    ImageOps.mirror(Image.open(red / "7.png")).save(red / "mirrored.jpg")
    (red / "copy.png").write_bytes((red / "2.png").read_bytes())
    (blue / "wrong.png").write_bytes((red / "8.png").read_bytes())
    (blue / "cut.png").write_bytes((blue / "1.png").read_bytes()[:900])
    out = tmp_path / "issues.csv"
    code, text, err = run("check", photos, "--out", out, *OPTIONS)
    assert code == 0, err
    rows = found_in(out)
    assert "dark" in issues_of(rows, red / "dark.png")
    assert issues_of(rows, red / "tiny.png")["tiny"] == "16x12 pixels"
    assert issues_of(rows, red / "mirrored.jpg")["near-duplicate"] == str(red / "7.png")
    assert issues_of(rows, red / "copy.png") == {"exact duplicate": str(red / "2.png")}
    assert issues_of(rows, blue / "wrong.png") == {"suspect label": "red"}
    assert issues_of(rows, red / "8.png") == {
        "exact duplicate": str(blue / "wrong.png"),
        "in two classes": str(blue / "wrong.png"),
    }
    assert "PNG" in issues_of(rows, blue / "cut.png")["unreadable"]
    assert not [row for row in rows if "in two splits" in row["issue"]]
    assert f"{len(rows)} findings in 30 images" in text
    assert re.search(r"in two classes +│ +1 │", text)


def test_check_copies_in_two_splits_are_found(run, photos, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    photos.rename(root / "train")
    (root / "val" / "red").mkdir(parents=True)
    image = Image.open(root / "train" / "red" / "6.png")
    image.save(root / "val" / "red" / "a.jpg", quality=60)
    code, text, err = run("check", root, *OPTIONS, "--json")
    assert code == 0, err
    found = json.loads(text)
    pair = {"path": str(root / "val" / "red" / "a.jpg"), "label": "red"}
    rows = [row for row in found["findings"] if row["issue"] == "in two splits"]
    assert [{name: row[name] for name in pair} for row in rows] == [pair]
    assert rows[0]["detail"] == str(root / "train" / "red" / "6.png")
    assert found["counts"]["in two splits"] == found["counts"]["near-duplicate"] == 1
    assert found["n_images"] == 25
    assert found["n_wrong_labels"]["interval"][0] < 5


def test_check_one_split_has_its_classes(run, photos, tmp_path):
    (tmp_path / "data" / ".cache").mkdir(parents=True)
    photos.rename(tmp_path / "data" / "Train")
    code, text, err = run("check", tmp_path / "data", *OPTIONS, "--json")
    assert code == 0, err
    assert json.loads(text)["labels_not_checked"] is None


def test_check_folder_without_classes_has_no_labels(run, photos):
    code, text, err = run("check", photos / "red", *OPTIONS)
    assert code == 0, err
    assert "0 findings in 12 images" in text
    assert "labels were not checked: there are no labels" in text


def test_check_few_labels_are_not_checked(run, photos):
    for path in sorted((photos / "blue").iterdir())[1:]:
        path.unlink()
    code, text, err = run("check", photos, *OPTIONS)
    assert code == 0, err
    assert "labels were not checked: " in text


def test_check_damaged_images_alone_are_listed(run, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    code, text, err = run("check", tmp_path, *OPTIONS, "--json")
    assert code == 0, err
    assert json.loads(text)["counts"]["unreadable"] == 3


@pytest.mark.parametrize("name", ["issues.xlsx", "issues"])
def test_check_other_files_are_input_errors(name, run, photos, tmp_path):
    code, _, err = run("check", photos, "--out", tmp_path / name)
    assert (code, ".csv" in err) == (CODES["input"], True)


def test_check_existing_file_needs_force(run, photos, tmp_path):
    out = tmp_path / "issues.csv"
    out.write_text("mine")
    assert run("check", photos / "red", "--out", out, *OPTIONS)[0] == CODES["input"]
    assert out.read_text() == "mine"
    assert run("check", photos / "red", "--out", out, "--force", *OPTIONS)[0] == 0
    assert out.read_text() == '"path","label","issue","score","detail"\n'


@pytest.mark.parametrize("label", ["=cmd|' C calc'!A0", "-1+2", "@SUM(1)", "+a"])
def test_check_names_are_no_formulas(label, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / label).mkdir(parents=True)
    (tmp_path / "photos" / "other").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    for name, image in zip(("other", label), pixels, strict=True):
        Image.fromarray(image // 9).save(tmp_path / "photos" / name / "a\n\x1b[2J.png")
    code, text, err = run("check", "photos", "--out", "issues.csv", *OPTIONS)
    assert code == 0, err
    assert "\x1b" not in text
    labels = {row["label"] for row in found_in("issues.csv")}
    assert labels == {f"'{label}", "other"}
    paths = {row["path"] for row in found_in("issues.csv")}
    assert f"photos/{label}/a\n\x1b[2J.png" in paths
