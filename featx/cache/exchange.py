"""Export of a space to one file (HDF5, .npz, Parquet, CSV: ExportTable); import from HDF5.

Rows are read and written block by block. The HDF5 file is a shard (``schema.py``) with names and
labels in it; only this format can be imported.
"""

from __future__ import annotations

import csv
import errno
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featx._files import check_replaceable, replaced_atomically
from featx._text import as_utf8, one_line
from featx.cache.lazy_array import LazyEmbeddings
from featx.cache.schema import ROW_FIELDS
from featx.cache.shard import Shard, examine_shards
from featx.cache.store import SpaceStore
from featx.digests.hashing import checksums_of_rows
from featx.digests.key_table import matrix_from_keys
from featx.digests.space import Space
from featx.exceptions import InputError, MissingExtraError, ParameterError

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class ExportTable:
    """The content of a file: rows, and names and labels of the samples if they are known."""

    rows: LazyEmbeddings
    space: Space
    texts: dict[str, list[str]]


def check_rows_export(path: Path, format: str | None) -> None:
    """Check, before any work, that rows can be written to a path in a format.

    ParameterError is raised if the format is not known, or the path exists and is not a regular
    file; MissingExtraError if the format is Parquet, and pyarrow is missing.
    """
    _rows_writer(path, format)
    check_replaceable(path)


def write_table(table: ExportTable, path: Path, format: str | None) -> None:
    """Write rows to one file, which replaces an existing one once it is complete.

    It raises what :func:`check_rows_export` raises, and OSError if there is no room, or the folder
    cannot be written; nothing is left behind.
    """
    writer = _rows_writer(path, format)
    path = path.absolute()
    needed = table.rows.size * table.rows.stored_dtype.itemsize
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        reason = f"{os.strerror(errno.ENOSPC)}: {needed} bytes needed, {free} free"
        raise OSError(errno.ENOSPC, reason, str(path))
    with replaced_atomically(path) as beside:
        writer(table, beside)


def _rows_writer(path: Path, format: str | None) -> Callable[[ExportTable, Path], None]:
    format = format or path.suffix.lstrip(".").lower()
    if format not in _WRITERS:
        raise ParameterError.of("format", format, "expected 'h5', 'npz', 'parquet' or 'csv'")
    if format == "parquet":
        check_pyarrow()
    return _WRITERS[format]


def check_pyarrow() -> None:
    """Raise MissingExtraError if pyarrow, which writes Parquet, is not installed."""
    try:
        import pyarrow  # noqa: F401 - only to find out if it is installed
    except ImportError as exc:
        raise MissingExtraError(
            "Parquet files need pyarrow: pip install pyarrow, or write .csv, .h5 or .npz"
        ) from exc


def _write_h5(table: ExportTable, path: Path) -> None:
    from featx.cache.hdf5_frame import shard_frame

    dtype = table.rows.stored_dtype
    frame = shard_frame(len(table.rows), space=table.space, dtype=dtype.name, texts=table.texts)
    offset = frame.places["embeddings"].offset
    checksums = []
    with open(path, "xb", buffering=0) as file:
        for start, part in frame.rest():
            _write_at(file, start, part)
        for _, block in table.rows.blocks():
            rows = np.ascontiguousarray(block, dtype)
            checksums.append(checksums_of_rows(rows))
            _write_at(file, offset, rows)
            offset += rows.nbytes
        arrays = {
            "keys": matrix_from_keys(table.rows.keys),
            "checksums": np.concatenate(checksums),
        }
        for name in ROW_FIELDS:
            _write_at(file, frame.places[name].offset, arrays[name])


def _write_at(file: Any, offset: int, data: Any) -> None:
    """Write at an offset of a raw file, whose ``write`` may write only a part."""
    file.seek(offset)
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]


def _write_npz(table: ExportTable, path: Path) -> None:
    arrays: dict[str, np.ndarray] = {"keys": matrix_from_keys(table.rows.keys)}
    arrays |= {name: np.array(values) for name, values in table.texts.items()}
    arrays["space"] = np.array(table.space.digest)
    header = {"descr": "<f4", "fortran_order": False, "shape": table.rows.shape}
    with zipfile.ZipFile(path, "x") as archive:
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for _, block in table.rows.blocks():
                member.write(block.data.cast("B"))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_parquet(table: ExportTable, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    n_features = table.rows.shape[1]
    fields = [("key", pa.binary(16)), *((name, pa.string()) for name in table.texts)]
    fields.append(("embedding", pa.list_(pa.float32(), n_features)))
    metadata = {"space": table.space.digest, "label": as_utf8(table.space.label)}
    schema = pa.schema(fields, metadata=metadata)
    with parquet.ParquetWriter(path, schema) as writer:
        for start, block in table.rows.blocks():
            rows = slice(start, start + len(block))
            keys = [bytes(key) for key in matrix_from_keys(table.rows.keys[rows])]
            columns = [pa.array(keys, pa.binary(16))]
            columns += [string_array(values[rows]) for values in table.texts.values()]
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), n_features))
            writer.write_table(pa.table(columns, schema=schema))


