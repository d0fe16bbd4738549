"""Real images to test with that need no download: handwritten digits."""

import numpy as np
from sklearn.datasets import load_digits


def first_digits(n_samples, *, n_classes):
    """Return the first images of the first classes, 8 x 8 pixels of uint8, and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(labels < n_classes)[:n_samples]
    return (pixels[chosen].reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels[chosen]
