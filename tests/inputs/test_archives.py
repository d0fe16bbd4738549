"""OpenArchive: odd names, links, and archives that are damaged or no archives."""

import io
import tarfile
import zipfile

import pytest

from featx.exceptions import UnreadableImageError
from featx.inputs.archives import OpenArchive


def tar_of(*members, mode="w"):
    """Return a tar file with members of a name and a content, or a name, a type and a target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, *content in members:
            header = tarfile.TarInfo(name)
            if len(content) == 2:
                header.type, header.linkname = content
                archive.addfile(header)
            else:
                header.size = len(content[0])
                archive.addfile(header, io.BytesIO(content[0]))
    file.seek(0)
    return file


def zip_of(*members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    file.seek(0)
    return file


ODD_NAMES = "./cat/1.png", "/cat/2.png", "cat//3.png", "cat/a#b?c %20.png", "cat/e\u0301.png"


@pytest.mark.parametrize(("make", "protocol"), [(zip_of, "zip"), (tar_of, "tar")])
def test_paths_odd_names_are_found(make, protocol):
    archive = OpenArchive(make(*((name, name.encode()) for name in ODD_NAMES)), protocol)
    assert archive.paths()[:3] == ["cat/1.png", "cat/2.png", "cat/3.png"]
    for name, path in zip(ODD_NAMES, archive.paths(), strict=True):
        assert archive.content(path) == archive.content(name) == name.encode()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_content_links_lead_to_files(mode):
    members = [
        ("./a/1.png", b"one"),
        ("./a/hard.png", tarfile.LNKTYPE, "./a/1.png"),
        ("./a/soft.png", tarfile.SYMTYPE, "1.png"),
        ("./a/pipe.png", tarfile.FIFOTYPE, ""),
        ("./a/folder.png", tarfile.DIRTYPE, ""),
    ]
    archive = OpenArchive(tar_of(*members, mode=mode), "tar")
    assert archive.paths() == ["a/1.png", "a/hard.png", "a/soft.png"]
    assert {archive.content(path) for path in archive.paths()} == {b"one"}


def test_content_broken_link_is_not_found():
    archive = OpenArchive(tar_of(("1.png", tarfile.SYMTYPE, "none.png")), "tar")
    with pytest.raises(UnreadableImageError, match="no such file in the archive"):
        archive.content("1.png")


def test_content_repeated_name_is_the_last():
    archive = OpenArchive(tar_of(("1.png", b"first"), ("./1.png", b"last")), "tar")
    assert archive.content("1.png") == b"last"


def test_content_large_file_is_not_unpacked():
    archive = OpenArchive(zip_of(("1.png", bytes(101))), "zip", max_file_bytes=100)
    with pytest.raises(UnreadableImageError, match="unpacks to more than 100 bytes"):
        archive.content("1.png")


@pytest.mark.parametrize("content", [b"", b"no archive" * 100])
def test_open_archive_other_file_is_named(content):
    with pytest.raises(UnreadableImageError, match="not a tar file, or damaged at its start"):
        OpenArchive(io.BytesIO(content), "tar")
