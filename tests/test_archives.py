"""Archives from strangers: nothing is decompressed that was not expected."""

import io
import stat
import struct
import zipfile

import pytest

from featx._archives import ArchiveError, read_members

SIZES = {"a.json": 2**12, "b.bin": 2**30}


def archive(*members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as members_file:
        for name, data in members:
            members_file.writestr(name, data)
    return file


def read(file):
    return read_members(file, SIZES.get, max_members=2, required=("a.json",))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_read_members_gives_what_was_written(compression):
    file = archive(("a.json", b"{}"), ("b.bin", bytes(1000)), compression=compression)
    assert read(file) == {"a.json": b"{}", "b.bin": bytes(1000)}


def link():
    member = zipfile.ZipInfo("a.json")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        (io.BytesIO(), "File is not a zip file"),
        (io.BytesIO(b"PK\x05\x06 junk"), "File is not a zip file"),
        (archive(), "'a.json' is missing"),
        (archive(("a.json", b""), ("../../up", b"")), r"member '../../up' is unknown"),
        (archive(("a.json", b""), ("/etc/a", b"")), "member '/etc/a' is unknown"),
        (archive(("a.json/", b"")), "member 'a.json/' is unknown"),
        (archive(("a.json", b""), ("b.bin", b""), ("c", b"")), "3 members, expected 2 at most"),
        (archive((link(), b"/etc/passwd")), "'a.json' is not a regular file"),
        (archive(("a.json", bytes(2**13))), "has 8,192 bytes, expected 4,096 at most"),
        (archive(("a.json", b"{}"), compression=zipfile.ZIP_LZMA), "compressed by method 14"),
        (archive(("a.json", b"{}"), compression=zipfile.ZIP_BZIP2), "compressed by method 12"),
    ],
)
def test_read_members_names_what_is_not_expected(file, fault):
    with pytest.raises(ArchiveError, match=fault):
        read(file)


def test_read_members_twice_the_same_name_raises():
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = archive(("a.json", b"1"), ("a.json", b"2"))
    with pytest.raises(ArchiveError, match=r"'a\.json' is repeated: 2 times"):
        read(file)


def test_read_members_bomb_is_not_decompressed():
    file = archive(("a.json", b"{}"), ("b.bin", bytes(2**24)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ArchiveError, match=r"'b\.bin' expands from"):
        read(file)


def patched(place, value):
    """Return an archive whose directory contradicts its last member."""
    data = bytearray(archive(("b.bin", b"bb"), ("a.json", b"{}")).getvalue())
    start = data.rfind(b"PK\x01\x02") + place
    data[start : start + len(value)] = value
    return io.BytesIO(bytes(data))


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (8, b"\x01", "is encrypted"),
        (10, b"\x63", "compressed by method 99"),
        (24, struct.pack("<I", 2**32 - 16), "expected 4,096 at most"),
        (20, struct.pack("<I", 1000), "larger than the file"),
        (16, b"\0\0\0\0", "Bad CRC-32"),
        (42, struct.pack("<I", 0), "overlaps another"),
        (42, struct.pack("<I", 7), "."),
        (46, b"\xff", "."),
    ],
)
def test_read_members_directory_that_lies_raises(place, value, fault):
    with pytest.raises(ArchiveError, match=fault):
        read(patched(place, value))


def test_read_members_cut_short_anywhere_raises():
    data = archive(("a.json", b"{}"), ("b.bin", bytes(100))).getvalue()
    for size in range(0, len(data), 7):
        with pytest.raises(ArchiveError):
            read(io.BytesIO(data[:size]))
