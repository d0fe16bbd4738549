"""FileReader, base of the readers that come with featx; ``as_levels_of``: values as 0..255."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from importlib.util import find_spec
from numbers import Real
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image

from featx.exceptions import MissingExtraError, ParameterError, UnreadableImageError
from featx.readers.parts import Part


@dataclass(frozen=True)
class FileReader(ABC):
    """A reader that featx knows by the name of its class and its parameters, which are plain data.

    It gets the bytes of a whole file, and the path if a part of the file is selected. `version` is
    to be raised when the same file gives other numbers than before.
    """

    takes: ClassVar[str] = "any"
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""  # of featx, which brings the packages
    parts: ClassVar[tuple[type[Part], ...]]
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise MissingExtraError(
                f"{type(self).__name__} needs {' and '.join(missing)}: "
                f"pip install 'featx[{self.extra}]'"
            )
        for name, value in self.params.items():
            if isinstance(value, list):  # as JSON holds a tuple
                object.__setattr__(self, name, tuple(value))

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the constructor by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __call__(self, file: str | bytes, part: Part | None = None) -> np.ndarray:
        """Read a file, given as its content or its path, or a part of it."""
        if part is not None and not isinstance(part, self.parts):
            taken = " or ".join(each.__name__ for each in self.parts)
            raise TypeError(f"{type(self).__name__} reads a {taken}, not a {type(part).__name__}")
        return self._read(io.BytesIO(file) if isinstance(file, bytes) else file, part)

    @abstractmethod
    def _read(self, file: str | BinaryIO, part: Any) -> np.ndarray:
        """Read a file, or a part of it."""

    def _check_low_and_high(self, name: str) -> None:
        """Check that a parameter is None, or two numbers of which the second is larger."""
        value = getattr(self, name)
        if value is not None and not (is_pair_of_numbers(value) and value[0] < value[1]):
            raise ParameterError.of(name, value, "expected (low, high), where low < high, or None")


def is_pair_of_numbers(value: Any) -> bool:
    """Return True for a tuple of two numbers."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(each, Real) for each in value)
    )


def check_n_pixels(height: int, width: int) -> None:
    """Raise if an image has more pixels than Pillow's limit, which guards against bombs."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise UnreadableImageError(
            f"decompression bomb: {width}x{height} pixels exceed {limit}. If you trust the file, "
            "raise Pillow's limit for this process, PIL.Image.MAX_IMAGE_PIXELS = n; of a large "
            "TIFF file, pass a Region"
        )


def scaled_to_levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map values linearly so that `low` becomes 0 and `high` 255, clipped and rounded, uint8.

    Examples
    --------
    >>> scaled_to_levels(np.array([-5, 0, 500, 1000]), 0, 1000).tolist()
    [0, 0, 128, 255]
    """
    if not np.isfinite(values).all():
        raise UnreadableImageError("has NaN or infinite values")
    fractions = (values.astype(np.float64) - low) / (high - low)
    return np.rint(np.clip(fractions, 0, 1) * 255).astype(np.uint8)


def checked_levels(values: np.ndarray, scale: tuple[float, float] | None, name: str) -> np.ndarray:
    """Return values as levels from 0 to 255, uint8; 8 bits are levels already.

    UnreadableImageError, which names the reader, is raised if there is no scale for other values.
    """
    if scale is not None:
        return scaled_to_levels(values, *scale)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8:
        return values
    raise UnreadableImageError(
        f"has {values.dtype} values from {values.min():.6g} to {values.max():.6g}: state which are "
        f"black and white, as in {name}(scale=({values.min():.6g}, {values.max():.6g}))"
    )
