"""Options that subcommands share, and the estimators made from them (``make_extractor``)."""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from featx._json import RepeatedNameError, dict_without_repeats
from featx._progress import activity, show_activities
from featx._validation import did_you_mean
from featx.cli.help import write_commands, write_examples, write_options

_OUTPUT = "output"  # the word for the output of the network, among layers
# What a backbone can set for itself; other names are parameters of its network.
_OWN_TEXTS = ("weights", "preprocessing", "layer", "pooling", "resize")
_OWN_INTEGERS = ("input_size", "in_channels", "n_prefix_tokens")
_PLAIN = (bool, int, float, str, type(None), tuple, list, dict)


class GivenPath(click.Path):
    """A path that is not empty, since Python takes an empty path for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; an empty one is wrong usage."""
        if value == "":
            self.fail("'' is an empty path: expected a name; the current folder is '.'", param, ctx)
        return super().convert(value, param, ctx)


_LABELED = click.argument("place", type=GivenPath(), metavar="FOLDER|TABLE")


class Command(click.Command):
    """A command that rejects repeated options, of which click would use only the last value.

    Standard output is for results; what libraries print goes to standard error.
    """

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write options in groups."""
        write_options(self, context, formatter)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples."""
        write_examples(context, formatter)

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Parse the arguments; a repeated option is wrong usage."""
        given = self.make_parser(context).parse_args(list(arguments))[2]
        for option in given:
            takes_one = isinstance(option, click.Option) and not (option.multiple or option.is_flag)
            if takes_one and given.count(option) > 1:
                raise click.UsageError(
                    f"{option.opts[0]} is given {given.count(option)} times: expected once", context
                )
        return super().parse_args(context, arguments)

    def invoke(self, context: click.Context) -> Any:
        """Run the command, with standard output for results only."""
        context.obj = sys.stdout
        with (
            contextlib.redirect_stdout(sys.stderr),
            show_activities(not context.params.get("quiet")),
            activity(context.info_name or ""),
        ):
            return super().invoke(context)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write commands by job."""
        write_commands(self, context, formatter)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write examples."""
        write_examples(context, formatter)


class _LazyHelpOption(click.Option):
    """An option whose help lists names of the library, which is loaded when help is shown."""

    def __init__(self, *args: Any, make_help: Callable[[], str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._make_help = make_help

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        """Return the names of the option and its help."""
        self.help = self._make_help()
        return super().get_help_record(context)


SEED = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), metavar="INTEGER"
)


def head_option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return the option that names a head; its help lists the heads."""
    return click.option(
        *names, cls=_LazyHelpOption, make_help=_head_help, show_default=True, **attributes
    )


def _head_help() -> str:
    from featx.heads.named import CLASSIFIER_HEADS

    *others, last = CLASSIFIER_HEADS
    return f"{', '.join(others)} or {last}"


def add_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds options to a command, in this order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_LAYER_HELP = "Name of the layer to read; default: output."
_POOLING_HELP = (
    "auto, avg, max, avgmax, gem, flatten; cls, patches, cls+patches, cls+avg of tokens."
)
_NETWORK_OPTIONS = (
    click.option(
        "--weights", type=GivenPath(), default="pretrained", help="pretrained, none or a file."
    ),
    click.option(
        "--param", "params", multiple=True, metavar="NAME=VALUE", help="As in alpha=0.35."
    ),
    click.option("--preprocessing", default="auto", help="auto, tf, torch, caffe, unit, none."),
)
_OTHER_OPTIONS = (
    click.option(
        "--n-prefix-tokens", type=int, default=None, help="Tokens before those of the patches."
    ),
    click.option("--input-size", type=int, default=None, help="Pixels; default: network's."),
    click.option("--in-channels", type=int, default=None, help="Of the images; default: 3."),
    click.option("--resize", default="stretch", help="stretch, crop (the center) or pad (black)."),
    click.option("--cache", type=GivenPath(), default="auto", help="A folder, or none."),
    click.option("--batch-size", type=click.IntRange(min=1), default=None),
    click.option(
        "--engine", default="auto", help="auto, keras, openvino or onnx; same embeddings."
    ),
    click.option(
        "--precision", default="float32", help="float32 or bfloat16; tf32, float16 on GPUs."
    ),
    click.option(
        "--also-cache", multiple=True, metavar="LAYER", help="Store this layer in one pass."
    ),
    click.option(
        "--views",
        type=int,
        default=1,
        help="Augmented views of each image to train on, with the image.",
    ),
    click.option("--augment", default="none", help="standard or none, for augmented views."),
    click.option("--on-error", type=click.Choice(["raise", "nan"]), default="raise"),
    click.option("--n-jobs", type=int, default=None, help="Threads that decode images."),
    click.option("--quiet", "-q", is_flag=True, help="Show no progress."),
)
extractor_options = add_options(
    *_NETWORK_OPTIONS,
    click.option("--layer", default=None, help=_LAYER_HELP),
    click.option("--pooling", default="auto", help=_POOLING_HELP),
    *_OTHER_OPTIONS,
)
repeatable_extractor_options = add_options(
    *_NETWORK_OPTIONS,
    click.option("--layer", "layers", multiple=True, help=_LAYER_HELP),
    click.option("--pooling", "poolings", multiple=True, default=["auto"], help=_POOLING_HELP),
    *_OTHER_OPTIONS,
)