def string_array(values: Iterable[str | None]) -> pa.Array:
    """Return strings as an Arrow column; characters that UTF-8 cannot encode are escaped."""
    import pyarrow as pa

    texts = (None if value is None else as_utf8(value) for value in values)
    return pa.array(texts, pa.string())


def _write_csv(table: ExportTable, path: Path) -> None:
    keys = [bytes(key).hex() for key in matrix_from_keys(table.rows.keys)]
    write_csv(path, {"key": keys, **table.texts}, (block for _, block in table.rows.blocks()))


def write_csv(path: Path, texts: Mapping[str, Sequence[str]], blocks: Iterable[np.ndarray]) -> None:
    """Write a new CSV file of quoted columns of text, by name, and a column for each feature.

    Texts are unchanged; they are quoted, so that line breaks and separators stay in their cell. A
    spreadsheet still takes a cell that begins with ``=`` for a formula, unless the columns are
    imported as text. `blocks` are the embeddings of all samples.
    """
    rows = (row.ravel() for block in blocks for row in block)
    with open(path, "x", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        for number, (row, *cells) in enumerate(zip(rows, *texts.values(), strict=True)):
            if not number:
                writer.writerow([*texts, *(f"embedding_{feature}" for feature in range(len(row)))])
            writer.writerow([*cells, *row])


_WRITERS = {
    "h5": _write_h5,
    "hdf5": _write_h5,
    "npz": _write_npz,
    "parquet": _write_parquet,
    "csv": _write_csv,
}


class Imported(NamedTuple):
    """The outcome of an import.

    Attributes
    ----------
    n_rows : int
        Number of rows in the files.
    n_added : int
        Number of sound rows that were not stored before.
    n_damaged : int
        Number of rows left out because they disagree with their checksums or are not finite.
    """

    n_rows: int
    n_added: int
    n_damaged: int


def read_shards(path: Path) -> list[Shard]:
    """Return the shard in a file, or the shards of a cache folder; a child process inspects them.

    If there are no files, or some are not shards, InputError is raised, which names them.
    """
    rows = path / "spaces" if (path / "spaces").is_dir() else path
    paths = sorted(rows.rglob("*.h5")) if path.is_dir() else [path]
    if not paths or not all(map(Path.is_file, paths)):
        raise InputError(f"{str(path)!r}: no such file, or a folder without .h5 files")
    shards, faults = [], []
    for file, found in zip(paths, examine_shards(paths), strict=True):
        fault = _shard_import_fault(found)
        if fault:
            faults.append(f"{one_line(file)}: {one_line(fault)}")
        elif isinstance(found, Shard):
            shards.append(found)
    if faults:
        raise InputError("not embeddings that featx exported: " + "; ".join(faults[:10]))
    return shards


def _shard_import_fault(found: Shard | Exception) -> str:
    """Return the reason why a shard cannot be imported; empty if it can."""
    # The folder is named after the digest of the space, which is computed and not read from the
    # file: a file cannot choose it.
    if not isinstance(found, Shard):
        return str(found)
    if "input_shape" not in found.space.description:
        return "its description has no input_shape"
    return "its space cannot be identified" if "unidentified" in found.space.description else ""


def add_rows(shard: Shard, store: SpaceStore) -> Imported:
    """Store the sound rows of an imported shard that are not stored yet."""
    n_added = n_damaged = 0
    for keys, rows, sound in _blocks_of(shard):
        fresh = sound & ~store.holds(keys)
        n_damaged += int((~sound).sum())
        if fresh.any():
            store.append(keys[fresh], rows[fresh])
            n_added += int(fresh.sum())
    return Imported(len(shard), n_added, n_damaged)


def _blocks_of(shard: Shard) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    n_rows = max(1, _BLOCK_BYTES // shard.row_bytes)
    for start in range(0, len(shard), n_rows):
        numbers = np.arange(start, min(start + n_rows, len(shard)))
        rows = np.empty((len(numbers), shard.space.n_features), shard.dtype)
        sound = shard.read(numbers, rows, np.arange(len(numbers)))
        sound &= np.isfinite(rows).all(axis=1)  # as in a pass, which stores finite rows only
        yield shard.keys[numbers], rows, sound


def text_columns(names: Sequence[str] | None, labels: Any) -> dict[str, list[str]]:
    """Return names and labels of samples as text; None is left out."""
    given = {"names": names, "labels": labels}
    return {key: list(map(str, values)) for key, values in given.items() if values is not None}
