"""Near-duplicates are found, kept together and warned of."""

import io
import warnings
from collections import Counter
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from featx import FeatureExtractor, compare_heads, near_duplicates
from featx.evaluation.comparison import compare
from featx.evaluation.pixel_hashes import hash_images
from featx.exceptions import (
    BadSampleError,
    InputError,
    NearDuplicateWarning,
    ParameterError,
)


def photographs(n_images, seed=0):
    """Images that are as smooth as photographs, in colors of their own."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.standard_normal((n_images, 96, 96, 3)), (0, 6, 6, 0))
    levels = rng.uniform(80, 170, (n_images, 1, 1, 3))
    return np.clip(levels + 900 * noise, 0, 255).astype(np.uint8)


def compressed(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((60, 40)) + 5


def test_near_duplicates_recompressed_copies_are_found():
    images = photographs(40)
    samples = [compressed(image, 95) for image in images]
    samples += [compressed(image, 60) for image in images[:5]]
    smaller = [Image.fromarray(image).resize((70, 70)) for image in images[5:10]]
    samples += [compressed(np.asarray(image), 90) for image in smaller]
    found = near_duplicates(FeatureExtractor("tiny", cache=None).fit_transform(samples))
    assert sorted(found.pairs.tolist()) == [[row, 40 + row] for row in range(10)]
    assert found.similarity.min() >= found.threshold


def test_near_duplicates_chains_are_one_group(rows):
    rows[10] = rows[3] + 0.01
    rows[50] = rows[10] + 0.01
    rows[20] = rows[40]
    found = near_duplicates(rows)
    assert sorted(found.pairs.tolist()) == [[3, 10], [3, 50], [10, 50], [20, 40]]
    assert found.similarity[0] == pytest.approx(1.0)
    groups = [set(np.flatnonzero(found.groups == found.groups[row])) for row in (3, 20, 0)]
    assert groups == [{3, 10, 50}, {20, 40}, {0}]
    assert sorted(Counter(found.groups).values()) == [1] * 55 + [2, 3]


def test_near_duplicates_does_not_depend_on_blocks(rows, monkeypatch):
    rows[10], rows[59] = rows[3] + 0.01, rows[31]
    expected = near_duplicates(rows, threshold=0.3)
    monkeypatch.setattr("featx.evaluation.duplicates._BLOCK_ROWS", 7)
    monkeypatch.setattr("featx.evaluation.duplicates._BLOCK_COLUMNS", 11)
    found = near_duplicates(rows, threshold=0.3)
    assert set(map(tuple, found.pairs)) == set(map(tuple, expected.pairs))
    assert len(found.pairs) > 2
    assert near_duplicates(rows).pairs.tolist() == [[31, 59], [3, 10]]


@pytest.mark.parametrize("n_copies", [4, 8, 20])
def test_near_duplicates_many_copies_are_found(n_copies, rows):
    noise = np.random.default_rng(1).normal(0, 0.03, (60 * n_copies, 40))
    found = near_duplicates(np.repeat(rows, n_copies, axis=0) + noise)
    assert len(found.pairs) == 60 * n_copies * (n_copies - 1) / 2
    np.testing.assert_array_equal(found.groups, np.repeat(np.arange(60), n_copies))


def test_near_duplicates_equal_rows_are_found():
    assert len(near_duplicates(np.ones((8, 3))).pairs) == 28


def test_near_duplicates_repeated_set_is_found(rows):
    twice = np.concatenate([rows, rows + np.random.default_rng(1).normal(0, 0.05, rows.shape)])
    assert len(near_duplicates(twice).pairs) == 60


@pytest.mark.parametrize("n_samples", [1, 2, 5])
def test_near_duplicates_few_samples_must_be_equal(n_samples):
    rows = np.eye(6)[:n_samples]
    assert len(near_duplicates(rows).pairs) == 0
    assert near_duplicates(rows).groups.tolist() == list(range(n_samples))


@pytest.mark.parametrize("threshold", [0, 1.5, "most", None])
def test_near_duplicates_faulty_threshold_raises(threshold, rows):
    with pytest.raises(ParameterError, match="threshold="):
        near_duplicates(rows, threshold=threshold)


@pytest.mark.parametrize(
    "samples", [["photos/a.jpg"] * 3, [Image.new("L", (2, 2))] * 3, [[np.inf]]]
)
def test_near_duplicates_no_embeddings_raises(samples):
    with pytest.raises(InputError, match=r"not a matrix of embeddings: .*fit_transform\(images\)"):
        near_duplicates(samples)


def test_compare_heads_near_duplicates_warn(rows):
    labels = np.arange(60) % 2
    rows[8] = rows[2]
    rows[30] = rows[1] * 1.001  # has another label, which no fold can repair
    with pytest.warns(NearDuplicateWarning, match=r"row 2 and row 8 \(1\.000\)") as caught:
        compare_heads(rows, labels, heads=["ridge"], random_state=1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    groups = near_duplicates(rows).groups
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_heads(rows, labels, heads=["ridge"], groups=groups)


def test_compare_near_duplicates_names_the_files(tmp_path):
    images = photographs(20)
    paths = []
    for number, image in enumerate([*images, images[4]]):
        paths.append(str(tmp_path / f"{number}.jpg"))
        (tmp_path / f"{number}.jpg").write_bytes(compressed(image, 60 if number == 20 else 95))
    labels = ["a", "b"] * 10 + ["a"]
    extractor = FeatureExtractor("tiny", cache=tmp_path / "cache")
    with pytest.warns(NearDuplicateWarning, match=r"1 pair.*4\.jpg and .*20\.jpg"):
        list(compare(paths, labels, extractors=[extractor], heads=["ridge"], n_folds=3))


def trimmed(image):
    side = round(0.04 * len(image))
    return compressed(image[side:-side, side:-side], 90)


def mirrored(image):
    return compressed(np.asarray(ImageOps.mirror(Image.fromarray(image))), 90)


def rows_far_apart(n_rows, copies_of, distance):
    """Rows of a wide network, to which copies are nearer than others, but not by much."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_rows, 200))
    copies = rows[copies_of] + distance * rng.standard_normal((len(copies_of), 200))
    return np.concatenate([rows, copies])


