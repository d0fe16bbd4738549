"""Output of the command: tables, JSON, messages, and errors that name options (``at_the_shell``).

Results go to standard output; progress, warnings and errors go to standard error. Errors of the
library name parameters; their parts are formatted here with the options of the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich import filesize
from rich.console import Console
from rich.text import Text

from featx._json import as_json_values
from featx._progress import activity, displayed_by, hide_activities
from featx._text import one_line, without_controls
from featx.cli.tables import TextTable
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    CacheWriteWarning,
    EngineError,
    EngineWarning,
    InputError,
    NearDuplicateWarning,
    ParameterError,
    ParameterFault,
    ParameterWarning,
    UntrustedTypesError,
    WeightsError,
    WeightsWarning,
)

if TYPE_CHECKING:
    from featx.backbones.blocks import Block, LayerInfo
    from featx.backbones.presets import PresetInfo
    from featx.backbones.registry import Network
    from featx.cli.measure import NetworkCost
    from featx.evaluation.training_overlap import TrainingOverlap

FORCE = click.option("--force", is_flag=True, help="Replace an existing file.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_OTHER_NAMES = {  # of parameters at the shell; a path is an argument, whose value is shown
    "backbone_params": "--param ",
    "random_state": "--seed ",
    "path": "",
}
# Their messages name parameters of an extractor as in a call.
_NAME_PARAMETERS = (
    BackboneError,
    EngineError,
    WeightsError,
    CacheWriteWarning,
    EngineWarning,
    ParameterWarning,
    WeightsWarning,
)
_TAKE_NONE = ("weights", "preprocessing", "pooling", "cache", "augment")
_SETTING = re.compile(
    r"(?<![\w./=-])(?P<name>backbone|weights|preprocessing|layer|pooling|n_prefix_tokens|input_size|"
    r"in_channels|resize|cache|batch_size|engine|precision|views|augment|n_jobs)="
    r"(?P<value>'[^']*'|\([^)]*\)|\w+)?"
)
_READER_GONE = 141
_WORD = re.compile(r"(?:(?<!\w)'[^']*'|\S)+")
_UNITS_S = {"year": 31_557_600, "month": 2_629_800, "day": 86_400, "hour": 3_600, "minute": 60}
_N_PAIRS = 10  # of classes, in place of a confusion matrix that is too wide
_UNCUT_CHARS = 10_000  # width of a line in a file or pipe, where rich would use 80


def at_the_shell(problem: Exception) -> str:
    """Return the message of an error or warning, with options in place of parameters.

    Examples
    --------
    >>> at_the_shell(ParameterError.of("extractor__batch_size", 0, "expected a positive integer."))
    '--batch-size 0: expected a positive integer.'
    >>> at_the_shell(NearDuplicateWarning("a and b are the same.", "Pass groups="))
    'a and b are the same. Remove all but one, or give the copies one group: --groups, ...'
    """
    match problem:
        case ParameterError():
            faults = list(map(_with_option, problem.faults))
            if len(faults) == 1:
                return faults[0]
            return "\n  ".join([f"{len(faults)} faulty options:", *faults])
        case BadSampleError():
            cure = (
                "Repair or remove them, or pass --on-error nan to get rows of NaN in their place."
            )
            return f"{problem.finding}\n{cure}"
        case UntrustedTypesError() if problem.types:
            options = " ".join(f"--trusted {name}" for name in problem.types)
            return f"{problem.finding} If you trust them, name them: {options}"
        case NearDuplicateWarning():
            cure = "give the copies one group: --groups, for cv, fit and report."
            return f"{problem.finding} Remove all but one, or {cure}"
        case _ if isinstance(problem, _NAME_PARAMETERS):
            return _SETTING.sub(_option_of_setting, str(problem))
    return str(problem)


def _option_of_setting(match: re.Match[str]) -> str:
    """Return the option for a parameter and its value, as in weights=FILE or backbone='tiny'."""
    name, value = match["name"], (match["value"] or "").strip("'")
    option = f"--{name.replace('_', '-')}"
    if value == "None":
        return f"{option} none" if name in _TAKE_NONE else f"no {option}"
    if value == "(height, width)":
        value = "PIXELS"
    return f"{option} {value}".rstrip()


def _with_option(fault: ParameterFault) -> str:
    """Return a fault with the option that sets its parameter."""
    name = fault.name.removeprefix("extractor__")
    if not name:
        return fault.reason
    option = f"--{name.replace('_', '-')} "
    if name in _OTHER_NAMES:
        option = _OTHER_NAMES[name]
    elif name.removeprefix("fine_tune__") == "unfreeze":
        option = "--fine-tune "
    elif name.startswith("fine_tune__"):
        option = f"--tune {name.removeprefix('fine_tune__')}="
    return f"{option}{fault.value}: {fault.reason}"


def echo(text: str, *, err: bool = False) -> None:
    """Print lines of text with their control characters escaped."""
    _write_to_stream(f"{without_controls(text)}\n", err=err)


def echo_problem(text: str) -> None:
    """Print an error or warning on standard error; a terminal gets lines that end between words."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(wrap_words(line, width) for line in text.split("\n"))
    echo(text, err=True)


