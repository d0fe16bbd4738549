"""Where the results of the commands go: files, text for people, one JSON document for machines."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click

from featx.exceptions import InputError, NearDuplicateWarning

FORCE = click.option("--force", is_flag=True, help="Replace what is there.")
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
    """
    message = re.sub(r"^\w+ has (a|\d+) faulty parameters?:", "faulty options:", message)
    message = re.sub(r"\b(extractor__)?backbone_params=", "--param ", message)
    message = re.sub(r"\b(extractor__)?on_error='(\w+)'", r"--on-error \2", message)
    message = re.sub(r"\bfine_tune__unfreeze=", "--fine-tune ", message)
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


def show(result: Any, as_json: bool, text: str) -> None:
    """Print the result for machines, or else its text for people."""
    if as_json:
        print_json(result)
    else:
        click.echo(text)


def passes(report: Any) -> str:
    """Say how many samples went through the network."""
    return f"{report.n_forward} forward passes, {report.n_hits} from the cache"


def check_writable(out: Path) -> None:
    """Check that a file can be written, before there is work to lose.

    Raises
    ------
    InputError
        It is a folder, or in no folder.
    """
    if out.is_dir():
        raise InputError(f"{str(out)!r} is a folder: expected the name of a file")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{str(out.absolute().parent)!r}: no such folder to write to")


def check_new(out: Path) -> None:
    """Check that there is nothing yet under a name.

    Raises
    ------
    InputError
        Something is there, if only a link to nothing.
    """
    if os.path.lexists(out):
        raise InputError(f"{str(out)!r} is there already: pass --force to replace it")


def print_json(value: Any) -> None:
    """Print plain data as one JSON document."""
    click.echo(json.dumps(value, indent=1))
