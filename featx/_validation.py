"""ParameterFaults and InputFaults, which collect all faults and raise them as one error."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from featx.exceptions import InputError, ParameterError, ParameterFault

_MAX_CHARS = 80  # of a value that is shown
_MAX_CHARS_OF_PATH = 400  # whose end says most
_MAX_FLOAT = sys.float_info.max


def did_you_mean(name: object, options: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return a sentence with up to three options like a mistyped name; empty if none is near."""
    near = difflib.get_close_matches(str(name), list(options), cutoff=cutoff)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def has_methods(value: object, *names: str) -> bool:
    """Return True for an object, other than a class, with methods of these names."""
    return all(hasattr(value, name) for name in names) and not isinstance(value, type)


def as_path(path: Any) -> Path:
    """Return the parameter `path` as a Path; raise ParameterError for another type."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise ParameterError.of("path", path, "expected the path of a file, a str or Path.")
    return Path(path)


class ParameterFaults:
    """Collects the faults of an estimator's parameters, and raises them as one error.

    Examples
    --------
    >>> faults = ParameterFaults("FeatureExtractor")
    >>> faults.check_option("pooling", "avgg", ["avg", "max"])
    >>> faults.check_positive_int("batch_size", 0)
    >>> faults.raise_any()
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: FeatureExtractor has 2 faulty parameters:
      pooling='avgg': expected one of 'avg', 'max'. Did you mean 'avg'?
      batch_size=0: expected a positive integer.
    """

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.faults: list[ParameterFault] = []

    def add(self, name: str, value: object, expected: str) -> None:
        """Add the fault of one parameter; a long value is shortened, but no usual path."""
        shown = repr(value)
        is_path = isinstance(value, str | os.PathLike) and os.sep in os.fspath(value)
        most = _MAX_CHARS_OF_PATH if is_path else _MAX_CHARS
        if len(shown) > most:
            shown = f"{shown[: most - 3]}..."
        self.faults.append(ParameterFault(name, shown, f"expected {expected}"))

    def add_message(self, message: str) -> None:
        """Add a fault that does not belong to one value."""
        self.faults.append(ParameterFault("", "", message))

    def check_option(self, name: str, value: Any, options: Collection[str | None]) -> None:
        """Check that a value is one of `options`."""
        if (value is None or isinstance(value, str)) and value in options:
            return
        shown = ", ".join(map(repr, options))
        names = [option for option in options if option is not None]
        self.add(name, value, f"one of {shown}.{did_you_mean(value, names)}")

    def check_positive_int(self, name: str, value: Any, *, also: Collection[Any] = ()) -> None:
        """Check that a value is a positive integer or one of `also`."""
        if isinstance(value, (str, type(None))) and value in also:
            return
        if isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0:
            return
        others = "".join(f" or {option!r}" for option in also)
        self.add(name, value, f"a positive integer{others}.")

    def check_number(
        self, name: str, value: Any, is_sound: Callable[[float], bool], expected: str
    ) -> None:
        """Check that a value is a number for which `is_sound` returns True."""
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and abs(value) <= _MAX_FLOAT and is_sound(float(value))):
            self.add(name, value, f"a number {expected}.")

    def check_part(self, check: Callable[[], object], *, prefix: str = "") -> None:
        """Add the faults that the check of a nested object raises, with a prefix to each name."""
        try:
            check()
        except ParameterError as exc:
            self.faults += [
                fault._replace(name=f"{prefix}{fault.name}") if fault.name else fault
                for fault in exc.faults
            ]

    def raise_any(self) -> None:
        """Raise one error with all faults, if there are any."""
        faults = list(dict.fromkeys(self.faults))
        if not faults:
            return
        count = "a faulty parameter" if len(faults) == 1 else f"{len(faults)} faulty parameters"
        separator = " " if len(faults) == 1 else "\n  "
        lines = [f"{self.owner} has {count}:", *map(str, faults)]
        raise ParameterError(separator.join(lines), faults)


class InputFaults:
    """Collects the faults of labels, weights and groups, and raises them as one error.

    Examples
    --------
    >>> faults = InputFaults()
    >>> faults.check(int, "one")
    >>> faults.check(int, "2")
    2
    >>> faults.raise_any()
    Traceback (most recent call last):
        ...
    featx.exceptions.InputError: invalid literal for int() with base 10: 'one'
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    def check(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the result of a function, or None if it raises a ValueError or TypeError."""
        try:
            return function(*args, **kwargs)
        except (ValueError, TypeError) as exc:
            self.messages.append(str(exc))
        return None

    def raise_any(self) -> None:
        """Raise one InputError with all faults, if there are any."""
        if len(self.messages) == 1:
            raise InputError(self.messages[0])
        if self.messages:
            raise InputError("\n  ".join([f"{len(self.messages)} faults:", *self.messages]))