def wrap_words(line: str, width: int) -> str:
    """Break a line between words; quoted text, such as a path with spaces, is one word.

    Examples
    --------
    >>> print(wrap_words("error: '/data/my photos/none': no such folder", 20))
    error:
    '/data/my photos/none':
    no such folder
    """
    words = _WORD.findall(line)
    indent = line[: len(line) - len(line.lstrip())]
    lines = [indent + "".join(words[:1])]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return "\n".join(lines)


def _results_stream() -> TextIO:
    """Return the standard output with which the command was started."""
    context = click.get_current_context(silent=True)
    return sys.stdout if context is None or context.obj is None else context.obj


def _write_to_stream(text: str, *, err: bool = False) -> None:
    """Write text unchanged to standard output or standard error.

    If the reader is gone, as in ``featx ... | head``, the command exits with the code of SIGPIPE.
    """
    stream = sys.stderr if err else _results_stream()
    hide_activities()
    try:
        click.echo(text, stream, nl=False, color=True)
    except BrokenPipeError:
        # Python flushes standard output when it exits, which would raise the error again.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise click.exceptions.Exit(_READER_GONE) from None


def show_result(result: Any, as_json: bool, text: str) -> None:
    """Print a result as JSON, or as text."""
    if as_json:
        print_json(result)
    else:
        echo(text)


def print_json(value: Any) -> None:
    """Print data as one JSON document in ASCII, with null for NaN and infinity.

    What is neither plain data nor of NumPy, such as a label that is a date, is written as text.
    """
    document = json.dumps(as_json_values(value), indent=1, allow_nan=False, default=str)
    _write_to_stream(document.replace("\x7f", "\\u007f") + "\n")


def confirm(question: str) -> bool:
    """Ask a question on the terminal; without an answer, the usage is wrong."""
    hide_activities()
    try:
        return click.confirm(without_controls(question), err=True)
    except click.Abort as exc:
        if isinstance(exc.__context__, EOFError):
            raise click.UsageError("there is no answer on standard input: pass --yes") from None
        raise


def describe_passes(report: Any) -> str:
    """Describe how many embeddings the network computed, and how many were stored already."""
    return f"{report.n_forward} embeddings computed, {report.n_hits} read from the cache"


def check_output(
    out: Path | None, endings: Collection[str], *, force: bool, or_none: bool = False
) -> None:
    """Check, before any work, that a file of one of some endings can be written, if it is named."""
    if out is not None:
        check_ending(out, endings, or_none=or_none)
        check_output_files(out, force=force)


def check_ending(out: Path, endings: Collection[str], *, or_none: bool = False) -> None:
    """Check that a file has one of the endings that the command writes."""
    if out.suffix.lower() not in endings and not (or_none and not out.suffix):
        expected = f"the ending {' or '.join(endings)}{', or none' if or_none else ''}"
        raise InputError(f"{str(out)!r}: expected {expected}")


