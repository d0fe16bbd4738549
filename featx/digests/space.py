"""Space: all that decides the numbers of an embedding, and so what makes two comparable.

A space describes everything that decides the numbers of an embedding except the sample: the graph
with its weights, preprocessing, input size, decoder, pooling, precision. Two rows are comparable
exactly if their spaces have the same digest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from featx._text import one_line
from featx.digests.hashing import digest_of_json

_LONGEST_LABEL = 1_000
STORED_DTYPES = ("float32", "float16")
MAX_SIZE = 2**28  # numbers in one sample, or in its embedding: 1 GiB
_MAX_RANK = 32


def is_shape(value: Any) -> bool:
    """Return True if plain data is the shape of a sample or an embedding."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MAX_RANK
        and all(type(side) is int and side > 0 for side in value)
        and math.prod(value) <= MAX_SIZE
    )


@dataclass(frozen=True)
class Space:
    """An embedding space.

    Parameters
    ----------
    description : dict
        Plain data (JSON) that decides the numbers, ``"feature_shape"`` included.
    label : str, default=""
        Short description for messages, which is not part of the digest. It becomes a single line
        of text, since it may come from an untrusted file.

    Examples
    --------
    >>> space = Space({"graph": "ab12", "pooling": "avg", "feature_shape": [400]})
    >>> space.n_features, len(space.digest)
    (400, 32)
    """

    description: dict[str, Any]
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", one_line(self.label, max_chars=_LONGEST_LABEL))

    @classmethod
    def from_json(cls, value: Any) -> Space:
        """Return a space from the output of :meth:`to_json`; raise ValueError for other values."""
        identity = value.get("identity") if isinstance(value, dict) else None
        if not isinstance(identity, dict) or not isinstance(value.get("label"), str):
            raise ValueError("a description of another form")  # noqa: TRY004 - data, not arguments
        shapes = {
            "embeddings": identity.get("feature_shape"),
            "inputs": identity.get("input_shape", [1]),
        }
        for name, shape in shapes.items():
            if not is_shape(shape):
                raise ValueError(f"{name} of shape {shape!s:.80}")
        if identity.get("dtype", "float32") not in STORED_DTYPES:
            raise ValueError(f"embeddings of dtype {identity['dtype']}")
        return cls(identity, label=value["label"])

    def to_json(self) -> dict[str, Any]:
        """Return the space as plain data."""
        return {"label": self.label, "identity": self.description}

    @cached_property
    def digest(self) -> str:
        """Digest of the description, 32 hexadecimal digits."""
        return digest_of_json(self.description)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one sample's embedding: ``(n_features,)`` unless it is not pooled."""
        return tuple(self.description["feature_shape"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of the backbone."""
        return tuple(self.description["input_shape"])

    @property
    def n_features(self) -> int:
        """Length of an embedding."""
        return math.prod(self.feature_shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype in which rows are stored: float32 or float16."""
        return np.dtype(self.description["dtype"])

    @property
    def stored_dtypes(self) -> tuple[str, ...]:
        """Dtypes in which rows of this space may be stored; the first is `dtype`.

        Rows that float16 cannot hold are stored in float32.
        """
        return (self.dtype.name, "float32") if self.dtype == np.float16 else ("float32",)

    def is_equal_but_for_storage(self, other: Space) -> bool:
        """Return True if embeddings of both are equal, apart from the rounding of stored rows."""
        return self.stored_as("float32") == other.stored_as("float32")

    def stored_as(self, dtype: str) -> Space:
        """Return the space of the same embeddings, rounded to a dtype."""
        return Space({**self.description, "dtype": dtype}, label=self.label)
