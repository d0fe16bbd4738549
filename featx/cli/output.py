"""Where the results of the commands go: files, text for people, one JSON document for machines."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

import click

from featx._text import without_controls
from featx.exceptions import InputError, NearDuplicateWarning

FORCE = click.option("--force", is_flag=True, help="Replace what is there.")
_READER_GONE = 141
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


_PARAMETERS = (
    "also_cache",
    "augment",
    "backbone",
    "batch_size",
    "cache",
    "engine",
    "head",
    "input_size",
    "layer",
    "n_jobs",
    "pooling",
    "precision",
    "preprocessing",
    "space",
    "views",
    "weights",
)
_SAMPLE = re.compile(r"  \[\d+\] ")  # how a line on one sample begins
_CURE_OF_DUPLICATES = (
    "Remove all but one, or cross-validate with compare_heads in Python, which takes groups."
)


def as_options(message: str) -> str:
    """Say in a message of the library what a person at the shell would type.

    Examples
    --------
    >>> as_options("pass on_error='nan' to get rows of NaN in their place")
    'pass --on-error nan to get rows of NaN in their place'
    >>> as_options("name them: trusted=['sklearn.tree._tree.Tree']")
    'name them: --trusted sklearn.tree._tree.Tree'
    >>> as_options("fine_tune__batch_size=0: expected a positive integer.")
    '--tune batch_size=0: expected a positive integer.'
    >>> as_options("  [0] my head=3.png: no such file")  # the name of a file
    '  [0] my head=3.png: no such file'
    """
    lines = message.split("\n")
    return "\n".join(line if _SAMPLE.match(line) else _in_options(line) for line in lines)


def _in_options(message: str) -> str:
    message = re.sub(r"^\w+ has (a|\d+) faulty parameters?:", "faulty options:", message)
    message = re.sub(r"\b(extractor__)?backbone_params=", "--param ", message)
    message = re.sub(r"\b(extractor__)?on_error='(\w+)'", r"--on-error \2", message)
    message = re.sub(r"\b(fine_tune__)?unfreeze=", "--fine-tune ", message)
    message = re.sub(r"\bfine_tune__(?=\w+=)", "--tune ", message)
    message = re.sub(
        rf"(?<!\S)(?<!--tune )(?:extractor__)?({'|'.join(_PARAMETERS)})=", _option, message
    )
    message = re.sub(r"\bn_folds=", "--folds ", message)
    message = message.replace("list_backbones() names", "featx backbones names")
    return re.sub(r"\btrusted=\[(.*?)\]", _trusted_options, message)


def at_the_shell(told: Exception) -> str:
    """Say to a person at the shell what the library tells, with a cure that works there.

    Examples
    --------
    >>> from featx.exceptions import NearDuplicateWarning
    >>> at_the_shell(NearDuplicateWarning("a and b are the same.", "Pass groups="))
    'a and b are the same. Remove all but one, or cross-validate with compare_heads in Python, ...'
    """
    if isinstance(told, NearDuplicateWarning):
        return as_options(f"{told.finding} {_CURE_OF_DUPLICATES}")
    return as_options(str(told))


def _option(parameter: re.Match[str]) -> str:
    return f"--{parameter[1].replace('_', '-')} "


def _trusted_options(names: re.Match[str]) -> str:
    return " ".join(f"--trusted {name.strip()[1:-1]}" for name in names[1].split(","))


def echo(text: str, *, err: bool = False) -> None:
    """Print lines of text with their control characters escaped."""
    write(f"{without_controls(text)}\n", err=err)


def results() -> TextIO:
    """Return the standard output with which the command was started."""
    context = click.get_current_context(silent=True)
    return sys.stdout if context is None or context.obj is None else context.obj


def write(text: str, *, err: bool = False) -> None:
    """Write text unchanged to standard output or standard error.

    Raises
    ------
    Exit
        The reader is gone, as in ``featx ... | head``; the exit code is that of SIGPIPE.
    """
    stream = sys.stderr if err else results()
    try:
        click.echo(text, stream, nl=False, color=True)
    except BrokenPipeError:
        # Python flushes standard output when it ends, and would complain.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise click.exceptions.Exit(_READER_GONE) from None


def show(result: Any, as_json: bool, text: str) -> None:
    """Print the result for machines, or else its text for people."""
    if as_json:
        print_json(result)
    else:
        echo(text)


def print_json(value: Any) -> None:
    """Print plain data as one JSON document in ASCII, with null for NaN and infinity."""
    document = json.dumps(_finite(value), indent=1, allow_nan=False)
    write(document.replace("\x7f", "\\u007f") + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def confirm(question: str) -> bool:
    """Ask on the terminal whether to go on.

    Raises
    ------
    UsageError
        Standard input holds no answer.
    """
    try:
        return click.confirm(without_controls(question), err=True)
    except click.Abort as exc:
        if isinstance(exc.__context__, EOFError):
            raise click.UsageError("standard input holds no answer: pass --yes") from None
        raise


def passes(report: Any) -> str:
    """Say how many samples went through the network."""
    return f"{report.n_forward} forward passes, {report.n_hits} from the cache"


def check_ending(out: Path, endings: Collection[str], *, or_none: bool = False) -> None:
    """Check that a file has one of the endings that the command writes.

    Raises
    ------
    InputError
        It has another ending.
    """
    if out.suffix.lower() not in endings and not (or_none and not out.suffix):
        expected = f"the ending {' or '.join(endings)}{', or none' if or_none else ''}"
        raise InputError(f"{str(out)!r}: expected {expected}")


def check_out(*paths: Path, force: bool) -> None:
    """Check, before any work, that output files can and may be written.

    Raises
    ------
    ParameterError
        A path is that of a folder, a link or a device, which ``--force`` does not replace.
    InputError
        The folder of a file is missing, or a file exists and ``--force`` was not passed.
    OSError
        The folder of a file is not writable.
    """
    from featx._files import check_replaceable

    for path in paths:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise InputError(f"{str(folder)!r}: no such folder to write to")
        check_replaceable(path)
        if not force and path.exists():
            raise InputError(f"{str(path)!r} is there already: pass --force to replace it")
