"""Page and Region: a part of a file that is a sample of its own."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import astuple, dataclass
from numbers import Integral
from typing import Any

from featx._urls import is_url, shown_path
from featx.exceptions import ParameterError


@dataclass(frozen=True)
class Part(os.PathLike):
    """A part of a file. As a path, it is that of the file."""

    path: str | os.PathLike[str]

    def __post_init__(self) -> None:
        if is_url(self.path):
            expected = "expected the path of a local file: copy the file first"
            raise ParameterError.of("path", shown_path(self.path), expected)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def selection(self) -> str:
        """Text that identifies the part within the content of its file."""
        numbers = ",".join(str(int(number)) for number in self._numbers)
        return f"{type(self).__name__}({numbers})"

    @property
    def _numbers(self) -> tuple[Any, ...]:
        return astuple(self)[1:]

    def _check_whole(self, **least: int) -> None:
        """Check that the fields of these names are integers, and not below their least values."""
        for name, lowest in least.items():
            value = getattr(self, name)
            is_whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not is_whole or value < lowest:
                raise ParameterError.of(name, value, f"expected an integer of {lowest} or more")

    @abstractmethod
    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Page(Part):
    """A page of a TIFF file, a frame of a DICOM file, or a slice of a NIfTI file or an array.

    It is a sample: pages of one file may be anywhere in `X`. Its key is made from the content of
    the file and the index; the file is hashed once.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    index : int
        Index of the page, from 0.

    See Also
    --------
    Region : A rectangle of a file.

    Examples
    --------
    >>> from featx.readers import Page
    >>> stack = [Page("cells.tif", index) for index in range(3)]
    >>> print(stack[2])
    cells.tif[2]
    """

    index: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole(index=0)

    def __str__(self) -> str:
        return f"{os.fspath(self)}[{self.index}]"


@dataclass(frozen=True)
class Region(Part):
    """A rectangle of a TIFF file, such as a tile of a whole slide or a window of a GeoTIFF.

    It is a sample, as a :class:`Page` is. Only the tiles or strips of the file that it touches are
    read.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    x, y : int
        Left column and upper row of the rectangle, in pixels of the level, from 0.
    width, height : int
        Size of the rectangle in pixels of the level.
    level : int, default=0
        Level of a pyramid of resolutions; 0 is the full resolution.

    See Also
    --------
    Page : A page, frame or slice of a file.

    Examples
    --------
    >>> from featx.readers import Region
    >>> tiles = [Region("slide.svs", x, 0, 512, 512) for x in range(0, 2048, 512)]
    >>> print(tiles[1])
    slide.svs[512x512 at 512,0, level 0]
    """

    x: int
    y: int
    width: int
    height: int
    level: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole(x=0, y=0, width=1, height=1, level=0)

    def __str__(self) -> str:
        place = f"{self.width}x{self.height} at {self.x},{self.y}, level {self.level}"
        return f"{os.fspath(self)}[{place}]"
