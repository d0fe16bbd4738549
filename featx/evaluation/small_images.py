"""Small pictures of samples, for reports and for checks of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import joblib
import numpy as np
from PIL import Image

from featx._threads import run_ahead
from featx.exceptions import InputError, UnreadableImageError
from featx.inputs.images import reduced_image
from featx.inputs.kinds import IMAGE
from featx.inputs.pixels import check_scale
from featx.inputs.samples import Samples, ValueSamples


class SmallImage(NamedTuple):
    """A picture of a sample, and the size of the upright image; or why it cannot be read.

    Attributes
    ----------
    row : int
        Row of the sample.
    width, height : int
        Size of the upright image in pixels; 0 if it cannot be read.
    image : PIL.Image.Image or None
        Upright picture in RGB that fits into the square that was asked for; None if the sample
        cannot be read.
    fault : str
        Reason why the sample cannot be read; empty if it can.
    """

    row: int
    width: int
    height: int
    image: Image.Image | None
    fault: str


def small_images(samples: Samples, rows: Any = None, *, size: int = 256) -> Iterator[SmallImage]:
    """Yield small pictures of images, in order; threads read and decode a few ahead.

    Images are read as for a backbone: upright, on white where they are transparent, in 8 bits (see
    ``featx/inputs/images.py``). One that cannot be read has a fault, and does not stop the others.
    A large JPEG is decoded at a half, a quarter or an eighth of its size, as far as the picture
    stays at least twice as large as needed before it is resized.

    Parameters
    ----------
    samples : Samples
        Images, as :func:`featx.inputs.recognize.as_samples` returns them.
    rows : array-like of int, default=None
        Rows of the wanted images, in the wanted order; None is all.
    size : int, default=256
        Side of the square into which pictures fit, in pixels. No image is enlarged.

    Yields
    ------
    SmallImage
        The picture of each row, or its fault.

    Raises
    ------
    InputError
        The samples are vectors, or look like one image in color; or floating-point pixels seem to
        be scaled to 0..1, which is known of lazy sequences after all images were read.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.inputs.recognize import as_samples
    >>> photos = as_samples([np.zeros((60, 90, 3), np.uint8), "missing.jpg"])
    >>> for small in small_images(photos, size=30):
    ...     print(small.width, small.height, small.image and small.image.size, small.fault)
    90 60 (30, 20)
    0 0 None no such file
    """
    if isinstance(samples, ValueSamples):
        raise InputError(
            f"X holds arrays of shape {samples.array_shape}, which are not images: expected paths, "
            "encoded images, PIL images, or arrays (h, w) or (h, w, c)"
        )
    samples = samples.for_inputs((size, size, 3))
    samples.float_range()
    wanted = range(len(samples)) if rows is None else np.asarray(rows, np.int64).tolist()

    peaks: list[float] = []

    def read(row: int) -> SmallImage:
        try:
            content = samples.content(row)
            peaks.append(IMAGE.peak(content))
            return SmallImage(row, *reduced_image(content, size), "")
        except UnreadableImageError as exc:
            return SmallImage(row, 0, 0, None, str(exc))

    found = run_ahead(read, wanted, n_threads=joblib.cpu_count())
    return found if rows is not None else _with_scale_checked(found, peaks)


def _with_scale_checked(found: Iterator[SmallImage], peaks: list[float]) -> Iterator[SmallImage]:
    """Yield all images, and check the range of those that were not known before, in the end."""
    yield from found
    check_scale(max(peaks, default=0.0))
