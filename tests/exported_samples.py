"""Images, and a small network with its head, that tests export."""

import keras
import numpy as np
from sample_networks import pixels

from featx import FeatureExtractor
from featx.heads.named import CLASSIFIER_HEADS, make_head

N_IMAGES = 24


def images_of(size):
    """Make images of several contrasts, so that their embeddings differ."""
    images = pixels((size, size, 3), n_images=N_IMAGES)
    return (images * np.linspace(0.1, 1, N_IMAGES).reshape(-1, 1, 1, 1)).astype(np.uint8)


def small(**params):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    extractor = FeatureExtractor(model, cache=None, **params)
    embeddings = extractor.fit_transform(images_of(8))
    return extractor, make_head("logistic", CLASSIFIER_HEADS).fit(embeddings, np.arange(24) % 3)
