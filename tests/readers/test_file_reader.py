"""FileReader: what all readers that come with featx have in common."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from featx.exceptions import MissingExtraError, ParameterError, UnreadableImageError
from featx.inputs.reader import Reader
from featx.readers import ArrayReader, DicomReader, NiftiReader, Region, TiffReader
from featx.readers.file_reader import check_n_pixels, checked_levels, scaled_to_levels


@pytest.mark.parametrize(
    ("reader", "extra"), [(DicomReader, "medical"), (NiftiReader, "medical"), (TiffReader, "tiff")]
)
def test_reader_without_package_names_extra(reader, extra, monkeypatch):
    monkeypatch.setattr("featx.readers.file_reader.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'featx\[{extra}\]'"):
        reader()


def test_reader_packages_are_known_names():
    for kind in (DicomReader, NiftiReader, TiffReader):
        assert all(importlib.util.find_spec(name) for name in kind.packages)


@pytest.mark.parametrize("scale", [3, (1,), ("a", "b"), (1, 2, 3), (5, 5), (9, 5)])
def test_reader_scale_of_other_form_raises(scale):
    with pytest.raises(ParameterError, match="expected"):
        TiffReader(scale=scale)


def test_reader_other_part_raises():
    with pytest.raises(TypeError, match="ArrayReader reads a Page, not a Region"):
        ArrayReader()("a.npy", Region("a.npy", 0, 0, 1, 1))


def test_reader_lists_are_equal_to_tuples():
    assert DicomReader(window=[40, 400]) == DicomReader(window=(40, 400))


def test_identity_of_parameters_and_versions():
    ours = Reader(DicomReader(window=(40, 400))).identity
    assert ours == Reader(DicomReader(window=[40, 400])).identity
    assert ours["packages"].keys() == {"pydicom"}
    assert ours["reader"] != Reader(DicomReader()).identity["reader"]


def test_identity_of_own_subclass_is_its_code():
    class Inverted(ArrayReader):
        def _read(self, file, part):
            return 255 - super()._read(file, part)

    assert Reader(Inverted()).shipped is None
    assert Reader(Inverted()).identity["reader"] != Reader(ArrayReader()).identity["reader"]


def test_check_n_pixels_names_the_limit(monkeypatch):
    check_n_pixels(10, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(UnreadableImageError, match="decompression bomb: 10x10 pixels exceed 99"):
        check_n_pixels(10, 10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    check_n_pixels(10**6, 10**6)


def test_scaled_to_levels_not_finite_raises():
    with pytest.raises(UnreadableImageError, match="NaN or infinite"):
        scaled_to_levels(np.array([1, np.nan]), 0, 1)


def test_checked_levels_without_scale_names_it():
    assert checked_levels(np.array([True, False]), None, "R").tolist() == [255, 0]
    message = r"has int16 values from -5 to 900: .* R\(scale=\(-5, 900\)\)"
    with pytest.raises(UnreadableImageError, match=message):
        checked_levels(np.array([-5, 900], np.int16), None, "R")
