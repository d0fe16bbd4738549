"""The reader of a saved extractor: its digest, and class and parameters if it comes with featx.

A function of the caller is never stored: loading checks that the function that is passed has the
same code, and was used with the same versions of its packages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from featx._json import as_json_values
from featx.digests.code import UnhashableCodeError
from featx.exceptions import ParameterError, SavedFileError
from featx.inputs.reader import Reader
from featx.readers import SHIPPED

_SHIPPED_BY_NAME = {kind.__name__: kind for kind in SHIPPED}
_MAX_TEXT = 2**12
_MAX_ITEMS = 2**12
_ENTRY = {"digest", "label"}


def entry_of_reader(reader: Reader) -> dict[str, Any]:
    """Return what a manifest holds of a reader, as plain data."""
    entry = {"digest": reader.identity["reader"], "label": reader.label[:_MAX_TEXT]}
    return as_json_values(entry | (reader.shipped or {}))


def is_reader_entry(value: Any) -> bool:
    """Return True for the entry of a manifest that :func:`entry_of_reader` may have returned."""
    if not isinstance(value, dict) or not all(_is_short_text(value.get(name)) for name in _ENTRY):
        return False
    if value.keys() == _ENTRY:
        return True
    kind = _SHIPPED_BY_NAME.get(value.get("class", ""))
    if value.keys() != _ENTRY | {"class", "params"} or kind is None:
        return False
    params = value["params"]
    names = {each.name for each in fields(kind)}
    return (
        isinstance(params, dict) and params.keys() == names and all(map(_is_plain, params.values()))
    )


def loaded_reader(
    entry: dict[str, Any] | None, read: Callable[..., Any] | None, *, path: str
) -> Callable[..., Any] | None:
    """Return the reader of a saved extractor: the one that comes with featx, or `read`.

    `path` is that of the file, for messages.

    Raises
    ------
    ParameterError
        `read` was passed, but the extractor has no reader.
    SavedFileError
        `read` is missing, cannot be identified, or is other code; or parameters of the reader that
        comes with featx are faulty.
    MissingExtraError
        The packages of a reader that comes with featx are not installed.
    """
    if entry is None:
        if read is not None:
            raise ParameterError.of("read", read, f"expected None: {path} names no reader")
        return None
    if read is None:
        if "class" not in entry:
            raise SavedFileError(
                f"{path} was fitted with a reader of the caller, {entry['label']!r}, which no file "
                "holds: pass the function, featx.load(path, read=...)"
            )
        try:
            read = _SHIPPED_BY_NAME[entry["class"]](**entry["params"])
        except ParameterError as exc:
            raise SavedFileError(f"{path} is damaged: its reader has {exc}") from exc
    reader = Reader(read)
    try:
        digest = reader.identity["reader"]
    except UnhashableCodeError as exc:
        raise SavedFileError(f"the reader {reader.label} cannot be identified: {exc}") from exc
    if digest != entry["digest"]:
        raise SavedFileError(
            f"{path} was fitted with the reader {entry['label']!r} of the digest "
            f"{entry['digest']}, but {reader.label} has the digest {digest}: pass the function as "
            "it was then, featx.load(path, read=...), or fit again"
        )
    return read


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _is_plain(value: Any) -> bool:
    """Return True for a number, a text, None or a list of numbers and texts."""
    if isinstance(value, list):
        return len(value) <= _MAX_ITEMS and not any(
            isinstance(each, list) or not _is_plain(each) for each in value
        )
    return value is None or isinstance(value, (int, float)) or _is_short_text(value)
