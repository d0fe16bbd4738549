"""NiftiReader: NIfTI files as volumes or as slices."""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from featx.digests.space import MAX_SIZE
from featx.exceptions import ParameterError, UnreadableImageError
from featx.readers.file_reader import FileReader, checked_levels, scaled_to_levels
from featx.readers.parts import Page

_GZIP = b"\x1f\x8b"
_NIFTI2_BYTES = 540  # of the header


@dataclass(frozen=True)
class NiftiReader(FileReader):
    """Read NIfTI files as volumes; a :class:`Page` is a slice. Needs ``featx[medical]``.

    Volumes are turned to the closest canonical orientation, whose axes run from left to right,
    from posterior to anterior and from inferior to superior. A whole file is its volume, of shape
    (x, y, z), or (x, y, z, t) with times; a 3-D backbone takes exactly that shape.

    A slice is an upright image: its upper rows are superior, or anterior if `axis` is 2. The left
    of the patient is on the left (the neurological convention).

    Parameters
    ----------
    axis : {0, 1, 2}, default=2
        Axis along which slices are counted: sagittal (0), coronal (1) or axial (2).
    scale : (float, float), default=None
        Values that become 0 and 255, the same for all files.
    percentiles : (float, float), default=None
        Percentiles of all values of a volume that become 0 and 255, such as ``(1, 99)``. The whole
        volume is read for each slice. With neither, volumes keep their values, and slices have to
        be of 8 bits.

    Raises
    ------
    MissingExtraError
        nibabel is not installed.

    See Also
    --------
    DicomReader : Reader of DICOM files.

    Examples
    --------
    >>> import nibabel, numpy as np
    >>> from featx.readers import NiftiReader
    >>> volume = nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), np.eye(4))
    >>> NiftiReader()(volume.to_bytes()).shape
    (4, 5, 6)
    """

    axis: int = 2
    scale: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None

    packages = ("nibabel",)
    extra = "medical"
    parts = (Page,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis not in (0, 1, 2):
            raise ParameterError.of("axis", self.axis, "expected 0, 1 or 2")
        self._check_low_and_high("scale")
        self._check_low_and_high("percentiles")
        if self.scale is not None and self.percentiles is not None:
            expected = "expected None beside scale, which decides black and white, too"
            raise ParameterError.of("percentiles", self.percentiles, expected)

    def _read(self, file: str | BinaryIO, part: Page | None) -> np.ndarray:
        image = _opened_nifti(file)
        scale = self.scale
        if self.percentiles is not None:
            low, high = np.percentile(_voxels(image), self.percentiles).tolist()
            scale = low, max(high, np.nextafter(low, np.inf))
        if part is not None:
            return checked_levels(self._slice(image, part.index), scale, type(self).__name__)
        volume = _in_canonical_axes(_voxels(image), image)
        return volume if scale is None else scaled_to_levels(volume, *scale)

    def _slice(self, image: Any, index: int) -> np.ndarray:
        """Return one slice, and read no other if the file is not compressed."""
        from nibabel.orientations import io_orientation

        if len(image.shape) != 3:
            raise UnreadableImageError(
                f"has shape {image.shape}: slices are counted in volumes of 3 axes"
            )
        axes, directions = io_orientation(image.affine).T
        own_axis = axes.tolist().index(self.axis)
        n_slices = image.shape[own_axis]
        if index >= n_slices:
            raise UnreadableImageError(
                f"has {n_slices} slices along axis {self.axis}: there is no {index}"
            )
        own_index = index if directions[own_axis] > 0 else n_slices - 1 - index
        selected = [slice(None)] * 3
        selected[own_axis] = slice(own_index, own_index + 1)
        thin = _in_canonical_axes(np.asarray(image.dataobj[tuple(selected)]), image)
        return np.rot90(np.take(thin, 0, axis=self.axis))


def _opened_nifti(file: str | BinaryIO) -> Any:
    """Open an image by its path, or by its content, which may be compressed."""
    import nibabel

    if isinstance(file, str):
        return nibabel.load(file)
    is_compressed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    stream: Any = gzip.GzipFile(fileobj=file) if is_compressed else file
    n_bytes = stream.read(4)
    stream.seek(0)
    is_second = _NIFTI2_BYTES in (int.from_bytes(n_bytes, "little"), int.from_bytes(n_bytes, "big"))
    kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
    return kind.from_stream(stream)


def _voxels(image: Any) -> np.ndarray:
    """Return all values of an image, unless they are more than featx takes as one sample."""
    if math.prod(image.shape) > MAX_SIZE:
        raise UnreadableImageError(
            f"has shape {image.shape}, more than {MAX_SIZE} values: pass Page(path, index) for its "
            "slices, with scale=(low, high)"
        )
    return np.asarray(image.dataobj)


def _in_canonical_axes(values: np.ndarray, image: Any) -> np.ndarray:
    """Return the values of an image, or of a part of it, with their axes in canonical order."""
    from nibabel.orientations import apply_orientation, io_orientation

    return apply_orientation(values, io_orientation(image.affine))
