"""Hashes of pixels agree for copies of an image, and neighbors are found block by block."""

import numpy as np
import pytest
from image_files import photo
from PIL import Image
from sklearn.datasets import load_sample_images

from featx.evaluation.pixel_hashes import both_hashes, difference_hash, hash_images, nearest_rows
from featx.inputs.recognize import as_samples


def test_difference_hash_is_that_of_imagehash():
    imagehash = pytest.importorskip("imagehash", reason="needs the package imagehash")
    photos = [Image.fromarray(image) for image in load_sample_images().images]
    for image in [*photos, photos[0].convert("L"), photos[1].resize((16, 9)), photo()]:
        expected = imagehash.dhash(image, hash_size=16).hash
        own = np.unpackbits(difference_hash(image.convert("L")).view(np.uint8))
        np.testing.assert_array_equal(own.reshape(16, 16), expected)


def test_both_hashes_of_mirror_image_are_swapped():
    gray = Image.fromarray(load_sample_images().images[0]).convert("L")
    plain, mirrored = both_hashes(gray)
    swapped = both_hashes(gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    np.testing.assert_array_equal(swapped, (mirrored, plain))
    assert np.bitwise_count(plain ^ mirrored).sum() > 60


def test_hash_images_unreadable_ones_resemble_none():
    hashes, faults = hash_images(as_samples([photo(), b"a", b"b", photo()]))
    assert [fault.position for fault in faults] == [1, 2]
    assert hashes.first.tolist() == [0, 1, 2, 0]
    first, second = np.triu_indices(3, 1)
    assert hashes.bits(first, second).min() > 80
    assert hashes.bits(np.array([0]), np.array([3])).tolist() == [0]


def test_nearest_rows_do_not_depend_on_blocks(monkeypatch):
    X = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    cosines = X @ X.T
    np.fill_diagonal(cosines, -2)
    expected = np.argsort(-cosines, axis=1)[:, :10]
    np.testing.assert_array_equal(nearest_rows(X).rows, expected)
    monkeypatch.setattr("featx.evaluation.pixel_hashes._BLOCK_ROWS", 7)
    monkeypatch.setattr("featx.evaluation.pixel_hashes._BLOCK_COLUMNS", 4)
    found = nearest_rows(X)
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_allclose(found.distances, 1 - np.take_along_axis(cosines, expected, 1))
