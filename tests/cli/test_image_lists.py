"""Arguments that name images: patterns, lists and CSV files, relative to their folder."""

import io
import json

import pytest

from featx.cli.image_lists import images_of
from featx.exceptions import InputError


@pytest.fixture
def folder(tmp_path):
    """A folder with images of unusual names, and a file that is no image."""
    (tmp_path / "b c").mkdir()
    for name in ("a.jpg", "b c/é,1.png", "notes.txt", "@x.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def test_images_of_list_is_relative_to_it(folder, monkeypatch):
    (folder / "b c" / "list.txt").write_bytes("\ufeffé,1.png\r\n\n../a.jpg\r\n/x/1.jpg".encode())
    monkeypatch.chdir("/")
    found = images_of([f"@{folder}/b c/list.txt"])
    assert found == [f"{folder}/b c/é,1.png", f"{folder}/b c/../a.jpg", "/x/1.jpg"]


def test_images_of_list_names_a_folder(folder):
    (folder / "list.txt").write_text("b c\na.jpg\n")
    assert images_of([f"@{folder}/list.txt"]) == [f"{folder}/b c/é,1.png", f"{folder}/a.jpg"]


def test_images_of_at_sign_may_start_a_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert images_of(["@x.jpg"]) == ["@x.jpg"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("*", ["@x.jpg", "a.jpg", "b c/é,1.png"]), ("**/*", ["@x.jpg", "a.jpg", "b c/é,1.png"])],
)
def test_images_of_pattern_are_images_once(pattern, names, folder):
    assert images_of([f"{folder}/{pattern}"]) == [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize("header", ["image,path", "Image,PATH", "label,filename"])
def test_images_of_csv_finds_usual_column(header, folder):
    (folder / "list.csv").write_text(f'{header}\n0,"b c/é,1.png"\n')
    assert images_of([f"{folder}/list.csv"]) == [f"{folder}/b c/é,1.png"]


def test_images_of_csv_takes_named_column(folder):
    (folder / "list.csv").write_text("path,photo\n0,a.jpg\n")
    assert images_of([f"{folder}/list.csv"], "photo") == [f"{folder}/a.jpg"]


@pytest.mark.parametrize(
    ("content", "column", "fault"),
    [
        ("name,size\na.jpg,1\n", None, "has name, size: expected one of path, file, filename"),
        ("name\na.jpg\n", "photo", "has name: expected photo"),
        ("", None, "has no columns: expected one of path"),
        ("path\n", None, "list.csv' has no rows"),
        ("n,path\n1,a.jpg\n2,\n3\n", None, "column 'path': no value in 2 of 3 rows: 1, 2"),
    ],
)
def test_images_of_faulty_csv_is_an_error(content, column, fault, folder):
    (folder / "list.csv").write_text(content)
    with pytest.raises(InputError, match=fault):
        images_of([f"{folder}/list.csv"], column)


def test_images_of_names_all_faulty_lists(folder):
    (folder / "empty.txt").touch()
    (folder / "image.txt").write_bytes(b"\x89PNG\0\n")
    with pytest.raises(InputError) as caught:
        images_of(["@missing.txt", f"@{folder}/empty.txt", f"@{folder}/image.txt", "missing.csv"])
    for fault in (
        "'@missing.txt': No such file",
        "empty.txt' names no images: expected a path on each line",
        "image.txt' is no text",
        "'missing.csv': no such file",
    ):
        assert fault in str(caught.value)


def test_images_of_column_without_csv_is_an_error(folder):
    with pytest.raises(InputError, match="--sample photo: expected a table among"):
        images_of([str(folder)], "photo")


def test_images_of_standard_input_is_read_once(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff.jpg\n")))
    assert images_of(["-"]) == ["a\udcff.jpg"]
    with pytest.raises(InputError, match="- is given twice"):
        images_of(["-", "-"])


def test_images_of_missing_folder_is_an_error(folder):
    with pytest.raises(InputError, match="missing': no such file or folder"):
        images_of([str(folder), f"{folder}/missing"])


@pytest.mark.parametrize("ending", [".tsv", ".jsonl", ".parquet"])
def test_images_of_table_are_its_paths(ending, folder):
    table = folder / f"list{ending}"
    names = ["a.jpg", "b c/é,1.png"]
    if ending == ".parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pytest.importorskip("pyarrow").table({"n": [1, 2], "photo": names}), table)
    elif ending == ".tsv":
        table.write_text("".join(f"{line}\n" for line in ("n\tphoto", *(f"1\t{n}" for n in names))))
    else:
        table.write_text("".join(f"{json.dumps({'photo': name})}\n" for name in names))
    assert images_of([str(table)], "photo") == [f"{folder}/{name}" for name in names]


def test_images_of_encoded_images_is_an_error(folder):
    pq = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"image": [b"x", b"y"]})
    pq.write_table(table, folder / "list.parquet")
    with pytest.raises(InputError, match="holds encoded images, not paths"):
        images_of([f"{folder}/list.parquet"])


def test_images_of_table_start_from_base(tmp_path):
    (tmp_path / "new.csv").write_text("path\n1.jpg\n")
    table = str(tmp_path / "new.csv")
    assert images_of([table], base="s3://bucket") == ["s3://bucket/1.jpg"]
    with pytest.raises(InputError, match="--base photos: expected a table among"):
        images_of(["1.jpg"], base="photos")
