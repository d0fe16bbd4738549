"""The ``featx`` command, its subcommands demo, extract and backbones, and its exit codes.

Exit codes: 0 success; 1 the command found damaged rows in a cache; 2 wrong usage; 3 bad input or
parameters; 4 a backbone or its weights cannot be loaded; 5 a saved file cannot be loaded or holds
types that are not trusted; 6 an error of the disk; 70 a bug of featx, with its traceback;
130 interrupted; 141 the output is no longer read, as in ``featx ... | head``; 129 and 143 ended by
SIGHUP and SIGTERM.

With ``--json`` the result is one JSON document on standard output. Progress, warnings and errors
always go to standard error. Heavy packages are imported when a command needs them.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from featx._tensorflow import keep_tensorflow_quiet
from featx._text import one_line
from featx._version import __version__
from featx._warning import warn_caller
from featx.cli.cache import cache
from featx.cli.card import card
from featx.cli.check import check
from featx.cli.cv import cv
from featx.cli.evaluate import compare, evaluate
from featx.cli.models import export, fit
from featx.cli.options import (
    GivenPath,
    Group,
    extractor_options,
    make_extractor,
)
from featx.cli.output import (
    AS_JSON,
    FORCE,
    at_the_shell,
    check_output,
    describe_passes,
    echo,
    echo_problem,
    print_backbones,
    print_costs,
    print_demo,
    print_json,
    print_network,
    print_presets,
    show_result,
    status,
)
from featx.cli.predict import BASE, COLUMN, IMAGES, predict
from featx.cli.report import report
from featx.cli.similar import similar
from featx.exceptions import (
    BackboneError,
    EngineError,
    EngineWarning,
    FeatxError,
    FeatxWarning,
    InputError,
    SavedFileError,
    UntrustedTypesError,
    WeightsError,
)

if TYPE_CHECKING:
    from featx.backbones.registry import Network
    from featx.cli.measure import NetworkCost

_EXIT_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((WeightsError, BackboneError), 4),
    ((SavedFileError, UntrustedTypesError), 5),
    ((FeatxError, ValueError), 3),
    ((OSError,), 6),
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Transfer learning: each image goes through the frozen network only once.

    Exit codes: 0 success, 1 damage found, 2 usage, 3 input, 4 backbone or weights, 5 saved file,
    6 disk, 70 bug of featx, 129, 130, 143 interrupted, 141 output not read.
    """


@cli.command()
@click.option("--out", default="featx-demo", type=GivenPath(path_type=Path), show_default=True)
@AS_JSON
def demo(out: Path, as_json: bool) -> None:
    """Show what each stage is for, on images that come with scikit-learn.

    Writes images, cache, model and, with the packages for reports, a report below the folder OUT.
    What an earlier demo wrote there is replaced. Takes one to two minutes on two cores.
    """
    from featx.cli.demo import run_demo
    from featx.cli.files import ENDINGS

    if out.suffix.lower() in (*ENDINGS, ".featx"):
        raise InputError(f"{str(out)!r} is the name of a file: the demo writes a folder")
    with status("demo") as on_step:
        result = run_demo(out.absolute(), on_step=on_step)
    if as_json:
        print_json({**result, "rows": [row._asdict() for row in result["rows"]]})
    else:
        print_demo(result)


