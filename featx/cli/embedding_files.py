r"""The file that ``featx extract`` writes: embeddings, with the path and the label of each image.

In .npz and .h5 they are arrays, ``embeddings``, ``paths`` and ``labels``; in .csv a column for each
feature, ``embedding_0`` and so on, after ``path`` and ``label``; in .parquet the columns ``path``,
``label`` and ``embedding``. There are no labels if no image lies in a class folder. Paths and
labels are written unchanged, in quotes in .csv; bytes that are not UTF-8, which only .npz can hold,
are written as ``\udcff``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featx._files import replaced_atomically
from featx.storage.exchange import check_pyarrow, string_array, write_csv

ENDINGS = (".csv", ".h5", ".npz", ".parquet")


class EmbeddingFile(NamedTuple):
    """The contents of an embedding file.

    Attributes
    ----------
    embeddings : ndarray of shape (n_samples, n_features)
    paths : sequence of str
    labels : sequence of str or None
        Label of each image, empty outside class folders; None if no image lies in one.
    """

    embeddings: np.ndarray
    paths: Sequence[str]
    labels: Sequence[str] | None

    def write(self, path: Path) -> None:
        """Write the file; an existing one is replaced once the new one is complete.

        Raises
        ------
        OSError
            The disk is full, and so on; an existing file is unharmed.
        """
        with replaced_atomically(path) as beside:
            _WRITERS[path.suffix.lower()](self, beside)

    def columns(self, *names: str) -> dict[str, list[str]]:
        """Return paths, and labels if there are any, as columns with these names."""
        columns = zip(names, (self.paths, self.labels), strict=True)
        return {name: list(map(str, values)) for name, values in columns if values is not None}


def check_packages(path: Path) -> None:
    """Check that the package that writes such a file is installed.

    Raises
    ------
    MissingExtraError
        The file is .parquet, and pyarrow is missing.
    """
    if path.suffix.lower() == ".parquet":
        check_pyarrow()


def _write_npz(table: EmbeddingFile, path: Path) -> None:
    arrays: dict[str, Any] = {"embeddings": table.embeddings}
    arrays |= {name: np.array(texts) for name, texts in table.columns("paths", "labels").items()}
    with open(path, "xb") as file:
        np.savez(file, **arrays)


def _write_csv(table: EmbeddingFile, path: Path) -> None:
    write_csv(path, table.columns("path", "label"), [table.embeddings])


def _write_parquet(table: EmbeddingFile, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = table.embeddings.reshape(len(table.embeddings), -1)
    columns = {
        name: string_array(values) for name, values in table.columns("path", "label").items()
    }
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    parquet.write_table(pa.table(columns), path)


def _write_h5(table: EmbeddingFile, path: Path) -> None:
    from featx.storage._hdf5 import plain_file

    path.write_bytes(plain_file(table.embeddings, table.columns("paths", "labels")))


_WRITERS = {".csv": _write_csv, ".h5": _write_h5, ".npz": _write_npz, ".parquet": _write_parquet}
