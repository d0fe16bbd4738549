"""``read_groups``: the group of each image in a folder, such as its patient, from a CSV file."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from featx._text import one_line
from featx._urls import file_name, is_url, joined_path, shown_path
from featx._validation import InputFaults
from featx.exceptions import InputError
from featx.inputs.folders import root_of

_COLUMNS = ("path", "group")
_N_SHOWN = 5


def read_groups(file: str | os.PathLike[str], folder: str, images: Sequence[str]) -> list[str]:
    r"""Return the group of each image.

    The file is UTF-8 with a line of names, among them ``path`` and ``group``. A path is relative to
    the folder, which may be an archive or a URL, or absolute, or the name of a file that only one
    class has. Lines about other images are ignored.

    Raises
    ------
    InputError
        The file cannot be read, or lacks a column, or images have no group or several. The message
        lists all faults.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp()) / "patients.csv"
    >>> _ = file.write_text("path,group\ncat/1.png,Ann\n2.png,Bob\n")
    >>> read_groups(file, "photos", ["photos/cat/1.png", "photos/dog/2.png"])
    ['Ann', 'Bob']
    """
    root = root_of(folder)
    positions = _positions_by_path(images)
    found: list[set[str]] = [set() for _ in images]
    for path, group in _lines_of_groups(file):
        position = positions.get(_normalized(joined_path(root, path)), positions.get(path))
        if position is not None and group:
            found[position].add(group)
    _check_one_group(file, images, found)
    return [group for groups in found for group in groups]


def _positions_by_path(images: Sequence[str]) -> dict[str, int]:
    """Return the position of each image by its paths, and by its name if no other has that."""
    names = list(map(file_name, images))
    counts = Counter(names)
    positions = {name: place for place, name in enumerate(names) if counts[name] == 1}
    for place, image in enumerate(images):
        positions[_normalized(image)] = place
        if not is_url(image):
            positions[os.path.abspath(image)] = place
    return positions


def _normalized(path: str) -> str:
    return path if is_url(path) else os.path.normpath(path)


def _lines_of_groups(file: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yield the path and the group in each line of a file."""
    shown = repr(os.fspath(file))
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines)
            lacking = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
            if lacking:
                raise InputError(
                    f"{shown}: expected the columns path and group, but its first line is "
                    f"{one_line(','.join(table.fieldnames or ()))!r}"
                )
            for line in table:
                yield line["path"] or "", line["group"] or ""
    except FileNotFoundError:
        raise InputError(f"{shown}: no such file of groups") from None
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InputError(f"{shown} cannot be read as CSV: {exc}") from exc


def _check_one_group(
    file: str | os.PathLike[str], images: Sequence[str], found: Sequence[set[str]]
) -> None:
    """Check that each image has one group; one error names the images that have none or several."""
    faults = InputFaults()
    for fault, is_faulty in (("no group", lambda n: n == 0), ("several groups", lambda n: n > 1)):
        faulty = [
            image for image, groups in zip(images, found, strict=True) if is_faulty(len(groups))
        ]
        if faulty:
            more = f" and {len(faulty) - _N_SHOWN} more" if len(faulty) > _N_SHOWN else ""
            shown = ", ".join(map(one_line, map(shown_path, faulty[:_N_SHOWN])))
            faults.messages.append(
                f"{os.fspath(file)!r} has {fault} for {len(faulty)} of {len(images)} images: "
                f"{shown}{more}"
            )
    faults.raise_any()
