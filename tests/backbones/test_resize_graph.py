"""A graph resizes images as featx does, whatever their size."""

import keras
import numpy as np
import pytest
from image_files import photo
from PIL import Image

from featx.backbones.resize_graph import with_resize
from featx.inputs.images import conform_pixels
from featx.inputs.kinds import InputForm
from featx.inputs.resize import RESIZES


def resizer(form):
    inputs = keras.Input(form.shape, dtype="uint8")
    return with_resize(keras.Model(inputs, keras.ops.cast(inputs, "int32")), form)


def noise(size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def smooth(size):
    return np.asarray(photo().resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("resize", RESIZES)
def test_with_resize_agrees_with_conform(resize, make):
    form = InputForm((24, 32, 3), resize)
    model = resizer(form)
    sizes = [(24, 32), (48, 64), (375, 500), (500, 375), (9, 11), (31, 200), (1, 7), (333, 17)]
    for size in sizes:
        image = make(size)
        resized = np.asarray(model(image[np.newaxis]))[0]
        expected = conform_pixels(image, form.shape, resize)
        difference = np.abs(resized - expected)
        assert difference.max() <= 2, size
        assert difference.mean() <= 0.1, size


def test_with_resize_takes_batches_of_one_channel():
    form = InputForm((12, 12, 1), "pad")
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 1), dtype=np.uint8)
    resized = np.asarray(resizer(form)(images))
    expected = np.stack([conform_pixels(image, form.shape, "pad") for image in images])
    assert resized.shape == (3, 12, 12, 1)
    assert np.abs(resized - expected).max() <= 1
