"""``load_webdataset``: samples and targets in tar files, as the WebDataset format stores them."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from featx._text import one_line
from featx._urls import is_url, shown_url
from featx._validation import ParameterFaults
from featx.exceptions import InputError
from featx.inputs.archives import is_file
from featx.inputs.labeled import IMAGE_SUFFIXES, LabeledSamples
from featx.inputs.places import opened_file
from featx.inputs.table_files import errors_of_file
from featx.inputs.tables import check_column_names, labeled_columns, target_names

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_JSON_FIELD = "json:"
_MAX_FILE_BYTES = 2**20  # of a label or a JSON file
_N_SHOWN = 10
_SUFFIXES = tuple(IMAGE_SUFFIXES)


def load_webdataset(
    shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    sample: str | None = None,
    target: str | Sequence[str] | None = "cls",
    groups: str | None = None,
) -> LabeledSamples:
    """Load samples, targets and groups from the tar files of a WebDataset.

    Files whose paths are equal up to the first dot of their names belong to one sample, such as
    ``0001.jpg``, ``0001.cls`` and ``0001.json``. Nothing is decoded.

    Parameters
    ----------
    shards : str, Path or sequence of them
        Paths or URLs of tar files. A path or URL may have a range, as in
        ``"shard-{000..099}.tar"``; a path may be a pattern, as in ``"shard-*.tar"``.
    sample : str, default=None
        Ending of the files that are samples, such as ``"jpg"``. By default, the samples are the
        images, of which each sample has one.
    target : str, sequence of str or None, default="cls"
        Ending of the files with the targets, or ``"json:NAME"`` for a value in the ``.json`` files;
        several of them for several outputs. None leaves the targets out.
    groups : str, default=None
        Ending of the files, or ``"json:NAME"`` for a value, that names the group of each sample,
        such as a patient.

    Returns
    -------
    LabeledSamples
        A Bunch as :func:`load_table` returns it. ``data``: ndarray of shape (n_samples,), dtype
        object, URLs such as ``tar://0001.jpg::shard-000.tar``, in the order of the shards.

    Raises
    ------
    InputError
        A file cannot be read, has no samples or holds a file twice, or samples lack a target. The
        message lists all faults of a column.
    ParameterError
        A parameter has the wrong type, or no file has the ending.
    MissingExtraError
        The package that opens the URL is not installed.

    See Also
    --------
    load_table : Samples in the columns of a table.
    load_image_folder : Images in one folder for each class, also in an archive.

    Notes
    -----
    The headers of all files are read, and the files with targets and groups. Text becomes integers
    if all of a column is written as integers. A compressed tar file is unpacked from its start for
    each sample, which is slow: decompress it once.

    Examples
    --------
    >>> import io, tarfile, tempfile
    >>> from pathlib import Path
    >>> from featx import load_webdataset
    >>> shard = Path(tempfile.mkdtemp()) / "shard-000.tar"
    >>> with tarfile.open(shard, "w") as archive:
    ...     for name in ("1.png", "1.cls", "2.png", "2.cls"):
    ...         header = tarfile.TarInfo(name)
    ...         header.size = 1
    ...         archive.addfile(header, io.BytesIO(name[:1].encode()))
    >>> digits = load_webdataset(shard)
    >>> digits.target.tolist(), digits.data[0].partition("::")[0]
    ([1, 2], 'tar://1.png')
    """
    names = target_names(target)
    check_column_names("load_webdataset", "" if sample is None else sample, names, groups)
    files = _Shards(_paths_of(shards), wanted={*names, *([] if groups is None else [groups])})
    ending = files.image_column() if sample is None else sample
    return labeled_columns(files, ending, names, groups, folder="")


def _paths_of(shards: Any) -> list[str]:
    """Return the paths of tar files, with ranges and patterns expanded."""
    given = [shards] if isinstance(shards, str | os.PathLike) else shards
    if not isinstance(given, Sequence) or not all(
        isinstance(one, str | os.PathLike) for one in given
    ):
        faults = ParameterFaults("load_webdataset")
        faults.add("shards", shards, "the path of a tar file, or a list of paths.")
        faults.raise_any()
    paths = [path for one in given for path in _expanded(os.fspath(one))]
    if not paths:
        named = ", ".join(repr(os.fspath(one)) for one in given)
        raise InputError(f"no such file: {named}" if named else "shards is empty: expected paths")
    return paths


def _expanded(path: str) -> list[str]:
    found = _BRACES.search(path)
    if found:
        first, last = found.groups()
        numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        starts = (f"{path[: found.start()]}{number}" for number in numbers)
        return [one for start in starts for one in _expanded(start + path[found.end() :])]
    is_pattern = not is_url(path) and glob.has_magic(path) and not os.path.exists(path)
    return sorted(glob.glob(os.path.expanduser(path))) if is_pattern else [os.path.expanduser(path)]


class _Shards:
    """Tar files as one table: a row for each sample, a column for each ending of its files.

    Columns of samples hold URLs; `wanted` are the columns whose files are read.
    """

    loader = "load_webdataset"
    folder = ""
    has_types = True

    def __init__(self, paths: Sequence[str], *, wanted: Iterable[str]) -> None:
        self._fields = {name.removeprefix(_JSON_FIELD) for name in wanted if _is_field(name)}
        self._endings = {"json" if _is_field(name) else name for name in wanted}
        self._names_in_json: dict[str, None] = {}  # in their order
        self._rows: list[dict[str, Any]] = []
        self.name = repr(shown_url(paths[0]))
        if len(paths) > 1:
            self.name += f" and {len(paths) - 1} more"
        for path in paths:
            self._rows += self._rows_of(path).values()
        names = dict.fromkeys(name for row in self._rows for name in row)
        self.columns = list(names | self._names_in_json)

    def image_column(self) -> str:
        """Return the name of the column of images, which joins those of several endings.

        InputError is raised if there are no images, or several for a sample.
        """
        images = [name for name in self.columns if f".{name}".endswith(_SUFFIXES)]
        if len(images) == 1:
            return images[0]
        if not images:
            shown = ", ".join(map(one_line, self.columns[:_N_SHOWN])) or "none"
            raise InputError(f"{self.name} has no images; its files end in: {shown}")
        rows = [[name for name in images if name in row] for row in self._rows]
        if any(len(names) > 1 for names in rows):
            raise InputError(
                f"{self.name} has several images for a sample ({', '.join(images)}): name one "
                f"of them, as in sample={images[0]!r}"
            )
        for row, names in zip(self._rows, rows, strict=True):
            row["image"] = row[names[0]] if names else None
        self.columns.append("image")
        return "image"

    def read(self, names: Sequence[str], *, lazy: str) -> dict[str, list[Any]]:
        """Return some columns, None where a sample lacks the file or the value.

        Texts in files become integers if all of a column are written as Python writes integers.
        """
        columns: dict[str, list[Any]] = {
            name: [row.get(name) for row in self._rows] for name in names
        }
        for name, values in columns.items():
            are_texts = not _is_field(name) and all(isinstance(one, str) for one in values)
            if are_texts and all(map(_INTEGER.fullmatch, values)):
                columns[name] = list(map(int, values))
        return columns

    def describe(self, column: str) -> str:
        """Return the name of the files and of one of the columns."""
        return f"{self.name}, {column!r}"

    def _rows_of(self, path: str) -> dict[str, dict[str, Any]]:
        """Return the samples of a tar file by their paths up to the first dot."""
        rows: dict[str, dict[str, Any]] = {}
        for key, ending, value in self._files_of(path):
            row = rows.setdefault(key, {})
            if ending in row:
                raise InputError(f"{shown_url(path)!r} holds {f'{key}.{ending}'!r} twice")
            row[ending] = value
            if ending == "json" and self._fields:
                row |= {_JSON_FIELD + name: value.get(name) for name in self._fields & value.keys()}
                self._names_in_json |= dict.fromkeys(_JSON_FIELD + name for name in value)
        return rows

    def _files_of(self, path: str) -> Iterator[tuple[str, str, Any]]:
        """Yield key, ending and value of each file; the values of files not wanted are URLs."""
        place = path if is_url(path) else os.path.abspath(path)
        with (
            errors_of_file(repr(shown_url(path))),
            opened_file(path) as file,
            tarfile.open(fileobj=file) as archive,
        ):
            for member in archive:
                folder, slash, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if is_file(member) and stem and dot:
                    url = f"tar://{member.name}::{place}"
                    content = self._content(archive, member, ending)
                    value = url if content is None else _value_in(content, ending, url)
                    yield f"{folder}{slash}{stem}", ending.lower(), value

    def _content(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str
    ) -> bytes | None:
        if ending.lower() not in self._endings:
            return None
        if member.size > _MAX_FILE_BYTES:
            raise InputError(
                f"{member.name!r} has {member.size:,} bytes: expected a target of at most "
                f"{_MAX_FILE_BYTES:,}"
            )
        file = archive.extractfile(member)
        return b"" if file is None else file.read()


def _is_field(name: str) -> bool:
    return name.startswith(_JSON_FIELD)


def _value_in(content: bytes, ending: str, url: str) -> Any:
    """Return the object in a JSON file, or the text of another."""
    shown = shown_url(url)
    try:
        text = content.decode().strip()
        value = json.loads(text) if ending.lower() == "json" else text
    except ValueError as exc:
        raise InputError(f"{shown!r} cannot be read: {one_line(exc)}") from exc
    if ending.lower() == "json" and not isinstance(value, Mapping):
        raise InputError(f"{shown!r} holds {one_line(text, max_chars=40)}: expected a JSON object")
    return value
