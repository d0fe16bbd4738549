"""TiffReader: TIFF files with pages, bands, 16 and 32 bits, tiles and pyramids."""

from __future__ import annotations

import functools
import html
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from featx.exceptions import ParameterError, UnreadableImageError
from featx.readers.file_reader import FileReader, check_n_pixels, checked_levels
from featx.readers.parts import Page, Region

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_SETTLED_S = 2.0  # the coarsest clock of a file system ticks every two seconds
_OPACITY = (1, 2)  # as an extra sample of TIFF
_GDAL_METADATA = 42112
_BAND = re.compile(r'<Item[^>]* sample="(\d+)"[^>]* role="description"[^>]*>([^<]+)</Item>')


@dataclass(frozen=True)
class TiffReader(FileReader):
    """Read TIFF files: pages, bands, 16 and 32 bits, tiles. Needs ``featx[tiff]``.

    A :class:`Page` is a page; a :class:`Region` a rectangle, such as a tile of a whole slide or a
    window of a GeoTIFF, of which only the tiles or strips that it touches are decoded. Pages with
    a reduced resolution and masks are not counted.

    Parameters
    ----------
    bands : sequence of int or str, default=None
        Bands that become the channels, by their number from 0, or by their name in the metadata of
        GDAL; None is all of them.
    scale : (float, float), default=None
        Values that become 0 and 255, the same for all files, such as ``(0, 10_000)``. 8 bits need
        none.

    Raises
    ------
    MissingExtraError
        tifffile is not installed.

    See Also
    --------
    Page : A page of a file.
    Region : A rectangle of a file.

    Examples
    --------
    >>> import io, numpy as np, tifffile
    >>> from featx.readers import TiffReader
    >>> file = io.BytesIO()
    >>> bands = np.full((8, 8, 13), 5000, np.uint16)
    >>> tifffile.imwrite(file, bands, photometric="minisblack", planarconfig="contig")
    >>> image = TiffReader(bands=(3, 2, 1), scale=(0, 10_000))(file.getvalue())
    >>> image.shape, int(image.max())
    ((8, 8, 3), 128)
    """

    bands: Sequence[int | str] | None = None
    scale: tuple[float, float] | None = None

    packages = ("tifffile",)
    extra = "tiff"
    parts = (Page, Region)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_low_and_high("scale")
        are_names = isinstance(self.bands, tuple) and all(
            isinstance(band, str) or (type(band) is int and band >= 0) for band in self.bands
        )
        if self.bands is not None and not (are_names and self.bands):
            raise ParameterError.of("bands", self.bands, "expected numbers from 0, or names")

    def _read(self, file: str | BinaryIO, part: Page | Region | None) -> np.ndarray:
        import tifffile

        with tifffile.TiffFile(file) as tiff:
            if isinstance(part, Region):
                page = _page_of_level(tiff, part.level)
                pixels = _decoded_region(page, part)
            elif (stack := _stack_in_one_page(tiff)) is not None:
                page, pixels = tiff.pages[0], np.array(_selected(stack, part))
            else:
                page = tiff.pages.get(_selected(_counted_pages(tiff), part))
                pixels = _decoded_page(page)
            return self._levels(pixels, page)

    def _levels(self, pixels: np.ndarray, page: TiffPage) -> np.ndarray:
        """Return the wanted bands as levels."""
        import tifffile

        kinds = tifffile.PHOTOMETRIC
        if page.photometric == kinds.PALETTE:
            colors = np.asarray(page.colormap)[:, pixels]
            return np.rint(np.moveaxis(colors, 0, -1) / 257).astype(np.uint8)
        if self.bands is not None:
            every = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
            pixels = every[..., self._band_numbers(page, every.shape[-1])]
        elif pixels.shape[2:] == (4,) and page.extrasamples[-1:] not in [(k,) for k in _OPACITY]:
            raise UnreadableImageError(
                "has 4 bands, none of which is opacity: name those that become channels, as in "
                "TiffReader(bands=(0, 1, 2))"
            )
        levels = checked_levels(pixels, self.scale, type(self).__name__)
        return 255 - levels if page.photometric == kinds.MINISWHITE else levels

    def _band_numbers(self, page: TiffPage, n_bands: int) -> list[int]:
        names = _band_names(page)
        numbers = []
        for band in self.bands or ():
            number = names.get(band) if isinstance(band, str) else band
            if number is None or number >= n_bands:
                named = f" with the names {', '.join(names)}" if names else ""
                raise UnreadableImageError(f"has no band {band!r}, but {n_bands} bands{named}")
            numbers.append(number)
        return numbers


def _selected(pages: Sequence[Any] | np.ndarray, page: Page | None) -> Any:
    """Return one of the pages of a file, or their numbers; the only one for a whole file."""
    if page is None and len(pages) != 1:
        raise UnreadableImageError(
            f"has {len(pages)} pages: pass Page(path, index) for each of them"
        )
    index = page.index if page else 0
    if index >= len(pages):
        raise UnreadableImageError(f"has {len(pages)} pages: there is no page {index}")
    return pages[index]


