"""`featx similar` finds the images that are most similar to given ones."""

import json

import pytest
from command_line import CODES


def test_similar_prints_rank_similarity_and_path(run, photos):
    query = photos / "light" / "2.png"
    code, text, err = run("similar", query, photos, "--backbone", "tiny", "--k", 3, "-q")
    assert code == 0, err
    title, *table = text.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if "│" in line]
    assert title == str(query)
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert rows[0][1:] == ["1.000", str(query)]
    assert all("light" in row[2] for row in rows)


def test_similar_queries_of_folder_as_json(run, photos):
    arguments = ("similar", photos / "dark", photos / "light" / "0.png", photos)
    code, text, err = run(*arguments, "--backbone", "tiny", "--k", 2, "--json", "-q")
    assert code == 0, err
    result = json.loads(text)
    assert len(result) == 7
    for found in result:
        first, second = found["similar"]
        assert first["image"] == found["query"]
        assert first["similarity"] == pytest.approx(1, abs=1e-5)
        assert first["similarity"] >= second["similarity"]
        folder = found["query"].split("/")[-2]
        assert second["image"].split("/")[-2] == folder


def test_similar_too_many_or_none_is_error(run, photos):
    query = photos / "light" / "2.png"
    options = ("--backbone", "tiny", "-q")
    code, _, err = run("similar", query, photos, "--k", 13, *options)
    assert (code, "--k 13: expected at most 12" in err) == (CODES["input"], True)
    assert run("similar", query, photos, "--k", 0, *options)[0] == 2
    assert run("similar", photos, *options)[0] == 2


@pytest.mark.filterwarnings("default::featx.exceptions.BadSampleWarning")
def test_similar_unreadable_image_is_left_out(run, photos):
    (photos / "light" / "3.png").write_bytes(b"no image")
    options = ("--backbone", "tiny", "-q", "--on-error", "nan", "--json")
    query = photos / "light" / "2.png"
    code, text, _ = run("similar", query, photos, "--k", 11, *options)
    assert code == 0
    found = [each["image"] for each in json.loads(text)[0]["similar"]]
    assert len(found) == 11
    assert str(photos / "light" / "3.png") not in found
    code, _, err = run("similar", query, photos, "--k", 12, *options)
    assert (code, "--k 12: expected at most 11" in err) == (CODES["input"], True)


def test_similar_of_few_photos_finds_all(run, photos, tmp_path):
    for name in ("dark", "light"):
        for number in (1, 2, 3, 4, 5):
            (photos / name / f"{number}.png").unlink()
    query = photos / "dark" / "0.png"
    code, text, err = run("similar", query, photos, "--backbone", "tiny", "--json", "-q")
    assert code == 0, err
    assert len(json.loads(text)[0]["similar"]) == 2
    code, _, err = run("similar", query, query, "--backbone", "tiny", "-q")
    assert (code, "is no folder" in err) == (CODES["input"], True)