GROUPS = click.option(
    "--groups",
    type=GivenPath(),
    metavar="COLUMN|FILE",
    help="Groups, such as patients: a column of TABLE; for FOLDER, a .csv file of path and group.",
)
BASE = click.option(
    "--base",
    type=GivenPath(),
    help="Folder, archive or URL where paths in TABLE start; default: folder of TABLE.",
)
_COLUMN_OPTIONS = (
    click.option(
        "--sample", metavar="COLUMN", help="The column of images in TABLE; default: path."
    ),
    click.option(
        "--target", metavar="COLUMN", help="The column of labels in TABLE; default: label."
    ),
    BASE,
)
columns_of_table = add_options(*_COLUMN_OPTIONS)
labeled_images = add_options(_LABELED, *_COLUMN_OPTIONS)


def make_extractors(backbones: Sequence[str], options: dict[str, Any]) -> list[Any]:
    """Return extractors for all combinations of backbones, layers and poolings.

    The first one of a backbone stores the embeddings of its others in the same pass.
    """
    extractors = []
    for backbone in dict.fromkeys(backbones):
        own = _split_backbone(backbone)[1]
        layers = [own["layer"]] if "layer" in own else options["layers"] or [_OUTPUT]
        poolings = [own["pooling"]] if "pooling" in own else options["poolings"]
        first, *others = [
            {"layer": None if layer == _OUTPUT else layer, "pooling": pooling}
            for layer, pooling in dict.fromkeys(itertools.product(layers, poolings))
        ]
        also = [(other["layer"], or_none(other["pooling"])) for other in others]
        shared = {**options, "also_cache": (*options["also_cache"], *also)}
        extractors.append(make_extractor(backbone, shared | first))
        extractors += [make_extractor(backbone, options | other) for other in others]
    return extractors


def make_extractor(backbone: str, options: dict[str, Any]) -> Any:
    """Return an extractor with the options of a command, and those of the backbone itself."""
    from featx.extractor import FeatureExtractor

    name, own = _split_backbone(backbone)
    given_params = (*options["params"], *own.pop("params"))
    options = options | own
    return FeatureExtractor(
        name,
        weights=or_none(options["weights"]),
        backbone_params=_parsed_params(given_params, "--param"),
        preprocessing=or_none(options["preprocessing"]),
        layer=options["layer"],
        pooling=or_none(options["pooling"]),
        n_prefix_tokens=options["n_prefix_tokens"],
        input_size=options["input_size"],
        resize=options["resize"],
        in_channels=options["in_channels"],
        cache=or_none(options["cache"]),
        batch_size=options["batch_size"] or "auto",
        engine=options["engine"],
        precision=options["precision"],
        also_cache=options["also_cache"],
        views=options["views"],
        augment=or_none(options["augment"]),
        on_error=options["on_error"],
        n_jobs=options["n_jobs"],
        verbose=not options["quiet"],
    )


