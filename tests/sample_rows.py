"""Random rows of a small space, a store for them, and a fault of its files."""

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


def flip(path, byte, bit=0):
    """Flip one bit of a file in place."""
    with open(path, "r+b") as file:
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))
