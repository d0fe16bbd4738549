"""Samples in one array: keys, inputs, and what is refused."""

import h5py
import numpy as np
import pytest
from input_samples import FORM, SHAPE, keys, loaded

from featx.exceptions import BadSampleError, InputError
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import InputForm
from featx.inputs.recognize import as_samples
from featx.inputs.samples import ArraySamples, ValueSamples


def test_array_samples_hdf5_is_read_in_blocks(images, tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", data=images)
        sizes = []

        class Watched:
            shape, dtype, ndim = dataset.shape, dataset.dtype, dataset.ndim

            def __getitem__(self, rows):
                block = dataset[rows]
                sizes.append(len(block))
                return block

        samples = ArraySamples(Watched(), block_bytes=2 * images[0].nbytes)
        np.testing.assert_array_equal(samples.keys(FileIndex(None))[0], keys(images))
        _, inputs, _ = samples.batch(np.array([1, 4]), FORM)
        np.testing.assert_array_equal(inputs, images[[1, 4]])
        assert max(sizes) == 2
        assert isinstance(as_samples(dataset), ArraySamples)


def test_array_samples_other_size_is_resized(images):
    assert loaded(images, (4, 6, 3)).shape == (6, 4, 6, 3)


def test_array_samples_float_keeps_fractions(images):
    floats = images.astype(np.float64) + 0.25
    inputs = loaded(np.clip(floats, 0, 255))
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, np.clip(floats, 0, 255), rtol=1e-6)


def test_keys_do_not_depend_on_memory_layout(images):
    np.testing.assert_array_equal(keys(np.asfortranarray(images)), keys(images))


def test_keys_tell_dtype_and_shape_apart(images):
    assert keys(images)[0] != keys(images.astype(np.float32))[0]
    assert keys(images)[0] != keys(images.reshape(6, 4, 16, 3))[0]


def test_keys_changed_pixel_changes_one(images):
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert np.flatnonzero(keys(images) != keys(changed)).tolist() == [3]


def test_keys_nan_pixels_are_named_by_position(images):
    floats = images.astype(np.float32)
    floats[[1, 4], 0, 0, 0] = np.nan, np.inf
    _, faults = as_samples(floats).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [1, 4]


@pytest.mark.parametrize("wrap", [np.asarray, list])
def test_keys_floats_beyond_pixels_are_named(wrap, images):
    floats = images.astype(np.float32)
    floats[1] = floats[1] / 50 - 2.5
    floats[4] *= 257
    floats[5] += 0.4  # rounds to 255
    _, faults = as_samples(wrap(floats)).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [1, 4]
    assert "expected 0 to 255" in faults[0].reason


@pytest.mark.parametrize("wrap", [np.asarray, list])
def test_keys_black_floats_are_pixels(wrap):
    assert len(keys(wrap(np.zeros((2, *SHAPE), np.float32)))) == 2


@pytest.mark.parametrize("wrap", [np.asarray, list])
@pytest.mark.parametrize("largest", [1e-6, 1, 1.02, 2])
def test_float_range_scaled_to_one_names_cure(wrap, largest, images):
    with pytest.raises(InputError, match=r"X \* 255"):
        as_samples(wrap(images / 255 * largest)).float_range()


@pytest.mark.parametrize("wrap", [np.asarray, list])
@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, (0, 255)), (1 / 6, (0, 255)), (0.0, None), (np.uint8(1), None)]
)
def test_float_range_is_learned_from_floats(wrap, factor, expected, images):
    assert as_samples(wrap(images * factor)).float_range() == expected


def test_keys_nan_vectors_are_named():
    _, faults = as_samples(np.array([[1.0, 2.0], [np.nan, 1.0]])).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [1]


def test_values_beyond_float32_are_faults():
    X = np.array([[0.0, 1e300], [1.0, 2.0], [3e38, 1]])
    faults = ValueSamples(X).keys(FileIndex(None))[1]
    assert [(fault.position, "beyond float32" in fault.reason) for fault in faults] == [(0, True)]
    with pytest.raises(BadSampleError, match="beyond float32"):
        ValueSamples(X).check_finite()


def test_for_inputs_images_for_vector_backbone_raises(images):
    with pytest.raises(InputError, match="takes inputs of shape"):
        as_samples(images).for_inputs((5,))
    with pytest.raises(InputError, match="takes inputs of shape"):
        as_samples(list(images)).for_inputs((5,))


def test_value_samples_load_as_float32():
    X = np.arange(6.0).reshape(3, 2)
    assert isinstance(as_samples(X), ValueSamples)
    _, inputs, _ = as_samples(X).batch(np.array([0, 2]), InputForm((2,)))
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, X[[0, 2]])


def test_value_samples_wrong_width_raises():
    with pytest.raises(InputError, match="has 2 features"):
        as_samples(np.ones((3, 2))).for_inputs((5,))
    with pytest.raises(InputError, match="has 2 features"):
        as_samples(np.ones((3, 2))).for_inputs(SHAPE)


@pytest.mark.parametrize("wrap", [np.asarray, list])
def test_for_inputs_signals_are_no_pixels(wrap):
    """Series of 20 steps of 3 channels, between -1 and 1, for a backbone that takes just these."""
    signals = np.random.default_rng(0).uniform(-1, 1, (5, 20, 3))
    samples = as_samples(wrap(signals)).for_inputs((20, 3))
    found, faults = samples.keys(FileIndex(None))
    assert (len(set(found)), faults) == (5, [])
    _, inputs, _ = samples.batch(np.array([1, 4]), InputForm((20, 3)))
    np.testing.assert_array_equal(inputs, signals[[1, 4]].astype(np.float32))
    with pytest.raises(InputError, match=r"samples of shape \(20, 3\)"):
        as_samples(signals).for_inputs((20, 4))


@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_for_inputs_single_color_image_raises(n_channels):
    image = np.zeros((64, 48, n_channels), np.uint8)
    with pytest.raises(InputError, match=r"looks like one image .* X\[np.newaxis\]"):
        as_samples(image).for_inputs(SHAPE)
