"""Random rows of a small space, and a store for them."""

import numpy as np

from featx.cache.store import SpaceStore
from featx.digests.key_table import keys_from_matrix
from featx.digests.space import Space

SPACE = Space({"graph": "ab12", "feature_shape": [6], "dtype": "float32"}, label="vgg16")


def keys_and_rows(n, seed=0):
    """Return n keys and rows."""
    rng = np.random.default_rng(seed)
    keys = keys_from_matrix(rng.integers(0, 256, (n, 16), dtype=np.uint8))
    return keys, rng.normal(size=(n, 6)).astype(np.float32)


def open_store(folder, space=SPACE):
    """Open the store of a folder, without a memory of its shards."""
    return SpaceStore(folder / "rows", space, damaged_folder=folder / "damaged")
