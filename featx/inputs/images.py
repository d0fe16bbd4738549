"""``decode_to``: from an encoded image to the channels and the size of a backbone's input.

Images are decoded as a viewer shows them: EXIF orientation is applied, transparency becomes white,
16 bits become 8 (see ``pixels.py``), and palettes, gray, CMYK and other color spaces become RGB.
Any bytes give an array or an :class:`UnreadableImageError` whose message is the reason; no other
program is started. The decoder decides embeddings, so its name is part of the space, as is that of
the way to resize (``resize.py``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

# Image.open would import the plugins of all formats for those of TIFF and WebP.
from PIL import (
    ExifTags,
    Image,
    ImageFile,
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from featx.exceptions import UnreadableImageError
from featx.inputs.metadata import exif_orientation, make_strict, orientation_of, without_metadata
from featx.inputs.pixels import (
    StoredChannels,
    as_levels,
    check_mode,
    check_wide_colors,
    file_bytes,
    in_own_channels,
    is_counted_page,
    n_images_of_imagej,
    on_white,
    tile_size,
)
from featx.inputs.resize import REDUCING_GAP, decoded_size, resized
from featx.readers.signatures import reader_for

# Change this when the same bytes give other pixels than before.
DECODER = "pillow-4"
# The only formats that are opened; photos of phones, which Pillow calls MPO, are JPEGs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation

_RAISE_LIMIT = (
    "If you trust the image, raise Pillow's limit for this process: PIL.Image.MAX_IMAGE_PIXELS = n"
)
_MAX_PAGES = 1000  # that are counted
_Orientation = Callable[[Image.Image], int | None]
_Result = TypeVar("_Result")


def decode_to(data: bytes, shape: tuple[int, ...], resize: str = "stretch") -> np.ndarray:
    """Decode an image, and give it the size and channels, (h, w, c), that a backbone takes.

    `resize` is one of ``RESIZES`` (``resize.py``). The data are a JPEG, PNG, BMP, GIF or WebP (the
    first frame), or a TIFF of one page. A JPEG of more than twice the size is decoded at a
    half, a quarter or an eighth of its own size, which saves most of the time for a photograph of
    twelve megapixels. No intermediate result is copied, since a copy takes a tenth of the decoding
    time.

    Raises
    ------
    UnreadableImageError
        The data are damaged, are not an image or an implausibly large one, the range of the pixels
        is not known, or the channels cannot be converted.
    """

    def reduced(image: ImageFile.ImageFile, orientation: _Orientation) -> Image.Image:
        image.draft(None, decoded_size(image.size, shape, resize))
        return _loaded_image_file(image, orientation)

    image = _read_image(data, reduced)
    if shape[2] == 3:
        return resized(on_white(image), (shape[0], shape[1]), resize)
    return conform_pixels(np.asarray(image), shape, resize)


class ReducedImage(NamedTuple):
    """A picture of an image, in RGB and upright, and the size of the upright image itself."""

    width: int
    height: int
    picture: Image.Image


def reduced_image(content: np.ndarray | bytes, size: int) -> ReducedImage:
    """Return an image, given as pixels or encoded, as a picture that fits into a square of `size`.

    Its aspect ratio is kept, and it is never enlarged. The pixels follow the rules of
    :func:`decode_to`, and a large JPEG is decoded at a part of its size.

    Raises
    ------
    UnreadableImageError
        As in :func:`decode_to`; or the image has two, or more than four channels.

    Examples
    --------
    >>> wide = reduced_image(np.zeros((40, 80), np.uint8), 16)
    >>> wide.width, wide.height, wide.picture.mode, wide.picture.size
    (80, 40, 'RGB', (16, 8))
    """
    if isinstance(content, np.ndarray):
        pixels = _as_pixels(content)
        if pixels.shape[-1] not in (1, 3, 4):
            raise UnreadableImageError(
                f"has {pixels.shape[-1]} channels: a picture is made of 1, 3 or 4"
            )
        levels = np.clip(np.rint(_with_channels(pixels, 3)), 0, 255)
        image = Image.fromarray(np.ascontiguousarray(levels.astype(np.uint8)))
        return ReducedImage(*image.size, _fitted(image, size))

    def reduced(image: ImageFile.ImageFile, orientation: _Orientation) -> ReducedImage:
        width, height = image.size
        image.draft(None, decoded_size(image.size, (size, size), "pad"))
        loaded = _loaded_image_file(image, orientation)
        # Orientations from 5 on turn by a quarter. They are known once all of the file was read.
        if (orientation(image) or 1) >= 5:
            width, height = height, width
        return ReducedImage(width, height, _fitted(on_white(loaded), size))

    return _read_image(content, reduced)


def _fitted(image: Image.Image, size: int) -> Image.Image:
    """Return an image of our own, reduced until it fits into a square."""
    image.thumbnail((size, size), Image.Resampling.LANCZOS, REDUCING_GAP)
    return image


def check_header(data: bytes) -> None:
    """Raise :class:`UnreadableImageError` if the header of an image shows that it is damaged."""
    _read_image(data, lambda image, orientation: image.close())


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of a PIL image, (h, w), (h, w, 3) or (h, w, 4) uint8, upright.

    The image is loaded if it has not been; its pixels and metadata are not changed.
    """
    return np.asarray(_image_of_caller(image))


