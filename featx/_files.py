"""Files that are either whole or not there.

Everything featx stores goes through :func:`write_atomically`: written beside its place under a
name of its own, flushed to the disk, moved into place with one rename. Readers never see half a
file, writers need no lock, and a full disk is a plain ``OSError`` that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path

from featx._hashing import DIGEST_BYTES, digest_of

PART_SUFFIX = ".part"
_ATTEMPTS = 3
_ABANDONED_S = 24 * 3600.0  # a writer needs seconds; clocks of two machines may differ by hours


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that it is seen whole or not at all, also after a power cut.

    Parameters
    ----------
    path : Path
        Where the file shall be. Its folder is made if it is missing.
    data : bytes-like
        The whole content.

    Raises
    ------
    OSError
        The disk is full, the folder cannot be written, and so on; nothing is left behind.
    """
    write_in_order({path: data})


def write_in_order(contents: dict[Path, bytes | memoryview]) -> None:
    """Write files of one folder, each as :func:`write_atomically` does; the last is the commit.

    All are on the disk before the first is moved into place, so that hardly a moment passes in
    which some are seen and others not.

    Parameters
    ----------
    contents : dict of Path to bytes-like
        Moved into place in this order.

    Raises
    ------
    OSError
        The last file is not there, nor any rest of an unfinished one.
    """
    for _ in range(_ATTEMPTS - 1):
        # If a folder that was just made is not there, another process cleared it away.
        with contextlib.suppress(FileNotFoundError):
            return _write_in_order(contents)
    return _write_in_order(contents)


def _write_in_order(contents: dict[Path, bytes | memoryview]) -> None:
    folder = next(iter(contents)).parent
    beside = {path: folder / f".{path.name}.{uuid.uuid4().hex}{PART_SUFFIX}" for path in contents}
    try:
        for path, data in contents.items():
            _write_through(beside[path], data)
        for path, part in beside.items():
            os.replace(part, path)
    except BaseException:
        for part in beside.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _write_through(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove_abandoned_parts(folder: Path) -> None:
    """Remove what writers that were killed left unfinished, a day ago or longer."""
    for part in folder.glob(f".*{PART_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder; Windows cannot open folders and needs no such call.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(payload: bytes) -> bytes:
    """Close a payload with its own digest, so that damage is found when it is read.

    Examples
    --------
    >>> unseal(seal(b"rows"))
    b'rows'
    >>> unseal(b"rowz" + seal(b"rows")[4:]) is None
    True
    """
    return payload + digest_of(payload)


def unseal(data: bytes) -> bytes | None:
    """Return the payload of sealed data, or None if it is damaged."""
    payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    return payload if len(data) >= DIGEST_BYTES and digest_of(payload) == digest else None
