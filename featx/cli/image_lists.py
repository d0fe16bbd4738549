"""``images_of``: images that arguments name: files, folders, URLs, patterns, lists and tables."""

from __future__ import annotations

import csv
import glob
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from featx._text import one_line
from featx._urls import is_url, joined_path, shown_path, suffix_of
from featx.exceptions import InputError
from featx.inputs.folders import list_images
from featx.inputs.labeled import IMAGE_SUFFIXES
from featx.inputs.table_files import is_table, open_table

COLUMNS = ("path", "file", "filename", "image")
_N_SHOWN = 10
_ENCODING, _ERRORS = "utf-8-sig", "surrogateescape"  # file names may be any bytes


def images_of(
    places: Sequence[str], column: str | None = None, base: str | None = None
) -> list[str]:
    r"""Return the paths of images, in the order of the arguments that name them.

    An argument is a file, a folder or an archive (the sorted images in it), a URL of these, a
    pattern such as ``'photos/**/*.jpg'``, a list of paths as ``@list.txt`` or ``-`` for standard
    input, one on each line, or a table (.csv, .tsv, .jsonl, .parquet) with a column of paths.
    Relative paths in files start from the folder of the file, or those in tables from `base`.
    InputError is raised, and names all faults, if a list or a table cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "photos.csv").write_text("path,taken\n1.jpg,2024\n2.jpg,2025\n")
    >>> [os.path.basename(path) for path in images_of([str(folder / "photos.csv")])]
    ['1.jpg', '2.jpg']
    """
    for option, value in (("--sample", column), ("--base", base)):
        if value is not None and not any(map(is_table, places)):
            raise InputError(f"{option} {shown_path(value)}: expected a table among the arguments")
    if places.count("-") > 1:
        raise InputError("- is given twice: standard input can be read once")
    found: list[str] = []
    faults: list[str] = []
    for place in places:
        try:
            found += _places_in(place, column, base)
        except (InputError, OSError, csv.Error) as exc:
            reason = (isinstance(exc, OSError) and exc.strerror) or exc
            faults.append(
                str(exc) if isinstance(exc, InputError) else f"{shown_path(place)!r}: {reason}"
            )
    if faults:
        raise InputError("\n".join(faults))
    return list_images(found)


def _is_image_name(place: str) -> bool:
    return suffix_of(place) in IMAGE_SUFFIXES


def _places_in(place: str, column: str | None, base: str | None) -> list[str]:
    """Return the files and folders that an argument names."""
    if place == "-":
        return _named_in(sys.stdin.buffer.read(), "", "standard input")
    if is_table(place) and not place.startswith("@"):
        return _paths_in_table(place, column, base)
    if os.path.lexists(place) or is_url(place):
        return [place]
    if place.startswith("@"):
        content = Path(place[1:]).read_bytes()
        return _named_in(content, os.path.dirname(place[1:]), repr(place))
    if not (glob.has_magic(place) or _is_image_name(place)):
        raise InputError(f"{place!r}: no such file or folder")
    return _matches(place) or [place]  # a missing image is reported with those that cannot be read


def _named_in(content: bytes, folder: str, source: str) -> list[str]:
    """Return the paths on the lines of a list; empty lines are left out."""
    lines = content.decode(_ENCODING, _ERRORS).split("\n")
    paths = [joined_path(folder, line) for line in (line.rstrip("\r") for line in lines) if line]
    if not paths:
        raise InputError(f"{source} names no images: expected a path on each line")
    if any("\0" in path for path in paths):
        raise InputError(f"{source} is no text: expected a path on each line")
    return paths


def _paths_in_table(path: str, column: str | None, base: str | None) -> list[str]:
    from featx.inputs.tables import load_table  # which loads scikit-learn

    names = open_table(path).columns
    sample = _column_of_paths(path, names, column)
    found = load_table(path, sample=sample, target=None, base=base)
    if not hasattr(found.data, "dtype"):
        raise InputError(
            f"{shown_path(path)!r} holds encoded images, not paths: pass it to load_table in Python"
        )
    return found.data.tolist()


def _column_of_paths(path: str, names: Iterable[str], column: str | None) -> str:
    """Return the name of the column of paths: the given one, or the first of the usual names."""
    by_lower_case = {name.lower(): name for name in reversed(list(names))}
    if column in by_lower_case.values():
        return str(column)
    usual = [by_lower_case[name] for name in COLUMNS if name in by_lower_case]
    if column is None and usual:
        return usual[0]
    expected = "one of " + ", ".join(COLUMNS) + ", or --sample NAME" if column is None else column
    shown = ", ".join(map(one_line, names)) or "no columns"
    raise InputError(f"{shown_path(path)!r} has {shown}: expected {one_line(expected)}")


def _matches(pattern: str) -> list[str]:
    """Return the images and folders that a pattern matches, sorted."""
    found = sorted(glob.glob(pattern, recursive=True))
    if "**" in pattern:  # the folders are those of the images
        found = [place for place in found if not os.path.isdir(place)]
    return [place for place in found if os.path.isdir(place) or _is_image_name(place)]