def _read_image(
    data: bytes, read: Callable[[ImageFile.ImageFile, _Orientation], _Result]
) -> _Result:
    """Call `read` with the opened file; if that fails, with the file without its metadata."""
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    failure = Exception()
    for file, orientation in _readable_forms(data):
        try:
            return read(_opened_image(file), orientation)
        except UnreadableImageError:
            raise
        except Exception as exc:  # decoders raise anything, and warnings may be errors
            failure = exc
    raise UnreadableImageError(_why_unreadable_image(data, failure)) from failure


def _readable_forms(data: bytes) -> Iterator[tuple[bytes, _Orientation]]:
    """Yield a file as it is, and then without metadata, each with its orientation function."""
    # With this setting, Pillow skips checks of the chunks of a PNG file.
    is_lax = bool(ImageFile.LOAD_TRUNCATED_IMAGES) and data.startswith(b"\x89PNG")
    if not is_lax:
        yield data, lambda image: orientation_of(image.info)
    bare = without_metadata(data)
    if is_lax or bare.data != data:
        yield bare.data, lambda _: exif_orientation(bare.exif)


def _opened_image(data: bytes) -> ImageFile.ImageFile:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_image_size(image)
    check_mode(image)
    if image.format == "TIFF":
        _check_one_page(data)
    return image


def _check_one_page(data: bytes) -> None:
    """Raise if a TIFF file has several pages; thumbnails, overviews and masks are not counted."""
    with Image.open(io.BytesIO(data), formats=["TIFF"]) as image, contextlib.suppress(Exception):
        n_pages = n_images_of_imagej(image, len(data))
        for number in range(1, _MAX_PAGES if n_pages == 1 else 1):
            image.seek(number)  # raises EOFError after the last page, or any error of a damaged one
            n_pages += is_counted_page(image)
    if n_pages > 1:
        raise UnreadableImageError(
            f"has {n_pages} pages, which are several images: pass a Page of featx.readers for each "
            "of them, with FeatureExtractor(read=featx.readers.TiffReader())"
        )


