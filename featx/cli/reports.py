"""Tables for people, on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import filesize
from rich.console import Console
from rich.table import Table
from rich.text import Text

from featx._text import one_line
from featx.cli.output import echo, results, write

if TYPE_CHECKING:
    from featx.evaluation.comparison import Comparison
    from featx.networks.applications import Network

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
