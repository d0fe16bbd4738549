"""Reader: what a function may return, and how it becomes an input or a picture."""

import functools

import numpy as np
import pytest
from PIL import Image

from featx.exceptions import UnreadableImageError
from featx.inputs.kinds import InputForm
from featx.inputs.reader import UNKNOWN_READER, Reader
from featx.readers import DicomReader

IMAGE_FORM = InputForm((8, 8, 3))
EXACT = InputForm((8, 8, 3), takes_any_values=True)
VALUES = np.random.default_rng(0).normal(size=(8, 8, 3)) * 1000


def returning(made):
    return Reader(lambda content: made)(b"")


@pytest.mark.parametrize("made", [None, "text", np.array(["a"]), np.array([{}]), 1j * VALUES])
def test_call_result_without_numbers_raises(made):
    with pytest.raises(UnreadableImageError, match="expected an array of numbers"):
        returning(made)


def test_call_masked_array_raises():
    with pytest.raises(UnreadableImageError, match="has masked values"):
        returning(np.ma.masked_less(VALUES, 0))


def test_call_picture_of_pillow_is_its_pixels():
    pixels = VALUES.astype(np.uint8)
    np.testing.assert_array_equal(returning(Image.fromarray(pixels)), pixels)


def test_call_error_becomes_reason():
    with pytest.raises(UnreadableImageError, match=r"^ZeroDivisionError: division by zero$"):
        Reader(lambda content: 1 / 0)(b"")


@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.uint8])
def test_input_of_exact_shape_keeps_values(dtype):
    values = np.abs(VALUES).astype(dtype)
    inputs = Reader(None).input_of(values, EXACT)
    np.testing.assert_array_equal(inputs, values.astype(np.float32))
    assert inputs.dtype == (np.uint8 if dtype == np.uint8 else np.float32)


@pytest.mark.parametrize(
    ("values", "form", "reason"),
    [
        (VALUES, IMAGE_FORM, "expected 0 to 255"),
        (VALUES[:4], EXACT, "expected 0 to 255"),
        (VALUES * np.inf, EXACT, "NaN or infinite"),
        (np.abs(VALUES / 9999), IMAGE_FORM, "floating-point pixels that never exceed"),
        (VALUES[:4], InputForm((8, 3)), r"has shape \(4, 8, 3\): expected \(8, 3\)"),
    ],
)
def test_input_of_other_values_raises(values, form, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        Reader(None).input_of(values, form)


def test_input_of_volume_needs_no_channel_axis():
    form = InputForm((4, 8, 3, 1))
    np.testing.assert_allclose(
        Reader(None).input_of(VALUES[:4], form), VALUES[:4, ..., np.newaxis], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("values", "shape"),
    [(VALUES, (8, 8, 3)), (np.zeros((8, 8, 13), np.uint16), (8, 8)), (VALUES / 1e9, (8, 8, 3))],
)
def test_picture_of_any_values_can_be_shown(values, shape):
    picture = Reader(None).picture_of(values)
    assert picture.shape == shape
    assert picture.min() >= 0
    assert picture.max() <= 255


@pytest.mark.parametrize("values", [np.uint8(VALUES), VALUES % 255, VALUES[0, 0]])
def test_picture_of_pixels_is_unchanged(values):
    np.testing.assert_array_equal(Reader(None).picture_of(values), values)


def test_takes_parts_needs_second_argument():
    assert Reader(lambda content, part: 0).takes_parts
    assert Reader(iter).takes_parts  # its signature is not known
    assert not Reader(lambda content: 0).takes_parts


def test_label_has_no_address_in_memory():
    class Unnamed:
        def __call__(self, content):
            return content

    functions = (len, Unnamed(), functools.partial(len), DicomReader())
    assert [Reader(function).label for function in functions] == [
        *("len", "Unnamed", "functools.partial(<built-in function len>)"),
        "DicomReader(window=None)",
    ]


def test_unknown_reader_reads_nothing():
    with pytest.raises(UnreadableImageError, match="read by a function that is not known here"):
        UNKNOWN_READER(b"")


def test_input_of_too_many_channels_names_ways():
    reader = Reader(lambda content: np.zeros((8, 8, 25), np.uint8))
    with pytest.raises(UnreadableImageError, match=r"has shape \(8, 8, 25\) .*pass Page.*=25"):
        reader.input_of(reader(b""), InputForm((8, 8, 3)))
