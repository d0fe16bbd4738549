"""``reader_for``: the reader of a file, from the bytes at its start."""

from __future__ import annotations

import zlib

_GZIP = b"\x1f\x8b"
_NIFTI_BYTES = 540  # of the longer header


def reader_for(content: bytes) -> str:
    """Return the expression of the reader that reads a file of this content; empty if none does.

    Examples
    --------
    >>> reader_for(bytes(128) + b"DICM")
    'DicomReader()'
    """
    start = content[:_NIFTI_BYTES]
    if content.startswith(_GZIP):
        start = _decompressed(content[:4096])
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0"):
        return "NiftiReader()"
    if start[128:132] == b"DICM":
        return "DicomReader()"
    is_npz = start.startswith(b"PK\x03\x04") and b".npy" in start[30:]
    return "ArrayReader()" if is_npz or start.startswith(b"\x93NUMPY") else ""


def _decompressed(start: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(start, _NIFTI_BYTES)
    except zlib.error:
        return b""
