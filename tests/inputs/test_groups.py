"""Groups of images from a CSV file: paths are found in any form, and each image has one group."""

import zipfile

import pytest

from featx import load_image_folder
from featx.exceptions import InputError
from featx.inputs.groups import read_groups

IMAGES = ["photos/cat/1, old.png", "photos/dog/2.png", "photos/dog/ü.png"]


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "groups.csv"
        file.write_text(text, encoding="utf-8-sig")
        return file

    return write


def test_read_groups_paths_in_any_form(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = tmp_path / "photos" / "dog" / "2.png"
    file = write(
        f'age,path,group\n3,"cat/1, old.png",Ann\n4,{absolute},Bob\n5,ü.png,Ann\n6,other.png,Zoe\n'
    )
    assert read_groups(file, "photos", IMAGES) == ["Ann", "Bob", "Ann"]


@pytest.mark.parametrize("top", ["", "photos/"])
def test_read_groups_paths_in_archive(write, tmp_path, top):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/2.png"):
            archive.writestr(top + name, b"")
    images = load_image_folder(tmp_path / "photos.zip").data
    file = write(f"path,group\n1.png,Ann\ncat/2.png,Bob\n{images[2]},Cy\n")
    assert read_groups(file, str(tmp_path / "photos.zip"), images) == ["Ann", "Bob", "Cy"]


def test_read_groups_faults_hide_secrets(write):
    file = write("path,group\n1.png,Ann\n")
    images = ["s3://me:word@bucket/cat/1.png", "s3://me:word@bucket/cat/2.png"]
    with pytest.raises(InputError, match=r"1 of 2 images: s3://bucket/cat/2\.png"):
        read_groups(file, "s3://me:word@bucket", images)


def test_read_groups_ambiguous_name_is_no_path(write):
    file = write("path,group\n1.png,Ann\n")
    images = ["photos/cat/1.png", "photos/dog/1.png"]
    with pytest.raises(InputError, match=r"no group for 2 of 2 images: photos/cat/1\.png"):
        read_groups(file, "photos", images)


def test_read_groups_lists_all_faults(write):
    file = write('path,group\n"cat/1, old.png",Ann\n"cat/1, old.png",Bob\ndog/2.png,\n')
    with pytest.raises(InputError) as caught:
        read_groups(file, "photos", IMAGES)
    assert "no group for 2 of 3 images: photos/dog/2.png, photos/dog/ü.png" in str(caught.value)
    assert "several groups for 1 of 3 images: photos/cat/1, old.png" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected the columns path and group"),
        (b"image,patient\n1,2\n", "its first line is 'image,patient'"),
        (b"path,group\n\xff,1\n", "cannot be read as CSV"),
        (None, "no such file of groups"),
    ],
)
def test_read_groups_unusable_file_raises(tmp_path, data, message):
    file = tmp_path / "groups.csv"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_groups(file, "photos", IMAGES)
