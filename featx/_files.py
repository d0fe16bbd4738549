"""Files that are either whole or not there.

Everything featx stores goes through :func:`write_atomically`: written beside its place under a
name of its own, flushed to the disk, moved into place with one rename. Readers never see half a
file, writers need no lock, and a full disk is a plain ``OSError`` that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from featx._hashing import DIGEST_BYTES, digest_of


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
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{uuid.uuid4().hex}.part"
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


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