def _split_backbone(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name of a backbone, and the options after it; ``params`` are the network's.

    A colon begins options only before ``NAME=``, and a comma ends a value only before the next
    ``NAME=``, so that names such as ``keras_hub:vit`` and file names with commas are left whole.

    Examples
    --------
    >>> _split_backbone("mobilenet_v2:alpha=0.35,weights=a,b.h5,input_size=96")
    ('mobilenet_v2', {'params': ('alpha=0.35',), 'weights': 'a,b.h5', 'input_size': 96})
    >>> _split_backbone("keras_hub:dinov2_base")
    ('keras_hub:dinov2_base', {'params': ()})
    """
    name, *given = re.split(r":(?=[a-z]\w*=)", text, maxsplit=1)
    own: dict[str, Any] = {"params": ()}
    for option in re.split(r",(?=[a-z]\w*=)", given[0]) if given else ():
        key, _, value = option.partition("=")
        if key in own:
            raise click.BadParameter(f"{key!r} is given twice", param_hint="--backbone")
        if key in _OWN_INTEGERS:
            own[key] = _integer_of_backbone(key, value)
        elif key in _OWN_TEXTS:
            own[key] = value
        else:
            own["params"] += (option,)
    return name, own


def _integer_of_backbone(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(
            f"{name}={value}: expected an integer", param_hint="--backbone"
        ) from None


def _tune_help() -> str:
    return f"As in epochs=20; may be repeated. Names: {', '.join(_tunable_params())}."


def _tunable_params() -> list[str]:
    """Return the parameters of FineTune that ``--tune`` sets."""
    from featx.finetune.params import FineTune

    return [name for name in FineTune().get_params() if name != "unfreeze"]


fine_tune_options = add_options(
    click.option(
        "--fine-tune",
        "unfreeze",
        metavar="WHAT",
        default=None,
        help="Blocks from the top, a fraction of them, a layer, all, norm or bias.",
    ),
    click.option(
        "--tune", multiple=True, metavar="NAME=VALUE", cls=_LazyHelpOption, make_help=_tune_help
    ),
)


def make_fine_tune(options: dict[str, Any]) -> Any:
    """Return a FineTune with the options of a command, or None without ``--fine-tune``."""
    params = _parsed_params(options["tune"], "--tune") or {}
    if options["unfreeze"] is None:
        if params:
            raise click.BadParameter("works with --fine-tune only", param_hint="--tune")
        return None
    from featx.finetune.params import FineTune

    known = _tunable_params()
    for name in params.keys() - set(known):
        hint = did_you_mean(name, known)
        raise click.BadParameter(
            f"{name!r} is not a parameter of FineTune.{hint}", param_hint="--tune"
        )
    return FineTune(_parse_param_value(options["unfreeze"]), **params)


def or_none(value: str) -> str | None:
    """Return None for the word none."""
    return None if value.lower() == "none" else value


def _parsed_params(params: tuple[str, ...], option: str) -> dict[str, Any] | None:
    parsed = {}
    for text in params:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r}: expected NAME=VALUE", param_hint=option)
        if name in parsed:
            raise click.BadParameter(f"{name!r} is given twice: expected once", param_hint=option)
        try:
            parsed[name] = _parse_param_value(value)
        except RepeatedNameError as exc:
            raise click.BadParameter(
                f"{text!r}: {exc} is given twice: expected once", param_hint=option
            ) from exc
    return parsed or None


def _parse_param_value(text: str) -> Any:
    """Parse a value as JSON or Python; anything else is text."""
    with contextlib.suppress(ValueError):
        return json.loads(text, object_pairs_hook=dict_without_repeats)
    with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual spellings
            value = ast.literal_eval(text)
            for node in ast.walk(ast.parse(text, mode="eval")):
                if isinstance(node, ast.Dict):
                    dict_without_repeats((ast.literal_eval(key), None) for key in node.keys if key)
        # Names of layers such as 3_4 and 0x10 are not numbers.
        is_name = isinstance(value, (int, float)) and set(text) & set("_xob")
        if not is_name and isinstance(value, _PLAIN):
            return value
    return text
