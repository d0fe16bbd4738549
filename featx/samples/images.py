"""Encoded images and arrays to pixels: ``(h, w, 3)`` uint8, as a person would see them.

EXIF orientation is obeyed, transparency lies on white, 16 bits become 8, and palettes, gray, CMYK
and other colour spaces become RGB. Whatever the bytes are, the outcome is an array or an
:class:`UnreadableImageError` whose message is the reason. Decoder and resizing decide the numbers
of an embedding, so their names are part of its space.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from featx.exceptions import UnreadableImageError

# To be changed whenever the same bytes or pixels give other numbers than before.
DECODER = "pillow-2"
RESIZE = "lanczos-stretch-1"
# As in Pillow's own thumbnails: what remains to be reduced by the filter, for its quality to show.
_REDUCING_GAP = 2

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(data: bytes) -> np.ndarray:
    """Decode an image.

    Parameters
    ----------
    data : bytes
        JPEG, PNG, BMP, GIF (its first frame), WebP or TIFF.

    Returns
    -------
    ndarray of shape (h, w, 3), uint8

    Raises
    ------
    UnreadableImageError
        It is damaged, no image, too large to be true, or of floating-point pixels.

    Examples
    --------
    >>> buffer = io.BytesIO()
    >>> Image.new("L", (4, 3), 7).save(buffer, "PNG")
    >>> decode(buffer.getvalue())[0, 0].tolist()
    [7, 7, 7]
    """
    with _opened(data) as image:
        return from_pil(image)


def decode_to(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Decode an image and give it the size and channels that a backbone takes.

    A JPEG of more than twice that size is decoded at a half, a quarter or an eighth of its own,
    which its format allows and which saves most of the time that a photograph of twelve megapixels
    takes. Nothing that lies between the file and the result is copied: each copy into fresh memory
    takes a tenth of the time that decoding does.

    Parameters
    ----------
    data : bytes
        As for :func:`decode`.
    shape : tuple of int
        Height, width, channels.

    Returns
    -------
    ndarray of that shape, uint8
        As :func:`conform` makes it of the decoded image.

    Raises
    ------
    UnreadableImageError
        As for :func:`decode` and :func:`conform`.

    Examples
    --------
    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (400, 300), "white").save(buffer, "JPEG")
    >>> decode_to(buffer.getvalue(), (224, 224, 3)).shape
    (224, 224, 3)
    """
    with _opened(data) as image:
        side = _REDUCING_GAP * max(shape[:2])  # the image may lie on its side
        image.draft(None, (side, side))
        whole = _loaded(image)
        return _resized(whole, shape) if shape[2] == 3 else conform(np.asarray(whole), shape)


def check_header(data: bytes) -> None:
    """Check what can be checked of an image without decoding its pixels.

    Raises
    ------
    UnreadableImageError
        As :func:`decode` would.
    """
    _opened(data).close()


def from_pil(image: Image.Image) -> np.ndarray:
    """Turn an open PIL image into pixels; the image itself is not changed.

    Parameters
    ----------
    image : PIL.Image.Image
        Its file may not have been read yet.

    Returns
    -------
    ndarray of shape (h, w, 3), uint8

    Raises
    ------
    UnreadableImageError
        As for :func:`decode`.
    """
    return np.asarray(_loaded(image))


def _loaded(image: Image.Image) -> Image.Image:
    """Return an image in RGB, upright, that may be the image itself."""
    _check_size(image)
    try:
        image.load()
        return _rgb(image)
    except UnreadableImageError:
        raise
    except _DECODER_ERRORS as exc:
        raise UnreadableImageError(f"damaged {image.format or 'image'}: {exc}") from exc


