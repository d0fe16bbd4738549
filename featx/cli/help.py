"""Help of the command: options in groups, commands by job, and examples of each command."""

from __future__ import annotations

from collections.abc import Mapping

import click

_GROUPED_FROM = 12  # options; shorter lists are read at a glance
_MAX_SENTENCE_CHARS = 120
OPTION_GROUPS = {
    "Table": ("sample", "target", "base", "groups"),
    "Network": (
        *("backbone", "backbones", "weights", "params", "preprocessing", "layer", "layers"),
        *("pooling", "poolings"),
        *("n_prefix_tokens", "input_size", "in_channels", "resize"),
    ),
    "Fine-tuning": ("unfreeze", "tune"),
    "Augmented views": ("views", "augment"),
    "Speed and cache": (
        *("cache", "batch_size", "engine", "precision", "also_cache", "gpus", "n_jobs"),
    ),
    "Output and messages": ("quiet", "as_json", "help"),
}
COMMAND_GROUPS = {
    "First steps": ("demo", "backbones"),
    "Look at images": ("check", "similar"),
    "Train and evaluate": ("cv", "fit", "evaluate", "compare", "report", "card"),
    "Use a network or a model": ("extract", "predict", "export"),
    "Manage the cache": ("cache",),
}
EXAMPLES = {
    "demo": ("featx demo --out featx-demo",),
    "backbones": ("featx backbones", "featx backbones mobilenet_v2"),
    "check": ("featx check photos --out issues.csv",),
    "similar": ("featx similar query.jpg photos --k 5",),
    "cv": (
        "featx cv photos --head logistic --head knn --folds 10",
        "featx cv photos --backbone mobilenet_v2 --backbone tiny --fine-tune 2",
        "featx cv scans.csv --sample file --target finding --groups patient",
    ),
    "fit": (
        "featx fit photos --out photos.featx",
        "featx fit photos --out tuned.featx --fine-tune 2 --tune epochs=20",
        "featx fit photos.zip --out photos.featx",
    ),
    "evaluate": ("featx evaluate photos.featx test-photos",),
    "compare": ("featx compare photos.featx tuned.featx test-photos",),
    "report": (
        "featx report photos --out report.html",
        "featx report photos.featx test-photos --out report.html",
    ),
    "card": ("featx card photos.featx --out README.md",),
    "extract": ("featx extract photos --out photos.npz --backbone convnext_tiny",),
    "predict": (
        "featx predict photos.featx new.jpg more-photos --proba",
        "featx predict photos.featx s3://bucket/photos --out predictions.csv",
    ),
    "export": ("featx export photos.featx photos.onnx --include-resize",),
    "cache": ("featx cache info", "featx cache evict --max-bytes 20GB"),
    "cache info": ("featx cache info --json",),
    "cache verify": ("featx cache verify --repair",),
    "cache compact": ("featx cache compact",),
    "cache evict": ("featx cache evict --max-bytes 20GB --older-than 30d",),
    "cache clear": ("featx cache clear --cache elsewhere",),
    "cache export": ("featx cache export rows.h5 --folder photos",),
    "cache import": ("featx cache import rows.h5",),
}


def write_options(command: click.Command, context: click.Context, to: click.HelpFormatter) -> None:
    """Write the options of a command; many of them in groups, the command's own first."""
    records = {}
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            # click names its own option for help differently from release to release.
            records["help" if "--help" in option.opts else option.name or ""] = record
    _write_groups(records, OPTION_GROUPS if len(records) >= _GROUPED_FROM else {}, to)


def write_commands(group: click.Group, context: click.Context, to: click.HelpFormatter) -> None:
    """Write the commands of a group with the first sentence of their help; many of them by job."""
    records = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            records[name] = (name, command.get_short_help_str(limit=_MAX_SENTENCE_CHARS))
    by_job = COMMAND_GROUPS if context.parent is None else {}
    _write_groups(records, by_job, to, rest="Commands")


def write_examples(context: click.Context, to: click.HelpFormatter) -> None:
    """Write the examples of a command."""
    names: list[str] = []
    place: click.Context | None = context
    while place is not None and place.parent is not None:
        names.insert(0, place.info_name or "")
        place = place.parent
    examples = EXAMPLES.get(" ".join(names))
    if examples:
        with to.section("Examples"):
            for line in examples:
                to.write(f"{'':>{to.current_indent}}{line}\n")


def _write_groups(
    records: Mapping[str, tuple[str, str]],
    groups: Mapping[str, tuple[str, ...]],
    to: click.HelpFormatter,
    *,
    rest: str = "Options",
) -> None:
    """Write records under the titles of their groups, after those of no group."""
    grouped = {name for names in groups.values() for name in names}
    others = [name for name in records if name not in grouped]
    for title, names in {rest: others, **groups}.items():
        rows = [records[name] for name in names if name in records]
        if rows:
            with to.section(title):
                to.write_dl(rows)
