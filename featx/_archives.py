"""``read_members``: the expected members of an untrusted zip archive, within limits of size.

The directory of an archive is checked before anything is decompressed, so that neither a
decompression bomb nor a member with a false size takes memory.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import IO

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL_HEADER_BYTES = 30
# Weights and arrays hardly compress, a bomb a thousandfold.
_MAX_EXPANSION = 100
_FREE_BYTES = 2**20
_N_SHOWN = 5
_DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)  # what zipfile raises on damaged archives


class ArchiveError(ValueError):
    """An archive is damaged, or holds unexpected members."""


def read_members(
    file: IO[bytes],
    max_bytes: Callable[[str], int | None],
    *,
    max_members: int,
    required: Collection[str] = (),
) -> dict[str, bytes]:
    """Return the contents of an archive whose directory lists expected members only, by name.

    `file` is seekable. `max_bytes` returns the largest size of the member with a name, None for an
    unknown name. `required` members must not be missing.

    Raises
    ------
    ArchiveError
        The file is not an archive, is damaged, lacks members, or has members that are unknown,
        repeated, encrypted, links, overlapping or too large.
    """
    try:
        file.seek(0, 2)
        size = file.tell()
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            faults = _archive_faults(members, max_bytes, max_members=max_members, size=size)
            _raise_archive_error(faults or _missing_member_faults(members, required))
            return {member.filename: archive.read(member) for member in members}
    except ArchiveError:
        raise
    except _DAMAGE_ERRORS as exc:
        raise ArchiveError(str(exc) or type(exc).__name__) from exc


def _raise_archive_error(faults: Sequence[str]) -> None:
    if faults:
        shown = "; ".join(faults[:_N_SHOWN])
        raise ArchiveError(shown if len(faults) <= _N_SHOWN else f"{shown}; and more")


def _missing_member_faults(
    members: Sequence[zipfile.ZipInfo], required: Collection[str]
) -> list[str]:
    names = {member.filename for member in members}
    return [f"member {name!r} is missing" for name in required if name not in names]


def _archive_faults(
    members: Sequence[zipfile.ZipInfo],
    max_bytes: Callable[[str], int | None],
    *,
    max_members: int,
    size: int,
) -> list[str]:
    if len(members) > max_members:
        return [f"{len(members)} members, expected {max_members} at most"]
    counts = Counter(member.filename for member in members)
    faults = [f"member {name!r} is repeated: {n} times" for name, n in counts.items() if n > 1]
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if fault := _member_fault(member, max_bytes(member.filename)):
            faults.append(f"member {member.filename!r} {fault}")
        if member.header_offset < end:
            faults.append(f"member {member.filename!r} overlaps another")
        end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
    if end > size:
        faults.append("its members are larger than the file")
    return faults


def _member_fault(member: zipfile.ZipInfo, max_bytes: int | None) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if max_bytes is None:
        return "is unknown"
    if kind not in (0, stat.S_IFREG):
        return "is not a regular file"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in _METHODS:
        return f"is compressed by method {member.compress_type}, neither stored nor deflated"
    if member.file_size > max_bytes:
        return f"has {member.file_size:,} bytes, expected {max_bytes:,} at most"
    if member.file_size > _FREE_BYTES + _MAX_EXPANSION * member.compress_size:
        return f"expands from {member.compress_size:,} to {member.file_size:,} bytes"
    return ""
