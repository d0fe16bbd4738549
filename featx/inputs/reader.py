"""Reader: a function that turns files into arrays, in place of featx' decoder, with its identity.

The identity is part of the space: the code of the function, and the versions of the packages that
the code imports or names in an attribute `packages`. The key of a sample is a digest of the content
of its file, whatever the function makes of it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from featx.digests.code import UnhashableCodeError, code_digest
from featx.digests.hashing import digest_of_json
from featx.digests.packages import NamedPackages, installed_version
from featx.exceptions import BackboneError, UnreadableImageError
from featx.inputs.images import pixels_of
from featx.inputs.items import as_item, check_unmasked, name_of_item
from featx.inputs.kinds import NOT_FINITE, InputForm, as_float32_values
from featx.inputs.pixels import UNIT_PEAK
from featx.readers import SHIPPED
from featx.readers.file_reader import FileReader
from featx.readers.parts import Part

TAKES = ("bytes", "path", "any")
_PICTURE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Reader:
    """A function from a file to an array, as ``FeatureExtractor(read=...)`` takes it.

    It gets the bytes of a file; its path, if it has an attribute ``takes = "path"``; or, with
    ``takes = "any"``, the bytes of a whole file, but the path if a part of it is selected. That
    part, such as a page, is its second argument.

    Examples
    --------
    >>> Reader(lambda content: np.frombuffer(content, np.uint8))(b"abc").tolist()
    [97, 98, 99]
    """

    function: Callable[..., Any]

    @property
    def takes(self) -> str:
        """What the function gets, one of `TAKES`."""
        takes: str = getattr(self.function, "takes", "bytes")
        return takes

    @property
    def packages(self) -> Sequence[str]:
        """Names of the packages whose versions count even if the code does not import them."""
        return tuple(getattr(self.function, "packages", ()))

    @property
    def label(self) -> str:
        """Name for messages and the labels of spaces, without an address in memory."""
        name = getattr(self.function, "__name__", None)
        if isinstance(name, str):
            return name
        text = repr(self.function)
        return type(self.function).__name__ if " at 0x" in text else text

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What spaces describe: the digest of the code, and the versions of packages by name.

        Raises
        ------
        UnhashableCodeError
            The code reaches an object that cannot be identified.
        """
        packages = NamedPackages()
        versions = {name: installed_version(name) for name in self.packages}
        if isinstance(self.function, FileReader) and self.shipped:
            digest = digest_of_json({**self.shipped, "version": self.function.version})
        else:
            digest = code_digest(
                self.function, known=packages.known, can_import=packages.can_import
            )
            versions |= packages.versions
        return {"reader": digest, "packages": dict(sorted(versions.items()))}

    @property
    def shipped(self) -> dict[str, Any] | None:
        """Class and parameters of a reader that comes with featx; None for others."""
        if not isinstance(self.function, FileReader) or type(self.function) not in SHIPPED:
            return None
        return {"class": type(self.function).__name__, "params": self.function.params}

    @cached_property
    def key(self) -> Any:
        """Hashable value that is equal for readers that compute the same."""
        try:
            identity = self.identity
        except UnhashableCodeError:
            return id(self.function)
        return identity["reader"], tuple(identity["packages"].items())

    def check_unchanged(self) -> None:
        """Raise :class:`BackboneError` if the function has other code or state than before."""
        if Reader(self.function).key != self.key:
            raise BackboneError(
                f"the reader {self.label} changed while it read samples, such as a counter or a "
                "random generator that it holds. Embeddings computed since the last check are not "
                "stored: pass a function that returns the same array for the same file"
            )

    def opens(self, item: Any) -> bool:
        """Return True if the function gets the path of an item and opens the file itself."""
        is_file = isinstance(item, (str, os.PathLike))
        return is_file and (
            self.takes == "path" or (self.takes == "any" and isinstance(item, Part))
        )

    def why_not_taken(self, item: Any) -> str:
        """Return a clause on an item that the function does not take; empty if it takes it."""
        if isinstance(item, Part) and not self.takes_parts:
            return (
                f"a {type(item).__name__}, and read={self.label} reads whole files: give the "
                "function a second argument, the part of the file"
            )
        if isinstance(item, (str, os.PathLike)):
            return ""
        is_encoded = isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype == np.uint8
        if not (is_encoded or isinstance(item, (bytes, bytearray, memoryview))):
            return f"{name_of_item(item)}, and read={self.label} reads files: pass paths or bytes"
        if self.takes == "path":
            return f"{name_of_item(item)}, and read={self.label} takes paths"
        return ""

    @cached_property
    def takes_parts(self) -> bool:
        """True if the function takes a part of a file as its second argument."""
        try:
            inspect.signature(self.function).bind(b"", None)
        except TypeError:
            return False
        except ValueError:  # a function in C, whose signature is not known
            return True
        return True

    def __call__(self, file: str | bytes, part: Any = None) -> np.ndarray:
        """Read a file, or a part of it; any error becomes an :class:`UnreadableImageError`."""
        try:
            made = self.function(file) if part is None else self.function(file, part)
            return _as_array(made)
        except UnreadableImageError:
            raise
        except Exception as exc:
            raise UnreadableImageError(f"{type(exc).__name__}: {exc}") from exc

    def input_of(self, array: np.ndarray, form: InputForm) -> np.ndarray:
        """Convert an array that was read to one input of a backbone, uint8 or float32.

        Images are pixels from 0 to 255 of any size; without preprocessing, an array of exactly the
        shape of the input is taken as it is. Inputs of other backbones have exactly their shape,
        but a single channel needs no axis of its own.
        """
        is_volume = not form.kind.is_resized and (*array.shape, 1) == form.shape
        array = array[..., np.newaxis] if is_volume else array
        if form.takes_any_values and array.shape == form.shape:
            return _finite_values(array)
        if form.kind.is_resized:
            _check_n_channels(array, form.shape[-1])
            _check_pixel_scale(array)
        return form.kind.load(array, form)

    def picture_of(self, array: np.ndarray) -> np.ndarray:
        """Return an array that was read as pixels to look at: gray, RGB or RGBA, 0 to 255.

        Values beyond 0..255, or floating-point numbers that seem to have another scale, are
        stretched from their own range. Other numbers of channels become their mean.
        """
        if array.ndim == 3 and array.shape[-1] not in _PICTURE_CHANNELS:
            array = array.mean(axis=-1, dtype=np.float32)
        if array.ndim not in (2, 3) or not array.size or array.dtype in (bool, np.uint8):
            return array
        low, high = float(array.min()), float(array.max())
        if low < -0.5 or high > 255.5 or high <= UNIT_PEAK:
            return ((array - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)
        return array


def _read_nothing(file: str | bytes, part: Any = None) -> NoReturn:
    raise UnreadableImageError("is read by a function that is not known here")


UNKNOWN_READER = Reader(_read_nothing)  # for samples that are identified and not read


def _as_array(made: Any) -> np.ndarray:
    """Return what a reader returned as an array of numbers."""
    array = pixels_of(made) if isinstance(made, Image.Image) else as_item(made)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        got = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(made).__name__
        raise UnreadableImageError(f"the reader returned {got}: expected an array of numbers")
    check_unmasked(array)
    return array


def _finite_values(array: np.ndarray) -> np.ndarray:
    values = array if array.dtype == np.uint8 else as_float32_values(array)
    if not np.isfinite(values).all():
        raise UnreadableImageError(NOT_FINITE)
    return values


def _check_n_channels(array: np.ndarray, n_channels: int) -> None:
    """Raise if an array cannot become an image with this number of channels."""
    given = array.shape[-1]
    if array.ndim == 3 and given not in (n_channels, *_PICTURE_CHANNELS):
        raise UnreadableImageError(
            f"has shape {array.shape} as read, and the backbone takes {n_channels} channels: "
            "pass Page(path, index) for each slice, let the reader select bands, or pass "
            f"in_channels={given}"
        )


def _check_pixel_scale(array: np.ndarray) -> None:
    """Raise if floating-point pixels seem to be scaled to 0..1."""
    highest = array.max(initial=0) if array.dtype.kind == "f" else 0
    if 0 < highest <= UNIT_PEAK:
        raise UnreadableImageError(
            f"the reader returned floating-point pixels that never exceed {highest:.3g}: expected "
            "values from 0 to 255, or uint8 if the image is that dark"
        )
