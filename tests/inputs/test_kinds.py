"""One object per kind of sample answers whatever depends on the kind."""

import numpy as np
import pytest

from featx.exceptions import UnreadableImageError
from featx.inputs.images import DECODER
from featx.inputs.kinds import IMAGE, InputForm, kind_of
from featx.inputs.resize import RESIZES

VALUES = [(5,), (20, 2)]


NAMES = {
    (8, 8, 3): "image",
    (None, None, 1): "image",
    (3, 8, 8): "image",
    (5,): "vector",
    (20, 2): "signal",
    (): "signal",
    (2, 8, 8, 3): "signal",
}


@pytest.mark.parametrize(("shape", "name"), NAMES.items())
def test_kind_of_shape_has_its_name(shape, name):
    assert kind_of(shape).name == name


@pytest.mark.parametrize("resize", RESIZES)
def test_reader_of_images_names_decoder_and_resize(resize):
    form = InputForm((8, 8, 3), resize)
    assert form.reader == {"decoder": DECODER, "resize": RESIZES[resize]}
    assert InputForm.of_space({"input_shape": [8, 8, 3], **form.reader}) == form
    exact = form._replace(takes_any_values=True)
    assert InputForm.of_space({"input_shape": [8, 8, 3], **exact.reader}) == exact
    assert InputForm.of_space({"input_shape": [5]}).reader == {}


@pytest.mark.parametrize("shape", VALUES)
def test_values_are_read_by_nothing(shape):
    kind = kind_of(shape)
    assert (kind.reader("crop"), kind.dtype) == ({}, "float32")
    assert not (kind.is_resized)
    assert not (kind.is_augmentable)


@pytest.mark.parametrize("shape", VALUES)
def test_load_values_checks_shape_and_range(shape):
    kind = kind_of(shape)
    values = np.ones(shape, np.float64)
    np.testing.assert_array_equal(kind.load(values, InputForm(shape)), np.ones(shape, np.float32))
    with pytest.raises(UnreadableImageError, match="expected"):
        kind.load(values[:-1], InputForm(shape))
    with pytest.raises(UnreadableImageError, match="NaN or infinite"):
        kind.load(values * 1e300, InputForm(shape))


@pytest.mark.parametrize("item", [b"abc", "a.png"])
def test_content_of_values_takes_arrays_only(item):
    with pytest.raises(UnreadableImageError, match="not an array of numbers"):
        kind_of((5,)).content_of(item)


def test_peak_is_that_of_floating_point_pixels():
    image = np.full((2, 2), 40)
    assert IMAGE.peak(image.astype(float)) == 40
    assert IMAGE.peak(image) == IMAGE.peak(b"") == kind_of((2,)).peak(image * 1.0) == -np.inf
