"""DicomReader on files that pydicom ships, compared with pydicom's own arrays."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_windowing

from featx import FeatureExtractor
from featx.exceptions import ParameterError, UnreadableImageError
from featx.readers import DicomReader, Page


def shipped(name):
    return get_testdata_file(name, download=False)


def content_of(name):
    with open(shipped(name), "rb") as file:
        return file.read()


def changed(name, **elements):
    """Return the content of a shipped file with other elements."""
    scan = pydicom.dcmread(shipped(name))
    for keyword, value in elements.items():
        setattr(scan, keyword, value)
    file = io.BytesIO()
    scan.save_as(file)
    return file.getvalue()


def in_units(name):
    scan = pydicom.dcmread(shipped(name))
    return apply_modality_lut(scan.pixel_array, scan)


def clipped(values, low, high):
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"])
def test_read_window_of_file(name):
    scan = pydicom.dcmread(shipped(name))
    center, width = float(scan.WindowCenter), float(scan.WindowWidth)
    low = center - 0.5 - (width - 1) / 2  # DICOM PS3.3, C.11.2.1.2
    expected = clipped(in_units(name), low, low + width - 1)
    np.testing.assert_array_equal(DicomReader()(content_of(name)), expected)


def test_read_window_of_caller_in_hounsfield_units():
    values = DicomReader(window=(40, 401))(content_of("CT_small.dcm"))
    expected = clipped(in_units("CT_small.dcm"), 39.5 - 200, 39.5 + 200)
    np.testing.assert_array_equal(values, expected)


def test_read_without_window_is_stretched_without_padding():
    stored = pydicom.dcmread(shipped("CT_small.dcm"))
    seen = stored.pixel_array[stored.pixel_array != stored.PixelPaddingValue]
    expected = clipped(stored.pixel_array.astype(float), seen.min(), seen.max())
    np.testing.assert_array_equal(DicomReader()(content_of("CT_small.dcm")), expected)


def test_read_sigmoid_window_equals_pydicom():
    content = changed("MR_small.dcm", VOILUTFunction="SIGMOID")
    scan = pydicom.dcmread(io.BytesIO(content))
    levels = apply_windowing(scan.pixel_array, scan)
    expected = clipped(levels, -(2**15), 2**15 - 1)
    np.testing.assert_allclose(DicomReader()(content), expected, atol=1)


def test_read_voi_lut_is_applied():
    scan = pydicom.dcmread(shipped("MR_small.dcm"))
    table = pydicom.Dataset()
    highest = int(scan.pixel_array.max())
    entries = (np.arange(highest + 1)[::-1] * 4095 // highest).astype("<u2")
    table.LUTDescriptor = [highest + 1, 0, 12]
    table.LUTData = entries.tobytes()
    content = changed("MR_small.dcm", VOILUTSequence=[table])
    expected = clipped(entries[scan.pixel_array], 0, 4095)
    np.testing.assert_array_equal(DicomReader()(content), expected)


def test_read_monochrome1_is_inverted():
    content = changed("MR_small.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(
        DicomReader()(content), 255 - DicomReader()(content_of("MR_small.dcm"))
    )


def test_read_eight_bits_as_they_are():
    scan = pydicom.dcmread(shipped("image_dfl.dcm"))
    np.testing.assert_array_equal(DicomReader()(content_of("image_dfl.dcm")), scan.pixel_array)


@pytest.mark.parametrize("name", ["SC_rgb_rle.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm"])
def test_read_colors_become_rgb(name):
    expected = pydicom.pixels.pixel_array(shipped(name))
    np.testing.assert_array_equal(DicomReader()(content_of(name)), expected)


def test_read_palette_becomes_rgb():
    scan = pydicom.dcmread(shipped("examples_palette.dcm"))
    colors = apply_color_lut(scan.pixel_array, scan)
    expected = np.rint(colors / np.iinfo(colors.dtype).max * 255)
    np.testing.assert_array_equal(DicomReader()(content_of("examples_palette.dcm")), expected)


def test_read_frame_by_index():
    path = shipped("SC_rgb_rle_2frame.dcm")
    frames = pydicom.dcmread(path).pixel_array
    for index in range(2):
        np.testing.assert_array_equal(DicomReader()(path, Page(path, index)), frames[index])
    with pytest.raises(UnreadableImageError, match=r"has 2 frames: pass Page\(path, index\)"):
        DicomReader()(path)


def test_read_frame_of_enhanced_file_has_own_window():
    def group(slope, center):
        values, window = pydicom.Dataset(), pydicom.Dataset()
        values.RescaleSlope, values.RescaleIntercept = slope, 0
        window.WindowCenter, window.WindowWidth = center, 101
        found = pydicom.Dataset()
        found.PixelValueTransformationSequence = [values]
        found.FrameVOILUTSequence = [window]
        return found

    scan = pydicom.dcmread(shipped("MR_small.dcm"))
    del scan.WindowCenter, scan.WindowWidth
    frame = scan.pixel_array
    scan.NumberOfFrames, scan.PixelData = 2, scan.PixelData * 2
    scan.PerFrameFunctionalGroupsSequence = [group(1, 500), group(2, 900)]
    file = io.BytesIO()
    scan.save_as(file)
    for index, (slope, center) in enumerate([(1, 500), (2, 900)]):
        expected = clipped(frame * float(slope), center - 50.5, center + 49.5)
        np.testing.assert_array_equal(
            DicomReader()(file.getvalue(), Page("scan.dcm", index)), expected
        )


def test_window_without_width_raises():
    with pytest.raises(ParameterError, match="where the width is 1 or more"):
        DicomReader(window=(40, 0))


def test_transform_frames_are_samples_of_their_own(tmp_path):
    path = shipped("SC_rgb_rle_2frame.dcm")
    extractor = FeatureExtractor("tiny", read=DicomReader(), cache=tmp_path)
    frames = [Page(path, 0), Page(path, 1)]
    embeddings = extractor.fit_transform(frames)
    assert extractor.report_.n_forward == 2
    pixels = pydicom.dcmread(path).pixel_array
    expected = FeatureExtractor("tiny", cache=None).fit_transform(pixels)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-6)


def test_read_file_without_image_says_so():
    with pytest.raises(UnreadableImageError, match="is a DICOM file without an image"):
        DicomReader()(content_of("rtplan.dcm"))


def test_read_frame_that_is_not_there_raises():
    path = shipped("SC_rgb_rle_2frame.dcm")
    with pytest.raises(UnreadableImageError, match="has 2 frames: there is no frame 2"):
        DicomReader()(path, Page(path, 2))
