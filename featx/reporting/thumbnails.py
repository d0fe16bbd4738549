"""Thumbnails as WebP: one as a data URI, or many as an atlas within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image

from featx.exceptions import ParameterError

_TILE_PX = (128, 96, 64, 48, 32, 24)  # multiples of 8, the blocks of a WebP file
_QUALITIES = (80, 65, 50, 35)  # 48 px at 35 show more than 32 px at 80, in as many bytes
_LAST_QUALITY = 20  # of the smallest tiles
_MAX_TILE_BYTES = 2**27  # of the pixels of all tiles in memory
_SHEET_PX = 1024  # a browser decodes such a sheet in about 10 ms
_N_SAMPLED = 256  # tiles by which the size of all is estimated
_MARGIN = 0.97  # fraction of the budget that an estimate may use


def as_data_uri(image: Image.Image, size_px: int, *, quality: int = 75) -> str:
    """Return an image as a data URI of WebP, at most `size_px` wide and high.

    Parameters
    ----------
    image : PIL.Image.Image
        It keeps its shape, and is never enlarged.
    size_px : int
    quality : int, default=75
        From 1 to 100, as Pillow defines it.

    Returns
    -------
    str

    Examples
    --------
    >>> from PIL import Image
    >>> as_data_uri(Image.new("RGB", (640, 480)), 96)[:28]
    'data:image/webp;base64,UklGR'
    """
    encoded = base64.b64encode(_webp(_reduced(image, size_px), quality)).decode()
    return f"data:image/webp;base64,{encoded}"


@dataclass(frozen=True)
class Atlas:
    """Thumbnails of many images, packed into few WebP files.

    A sheet is a grid of square tiles, `n_columns` wide and high. A tile holds a whole image in its
    upper left corner; `sizes` is how much of the tile that is.

    Attributes
    ----------
    sheets : list of bytes
        WebP files.
    tile_px : int
        Width and height of a tile in pixels.
    n_columns : int
        Number of tiles side by side in a sheet.
    places : ndarray of shape (n_rows,), int32
        Number of the tile of each row, counted through all sheets; -1 for a row without an image.
    sizes : ndarray of shape (n_tiles, 2), int32
        Width and height of each image in its tile, in pixels.
    quality : int
        Quality of the WebP files.
    """

    sheets: list[bytes]
    tile_px: int
    n_columns: int
    places: np.ndarray
    sizes: np.ndarray
    quality: int

    @property
    def size_bytes(self) -> int:
        """Number of bytes that the sheets take in a page, where they are base64."""
        return sum(_base64_bytes(len(sheet)) for sheet in self.sheets)

    @classmethod
    def pack(
        cls,
        images: Iterable[tuple[int, Image.Image | None]],
        n_rows: int,
        *,
        budget_bytes: int = 5_000_000,
    ) -> Atlas:
        """Return the atlas of images that arrive one by one.

        The quality is lowered first, then the size of the tiles, until the sheets fit.

        Parameters
        ----------
        images : iterable of (int, PIL.Image.Image or None)
            Row and image; rows that are missing, or have None, get no tile.
        n_rows : int
        budget_bytes : int, default=5_000_000
            Most bytes that the sheets may take as base64.

        Returns
        -------
        Atlas

        Raises
        ------
        ParameterError
            The smallest tiles of the lowest quality do not fit.

        Examples
        --------
        >>> from PIL import Image
        >>> red = Image.new("RGB", (60, 40), "red")
        >>> atlas = Atlas.pack([(0, red), (2, red)], n_rows=3)
        >>> atlas.places.tolist(), atlas.sizes.tolist()
        ([0, -1, 1], [[60, 40], [60, 40]])
        """
        tiles, places = _collected(images, n_rows)
        sample = tiles.sample()
        for tile_px, quality in _choices(tiles.tile_px):
            estimated_bytes = sample.reduced(tile_px).size_bytes(quality) * tiles.n_per(sample)
            if estimated_bytes > budget_bytes * _MARGIN:
                continue
            smaller = tiles.reduced(tile_px)
            atlas = cls(
                [_webp(sheet, quality) for sheet in smaller.sheets()],
                tile_px,
                smaller.n_columns,
                places,
                smaller.sizes,
                quality,
            )
            if atlas.size_bytes <= budget_bytes:
                return atlas
        raise ParameterError.of(
            "budget_bytes", budget_bytes, f"expected more, for {len(tiles.sizes)} thumbnails."
        )


class _Tiles:
    """Pixels of square tiles, each with an image in its upper left corner."""

    def __init__(self, pixels: np.ndarray, sizes: np.ndarray) -> None:
        self.pixels = pixels
        self.sizes = sizes
        self.tile_px = pixels.shape[1]
        self.n_columns = _SHEET_PX // self.tile_px

    def reduced(self, tile_px: int) -> _Tiles:
        """Return the tiles in another size, of at most their own."""
        if tile_px == self.tile_px:
            return self
        tiles = zip(self.pixels, self.sizes, strict=True)
        images = (_reduced(Image.fromarray(tile[:h, :w]), tile_px) for tile, (w, h) in tiles)
        return _Tiles(*_arrays(images, len(self), tile_px))

    def sample(self) -> _Tiles:
        """Return some of the tiles, at equal distances."""
        chosen = np.linspace(0, len(self) - 1, min(_N_SAMPLED, len(self))).astype(int)
        return _Tiles(self.pixels[chosen], self.sizes[chosen])

    def n_per(self, sample: _Tiles) -> float:
        """Return how many tiles there are for each tile of a sample."""
        return len(self) / max(len(sample), 1)

    def size_bytes(self, quality: int) -> int:
        """Return how many bytes the sheets take as base64."""
        return sum(_base64_bytes(len(_webp(sheet, quality))) for sheet in self.sheets())

    def sheets(self) -> Iterator[Image.Image]:
        """Yield grids of tiles; the last one has only the rows of tiles that it needs."""
        px, n_columns = self.tile_px, self.n_columns
        for start in range(0, len(self), n_columns**2):
            tiles = self.pixels[start : start + n_columns**2]
            n_lines = ceil(len(tiles) / n_columns)
            grid = np.zeros((n_lines * n_columns, px, px, 3), np.uint8)
            grid[: len(tiles)] = tiles
            grid = grid.reshape(n_lines, n_columns, px, px, 3).swapaxes(1, 2)
            yield Image.fromarray(grid.reshape(n_lines * px, n_columns * px, 3))

    def __len__(self) -> int:
        return len(self.pixels)


def _collected(
    images: Iterable[tuple[int, Image.Image | None]], n_rows: int
) -> tuple[_Tiles, np.ndarray]:
    """Return the tiles of images, as large as memory allows, and the place of each row."""
    fitting = (px for px in _TILE_PX if n_rows * px * px * 3 <= _MAX_TILE_BYTES)
    tile_px = next(fitting, _TILE_PX[-1])
    places = np.full(n_rows, -1, np.int32)

    def reduced() -> Iterator[Image.Image]:
        n_tiles = 0
        for row, image in images:
            if image is not None:
                places[row] = n_tiles
                n_tiles += 1
                yield _reduced(image, tile_px)

    pixels, sizes = _arrays(reduced(), n_rows, tile_px)
    largest = sizes.max(initial=1)
    needed = min(px for px in _TILE_PX if px >= min(largest, tile_px))
    return _Tiles(pixels[:, :needed, :needed], sizes), places


def _arrays(
    images: Iterable[Image.Image], n_most: int, tile_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tiles (n, tile_px, tile_px, 3) uint8 and the sizes (n, 2) of the images in them."""
    pixels = np.empty((n_most, tile_px, tile_px, 3), np.uint8)
    sizes = np.empty((n_most, 2), np.int32)
    n_tiles = 0
    for image in images:
        array = np.asarray(image)
        height, width = array.shape[:2]
        # Edges are repeated: a sharp border would cost bytes, and blur into the picture.
        fill = [(0, tile_px - height), (0, tile_px - width), (0, 0)]
        pixels[n_tiles] = np.pad(array, fill, mode="edge")
        sizes[n_tiles] = width, height
        n_tiles += 1
    return pixels[:n_tiles], sizes[:n_tiles]


def _choices(tile_px: int) -> Iterator[tuple[int, int]]:
    """Yield sizes of tiles and qualities, from the best to the smallest."""
    sizes = [px for px in _TILE_PX if px <= tile_px]
    yield from ((px, quality) for px in sizes for quality in _QUALITIES)
    yield sizes[-1], _LAST_QUALITY


def _reduced(image: Image.Image, size_px: int) -> Image.Image:
    """Return an image in RGB that is at most `size_px` wide and high."""
    scale = min(1, size_px / max(image.size))
    width, height = (max(1, round(length * scale)) for length in image.size)
    image = image.convert("RGB")
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2)


def _webp(image: Image.Image, quality: int) -> bytes:
    """Return an image as the bytes of a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _base64_bytes(n_bytes: int) -> int:
    """Return how many characters a number of bytes take as base64."""
    return ceil(n_bytes / 3) * 4
