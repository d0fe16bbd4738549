"""StoredWeights: the weight file of a named network inside a saved file of unknown origin."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from featx._files import open_given
from featx.cache.hdf5_child_process import inspect_weights
from featx.digests.hashing import digest_of
from featx.exceptions import SavedFileError

_KERAS_3_SUFFIX, _HDF5_SUFFIXES = ".weights.h5", (".h5", ".hdf5")


class StoredWeights:
    """Weights of a named network as the bytes of an HDF5 file, which Keras reads when needed.

    `name` is the name of the original file. Messages show it, and its ending selects the format;
    no file of that name is opened.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.digest = digest_of(data).hex()

    def __repr__(self) -> str:
        return f"<weights of {len(self.data):,} bytes, {self.digest[:8]}>"

    def __sklearn_clone__(self) -> StoredWeights:
        return self

    @classmethod
    def read(cls, weights: str | os.PathLike[str] | StoredWeights) -> StoredWeights | None:
        """Read a weight file; None unless it is HDF5 of plain arrays, which a saved file may hold.

        Keras writes plain arrays, but its older versions could compress them.
        """
        if isinstance(weights, StoredWeights):
            return weights
        path = Path(weights).expanduser()
        if not has_hdf5_name(path.name) or inspect_weights(path.absolute()) is not None:
            return None
        with open_given(path) as file:
            return cls(file.read(), path.name)

    @contextlib.contextmanager
    def as_file(self) -> Iterator[Path]:
        """Yield the path of a temporary file; raise SavedFileError unless it holds plain arrays."""
        with tempfile.TemporaryDirectory(prefix="featx-") as folder:
            suffix = _KERAS_3_SUFFIX if self.name.endswith(_KERAS_3_SUFFIX) else ".h5"
            file = Path(folder, f"model{suffix}")
            file.write_bytes(self.data)
            if fault := inspect_weights(file):
                raise SavedFileError(f"the weights in it cannot be used: {fault.reason}")
            yield file


def has_hdf5_name(name: str) -> bool:
    """Return True for the name of a weight file by whose ending Keras expects HDF5."""
    return name.endswith(_HDF5_SUFFIXES)


def name_of_weights(weights: str | os.PathLike[str] | StoredWeights) -> str:
    """Return the path of a weight file, or the name of the file that stored weights came from."""
    return weights.name if isinstance(weights, StoredWeights) else os.fspath(weights)
