"""A file in memory that keeps only what was written to it, page by page.

libhdf5 writes the frame of a shard into it: a few kilobytes, though the file may be as large as the
embeddings for which the frame leaves room.
"""

from __future__ import annotations

import io
from typing import Any

_PAGE_BYTES = 4096


class PagedFile(io.RawIOBase):
    r"""A seekable binary file whose untouched pages are zero and take no room.

    Examples
    --------
    >>> file = PagedFile()
    >>> file.seek(10**12)
    1000000000000
    >>> file.write(b"far away")
    8
    >>> file.part(10**12 - 2, 10**12 + 3)
    b'\x00\x00far'
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._place = 0
        self._size = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that any place in it can be reached."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the start, from here or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """Tell the place."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._place if size is None else size
        return self._size

    def write(self, data: Any) -> int:
        """Write at the place, and go on behind it."""
        rest = memoryview(data).cast("B")
        n_bytes = len(rest)
        while len(rest):
            number, start = divmod(self._place, _PAGE_BYTES)
            page = self._pages.setdefault(number, bytearray(_PAGE_BYTES))
            n_here = min(len(rest), _PAGE_BYTES - start)
            page[start : start + n_here] = rest[:n_here]
            rest = rest[n_here:]
            self._place += n_here
        self._size = max(self._size, self._place)
        return n_bytes

    def readinto(self, buffer: Any) -> int:
        """Read from the place as much as there is and fits, and go on behind it."""
        target = memoryview(buffer).cast("B")
        stop = min(self._place + len(target), self._size)
        data = self.part(self._place, stop)
        target[: len(data)] = data
        self._place += len(data)
        return len(data)

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes between two places."""
        parts = []
        while start < stop:
            number, first = divmod(start, _PAGE_BYTES)
            n_here = min(stop - start, _PAGE_BYTES - first)
            page = self._pages.get(number, bytes(_PAGE_BYTES))
            parts.append(bytes(page[first : first + n_here]))
            start += n_here
        return b"".join(parts)

    @property
    def size(self) -> int:
        """How many bytes the whole file has."""
        return self._size