@pytest.fixture(scope="module")
def originals():
    return photographs(40)


def test_near_duplicates_pixels_find_changed_copies(originals):
    images = [compressed(image, 95) for image in originals]
    images += [compressed(image, 40) for image in originals[:5]]
    images += map(trimmed, originals[5:10])
    images += map(mirrored, originals[10:15])
    X = rows_far_apart(40, range(15), distance=0.6)
    assert len(near_duplicates(X).pairs) == 0
    found = near_duplicates(X, images=images)
    assert sorted(found.pairs.tolist()) == [[row, 40 + row] for row in range(15)]
    assert found.bits.shape == found.similarity.shape == (15,)
    assert len(set(found.groups)) == 40
    assert found.bits.max() < 90
    assert np.isnan(found.threshold)


def test_near_duplicates_equal_pixels_are_always_found(originals):
    images = [*originals, *([originals[3]] * 12), originals[7]]
    X = np.random.default_rng(0).standard_normal((53, 30))
    found = near_duplicates(X, images=images)
    expected = [[3, row] for row in range(40, 52)] + [[7, 52]]
    assert sorted(found.pairs.tolist()) == expected
    assert found.bits.tolist() == [0] * 13
    assert (np.diff(found.similarity) <= 0).all()


def test_near_duplicates_similar_embeddings_need_similar_pixels(originals):
    X = rows_far_apart(38, [0, 1], distance=0.01)
    assert len(near_duplicates(X).pairs) == 2
    assert len(near_duplicates(X, images=originals).pairs) == 0


