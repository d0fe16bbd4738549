"""``featx report``: cross-validate on a folder, or evaluate a saved model, and write the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featx._text import one_line
from featx.cli.labeled import columns_in, load_labeled
from featx.cli.models import TRUSTED, load_classifier
from featx.cli.options import (
    GROUPS,
    SEED,
    Command,
    GivenPath,
    columns_of_table,
    extractor_options,
    head_option,
    make_extractor,
)
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_output,
    echo,
    show_result,
)
from featx.exceptions import InputError

_N_SHOWN = 3  # steps of advice
_TEST_SPLITS = ("test", "val", "valid", "validation")  # the first that is there is used


@click.command(cls=Command)
@click.argument("paths", nargs=-1, required=True, type=GivenPath(), metavar="[MODEL] FOLDER|TABLE")
@columns_of_table
@click.option(
    "--out", required=True, type=GivenPath(path_type=Path), help="A .html file, the page."
)
@FORCE
@click.option("--backbone", default=None, help="Default: mobilenet_v2.  [not with MODEL]")
@head_option("--head", "heads", multiple=True)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(min=2))
@click.option(
    "--projection",
    default="pca",
    show_default=True,
    type=click.Choice(["pca", "umap", "tsne"]),
    help="How the map places images.",
)
@GROUPS
@SEED
@TRUSTED
@extractor_options
@AS_JSON
def report(
    paths: tuple[str, ...],
    out: Path,
    force: bool,
    backbone: str | None,
    heads: tuple[str, ...],
    folds: int,
    projection: str,
    groups: str | None,
    seed: int,
    trusted: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Write a page with scores, mistakes, suspect labels, near-duplicates and a map of the images.

    FOLDER has a folder per class, and may be an archive (.zip, .tar) or a URL, as in
    s3://bucket/photos. TABLE is a file (.csv, .tsv, .jsonl, .parquet), or its URL, with a column of
    paths, relative to its folder, and a column of labels. Heads are cross-validated: the page
    describes the first --head, and compares it with the others. If FOLDER is on disk and has train
    and test (or val) instead, heads are fitted on train and evaluated on the other. A saved MODEL
    is only evaluated, on test (or val) if there is one; a line reports how many of these images it
    was trained on.
    """
    check_output(out, (".html",), force=force)
    if len(paths) > 2:
        raise click.UsageError(f"got {len(paths)} paths: expected FOLDER, or MODEL and FOLDER")
    *models, place = paths
    if models and (backbone or heads):
        raise click.UsageError("--backbone and --head are those of the saved model: leave them out")
    from sklearn.utils import Bunch

    from featx.estimators import TransferClassifier
    from featx.reporting.page import check_report_packages
    from featx.reporting.projection import check_method
    from featx.reporting.report import report as make_report

    check_report_packages()
    check_method(projection)
    images, test = _training_and_test(place, columns_in(options), groups)
    of_images = images.get("groups")
    estimators: Any
    if models:
        estimators = load_classifier(
            models[0], trusted=trusted, cache=options["cache"], on_error=options["on_error"]
        )
        images, test = (images, test) if test else (Bunch(data=None, target=None), images)
    else:
        extractor = make_extractor(backbone or "mobilenet_v2", options)
        estimators = [
            TransferClassifier(extractor, head, random_state=seed) for head in heads or ["logistic"]
        ]
    held_out = {"X_test": test.data, "y_test": test.target} if test else {}
    if not options["quiet"]:
        echo("evaluating, then looking for wrong labels, copies and unusual images", err=True)
    found = make_report(
        estimators, images.data, images.target, cv=folds, groups=of_images, **held_out
    )
    if not options["quiet"]:
        echo("writing the page", err=True)
    found.to_html(out, projection=projection)
    data = found.to_dict()
    show_result(data, as_json, f"{_summary(data)}\n{one_line(out)}")


def _training_and_test(
    place: str, columns: dict[str, str | None], groups: str | None
) -> tuple[Any, Any]:
    """Return labeled images, and those of the test split if there are splits, else None."""
    from featx.inputs.folders import split_folders

    splits = {name.lower(): path for name, path in split_folders(place).items()}
    tests = [splits[name] for name in _TEST_SPLITS if name in splits]
    if "train" not in splits or not tests:
        return load_labeled(place, columns, groups=groups), None
    images, test = load_labeled(splits["train"], columns), load_labeled(tests[0], columns)
    if groups is not None:
        images.groups = _groups_of_splits(groups, place, images.data, test.data)
    return images, test


def _groups_of_splits(groups: str, place: str, training: Any, test: Any) -> list[str]:
    """Return the groups of training images; raise if one is in the test split, too."""
    from featx.inputs.groups import read_groups

    of_training, of_test = (read_groups(groups, place, images) for images in (training, test))
    if shared := sorted(set(of_training) & set(of_test)):
        more = f" and {len(shared) - _N_SHOWN} more" if len(shared) > _N_SHOWN else ""
        raise InputError(
            f"{len(shared)} groups of {groups!r} have images in the training split and in the test "
            f"split, so that the scores would be too high: {', '.join(shared[:_N_SHOWN])}{more}. "
            "Move the images of a group into one split"
        )
    return of_training


def _summary(data: dict[str, Any]) -> str:
    """Return the accuracy, the mistakes, and what to do next."""
    low, high = data["metrics"]["intervals"]["accuracy"]
    lines = [
        f"{data['data']['n_read']:,} images, {data['split']}",
        f"accuracy {data['metrics']['accuracy']:.3f} ({low:.3f} to {high:.3f}), "
        f"{data['n_mistakes']:,} mistakes",
    ]
    if data["caveat"]:
        lines.append(data["caveat"])
    steps = [f"- {advice['step']}" for advice in data["advice"][:_N_SHOWN]]
    heading = ["What to do next:"] if steps else []
    return "\n".join(map(one_line, [*lines, *heading, *steps]))