def check_output_files(*paths: Path, force: bool) -> None:
    """Check, before any work, that output files can be written, or replaced with ``--force``.

    Folders, links and devices are never replaced.
    """
    from featx._files import check_replaceable

    for path in paths:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise InputError(f"{str(folder)!r}: no such folder to write to")
        check_replaceable(path)
        if not force and path.exists():
            raise InputError(f"{str(path)!r} exists already: pass --force to replace it")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table of the width of the terminal: see :class:`TextTable`.

    Names are shown as text, without markup or emoji codes. The title is not wrapped, so that a path
    in it can be copied. In a file or a pipe, each cell is one line, and is not shortened below
    1,000 characters.
    """
    console = _results_console()
    with console.capture() as captured:
        if title:
            console.print(Text(title, "italic"), soft_wrap=True)
        console.print(TextTable(columns, rows).within(console.width))
    _write_to_stream(captured.get())


def _results_console() -> Console:
    """Return a console of the width of the terminal, or of uncut lines in a file or a pipe."""
    console = Console(file=_results_stream())
    if not console.file.isatty():  # rich takes a pipe for a terminal if color is forced
        console.width = _UNCUT_CHARS
    return console


@contextlib.contextmanager
def status(title: str) -> Iterator[Callable[[str], None]]:
    """Show the present step on standard error; yield the function to call with each step."""
    console = Console(stderr=True)
    shown = title
    hide_activities()  # a terminal has one such line
    with console.status(Text(title)) as spinner:

        def show(step: str) -> None:
            nonlocal shown
            shown = step
            # A file or a pipe shows no spinner, so each step gets a line.
            if console.is_terminal:
                spinner.update(Text(one_line(step)))
            else:
                echo(f"- {step}", err=True)

        def show_activity(latest: str | None) -> None:
            spinner.update(Text(one_line(shown if latest in (None, title) else latest)))

        with activity(title), displayed_by(show_activity):
            yield show


def print_demo(result: dict[str, Any]) -> None:
    """Print the results of the demo."""
    columns = ("images", "classifier", "#accuracy", "#embedded", "#seconds")
    rows = [
        (
            row.images,
            row.classifier,
            f"{row.accuracy:.3f} ± {(row.interval[1] - row.interval[0]) / 2:.3f}",
            row.n_forward,
            f"{row.seconds:.1f}",
        )
        for row in result["rows"]
    ]
    n_images = {row.images: (row.n_train, row.n_test) for row in result["rows"]}
    title = "\n".join(
        f"{images}: fitted on {n_train:,} images, accuracy on {n_test:,} others (± 95% interval)"
        for images, (n_train, n_test) in n_images.items()
    )
    print_table(title, columns, rows)
    _print_demo_stages(result)
    for name in ("images", "cache", "model"):
        echo(f"{name:<6}  {one_line(result[name])}")
    if result["report"] is None:
        echo('report  pip install "featx[report]" adds a page with pictures')
    else:
        echo(f"report  {Path(result['report']).as_uri()}")


def _print_demo_stages(result: dict[str, Any]) -> None:
    """Print what each stage of the demo is for, and what it gained."""
    low, high = result["gain"]["interval"]
    stages = {
        "raw pixels": "logistic regression on gray levels, for comparison; chance is 0.1",
        "tiny": "the frozen network turns each image into 400 numbers; a head is trained on them",
        "second run": "no image is embedded again: the cache "
        f"({filesize.decimal(result['cache_bytes'])}) has the embeddings of all images",
        "fine-tuned": "the upper layers are trained, too, which helps if the network has seen no "
        "such images, as these speckles: the accuracy changes by "
        f"{result['gain']['difference']:+.3f} ({low:+.3f} to {high:+.3f}). Photographs gain little",
        "saved": f"as one file, and loaded again: the prediction for "
        f"{one_line(result['example'])} is {result['prediction']!r}",
        "machine": result["machine"],
    }
    for name, text in stages.items():
        echo(f"{name:<10}  {text}")
    rows = [
        (each["file"], each["true"], each["predicted"], f"{each['confidence']:.3f}")
        for each in result["mistakes"]
    ]
    title = "the most confident mistakes of the fine-tuned model"
    print_table(title, ("file", "true", "predicted", "#confidence"), rows)


def print_similar(similar: Sequence[dict[str, Any]]) -> None:
    """Print a table for each query, with the images that are most similar to it."""
    for found in similar:
        rows = [
            (rank, f"{each['similarity']:.3f}", each["image"])
            for rank, each in enumerate(found["similar"], start=1)
        ]
        print_table(one_line(found["query"]), ("#rank", "#similarity", "image"), rows)


def print_evaluation(result: dict[str, Any]) -> None:
    """Print metrics per class, averages, and the confusion matrix or its most frequent mistakes."""
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
        echo(_describe_calibration(**result["calibration"]))
    _print_confusion(**result["confusion"])


def _print_confusion(*, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> None:
    """Print the confusion matrix; if it is wider than the terminal, the most frequent mistakes."""
    columns = ("", *(f"#{label}" for label in labels))
    rows = [(label, *row) for label, row in zip(labels, counts, strict=True)]
    if TextTable(columns, rows).fits(_results_console().width):
        print_table("confusion (rows: true class, columns: predicted)", columns, rows)
        return
    pairs = _confused_pairs(labels, counts)
    if not pairs:
        echo("no class is confused with another")
        return
    title = (
        f"The confusion matrix of {len(labels)} classes is wider than the terminal (see --json)\n"
        f"{min(len(pairs), _N_PAIRS)} of {len(pairs)} confused pairs, the most frequent first; "
        "fraction of the true class"
    )
    shown = [(*names, n, f"{part:.3f}") for *names, n, part in pairs[:_N_PAIRS]]
    print_table(title, ("true", "predicted", "#images", "#fraction"), shown)


def _confused_pairs(
    labels: Sequence[str], counts: Sequence[Sequence[int]]
) -> list[tuple[str, str, int, float]]:
    """Return true class, predicted class, images and their fraction of the true class.

    Examples
    --------
    >>> _confused_pairs(["cat", "dog"], [[3, 1], [2, 2]])
    [('dog', 'cat', 2, 0.5), ('cat', 'dog', 1, 0.25)]
    """
    pairs = [
        (true, predicted, n_images, n_images / sum(row))
        for true, row in zip(labels, counts, strict=True)
        for predicted, n_images in zip(labels, row, strict=True)
        if n_images and predicted != true
    ]
    return sorted(pairs, key=lambda pair: pair[2:], reverse=True)


def print_paired(result: dict[str, Any]) -> None:
    """Print the accuracy of each model, and its difference from the first."""
    rows = []
    for row in result["models"]:
        low, high = row["interval"]
        cells = [row["model"], f"{row['accuracy']:.3f} ({low:.3f} to {high:.3f})", "", ""]
        if row["from_first"]:
            low, high = row["from_first"]["interval"]
            cells[2] = f"{row['from_first']['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
            cells[3] = f"{row['from_first']['p_value']:.3g}"
        rows.append(cells)
    title = (
        f"accuracy on {result['n_samples']} images, and its difference from the first model\n"
        f"({result['confidence']:.0%} intervals; p-value of McNemar's exact test)"
    )
    print_table(title, ("model", "#accuracy", "#difference", "#p"), rows)


def print_overlaps(overlaps: Mapping[str, TrainingOverlap | None]) -> None:
    """Print how many of the evaluated images each model was trained on, if there are any."""
    for model, overlap in overlaps.items():
        if overlap is not None and overlap.n_trained_on:
            echo(overlap.describe(one_line(model)))


def _describe_calibration(
    *, error: float, temperature: float | None, tendency: str | None, **_: Any
) -> str:
    shown = f"calibration error {error:.3f}"
    if temperature is None:
        return f"{shown} (predictions are {tendency})" if tendency else shown
    finding = f"predictions are {tendency}" if tendency else "not clearly different from 1"
    return f"{shown} (temperature {temperature:.2f}: {finding})"


def print_backbones(networks: Sequence[Network]) -> None:
    """Print the networks that have a name."""
    columns = (*_NETWORK_COLUMNS, "preprocessing")
    rows = [
        (*_network_cells(network), network.preprocessing or "inside the network")
        for network in networks
    ]
    print_table("", columns, rows)


def print_costs(costs: Sequence[tuple[Network, NetworkCost]]) -> None:
    """Print what networks cost on this machine."""
    columns = (
        *_NETWORK_COLUMNS,
        "engine",
        "#batch",
        "#images/s",
        "#CPU, ms/image",
        "#peak memory, MB",
    )
    rows = [
        (
            *_network_cells(network),
            cost.engine,
            cost.batch_size,
            f"{cost.images_per_s:,.1f}",
            f"{cost.cpu_ms_per_image:,.1f}",
            "" if cost.peak_memory_mb is None else f"{cost.peak_memory_mb:,.0f}",
        )
        for network, cost in costs
    ]
    print_table(f"Random weights, {costs[0][1].device}", columns, rows)


_NETWORK_COLUMNS = ("name", "#input, pixels", "#features", "#parameters", "#ImageNet top-1")


def _network_cells(network: Network) -> tuple[Any, ...]:
    top1 = network.imagenet_top1
    return (
        network.name,
        network.input_size,
        network.n_features,
        f"{network.n_parameters:,}",
        "" if top1 is None else f"{top1:.1%}",
    )


def print_presets(presets: Sequence[PresetInfo]) -> None:
    """Print presets of KerasHub."""
    rows = [
        (
            preset.name,
            preset.kind,
            preset.architecture,
            "" if preset.n_parameters is None else f"{preset.n_parameters:,}",
        )
        for preset in presets
    ]
    print_table("", ("name", "of", "architecture", "#parameters"), rows)


def print_network(
    name: str, shape: Sequence[int | None], layers: Sequence[LayerInfo], blocks: Sequence[Block]
) -> None:
    """Print the layers of a network, from its input of a shape, and its blocks, from the top."""
    lines = [
        (layer.name, layer.kind, _shape_text(layer.shape), f"{layer.n_params:,}", layer.block)
        for layer in layers
    ]
    columns = ("layer", "class", "output", "#parameters", "#block")
    print_table(f"Layers of {name} for inputs of {_shape_text(shape)}", columns, lines)
    rows = [
        (
            number,
            " ... ".join(dict.fromkeys((block.layers[0], block.layers[-1]))),
            ", ".join(_shape_text(tensor.shape[1:]) for tensor in block.start.tensors),
            f"{block.n_params:,}",
        )
        for number, block in enumerate(blocks, start=1)
    ]
    shown = ("#block", "first and last layer with weights", "input", "#parameters")
    print_table("Blocks, from the top", shown, rows)


def _shape_text(shape: Sequence[int | None]) -> str:
    return " x ".join("?" if side is None else str(side) for side in shape)


def print_cache(result: dict[str, Any]) -> None:
    """Print the content of a cache, one line for each space."""
    columns = ("#space", "#rows", "#hits", "#size", "#last used", "~made by")
    rows = [
        (
            space["digest"][:8],
            space["n_rows"],
            space["n_hits"],
            filesize.decimal(space["size_bytes"]),
            age_in_words(space["last_used"], datetime.now(UTC)),
            f"{space['file']}: {space['label']}" if space["file"] else space["label"],
        )
        for space in result["spaces"]
    ]
    size, graphs = (filesize.decimal(result[name]) for name in ("size_bytes", "graph_bytes"))
    title = f"{one_line(result['path'])}: {result['n_rows']} rows, {size}; graphs, {graphs}"
    print_table(title, columns, rows)


def age_in_words(time: str | None, now: datetime) -> str:
    """Return how long ago a time in ISO 8601 was; empty for None.

    Examples
    --------
    >>> now = datetime(2026, 12, 2, 12, tzinfo=UTC)
    >>> age_in_words("2026-12-02T09:59:00+00:00", now)
    '2 hours ago'
    >>> age_in_words("2026-12-02T11:59:30+00:00", now)
    'just now'
    """
    if time is None:
        return ""
    age_s = (now - datetime.fromisoformat(time)).total_seconds()
    for unit, unit_s in _UNITS_S.items():
        if age_s >= unit_s:
            number = int(age_s // unit_s)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
