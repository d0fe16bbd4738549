"""Extraction as tests need it: image files, their embeddings by "tiny", and another model."""

import keras
import numpy as np
from PIL import Image

from featx import FeatureExtractor


def write_images(folder, images):
    """Write images into a new folder, and return the paths of the files in their order."""
    folder.mkdir()
    names = [folder / f"{number}.png" for number in range(len(images))]
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(name)
    return np.array([str(name) for name in names])


def embed(X, **params):
    extractor = FeatureExtractor("tiny", **params)
    return extractor.fit_transform(X), extractor.report_


def agree(a, b):
    return np.linalg.norm(a - b, axis=1).max() <= 1e-5 * np.linalg.norm(b, axis=1).min()


def random_model(seed, shape=(None, None, 3)):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
