"""ArrayReader: arrays in ``.npy`` and ``.npz`` files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from featx.exceptions import ParameterError, UnreadableImageError
from featx.readers.file_reader import FileReader
from featx.readers.parts import Page


@dataclass(frozen=True)
class ArrayReader(FileReader):
    """Read arrays from ``.npy`` and ``.npz`` files; a :class:`Page` is a row of the array.

    Arrays are returned as they are: pixels from 0 to 255, or exactly what the backbone takes.

    Parameters
    ----------
    key : str, default=None
        Name of the array in ``.npz`` files; None is the only one.

    See Also
    --------
    TiffReader : Reader of TIFF files.

    Examples
    --------
    >>> import io, numpy as np
    >>> from featx.readers import ArrayReader
    >>> file = io.BytesIO()
    >>> np.savez(file, scan=np.eye(2), mask=np.ones(2))
    >>> ArrayReader(key="scan")(file.getvalue()).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    key: str | None = None

    parts = (Page,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.key is None or isinstance(self.key, str)):
            raise ParameterError.of("key", self.key, "expected the name of an array, or None")

    def _read(self, file: str | BinaryIO, part: Page | None) -> np.ndarray:
        is_path = isinstance(file, str)
        loaded = np.load(file, allow_pickle=False, mmap_mode="r" if is_path else None)
        if isinstance(loaded, np.ndarray):
            array = loaded
        else:
            with loaded:
                array = loaded[self._key_among(loaded.files)]
        return np.array(array if part is None else array[part.index])

    def _key_among(self, names: list[str]) -> str:
        if self.key is not None:
            return self.key
        if len(names) != 1:
            raise UnreadableImageError(
                f"has the arrays {', '.join(names)}: name one, ArrayReader(key=...)"
            )
        return names[0]
