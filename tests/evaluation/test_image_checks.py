"""Images that are dark, blurred, tiny or there twice are found among photographs, and no others."""

import numpy as np
import pytest
from image_files import encoded
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from featx import find_image_issues
from featx.exceptions import InputError


@pytest.fixture(scope="module")
def photos():
    """Return parts of two photographs, 160 x 120 pixels each."""
    corners = [(x, y) for x in (90, 130, 170, 210) for y in (60, 100, 140)]
    return [
        Image.fromarray(image).resize((160, 120), box=(x, y, x + 320, y + 240))
        for image in load_sample_images().images
        for x, y in corners
    ]


def issues(X):
    """Return the rows of each issue that was found."""
    found = find_image_issues(X).issues
    return {issue: rows.tolist() for issue, rows in found.items() if len(rows)}


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 3, (image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


CHANGES = {
    "dark": lambda image: image.point(lambda level: level * 0.25),
    "bright": lambda image: image.point(lambda level: 210 + level * 0.18),
    "low contrast": lambda image: image.point(lambda level: 110 + level * 0.12),
    "blurred": lambda image: noisy(image.filter(ImageFilter.GaussianBlur(1.5))),
    "tiny": lambda image: image.resize((32, 24)),
    "odd shape": lambda image: image.resize((160, 40)),
    "exact duplicate": lambda image: image,
}


def test_image_issues_photographs_have_none(photos):
    assert issues(photos) == {}


@pytest.mark.parametrize("issue", CHANGES)
def test_image_issues_changed_photographs_are_found(issue, photos):
    changed = [CHANGES[issue](image) for image in photos[:6]]
    found = issues([encoded(image) for image in [*photos, *changed]])
    assert found[issue] == list(range(len(photos), len(photos) + 6))


@pytest.mark.parametrize(
    "issue", ["dark", "bright", "low contrast", "blurred", "tiny", "odd shape"]
)
def test_image_issues_usual_ones_are_none(issue, photos):
    assert issue not in issues([CHANGES[issue](image) for image in photos])


def test_image_issues_measures_are_of_images():
    ramp = np.tile(np.linspace(0, 255, 90).astype(np.uint8), (30, 1))
    found = find_image_issues([ramp, ramp.T, np.full((8, 8, 3), 51, np.uint8)])
    assert found.width.tolist() == [90, 30, 8]
    assert found.height.tolist() == [30, 90, 8]
    np.testing.assert_allclose(found.brightness, [0.5, 0.5, 0.2], atol=0.01)
    np.testing.assert_allclose(found.contrast, [12**-0.5, 12**-0.5, 0], atol=0.01)
    assert np.isnan(found.sharpness[2])
    assert found.hashes.shape == found.mirrored_hashes.shape == (3, 4)


def test_image_issues_sharpness_ignores_contrast_and_noise(photos):
    sharp = find_image_issues(photos).sharpness
    faint = [image.point(lambda level: 60 + level * 0.5) for image in photos]
    np.testing.assert_allclose(find_image_issues(faint).sharpness, sharp, rtol=0.1)
    with_noise = find_image_issues(list(map(noisy, photos))).sharpness
    np.testing.assert_allclose(with_noise, sharp, rtol=0.25)


def test_image_issues_noise_is_not_blurred(images):
    assert issues(images) == {}
    assert np.isnan(find_image_issues(images).sharpness).mean() > 0.5


def test_image_issues_equal_pixels_are_duplicates(photos):
    lossless = [encoded(photos[0], "PNG"), encoded(photos[1], "PNG"), encoded(photos[0], "BMP")]
    found = find_image_issues([*lossless, photos[0], photos[0].resize((320, 240))])
    assert found.first.tolist() == [0, 1, 0, 0, 4]


def test_image_issues_unreadable_images_stop_nothing(photos):
    found = find_image_issues([b"no image", photos[0], "missing.jpg", photos[0]])
    assert found.issues["unreadable"].tolist() == [0, 2]
    assert found.issues["exact duplicate"].tolist() == [3]
    assert found.fault.tolist()[1::2] == ["", ""]
    assert "no such file" in found.fault[2]
    assert (found.width[0], found.height[2]) == (0, 0)
    assert issues([b"a", b"b"]) == {"unreadable": [0, 1]}


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (1, 500)])
def test_image_issues_few_pixels_are_measured(shape):
    found = find_image_issues([Image.new("L", shape)])
    assert np.isnan(found.sharpness[0])
    assert found.issues["low contrast"].tolist() == [0]


def test_image_issues_vectors_raise():
    with pytest.raises(InputError, match="not images"):
        find_image_issues(np.zeros((3, 20)))