@pytest.mark.parametrize("n_images", [1, 2, 3, 40])
def test_near_duplicates_flat_images_are_none(n_images):
    flat = [Image.new("L", (20, 20), level) for level in range(n_images)]
    X = np.random.default_rng(0).standard_normal((n_images, 400))
    assert len(near_duplicates(X, images=flat).pairs) == 0


def test_near_duplicates_faulty_images_raise(rows):
    with pytest.raises(InputError, match="images has 2 images, but X has 60 rows"):
        near_duplicates(rows, images=photographs(2))
    with pytest.raises(BadSampleError, match=r"\[1\] 8 bytes: not an image"):
        near_duplicates(rows[:2], images=[photographs(1)[0], b"no image"])
    with pytest.raises(ParameterError, match="since images are given"):
        near_duplicates(rows, images=photographs(60), threshold=0.9)


def test_compare_warns_of_copies_in_pixels(tmp_path, originals):
    images = [compressed(image, 95) for image in originals] + [mirrored(originals[4])]
    labels = ["a", "b"] * 20 + ["a"]
    extractor = FeatureExtractor("tiny", layer="stage2", cache=tmp_path / "cache")
    X = extractor.fit_transform(images)
    assert [4, 40] not in near_duplicates(X).pairs.tolist()
    with pytest.warns(NearDuplicateWarning, match="nearly the same pixels.*and .40. "):
        list(compare(images, labels, extractors=[extractor], heads=["ridge"], n_folds=3))


def test_compare_hashes_few_images(tmp_path, originals, monkeypatch):
    monkeypatch.setattr("featx.evaluation.duplicates._MAX_IMAGES_HASHED", 30)
    read = []

    def hash_some(samples, rows):
        read.extend(rows.tolist())
        return hash_images(samples, rows)

    monkeypatch.setattr("featx.evaluation.comparison.hash_images", hash_some)
    images = [*originals, *originals[:, :, ::-1]]
    extractor = FeatureExtractor("tiny", layer="stage2", cache=tmp_path / "cache")
    with pytest.warns(NearDuplicateWarning, match="nearly the same pixels"):
        list(compare(images, [0, 1] * 40, extractors=[extractor], heads=["ridge"], n_folds=3))
    assert 10 < len(read) <= 30


def test_compare_many_images_are_not_hashed(tmp_path, originals, monkeypatch):
    monkeypatch.setattr("featx.evaluation.duplicates._MAX_ROWS_HASHED", 40)
    monkeypatch.delattr("featx.evaluation.comparison.hash_images")
    images = [compressed(image, 95) for image in originals] + [mirrored(originals[4])]
    extractor = FeatureExtractor("tiny", layer="stage2", cache=tmp_path / "cache")
    # An image that is hashed would raise, since the function is gone.
    *_, row = compare(images, [0, 1] * 20 + [0], extractors=[extractor], heads=["ridge"], n_folds=3)
    assert len(row.scores) == 3


@pytest.mark.parametrize(
    "search", [near_duplicates, partial(compare_heads, y=[0, 1] * 10, heads=["knn"])]
)
def test_rows_of_unread_samples_are_named(search):
    X = np.random.default_rng(0).standard_normal((20, 5))
    X[[3, 7]] = np.nan
    with pytest.raises(InputError, match=r"could not be read: \[3, 7\]"):
        search(X)


def test_compare_near_embeddings_of_other_pixels_are_no_copies(tmp_path, originals):
    """As near_duplicates with images and `featx check` decide: what one finds, all find."""
    noise = np.random.default_rng(0).integers(0, 256, (2, *originals.shape[1:]), dtype=np.uint8)
    images = np.concatenate([originals, noise])
    extractor = FeatureExtractor("tiny", cache=tmp_path / "cache")
    rows = extractor.fit_transform(images)
    assert [40, 41] in near_duplicates(rows).pairs.tolist()
    assert len(near_duplicates(rows, images=images).pairs) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(compare(images, [0, 1] * 21, extractors=[extractor], heads=["ridge"], n_folds=3))