def _counted_pages(tiff: TiffFile) -> Sequence[int]:
    """Return the numbers of the pages of a file, without thumbnails, overviews and masks."""
    handle = tiff.filehandle
    if not handle.is_file:
        return _numbers_of_pages(tiff)
    status = os.stat(handle.path)
    changed_s = max(status.st_mtime, status.st_ctime)
    if time.time() - changed_s < _SETTLED_S:  # a new change may look the same
        return _numbers_of_pages(tiff)
    return _known_numbers(handle.path, status.st_size, status.st_ino, changed_s)


# To list the 2,000 pages of a stack takes 0.3 s, each time that one of them is read (2026-12).
@functools.lru_cache(maxsize=16)
def _known_numbers(path: str, *_state: float) -> Sequence[int]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        return _numbers_of_pages(tiff)


def _numbers_of_pages(tiff: TiffFile) -> Sequence[int]:
    return [number for number in range(len(tiff.pages)) if not _is_aside(tiff.pages.get(number))]


def _stack_in_one_page(tiff: TiffFile) -> np.ndarray | None:
    """Return the pages of a stack whose file names only the first, as ImageJ writes large ones."""
    if len(tiff.pages) != 1:
        return None
    stack, first = tiff.series[0], tiff.pages[0]
    if math.prod(stack.shape) == math.prod(first.shape):
        return None
    pixels = stack.asarray(out="memmap" if tiff.filehandle.is_file else None)
    return pixels.reshape(-1, *first.shape)


def _page_of_level(tiff: TiffFile, level: int) -> Any:
    levels = tiff.series[0].levels
    if level >= len(levels):
        raise UnreadableImageError(f"has {len(levels)} levels: there is no level {level}")
    if len(levels[level]) != 1 or _stack_in_one_page(tiff) is not None:
        raise UnreadableImageError("has several pages: a Region is a part of a file with one")
    return levels[level][0]


def _decoded_page(page: Any) -> np.ndarray:
    """Decode a page: (h, w) or (h, w, c)."""
    import tifffile

    check_n_pixels(page.imagelength, page.imagewidth)
    pixels = page.asarray()
    is_separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3
    return np.moveaxis(pixels, 0, -1) if is_separate else pixels


def _is_aside(page: Any) -> bool:
    return bool(page.is_reduced or page.is_mask)


def _band_names(page: TiffPage) -> dict[str, int]:
    """Return the number of each band that the metadata of GDAL name."""
    tag = page.tags.get(_GDAL_METADATA)
    if tag is None:
        return {}
    return {html.unescape(name): int(sample) for sample, name in _BAND.findall(str(tag.value))}


def _decoded_region(page: TiffPage, region: Region) -> np.ndarray:
    """Decode the tiles or strips that a region touches: (h, w) or (h, w, c)."""
    check_n_pixels(region.height, region.width)
    n_rows, n_columns = page.imagelength, page.imagewidth
    right, bottom = region.x + region.width, region.y + region.height
    if right > n_columns or bottom > n_rows:
        raise UnreadableImageError(
            f"level {region.level} has {n_columns}x{n_rows} pixels: the region ends at "
            f"{right},{bottom}"
        )
    n_channels = page.samplesperpixel
    pixels = np.full((region.height, region.width, n_channels), page.nodata, page.dtype)
    for number in _touched_segments(page, region):
        _copy_segment(page, number, region, pixels)
    return pixels if n_channels > 1 else pixels[..., 0]


def _touched_segments(page: TiffPage, region: Region) -> Iterator[int]:
    """Yield the numbers of the tiles or strips that a region touches."""
    import tifffile

    length = page.tilelength if page.is_tiled else page.rowsperstrip
    width = page.tilewidth if page.is_tiled else page.imagewidth
    n_across, n_down = -(-page.imagewidth // width), -(-page.imagelength // length)
    is_separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    rows = range(region.y // length, (region.y + region.height - 1) // length + 1)
    columns = range(region.x // width, (region.x + region.width - 1) // width + 1)
    for plane in range(page.samplesperpixel if is_separate else 1):
        yield from (
            (plane * n_down + row) * n_across + column for row in rows for column in columns
        )


def _copy_segment(page: TiffPage, number: int, region: Region, pixels: np.ndarray) -> None:
    """Decode a tile or strip, and copy what belongs to a region into its pixels."""
    n_bytes = page.databytecounts[number]
    if not n_bytes:  # a tile without data
        return
    jpeg = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    options = {name: value for name, value in jpeg.items() if value is not None}
    decode, handle = page.decode, page.parent.filehandle
    handle.seek(page.dataoffsets[number])  # last, since all of the above may read the file
    decoded, place, (_, n_rows, n_columns, n_channels) = decode(
        handle.read(n_bytes), number, **options
    )
    plane, _, top, left, _ = place
    # Tiles are decoded in their full size, also where they exceed the image.
    segment = np.asarray(decoded)
    segment = segment.reshape(-1, *segment.shape[-2:])[:n_rows, :n_columns, :n_channels]
    upper, lower = max(top, region.y), min(top + n_rows, region.y + region.height)
    first, last = max(left, region.x), min(left + n_columns, region.x + region.width)
    target = pixels[upper - region.y : lower - region.y, first - region.x : last - region.x]
    source = segment[upper - top : lower - top, first - left : last - left]
    target[..., plane : plane + source.shape[-1]] = source
