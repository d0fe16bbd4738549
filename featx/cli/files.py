r"""``list_folder``: folders that commands read; EmbeddingFile, PredictionFile: what commands write.

A file of embeddings has the path and label of each image. A .npz or .h5 file has the arrays
``embeddings``, ``paths`` and ``labels``; a .csv file the columns ``path``, ``label`` and one for
each feature, ``embedding_0`` and so on; a .parquet file the columns ``path``, ``label`` and
``embedding``. Labels are left out if no image is in a class folder. Paths and labels are written
unchanged, in quotes in .csv; bytes that are not UTF-8, which only .npz can hold, become ``\udcff``.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from featx._files import replaced_atomically
from featx._text import as_utf8
from featx._urls import is_url, relative_path, shown_path
from featx.cache.exchange import check_pyarrow, string_array, write_csv
from featx.cli.image_lists import images_of
from featx.inputs.folders import (
    IMAGE_SUFFIXES,
    is_folder,
    label_of,
    list_images,
    load_image_folder,
    root_of,
)
from featx.inputs.left_out import is_litter

ENDINGS = (".csv", ".h5", ".npz", ".parquet")


def list_folder(path: str | os.PathLike[str]) -> Bunch:
    """Return all images of a folder or an archive, with or without a folder per class.

    With class folders and no images beside them, ``data`` and ``target`` are those of
    :func:`load_image_folder`. Otherwise ``data`` holds the paths of all images below the folder,
    and ``target`` the name of the subfolder of each, empty for an image outside of subfolders;
    ``target`` is None if there are no images in subfolders.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> root = tempfile.mkdtemp()
    >>> Image.new("RGB", (8, 8)).save(os.path.join(root, "1.png"))
    >>> [os.path.basename(path) for path in list_folder(root).data], list_folder(root).target
    (['1.png'], None)
    """
    place = root_of(path)
    if is_url(place):
        images = list_images([place])
        parents = [relative_path(image, place).split("/")[:-1] for image in images]
        return _labeled_by_folder(images, parents)
    root = Path(place)
    if not root.is_dir():
        return load_image_folder(root)  # raises the error
    entries = [
        entry
        for entry in root.iterdir()
        if not (entry.name.startswith(".") or is_litter(entry.name))
    ]
    files = [entry for entry in entries if not entry.is_dir()]
    if len(files) < len(entries) and not any(f.suffix.lower() in IMAGE_SUFFIXES for f in files):
        return load_image_folder(root)
    images = list_images([root])
    return _labeled_by_folder(
        images, [Path(image).relative_to(root).parts[:-1] for image in images]
    )


def _labeled_by_folder(images: list[str], folders: Sequence[Sequence[str]]) -> Bunch:
    """Return images, labeled by the first of the folders of each, if there are any."""
    labels = np.array([label_of(parents[0]) if parents else "" for parents in folders])
    return Bunch(data=np.array(images, object), target=labels if any(folders) else None)


def list_given(places: Sequence[str], column: str | None, base: str | None = None) -> Bunch:
    """Return the images of one folder as `list_folder` does, or those that arguments name."""
    if len(places) == 1 and column is None and is_folder(places[0]):
        return list_folder(places[0])
    return Bunch(data=np.array(images_of(places, column, base), object), target=None)


class EmbeddingFile(NamedTuple):
    """The content of an embedding file; labels are None if no image is in a class folder."""

    embeddings: np.ndarray
    paths: Sequence[str]
    labels: Sequence[str] | None

    def write(self, path: Path) -> None:
        """Write the file; an existing one is replaced once the new one is complete."""
        with replaced_atomically(path) as beside:
            _WRITERS[path.suffix.lower()](self, beside)

    def columns(self, *names: str) -> dict[str, list[str]]:
        """Return paths, and labels if there are any, as columns with these names."""
        columns = zip(names, (self.paths, self.labels), strict=True)
        return {
            name: list(map(shown_path, values)) for name, values in columns if values is not None
        }


class PredictionFile(NamedTuple):
    """The content of a prediction file: columns of text, and the probability of each class.

    A .csv or .parquet file has a column for each text, ``path`` and ``label``, and one for each
    class, ``proba_`` and its name. A .npz or .h5 file has the texts, and the arrays ``classes`` and
    ``proba``. An image that could not be read has no label: null in .parquet, else empty text; and
    its probabilities are NaN, or no value.
    """

    texts: dict[str, list[str | None]]
    classes: list[str]
    proba: np.ndarray

    def write(self, path: Path) -> None:
        """Write the file; an existing one is replaced once the new one is complete."""
        if path.suffix.lower() == ".csv":
            write_text_table(path, self._column_names(), self._rows())
            return
        with replaced_atomically(path) as beside:
            _PREDICTION_WRITERS[path.suffix.lower()](self, beside)

    def _column_names(self) -> list[str]:
        return [*self.texts, *(f"proba_{name}" for name in self.classes)]

    def _rows(self) -> Iterator[Sequence[str]]:
        for *texts, values in zip(*self._filled_texts().values(), self.proba.tolist(), strict=True):
            yield *texts, *("" if np.isnan(value) else f"{value:.6g}" for value in values)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"proba": self.proba} if self.classes else {}

    def _filled_texts(self) -> dict[str, list[str]]:
        return {name: [text or "" for text in column] for name, column in self.texts.items()}

    def _all_texts(self) -> dict[str, list[str]]:
        return self._filled_texts() | ({"classes": self.classes} if self.classes else {})

    def _write_parquet(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        columns = [string_array(values) for values in self.texts.values()]
        columns += [pa.array(values, from_pandas=True) for values in self.proba.T]
        names = [as_utf8(name) for name in self._column_names()]
        parquet.write_table(pa.table(columns, names=names), path)

    def _write_npz(self, path: Path) -> None:
        texts = {name: np.array(values) for name, values in self._all_texts().items()}
        arrays: dict[str, Any] = {**self._arrays(), **texts}
        with open(path, "xb") as file:
            np.savez(file, **arrays)

    def _write_h5(self, path: Path) -> None:
        from featx.cache.hdf5_frame import plain_file

        path.write_bytes(plain_file(self._arrays(), self._all_texts()))


_PREDICTION_WRITERS = {
    ".h5": PredictionFile._write_h5,
    ".npz": PredictionFile._write_npz,
    ".parquet": PredictionFile._write_parquet,
}


def check_file_packages(path: Path) -> None:
    """Check that the package that writes such a file is installed."""
    if path.suffix.lower() == ".parquet":
        check_pyarrow()


def write_text_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file with a header; an existing one is replaced once the new one is complete."""
    with (
        replaced_atomically(path.absolute()) as beside,
        open(beside, "x", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _write_embeddings_npz(table: EmbeddingFile, path: Path) -> None:
    arrays: dict[str, Any] = {"embeddings": table.embeddings}
    arrays |= {name: np.array(texts) for name, texts in table.columns("paths", "labels").items()}
    with open(path, "xb") as file:
        np.savez(file, **arrays)


def _write_embeddings_csv(table: EmbeddingFile, path: Path) -> None:
    write_csv(path, table.columns("path", "label"), [table.embeddings])


def _write_embeddings_parquet(table: EmbeddingFile, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = table.embeddings.reshape(len(table.embeddings), -1)
    columns = {
        name: string_array(values) for name, values in table.columns("path", "label").items()
    }
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    parquet.write_table(pa.table(columns), path)


def _write_embeddings_h5(table: EmbeddingFile, path: Path) -> None:
    from featx.cache.hdf5_frame import plain_file

    path.write_bytes(plain_file({"embeddings": table.embeddings}, table.columns("paths", "labels")))


_WRITERS = {
    ".csv": _write_embeddings_csv,
    ".h5": _write_embeddings_h5,
    ".npz": _write_embeddings_npz,
    ".parquet": _write_embeddings_parquet,
}
