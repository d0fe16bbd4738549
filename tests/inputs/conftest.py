"""Images and files that tests of inputs share."""

import numpy as np
import pytest
from input_samples import SHAPE
from PIL import Image


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


@pytest.fixture
def paths(images, tmp_path):
    names = [tmp_path / f"{number}.png" for number in range(len(images))]
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(name)
    return [str(name) for name in names]