@cli.command()
@IMAGES
@COLUMN
@BASE
@click.option(
    "--out",
    required=True,
    type=GivenPath(path_type=Path),
    help="A .npz, .csv, .parquet or .h5 file.",
)
@FORCE
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@click.option(
    "--gpus", type=click.IntRange(min=1), help="Use this many GPUs, with a process for each."
)
@extractor_options
@AS_JSON
def extract(
    images: tuple[str, ...],
    column: str | None,
    base: str | None,
    out: Path,
    force: bool,
    backbone: str,
    gpus: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Embed images, and write embeddings, paths and labels to one file.

    IMAGES are a folder or an archive, or what featx predict takes: files, folders, archives, URLs,
    patterns, lists and tables. The images of one folder or archive have the names of their class
    folders as labels, empty for an image outside of one; others have no labels.
    """
    from featx.cli.files import ENDINGS, EmbeddingFile, check_file_packages, list_given

    check_output(out, ENDINGS, force=force)
    check_file_packages(out)
    from featx._html import shown_items
    from featx.multi_gpu import embed_on_gpus

    extractor = make_extractor(backbone, options)
    found = list_given(images, column, base)
    on_gpus = embed_on_gpus(extractor, found.data, gpus=gpus) if gpus else None
    embeddings = extractor.fit_transform(found.data)
    report = on_gpus or extractor.report_
    EmbeddingFile(embeddings, found.data, found.target).write(out)
    result = {"out": str(out), "shape": list(embeddings.shape), "report": shown_items(report)}
    show_result(
        result,
        as_json,
        f"{embeddings.shape} embeddings in {one_line(out)} ({describe_passes(report)})",
    )


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--measure", is_flag=True, help="Measure networks on this machine, or those named.")
@click.option("--presets", is_flag=True, help="List KerasHub's, or those with NAME in their name.")
@AS_JSON
def backbones(names: tuple[str, ...], measure: bool, presets: bool, as_json: bool) -> None:
    """List the networks, or the layers and blocks of the network or preset NAME.

    --layer and --fine-tune take the names of layers, and --fine-tune N selects the top N blocks.
    --measure runs each network for some seconds, with random weights, and lists images per second,
    CPU time and peak memory. --presets lists what keras_hub:NAME can be, which needs featx[hub].
    """
    from featx.backbones.registry import list_backbones

    if measure and presets:
        raise click.UsageError("--measure takes no presets: pass one of the two options")
    if measure:
        _measure_networks(names, as_json)
        return
    if presets:
        _list_presets(names, as_json)
        return
    if len(names) > 1:
        raise click.UsageError(f"got {len(names)} names: expected one, or --measure")
    if names:
        _show_network(names[0], as_json)
        return
    networks = list_backbones()
    if as_json:
        print_json([network._asdict() for network in networks])
        return
    print_backbones(networks)


def _measure_networks(names: tuple[str, ...], as_json: bool) -> None:
    from featx._validation import ParameterFaults
    from featx.backbones.registry import find_network, list_backbones
    from featx.cli.measure import measure_in_new_process

    faults = ParameterFaults("featx backbones")
    for name in names:
        faults.check_part(partial(find_network, name))
    faults.raise_any()
    costs: list[tuple[Network, NetworkCost]] = []
    failures: list[EngineError] = []
    try:
        with status("measuring") as show_step:
            for network in map(find_network, names) if names else list_backbones():
                show_step(network.name)
                try:
                    costs.append((network, measure_in_new_process(network)))
                except EngineError as exc:
                    failures.append(exc)
    finally:  # finished rows are shown even if the run is interrupted
        if costs and as_json:
            print_json([{**network._asdict(), **cost._asdict()} for network, cost in costs])
        elif costs:
            print_costs(costs)
    if failures and not costs:
        raise failures[0]
    for failure in failures:
        warn_caller(EngineWarning(str(failure)))


def _list_presets(names: tuple[str, ...], as_json: bool) -> None:
    from featx.backbones.registry import list_backbones

    with status("importing KerasHub"):
        found = list_backbones("keras_hub")
    shown = [each for each in found if not names or any(name in each.name for name in names)]
    if as_json:
        print_json([preset._asdict() for preset in shown])
        return
    print_presets(shown)


def _show_network(name: str, as_json: bool) -> None:
    from featx.backbones.blocks import blocks_of, layers_of
    from featx.backbones.keras_models import network_graph
    from featx.backbones.presets import Preset, is_preset
    from featx.backbones.registry import find_network

    if is_preset(name):
        with status(f"building {name}"):
            model = Preset.of(name).network()
        about = {"name": name, "input_shape": model.inputs[0].shape[1:]}
    else:
        network = find_network(name)
        about, model = network._asdict(), network_graph(network)
    layers, blocks = layers_of(model), blocks_of(model)[::-1]
    if not as_json:
        print_network(name, model.inputs[0].shape[1:], layers, blocks)
        return
    numbered = [
        {
            "block": number,
            "layers": block.layers,
            "n_params": block.n_params,
            "input_shapes": [tensor.shape[1:] for tensor in block.start.tensors],
        }
        for number, block in enumerate(blocks, start=1)
    ]
    print_json({**about, "layers": [layer._asdict() for layer in layers], "blocks": numbered})


for command in (check, cv, fit, predict, evaluate, compare, report, card, similar, export, cache):
    cli.add_command(command)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    shown = at_the_shell(message) if isinstance(message, FeatxWarning) else message
    echo_problem(f"{category.__name__}: {shown}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error becomes one message and an exit code."""
    _prepare_streams()
    keep_tensorflow_quiet()
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    with _unwound_by_signals():
        code = _run_command(arguments)
    if code:
        sys.exit(code)


def _run_command(arguments: list[str] | None) -> int:
    """Run the command and return its exit code."""
    try:
        # Without colors, click would remove escapes from messages; `echo` shows them as text.
        return cli.main(arguments, standalone_mode=False, color=True) or 0
    except click.exceptions.Abort:
        # Ctrl-C, which click converts, or no answer to a question.
        echo("interrupted", err=True)
        return 130
    except click.ClickException as exc:
        shown = io.StringIO()
        exc.show(shown)
        echo_problem(shown.getvalue().rstrip("\n"))
        return exc.exit_code
    except (FeatxError, ValueError, OSError) as exc:
        echo_problem(f"error: {at_the_shell(exc)}")
        return next(code for kinds, code in _EXIT_CODES if isinstance(exc, kinds))
    except Exception:
        echo(traceback.format_exc(), err=True)
        echo("error: this is a bug of featx; please report it", err=True)
        return 70


def _prepare_streams() -> None:
    """Replace closed streams, whose descriptors files would get, and make streams take any text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until Python ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Make signals that end the process raise SystemExit, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def unwind(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child: the unfinished files are not its own
            os._exit(128 + number)
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
