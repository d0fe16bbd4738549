"""DicomReader: DICOM files as images with levels from 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from featx.exceptions import ParameterError, UnreadableImageError
from featx.readers.file_reader import (
    FileReader,
    check_n_pixels,
    is_pair_of_numbers,
    scaled_to_levels,
)
from featx.readers.parts import Page

if TYPE_CHECKING:
    from pydicom import Dataset

_FAR = 100  # widths of a window, beyond which values are black or white in each VOI function


@dataclass(frozen=True)
class DicomReader(FileReader):
    """Read DICOM files as images; a :class:`Page` is a frame. Needs ``featx[medical]``.

    Stored values become units of the modality, such as Hounsfield units, by the modality LUT or the
    rescale slope. A window makes levels of them: `window`, or the VOI LUT or the first window of
    the file. Without any, 8 bits are levels, and other values extend from the lowest to the highest
    of the frame, padding left out. MONOCHROME1 is inverted; palettes and YBR become RGB.

    Parameters
    ----------
    window : (float, float), default=None
        Center and width of the window, in units of the modality, for all files: ``(40, 400)`` for
        soft tissue in CT. None is that of each file.

    Raises
    ------
    MissingExtraError
        pydicom is not installed.

    See Also
    --------
    NiftiReader : Reader of NIfTI files.

    Notes
    -----
    Windows are those of DICOM PS3.3, C.11.2.1, as pydicom applies them. Frames of enhanced
    multi-frame files have windows and slopes of their own.

    Examples
    --------
    >>> from featx.readers import DicomReader
    >>> from pydicom.data import get_testdata_file
    >>> with open(get_testdata_file("MR_small.dcm"), "rb") as file:
    ...     image = DicomReader()(file.read())
    >>> image.shape, image.dtype
    ((64, 64), dtype('uint8'))
    """

    window: tuple[float, float] | None = None

    packages = ("pydicom",)
    extra = "medical"
    parts = (Page,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and not (
            is_pair_of_numbers(self.window) and self.window[1] >= 1
        ):
            expected = "expected (center, width), where the width is 1 or more, or None"
            raise ParameterError.of("window", self.window, expected)

    def _read(self, file: str | BinaryIO, part: Page | None) -> np.ndarray:
        import pydicom
        from pydicom.pixels import apply_color_lut, pixel_array

        scan = pydicom.dcmread(file)
        if "Rows" not in scan:
            raise UnreadableImageError("is a DICOM file without an image")
        n_frames = int(scan.get("NumberOfFrames") or 1)
        if n_frames > 1 and part is None:
            raise UnreadableImageError(
                f"has {n_frames} frames: pass Page(path, index) for each of them"
            )
        index = part.index if part else 0
        if index >= n_frames:
            raise UnreadableImageError(f"has {n_frames} frames: there is no frame {index}")
        check_n_pixels(scan.Rows, scan.Columns)
        stored = pixel_array(scan, index=index)
        if scan.PhotometricInterpretation == "PALETTE COLOR":
            colors = apply_color_lut(stored, scan)
            return scaled_to_levels(colors, 0, np.iinfo(colors.dtype).max)
        if scan.SamplesPerPixel > 1:
            return scaled_to_levels(stored, 0, 2**scan.BitsStored - 1)
        _use_settings_of_frame(scan, index)
        levels = self._gray_levels(stored, scan)
        return 255 - levels if scan.PhotometricInterpretation == "MONOCHROME1" else levels

    def _gray_levels(self, stored: np.ndarray, scan: Dataset) -> np.ndarray:
        from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

        values = apply_modality_lut(stored, scan)
        if self.window is not None:
            scan.WindowCenter, scan.WindowWidth = self.window
            scan.VOILUTFunction = "LINEAR"
        elif "VOILUTSequence" in scan:
            highest = 2 ** int(scan.VOILUTSequence[0].LUTDescriptor[2]) - 1
            return scaled_to_levels(apply_voi(values, scan), 0, highest)
        if "WindowCenter" in scan and "WindowWidth" in scan:
            return scaled_to_levels(apply_windowing(values, scan), *_black_and_white(scan))
        if scan.BitsStored <= 8 and values is stored and scan.PixelRepresentation == 0:
            return scaled_to_levels(values, 0, 2**scan.BitsStored - 1)
        seen = values[stored != scan.PixelPaddingValue] if "PixelPaddingValue" in scan else values
        low, high = (seen.min(), seen.max()) if seen.size else (0, 0)
        return scaled_to_levels(values, low, max(high, low + 1))


def _black_and_white(scan: Dataset) -> list[float]:
    """Return what a window of pydicom makes of values that are far below and far above it."""
    from pydicom.pixels import apply_windowing

    center, width = (np.ravel(scan[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
    far = np.array([float(center - _FAR * width), float(center + _FAR * width)])
    low, high = apply_windowing(far, scan).tolist()
    return [low, high]


def _use_settings_of_frame(scan: Dataset, index: int) -> None:
    """Set slope and window of a frame of an enhanced file where other files have theirs."""
    shared = scan.get("SharedFunctionalGroupsSequence") or []
    each = scan.get("PerFrameFunctionalGroupsSequence") or []
    for group in (*shared[:1], *each[index : index + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for element in (group.get(name) or [[]])[0]:
                scan.add(element)