def _rgb(image: Image.Image) -> Image.Image:
    is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    upright = image if is_upright else ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT_MODES:
        levels = np.asarray(upright).astype(np.float64)
        gray = np.clip(np.rint(levels / 257), 0, 255).astype(np.uint8)
        return Image.fromarray(gray).convert("RGB")
    _check_mode(upright)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def conform(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Give pixels the size and channels that a backbone takes.

    Images are stretched to the size with Pillow's Lanczos filter, which is antialiased; nothing is
    done, and nothing copied, where nothing has to change.

    Parameters
    ----------
    pixels : ndarray of shape (h, w) or (h, w, c), values from 0 to 255
        Any integer or floating-point dtype.
    shape : tuple of int
        Height, width, channels.

    Returns
    -------
    ndarray of that shape, uint8 or float32

    Raises
    ------
    UnreadableImageError
        Integers beyond 0..255, or channels that cannot be turned into those asked for.

    Examples
    --------
    >>> conform(np.zeros((8, 8), np.uint8), (4, 4, 3)).shape
    (4, 4, 3)
    """
    height, width, n_channels = shape
    image = _with_channels(_as_pixels(pixels), n_channels)
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8 and n_channels in (1, 3):
        whole = Image.fromarray(np.ascontiguousarray(image[..., 0] if n_channels == 1 else image))
        return _resized(whole, shape).reshape(shape)
    layers = (Image.fromarray(np.ascontiguousarray(layer)) for layer in np.moveaxis(image, -1, 0))
    # The filter overshoots at edges; Pillow clips integers itself.
    return np.clip(np.stack([_resized(layer, shape) for layer in layers], axis=-1), 0, 255)


def _resized(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape[:2]
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def check_range(pixels: np.ndarray) -> None:
    """Check that values are pixels from 0 to 255; what rounds to these will do.

    Raises
    ------
    UnreadableImageError
        They are NaN, infinite or outside.
    """
    if not pixels.size:
        raise UnreadableImageError(f"has shape {pixels.shape}: expected (h, w) or (h, w, c)")
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableImageError("has NaN or infinite pixels")
    if low < -0.5 or high > 255.5:
        raise UnreadableImageError(f"has values from {low:.6g} to {high:.6g}: expected 0 to 255")


def _as_pixels(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise UnreadableImageError(f"has shape {pixels.shape}: expected (h, w) or (h, w, c)")
    if pixels.dtype == np.uint8:
        image = pixels
    elif pixels.dtype == bool:
        image = pixels.astype(np.uint8) * 255
    elif pixels.dtype.kind == "f":
        check_range(pixels)
        image = pixels.astype(np.float32, copy=False)
    elif pixels.dtype.kind in "iu":
        check_range(pixels)
        image = pixels.astype(np.uint8)
    else:
        raise UnreadableImageError(f"has dtype {pixels.dtype}: expected numbers from 0 to 255")
    return image[..., np.newaxis] if image.ndim == 2 else image


def _with_channels(image: np.ndarray, n_channels: int) -> np.ndarray:
    given = image.shape[-1]
    if given == n_channels:
        return image
    if given == 4 and n_channels in (1, 3):
        return _with_channels(_on_white(image), n_channels)
    if given == 1:
        return np.repeat(image, n_channels, axis=-1)
    if given == 3 and n_channels == 1:
        # ITU-R 601 luma, the weights of Pillow's mode "L".
        luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        gray = luma if image.dtype == np.float32 else np.rint(luma).astype(np.uint8)
        return gray[..., np.newaxis]
    raise UnreadableImageError(f"has {given} channels, but the backbone takes {n_channels}")


def _on_white(image: np.ndarray) -> np.ndarray:
    opacity = image[..., 3:].astype(np.float32) / 255
    mixed = image[..., :3] * opacity + 255 * (1 - opacity)
    return mixed if image.dtype == np.float32 else np.rint(mixed).astype(np.uint8)


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as exc:
        raise UnreadableImageError(
            f"not an image in a known format (starts with {data[:8]!r})"
        ) from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise UnreadableImageError(f"decompression bomb: {exc}") from exc
    except _DECODER_ERRORS as exc:
        raise UnreadableImageError(f"damaged header: {exc}") from exc
    _check_size(image)
    _check_mode(image)
    return image


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        # Pillow itself only warns up to twice its limit.
        raise UnreadableImageError(
            f"decompression bomb: {image.width}x{image.height} pixels exceed {limit}"
        )


def _check_mode(image: Image.Image) -> None:
    if image.mode == "F":
        raise UnreadableImageError(
            "has floating-point pixels, whose scale is not known: pass it as an array with values "
            "from 0 to 255"
        )
