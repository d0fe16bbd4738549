"""NiftiReader on files that nibabel ships, compared with nibabel's own arrays."""

import gzip
from pathlib import Path

import keras
import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff

from featx import FeatureExtractor
from featx.exceptions import BadSampleError, ParameterError, UnreadableImageError
from featx.readers import NiftiReader, Page

DATA = Path(nibabel.__file__).parent / "tests" / "data"
ANATOMICAL = str(DATA / "anatomical.nii")
FUNCTIONAL = str(DATA / "functional.nii")
TIMES = str(DATA / "example4d.nii.gz")
SECOND = str(DATA / "example_nifti2.nii.gz")


def canonical(path):
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


@pytest.mark.parametrize("path", [ANATOMICAL, FUNCTIONAL, TIMES, SECOND])
def test_read_volume_equals_nibabel(path):
    np.testing.assert_array_equal(NiftiReader()(Path(path).read_bytes()), canonical(path))
    np.testing.assert_array_equal(NiftiReader()(path), canonical(path))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL", "PIR"])
def test_read_slice_in_any_orientation(axis, codes, tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (5, 6, 7), dtype=np.uint8)
    affine = inv_ornt_aff(axcodes2ornt(codes), stored.shape)
    path = str(tmp_path / "volume.nii.gz")
    nibabel.Nifti1Image(stored, affine).to_filename(path)
    expected = np.rot90(np.take(canonical(path), 3, axis=axis))
    np.testing.assert_array_equal(NiftiReader(axis=axis)(path, Page(path, 3)), expected)


def test_read_slice_scale_becomes_levels():
    volume = canonical(ANATOMICAL)
    low, high = np.percentile(volume, (2, 98))
    expected = np.rint(np.clip((volume[:, :, 4] - low) / (high - low), 0, 1) * 255)
    page = Page(ANATOMICAL, 4)
    by_percentile = NiftiReader(percentiles=(2, 98))(ANATOMICAL, page)
    np.testing.assert_array_equal(by_percentile, np.rot90(expected))
    np.testing.assert_array_equal(NiftiReader(scale=(low, high))(ANATOMICAL, page), by_percentile)


def test_read_volume_scale_becomes_levels():
    volume = NiftiReader(scale=(0, 100))(ANATOMICAL)
    np.testing.assert_array_equal(volume, np.rint(np.clip(canonical(ANATOMICAL) / 100, 0, 1) * 255))


def test_read_slice_without_scale_names_it():
    floats = nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)).to_bytes()
    with pytest.raises(UnreadableImageError, match=r"NiftiReader\(scale=\(1, 1\)\)"):
        NiftiReader()(floats, Page("volume.nii", 0))


def test_read_slice_that_is_not_there_raises():
    with pytest.raises(UnreadableImageError, match="slices along axis 2: there is no 999"):
        NiftiReader()(ANATOMICAL, Page(ANATOMICAL, 999))
    with pytest.raises(UnreadableImageError, match="slices are counted in volumes of 3 axes"):
        NiftiReader()(TIMES, Page(TIMES, 0))


@pytest.mark.parametrize("compressed", [bytes, gzip.compress])
def test_read_volume_of_too_many_voxels_raises(compressed):
    header = nibabel.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    content = compressed(header.binaryblock + bytes(8))
    for reader in (NiftiReader(), NiftiReader(percentiles=(1, 99))):
        with pytest.raises(UnreadableImageError, match="more than 268435456 values"):
            reader(content)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"axis": 3}, "axis=3: expected 0, 1 or 2"),
        ({"scale": 3}, "scale=3: expected"),
        ({"percentiles": (1,)}, "percentiles=.*: expected"),
        ({"scale": (0, 1), "percentiles": (1, 99)}, "expected None beside scale"),
    ],
)
def test_parameters_of_other_form_raise(params, message):
    with pytest.raises(ParameterError, match=message):
        NiftiReader(**params)


@pytest.fixture
def network():
    shape = (*canonical(ANATOMICAL).shape, 1)
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv3D(4, 3, strides=4, kernel_initializer=keras.initializers.Ones()),
            keras.layers.GlobalAveragePooling3D(),
        ]
    )


def test_transform_volume_into_3d_network(network, tmp_path):
    extractor = FeatureExtractor(network, read=NiftiReader(), cache=tmp_path / "cache")
    embeddings = extractor.fit_transform([ANATOMICAL, ANATOMICAL])
    assert extractor.report_.n_forward == 1
    volume = canonical(ANATOMICAL).astype(np.float32)
    expected = np.asarray(network(volume[np.newaxis, ..., np.newaxis]))
    np.testing.assert_allclose(embeddings, np.repeat(expected, 2, axis=0), rtol=1e-4)
    extractor.transform([ANATOMICAL])
    assert extractor.report_.n_forward == 0


def test_transform_volume_of_other_shape_is_fault(network):
    extractor = FeatureExtractor(network, read=NiftiReader(), cache=None)
    with pytest.raises(BadSampleError, match=r"\[1\] .*functional.nii: has shape .*: expected"):
        extractor.fit_transform([ANATOMICAL, FUNCTIONAL])


def test_transform_slices_of_volume(tmp_path):
    reader = NiftiReader(percentiles=(1, 99))
    extractor = FeatureExtractor("tiny", read=reader, cache=tmp_path)
    extractor.fit_transform([Page(ANATOMICAL, index) for index in (3, 4, 3)])
    assert extractor.report_.n_forward == 2
