"""``featx cv``: cross-validate backbones, layers, poolings and heads on a folder per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from featx._text import one_line
from featx._warning import warn_caller
from featx.cli.labeled import columns_in, load_labeled
from featx.cli.options import (
    GROUPS,
    SEED,
    Command,
    fine_tune_options,
    head_option,
    labeled_images,
    make_extractors,
    make_fine_tune,
    repeatable_extractor_options,
)
from featx.cli.output import AS_JSON, at_the_shell, echo, print_json, print_table
from featx.exceptions import BackboneWarning

if TYPE_CHECKING:
    from featx.evaluation.comparison import BackboneFailure, Comparison, EmbeddingPass


_MANY_ROWS = 10  # with the baseline


@click.command(cls=Command)
@labeled_images
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=["mobilenet_v2"],
    show_default=True,
    metavar="NAME[:OPTIONS]",
)
@head_option("--head", "heads", multiple=True, default=["logistic"])
@click.option("--folds", default=5, show_default=True, type=click.IntRange(min=2))
@GROUPS
@SEED
@fine_tune_options
@repeatable_extractor_options
@AS_JSON
def cv(
    place: str,
    backbones: tuple[str, ...],
    heads: tuple[str, ...],
    folds: int,
    groups: str | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Cross-validate heads and backbones on labeled images.

    FOLDER has a folder per class, and may be an archive (.zip, .tar) or a URL, as in
    s3://bucket/photos. TABLE is a file (.csv, .tsv, .jsonl, .parquet), or its URL, with a column of
    paths, relative to its folder, and a column of labels.

    --backbone, --head, --layer and --pooling may be repeated, for all combinations. A backbone
    takes options of its own, as in mobilenet_v2:alpha=0.35,input_size=96. What is no option of
    this command is a parameter of the network. A comma ends a value only before the next NAME=.

    With --fine-tune, each backbone is also fine-tuned from the first --head, in each fold.

    A backbone that cannot be loaded becomes a warning. If all fail, the exit code is 4.
    """
    from featx.evaluation.comparison import compare

    extractors = make_extractors(backbones, options)
    fine_tune = make_fine_tune(options)
    images = load_labeled(place, columns_in(options), groups=groups)
    comparisons = compare(
        images.data,
        images.target,
        extractors=extractors,
        heads=heads,
        n_folds=folds,
        groups=images.get("groups"),
        fine_tune=fine_tune,
        random_state=seed,
    )
    results = _Results(folds)
    try:
        for found in comparisons:
            results.add(found)
    finally:  # finished rows are shown even if the run is interrupted
        results.show(as_json)
    results.raise_if_all_failed()


class _Results:
    """What a comparison has yielded so far."""

    def __init__(self, n_folds: int) -> None:
        self.n_folds = n_folds
        self.rows: list[Comparison] = []
        self.passes: list[EmbeddingPass] = []
        self.failures: list[BackboneFailure] = []

    def add(self, found: Comparison | EmbeddingPass | BackboneFailure) -> None:
        """Add a result of any kind."""
        from featx.evaluation.comparison import BackboneFailure, EmbeddingPass

        if isinstance(found, BackboneFailure):
            self.failures.append(found)
        elif isinstance(found, EmbeddingPass):
            self.passes.append(found)
        else:
            self.rows.append(found)

    def show(self, as_json: bool) -> None:
        """Print all results, the best first, and a warning for each backbone that failed."""
        if not self.rows:
            return
        self.rows.sort(key=lambda row: -row.mean)
        if as_json:
            print_json(self._as_dict())
        else:
            print_comparisons(self.rows, self.passes, n_folds=self.n_folds)
        by_error = {str(failure.error): failure for failure in reversed(self.failures)}
        for failure in reversed(by_error.values()):  # those of several layers are the same
            warn_caller(BackboneWarning(f"{failure.backbone} left out: {_shown(failure)}"))

    def raise_if_all_failed(self) -> None:
        """Raise the error of the first backbone if there is no result."""
        if self.failures and not self.rows:
            raise self.failures[0].error

    def _as_dict(self) -> dict[str, Any]:
        from featx.evaluation.comparison import BASELINE, p_values

        against_best = p_values([row.scores for row in self.rows])
        return {
            "n_folds": self.n_folds,
            "results": [
                {**row._asdict(), "p_value": None if row.head == BASELINE else p_value}
                for row, p_value in zip(self.rows, against_best, strict=True)
            ],
            "embedding": [each._asdict() for each in self.passes],
            "failed": [
                {"backbone": each.backbone, "error": str(each.error)} for each in self.failures
            ],
        }


def _shown(failure: BackboneFailure) -> str:
    return one_line(at_the_shell(failure.error), max_chars=1_000)


def print_comparisons(rows: list[Comparison], passes: list[EmbeddingPass], *, n_folds: int) -> None:
    """Print a table of cross-validations, the best first, and the cost of the embeddings."""
    from featx.evaluation.comparison import BASELINE, p_values

    columns = ("", "backbone", "head", "#accuracy", "#p", "#embedded", "#seconds")
    against_best = p_values([row.scores for row in rows])
    lines: list[tuple[Any, ...]] = [
        (
            "*" if place == 0 else "",
            row.backbone,
            row.head,
            f"{row.mean:.3f} ± {row.spread:.3f}",
            "" if row.head == BASELINE else f"{p_value:.3f}",
            "",
            f"{row.seconds:.2f}",
        )
        for place, (row, p_value) in enumerate(zip(rows, against_best, strict=True))
    ]
    lines += [
        ("", each.backbone, "(embedding)", "", "", each.n_forward, f"{each.seconds:.2f}")
        for each in passes
        if each.n_forward or each is passes[0]  # others were stored by an earlier pass
    ]
    print_table(f"accuracy, {n_folds} folds, best first", columns, lines)
    echo("* best; ± standard deviation over folds; p: chance of such a gap to the best")
    if len(rows) > _MANY_ROWS:
        echo(
            f"The best of {len(rows) - 1} was chosen by the folds that score it, so its accuracy "
            "is too high: evaluate it on images kept apart."
        )
