"""Where the results of the commands go: files, text for people, one JSON document for machines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich import filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text

from featx._json import as_plain
from featx._text import one_line, without_controls
from featx.exceptions import InputError, NearDuplicateWarning

if TYPE_CHECKING:
    from featx.backbones.registry import Network
    from featx.evaluation.comparison import Comparison


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
    document = json.dumps(as_plain(value), indent=1, allow_nan=False)
    write(document.replace("\x7f", "\\u007f") + "\n")


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


_LONGEST = 1_000  # characters of a cell
_UNCUT = 10_000  # characters; where no terminal sets a width, rich takes 80


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; columns whose name begins with ``#`` hold numbers and are set right.

    Names are shown as text, with no markup or emoji codes. The title is one line, however long, so
    that a path in it can be copied. In a file or a pipe, cells are one line each, and those below
    1,000 characters are shown whole.

    Examples
    --------
    >>> print_table("", ["name", "#n"], [["a", 1]])  # doctest: +SKIP
    """
    console = Console(file=results())
    if not console.file.isatty():  # rich calls a pipe a terminal where colour is forced
        console.width = _UNCUT
    table = Table()
    for column in columns:
        right = column.startswith("#")
        table.add_column(
            _as_cell(column.removeprefix("#")),
            justify="right" if right else "left",
            no_wrap=right,
        )
    for row in rows:
        table.add_row(*map(_as_cell, row))
    with console.capture() as captured:
        if title:
            console.print(Text(title, "italic"), soft_wrap=True)
        console.print(table)
    write(captured.get())


def _as_cell(value: Any) -> Text:
    return Text(one_line(value, max_chars=_LONGEST))


@contextlib.contextmanager
def status(title: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done.

    Yields
    ------
    callable
        To be told each step in words.
    """
    console = Console(stderr=True)
    with console.status(Text(title)) as spinner:

        def show(step: str) -> None:
            # A file or a pipe shows no spinner, so each step gets a line.
            if console.is_terminal:
                spinner.update(Text(one_line(step)))
            else:
                echo(f"- {step}", err=True)

        yield show


def print_demo(result: dict[str, Any]) -> None:
    """Print what the demo found."""
    columns = ("images", "features", "#accuracy", "#passes", "#seconds")
    rows = [
        (
            row.images,
            row.features,
            f"{row.mean:.3f} ± {row.spread:.3f}",
            row.n_forward,
            f"{row.seconds:.2f}",
        )
        for row in result["rows"]
    ]
    title = (
        "Logistic regression on raw pixels, on the embeddings of tiny, and fine-tuned from there:\n"
        "accuracy over 2 splits (mean ± spread), and images through the network"
    )
    print_table(title, columns, rows)
    for name in ("images", "cache", "model"):
        echo(f"{name:<6}  {one_line(result[name])}")
    example = one_line(result["example"])
    echo(f"the saved model says {result['prediction']!r} of {example}")


def print_evaluation(result: dict[str, Any]) -> None:
    """Print metrics per class, averages and the confusion matrix."""
    columns = ("class", "#precision", "#recall", "#F1", "#images")
    averages = [(f"({name})", result[name]) for name in ("macro", "weighted")]
    rows = [
        (
            name,
            f"{values['precision']:.3f}",
            f"{values['recall']:.3f}",
            f"{values['f1-score']:.3f}",
            int(values["support"]),
        )
        for name, values in [*result["classes"].items(), *averages]
    ]
    low, high = result["intervals"]["accuracy"]
    title = (
        f"accuracy {result['accuracy']:.3f} ({low:.3f} to {high:.3f}, "
        f"{result['intervals']['confidence']:.0%} interval) on {result['n_samples']} images"
    )
    print_table(title, columns, rows)
    if "calibration" in result:
        error, temperature = (result["calibration"][name] for name in ("error", "temperature"))
        shown = f"calibration error {error:.3f}"
        if temperature is not None:
            side = "sure" if temperature > 1 else "careful"
            shown += f" (temperature {temperature:.2f}: probabilities are too {side})"
        echo(shown)
    labels = result["confusion"]["labels"]
    counts = zip(labels, result["confusion"]["counts"], strict=True)
    print_table(
        "confusion (rows: true class, columns: predicted)",
        ("", *(f"#{label}" for label in labels)),
        [(label, *row) for label, row in counts],
    )


def print_comparisons(
    rows: Sequence[Comparison], p_values: Sequence[float], *, n_folds: int
) -> None:
    """Print a table of cross-validations, with how likely each difference to the best is chance."""
    accuracy = f"#accuracy, {n_folds} folds"
    columns = ("backbone", "head", accuracy, "#p, best", "#passes", "#seconds")
    lines = [
        (
            row.backbone,
            row.head,
            f"{row.mean:.3f} ± {row.spread:.3f}",
            f"{p_value:.3f}",
            row.n_forward,
            f"{row.seconds:.2f}",
        )
        for row, p_value in zip(rows, p_values, strict=True)
    ]
    print_table("", columns, lines)


def print_backbones(networks: Sequence[Network]) -> None:
    """Print the networks that have a name."""
    columns = ("name", "#input, pixels", "#features", "#parameters", "preprocessing")
    rows = [
        (
            network.name,
            network.input_size,
            network.n_features,
            f"{network.n_parameters:,}",
            network.preprocessing or "inside the network",
        )
        for network in networks
    ]
    print_table("", columns, rows)


def print_cache(result: dict[str, Any]) -> None:
    """Print what a cache holds."""
    columns = ("space", "made by", "#rows", "#hits", "#shards", "#size", "last used")
    rows = [
        (
            space["digest"][:8],
            space["label"],
            space["n_rows"],
            space["n_hits"],
            space["n_shards"],
            filesize.decimal(space["size_bytes"]),
            space["last_used"],
        )
        for space in result["spaces"]
    ]
    size = filesize.decimal(result["size_bytes"])
    print_table(f"{one_line(result['path'])}: {result['n_rows']} rows, {size}", columns, rows)