def _why_unreadable_image(data: bytes, exc: Exception) -> str:
    if isinstance(exc, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"decompression bomb: {exc} {_RAISE_LIMIT}"
    kind = next((name for name in FORMATS if _is_accepted_format(name, data[:16])), None)
    reader = reader_for(data)
    if kind is None or reader:  # DICOM files may begin like a TIFF file
        other = f", or FeatureExtractor(read=featx.readers.{reader})" if reader else ""
        return (
            f"not an image in a known format (starts with {data[:8]!r}): expected JPEG, PNG, BMP, "
            f"GIF, WebP or TIFF{other}"
        )
    if isinstance(exc, UnidentifiedImageError):
        other = " Bands are read with FeatureExtractor(read=featx.readers.TiffReader())."
        return (
            f"damaged header: not a {kind} file that Pillow can read. Convert it, or pass its "
            f"pixels as an array.{other if kind == 'TIFF' else ''}"
        )
    return f"damaged {kind}: {str(exc) or type(exc).__name__}"


def _is_accepted_format(name: str, start: bytes) -> bool:
    accepts = Image.OPEN[name][1]
    return accepts is not None and accepts(start) is True


def _check_image_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    for width, height in (image.size, tile_size(image)):
        if limit is not None and width * height > limit:
            # Pillow itself only warns up to twice its limit, and does not check tiles.
            raise UnreadableImageError(
                f"decompression bomb: {width}x{height} pixels exceed {limit}. {_RAISE_LIMIT}"
            )


def _image_of_caller(image: Image.Image) -> Image.Image:
    """Load an image that the caller made or opened."""
    if getattr(image, "format", None) == "EPS" and getattr(image, "tile", None):
        raise UnreadableImageError(
            "is an EPS file, for which Pillow starts Ghostscript: call image.load() yourself, if "
            "you trust it"
        )
    tiles = list(getattr(image, "tile", None) or ())
    try:
        return _loaded_upright(image, _orientation_of_caller)
    except UnreadableImageError:
        raise
    except Exception as exc:
        if tiles:
            image.tile = tiles  # type: ignore[attr-defined]  # or it would pass as loaded
        data = _first_frame(image)
        if data:
            return _read_image(data, _loaded_image_file)
        raise UnreadableImageError(
            f"cannot be loaded ({str(exc) or type(exc).__name__}). If its file was closed, call "
            "image.load() before that"
        ) from exc


def _first_frame(image: Image.Image) -> bytes:
    """Return the bytes of an image's file, if it is open and at its first frame, else none."""
    try:
        if image.tell() or not isinstance(image, ImageFile.ImageFile):
            return b""
    except Exception:
        return b""
    return file_bytes(image)


def _orientation_of_caller(image: Image.Image) -> int:
    """Return the orientation of an image whose metadata the caller may have changed."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return orientation_of(image.info)


def _loaded_image_file(image: ImageFile.ImageFile, orientation: _Orientation) -> Image.Image:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        make_strict(image)
    return _loaded_upright(image, orientation)


def _loaded_upright(image: Image.Image, orientation: _Orientation) -> Image.Image:
    """Return an image in mode L, RGB or RGBA, upright; it may be the image itself."""
    _check_image_size(image)
    check_mode(image)
    stored = StoredChannels(image)
    image.load()
    own = in_own_channels(image, stored)
    check_wide_colors(image, stored)
    turn = _TURNS.get(orientation(image) or 1)
    return own if turn is None else own.transpose(turn)


def conform_pixels(
    pixels: np.ndarray, shape: tuple[int, ...], resize: str = "stretch"
) -> np.ndarray:
    """Give pixels, (h, w) or (h, w, c), the size and channels, (h, w, c), that a backbone takes.

    `resize` is one of ``RESIZES`` (``resize.py``). An array that has the size and the channels is
    returned without a copy. Values are from 0 to 255; uint16 is scaled
    from 0..65535: see ``pixels.py``.

    Raises
    ------
    UnreadableImageError
        The range of the values is not known, or the channels cannot be converted.
    """
    height, width, n_channels = shape
    image = _with_channels(_as_pixels(pixels), n_channels)
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8 and n_channels in (1, 3):
        picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if n_channels == 1 else image))
        return resized(picture, (height, width), resize).reshape(shape)
    layers = (Image.fromarray(np.ascontiguousarray(layer)) for layer in np.moveaxis(image, -1, 0))
    # The filter overshoots at edges; integers are clipped already.
    of_size = [resized(layer, (height, width), resize) for layer in layers]
    return np.clip(np.stack(of_size, axis=-1), 0, 255)


def _as_pixels(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise UnreadableImageError(f"has shape {pixels.shape}: expected (h, w) or (h, w, c)")
    image = as_levels(pixels)
    return image[..., np.newaxis] if image.ndim == 2 else image


def _with_channels(image: np.ndarray, n_channels: int) -> np.ndarray:
    given = image.shape[-1]
    if given == n_channels:
        return image
    if given == 4 and n_channels in (1, 3):
        return _with_channels(_pixels_on_white(image), n_channels)
    if given == 1 and n_channels == 3:
        return np.repeat(image, n_channels, axis=-1)
    if given == 3 and n_channels == 1:
        # ITU-R 601 luma, the weights of Pillow's mode "L".
        luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        gray = luma if image.dtype == np.float32 else np.rint(luma).astype(np.uint8)
        return gray[..., np.newaxis]
    raise UnreadableImageError(
        f"has {given} channel{'s' * (given > 1)}, but the backbone takes {n_channels}: pass "
        f"{'RGBA images, or ' if n_channels == 4 else ''}arrays of shape (h, w, {n_channels})"
    )


def _pixels_on_white(image: np.ndarray) -> np.ndarray:
    opacity = image[..., 3:].astype(np.float32) / 255
    mixed = image[..., :3] * opacity + 255 * (1 - opacity)
    return mixed if image.dtype == np.float32 else np.rint(mixed).astype(np.uint8)
