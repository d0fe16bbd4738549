"""Images get the input size as published evaluations resize them, by one rule for all samples."""

import io

import numpy as np
import pytest
from image_files import encoded, photo
from input_samples import loaded
from PIL import Image

from featx.inputs import images
from featx.inputs.images import conform_pixels, decode_to
from featx.inputs.resize import RESIZES, resized

# The own size, the size of the input, and what torchvision's Resize and CenterCrop give:
# the resized size and the left upper corner of the crop.
CROPPED = [
    ((500, 375), (224, 224), (298, 224), (37, 0)),
    ((375, 501), (224, 224), (224, 299), (0, 38)),  # half of 75 is rounded to even
    ((64, 48), (32, 32), (42, 32), (5, 0)),
    ((40, 40), (20, 30), (30, 30), (0, 5)),  # (height, width)
    ((30, 60), (20, 20), (20, 40), (0, 10)),
]
PADDED = [
    ((500, 375), (224, 224), (224, 168), (0, 28)),
    ((375, 501), (224, 224), (167, 224), (28, 0)),
    ((64, 48), (30, 20), (20, 15), (0, 8)),
    ((1000, 3), (16, 16), (16, 1), (0, 8)),  # at least one pixel
]


def picture(size):
    return photo().resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("own", "target", "whole", "corner"), CROPPED)
def test_resized_crop_is_the_center_of_cover(own, target, whole, corner):
    image = picture(own)
    left, top = corner
    box = (left, top, left + target[1], top + target[0])
    expected = np.asarray(image.resize(whole, Image.Resampling.LANCZOS).crop(box))
    cropped = resized(image, target, "crop")
    assert cropped.shape == (*target, 3)
    assert np.abs(cropped.astype(int) - expected).max() <= 2
    shifted = np.roll(expected, 1, axis=0 if top else 1)
    assert (
        np.abs(cropped.astype(int) - shifted).mean() > 2 * np.abs(cropped - expected * 1.0).mean()
    )


@pytest.mark.parametrize(("own", "target", "whole", "corner"), PADDED)
def test_resized_pad_is_centered_on_black(own, target, whole, corner):
    image = picture(own)
    padded = resized(image, target, "pad")
    assert padded.shape == (*target, 3)
    inside = np.zeros(target, bool)
    inside[corner[1] : corner[1] + whole[1], corner[0] : corner[0] + whole[0]] = True
    assert not padded[~inside].any()
    expected = np.asarray(image.resize(whole, Image.Resampling.LANCZOS))
    assert np.abs(padded[inside].astype(int) - expected.reshape(-1, 3)).max() <= 2


def test_resized_equal_ratio_is_the_same_in_all_ways():
    image = picture((96, 72))
    stretched = resized(image, (24, 32), "stretch")
    for resize in RESIZES:
        np.testing.assert_array_equal(resized(image, (24, 32), resize), stretched)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("shape", [(30, 20, 1), (20, 30, 3), (24, 24, 4)])
def test_conform_resizes_files_images_and_arrays_alike(shape, resize):
    image = picture((61, 45)).convert({1: "L", 3: "RGB", 4: "RGBA"}[shape[2]])
    pixels, data = np.asarray(image), encoded(image)
    expected = conform_pixels(pixels, shape, resize)
    assert expected.shape == shape
    for given in ([data], [image], [pixels], pixels[np.newaxis]):
        np.testing.assert_array_equal(loaded(given, shape, resize)[0], expected)
    floats = conform_pixels(pixels.astype(np.float32), shape, resize)
    assert np.abs(floats - expected).max() <= 1


@pytest.mark.parametrize("resize", RESIZES)
def test_conform_image_of_the_size_is_unchanged(resize):
    image = np.asarray(picture((8, 8)))
    assert np.shares_memory(conform_pixels(image, (8, 8, 3), resize), image)


@pytest.mark.parametrize(
    ("size", "resize", "decoded"),
    [
        ((1600, 1200), "crop", (400, 300)),
        ((3200, 600), "crop", (1600, 300)),  # the shorter side decides
        ((3200, 600), "pad", (400, 75)),  # the longer side decides
        ((600, 3200), "pad", (75, 400)),
        ((500, 375), "pad", (500, 375)),
    ],
)
def test_decode_to_decodes_only_what_is_needed(size, resize, decoded, monkeypatch):
    data = encoded(picture(size), "JPEG", quality=95)
    whole = conform_pixels(np.asarray(Image.open(io.BytesIO(data))), (128, 128, 3), resize)
    sizes, original = [], images.resized

    def noting(image, *how):
        sizes.append(image.size)
        return original(image, *how)

    monkeypatch.setattr(images, "resized", noting)
    reduced = decode_to(data, (128, 128, 3), resize)
    assert sizes == [decoded]
    assert np.abs(reduced.astype(int) - whole).mean() < 1


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("resize", RESIZES)
def test_decode_to_resizes_what_is_upright(resize, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture((64, 48))
    turned = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    expected = conform_pixels(np.asarray(image.transpose(turned)), (20, 20, 3), resize)
    np.testing.assert_array_equal(
        decode_to(encoded(image, exif=exif), (20, 20, 3), resize), expected
    )


@pytest.mark.parametrize("resize", RESIZES)
def test_resized_endless_line_needs_little_memory(resize):
    line = np.zeros((1, 200_000), np.uint8)
    line[:, 100_000:] = 255
    small = resized(Image.fromarray(line), (16, 16), resize)
    assert small.shape == (16, 16)
    assert small[8, 0] < 128 < small[8, -1]
    assert small.any(axis=1).all() == (resize != "pad")
