"""Small pictures of samples look as the samples do, and faults stay with their samples."""

import numpy as np
import pytest
from image_files import encoded, photo
from PIL import Image

from featx.evaluation.small_images import small_images
from featx.exceptions import InputError
from featx.inputs.recognize import as_samples

WHITE, HALF = 255, 128


def pictures(X, **options):
    """Return the small images of samples, none of which has a fault."""
    found = list(small_images(as_samples(X), **options))
    assert [small.fault for small in found] == [""] * len(found)
    return found


def middle(small):
    """Return the color in the middle of a picture."""
    return small.image.getpixel((small.image.width // 2, small.image.height // 2))


def test_small_images_keep_order_and_rows():
    sides = range(10, 50)
    X = [np.full((side, 2 * side), side, np.uint8) for side in sides]
    assert [small.height for small in pictures(X)] == list(sides)
    some = pictures(X, rows=[30, 2, 2], size=8)
    assert [(small.row, small.width, small.height) for small in some] == [
        (30, 80, 40),
        (2, 24, 12),
        (2, 24, 12),
    ]
    assert [small.image.size for small in some] == [(8, 4)] * 3
    assert [middle(small) for small in some] == [(40,) * 3, (12,) * 3, (12,) * 3]


@pytest.mark.parametrize(
    ("sample", "color"),
    [
        (Image.new("CMYK", (40, 20), (0, 255, 255, 0)), (254, 0, 0)),
        (Image.new("RGBA", (40, 20), (255, 0, 0, 0)), (WHITE,) * 3),
        (Image.new("I;16", (40, 20), HALF * 257), (HALF,) * 3),
        (np.full((20, 40), 127.6, np.float32), (HALF,) * 3),
        (np.full((20, 40, 1), HALF, np.uint8), (HALF,) * 3),
        (np.full((20, 40, 3), [9, 8, 7], np.int64), (9, 8, 7)),
        (np.full((20, 40, 4), [255, 0, 0, 0], np.uint16) * 257, (WHITE,) * 3),
        (np.full((20, 40), True), (WHITE,) * 3),
        (encoded(Image.new("P", (40, 20), 3)), None),
        (encoded(Image.new("LA", (40, 20), (0, 0))), (WHITE,) * 3),
    ],
)
def test_small_images_any_pixels_become_rgb(sample, color):
    small = pictures([sample], size=10)[0]
    assert (small.width, small.height, small.image.mode) == (40, 20, "RGB")
    assert small.image.size == (10, 5)
    assert color is None or np.abs(np.subtract(middle(small), color)).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_small_images_turned_photo_is_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(photo().rotate(90, expand=True), kind, exif=exif)
    small, expected = pictures([turned, encoded(photo(), kind)], size=32)
    assert (small.width, small.height) == (64, 48)
    difference = np.asarray(small.image, int) - np.asarray(expected.image)
    assert np.abs(difference).mean() < 3


def test_small_images_large_jpeg_is_drafted(monkeypatch):
    large = photo().resize((4000, 3000))
    loaded = []
    original = Image.Image.thumbnail
    monkeypatch.setattr(
        Image.Image,
        "thumbnail",
        lambda image, *args: loaded.append(image.size) or original(image, *args),
    )
    small = pictures([encoded(large, "JPEG")], size=100)[0]
    assert (small.width, small.height) == (4000, 3000)
    assert loaded == [(500, 375)]
    expected = large.resize((100, 75), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(small.image, int) - np.asarray(expected)).mean() < 2


def test_small_images_bad_samples_have_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    whole = encoded(photo(), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[:-300])
    (tmp_path / "good.jpg").write_bytes(whole)
    X = [
        tmp_path / "good.jpg",
        tmp_path / "cut.jpg",
        tmp_path,
        None,
        b"no image",
        encoded(Image.new("L", (100, 41))),
        np.zeros((5, 5, 7), np.uint8),
        whole,
    ]
    found = list(small_images(as_samples(X)))
    reasons = ["Truncated", "a folder", "missing value", "not an image", "bomb", "7 channels"]
    assert [(small.row, bool(small.fault)) for small in found] == [
        (row, 0 < row < 7) for row in range(8)
    ]
    for small, reason in zip(found[1:7], reasons, strict=True):
        assert reason in small.fault
        assert small[1:4] == (0, 0, None)
    assert found[0].image == found[7].image


class Frames:
    """A lazy sequence in which one frame cannot be read."""

    def __len__(self):
        return 12

    def __getitem__(self, row):
        if row == 5:
            raise OSError("the disk is gone")
        return Image.new("L", (row + 1, 4), row)


def test_small_images_lazy_sequence_is_read():
    found = list(small_images(as_samples(Frames())))
    assert [small.width for small in found] == [1, 2, 3, 4, 5, 0, *range(7, 13)]
    assert "the disk is gone" in found[5].fault


class Scaled(Frames):
    """A lazy sequence of images whose pixels are scaled to 0..1."""

    def __getitem__(self, row):
        return np.full((5, 5), 0.5)


def test_small_images_scaled_lazy_sequence_raises():
    samples = as_samples(Scaled())
    assert len(list(small_images(samples, rows=[2, 3]))) == 2
    with pytest.raises(InputError, match=r"scaled to 0\.\.1"):
        list(small_images(samples))


def test_small_images_same_picture_twice_is_read(tmp_path):
    path = tmp_path / "a.png"
    photo().save(path)
    with Image.open(path) as opened:
        found = pictures([opened] * 50)
    assert all(small.image == photo() for small in found)


def test_small_images_array_is_read(images):
    found = pictures(images, size=64)
    np.testing.assert_array_equal(np.stack([np.asarray(small.image) for small in found]), images)


@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.zeros((3, 20)), "not images"),
        (np.full((3, 8, 8), 0.5), "scaled to 0..1"),
        (np.zeros((20, 30, 3), np.uint8), "one image in color"),
    ],
)
def test_small_images_no_images_raise(X, match):
    with pytest.raises(InputError, match=match):
        small_images(as_samples(X))
