"""ArrayReader on files that NumPy writes."""

import io

import numpy as np
import pytest

from featx import FeatureExtractor
from featx.exceptions import BadSampleError, ParameterError, UnreadableImageError
from featx.readers import ArrayReader, Page

VALUES = np.random.default_rng(0).integers(0, 256, (4, 20, 30), dtype=np.uint8)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "stack.npy", VALUES)
    return str(tmp_path / "stack.npy")


def test_read_file_is_its_array(path):
    np.testing.assert_array_equal(ArrayReader()(path), VALUES)
    np.testing.assert_array_equal(ArrayReader()(path, Page(path, 2)), VALUES[2])


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_read_npz_takes_named_or_only_array():
    assert ArrayReader()(npz(a=VALUES)).shape == VALUES.shape
    assert ArrayReader(key="b")(npz(a=VALUES, b=VALUES[0])).shape == (20, 30)
    with pytest.raises(UnreadableImageError, match="has the arrays a, b: name one"):
        ArrayReader()(npz(a=VALUES, b=VALUES))


def test_key_of_other_type_raises():
    with pytest.raises(ParameterError, match="key=3: expected the name of an array"):
        ArrayReader(key=3)


def test_transform_pages_equals_their_arrays(path, tmp_path):
    extractor = FeatureExtractor("tiny", read=ArrayReader(), cache=tmp_path / "cache")
    pages = [Page(path, index) for index in range(4)]
    expected = FeatureExtractor("tiny", cache=None).fit_transform(VALUES)
    np.testing.assert_allclose(extractor.fit_transform(pages), expected, rtol=1e-5, atol=1e-6)
    extractor.transform(pages)
    assert extractor.report_.n_forward == 0


def test_transform_pickled_objects_are_faults(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    extractor = FeatureExtractor("tiny", read=ArrayReader(), cache=None)
    with pytest.raises(BadSampleError, match="ValueError: Object arrays cannot be loaded"):
        extractor.fit_transform([tmp_path / "objects.npy"])
