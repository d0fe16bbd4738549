"""ShardLayout and ROW_FIELDS: the root attributes of a shard, and the fields of each row.

The ``.h5`` file has the attributes and a contiguous, unfiltered dataset for each field;
``hdf5_frame.py`` writes it, and ``hdf5_checks.py`` checks it. The index, which ``shard.py`` writes
and reads, has a copy of all fields but the embeddings. A field that is added here is in both files,
and a wrong shape or dtype of it counts as damage; ``Shard.row_arrays`` returns its values.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import numpy as np

from featx.digests.hashing import DIGEST_BYTES
from featx.digests.space import Space

FORMAT_VERSION = 1
ATTRIBUTES: dict[str, type] = {"format_version": int, "space": str}


class RowField(NamedTuple):
    """A dataset with an entry for each row; the usual one of the allowed dtypes comes first."""

    entry_shape: tuple[int, ...]
    dtypes: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype:
        """Usual dtype, little-endian, as in the index."""
        return np.dtype(self.dtypes[0]).newbyteorder("<")

    @property
    def entry_bytes(self) -> int:
        """Size of an entry of the usual dtype in bytes."""
        return math.prod(self.entry_shape) * self.dtype.itemsize


# Fields of a row besides its embedding: the digest of its sample, and the xxh3 of its bytes.
ROW_FIELDS = {
    "keys": RowField((DIGEST_BYTES,), ("uint8",)),
    "checksums": RowField((), ("uint64",)),
}


def fields_of(space: Space) -> dict[str, RowField]:
    """Return the fields of a shard of a space by name, in the order of the file.

    A float16 space may have shards of float32, for rows that float16 cannot hold.
    """
    return {"embeddings": RowField((space.n_features,), space.stored_dtypes), **ROW_FIELDS}


def attributes_of(space: Space) -> dict[str, Any]:
    """Return the values of the root attributes; ``space`` describes the space as JSON."""
    description = json.dumps(space.to_json(), sort_keys=True)
    return {"format_version": FORMAT_VERSION, "space": description}


class ArrayPlace(NamedTuple):
    """The place of a contiguous array in a file, with its offset in bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def n_bytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def stop(self) -> int:
        """Offset of the first byte after the array."""
        return self.offset + self.n_bytes


class ShardLayout(NamedTuple):
    """The description of the space of a ``.h5`` file, and the places of its fields."""

    space: dict[str, Any]
    places: dict[str, ArrayPlace]

    @classmethod
    def from_json(cls, value: Any) -> ShardLayout:
        """Return the layout that was dumped as JSON."""
        space, fields = value
        places = {
            name: ArrayPlace(at, tuple(shape), dtype) for name, (at, shape, dtype) in fields.items()
        }
        return cls(space, places)
