"""``featx check``: what may be wrong with the images of a folder, and with their labels."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from featx._text import one_line
from featx._urls import shown_path
from featx.cli.labeled import check_is_no_table, columns_in, load_table_of_images
from featx.cli.options import (
    GROUPS,
    Command,
    GivenPath,
    extractor_options,
    labeled_images,
    make_extractor,
)
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_output,
    echo,
    print_json,
    print_table,
    status,
)
from featx.exceptions import BadSampleWarning

if TYPE_CHECKING:
    import numpy as np

    from featx.evaluation.findings import Finding, Findings

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command(cls=Command)
@labeled_images
@click.option(
    "--out", type=GivenPath(path_type=Path), help="A .csv file with one row for each finding."
)
@FORCE
@GROUPS
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@extractor_options
@AS_JSON
def check(
    place: str,
    out: Path | None,
    force: bool,
    groups: str | None,
    backbone: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Find wrong labels, duplicates, outliers, and damaged or poor images.

    FOLDER has a folder per class, or images alone, and may be an archive (.zip, .tar) or a URL, as
    in s3://bucket/photos. On disk, folders named train, val and test may hold the class folders.
    TABLE is a file (.csv, .tsv, .jsonl, .parquet), or its URL, with a column of paths, relative to
    its folder, and a column of labels; without labels, pass --target none. The command finds
    unreadable, dark, bright, low-contrast, blurred, tiny and oddly shaped images; labels that are
    probably wrong; exact duplicates and near-duplicates, also those in two classes or in two
    splits; and outliers. Unreadable images are findings, whatever --on-error is.

    The file has the columns path, label, issue, score and detail. The detail is the suggested
    label, the path of the duplicate, the size or the reason. A cell that begins with = + - or @
    gets a leading apostrophe, so that no spreadsheet takes it for a formula.
    """
    check_output(out, (".csv",), force=force)
    from featx.evaluation.findings import find_all_issues
    from featx.evaluation.image_checks import find_image_issues

    columns = columns_in(options)
    extractor = make_extractor(backbone, {**options, "on_error": "nan"})
    images = _list_images_to_check(place, columns, groups)
    embeddings = _embedded_images(extractor, images.data)
    with status("checking images"):
        pixels = find_image_issues(images.data)
        findings = find_all_issues(
            pixels,
            embeddings,
            labels=images.labels,
            splits=images.splits,
            groups=images.groups,
        )
    if out is not None:
        _write_findings(out, images, findings.found)
    if as_json:
        print_json(_as_document(place, images, findings))
    else:
        _print_findings(images, findings, out)


class _CheckedImages(NamedTuple):
    """Images and their names, with labels, splits and groups; None if there are none."""

    data: Any
    names: Sequence[str]
    labels: np.ndarray | None
    splits: np.ndarray | None
    groups: Sequence[Any] | None


def _list_images_to_check(
    place: str, columns: dict[str, str | None], groups: str | None
) -> _CheckedImages:
    """List the images of a table, or of a folder with classes, splits or neither."""
    import numpy as np

    from featx.cli.files import list_folder
    from featx.inputs.folders import split_folders
    from featx.inputs.groups import read_groups
    from featx.inputs.table_files import is_table

    if is_table(place):
        table = load_table_of_images(place, columns, groups=groups)
        return _CheckedImages(table.data, table.names, table.target, None, table.groups)
    check_is_no_table(place, columns)
    splits = split_folders(place)
    if not splits:
        images = list_folder(place)
        names = list(map(shown_path, images.data))
        found = None if groups is None else read_groups(groups, place, images.data)
        return _CheckedImages(images.data, names, images.target, None, found)
    parts = [list_folder(path) for path in splits.values()]
    are_labeled = all(part.target is not None for part in parts)
    paths = np.concatenate([part.data for part in parts])
    names = list(map(str, paths))
    return _CheckedImages(
        paths,
        names,
        np.concatenate([part.target for part in parts]) if are_labeled else None,
        np.repeat(list(splits), [len(part.data) for part in parts]),
        None if groups is None else read_groups(groups, place, names),
    )


def _embedded_images(extractor: Any, images: Any) -> np.ndarray:
    """Return the embeddings of images as vectors, NaN for those that cannot be read."""
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadSampleWarning)  # they become findings
        embeddings = np.asarray(extractor.fit_transform(images))
    return embeddings.reshape(len(embeddings), -1)


def _write_findings(out: Path, images: _CheckedImages, found: list[Finding]) -> None:
    from featx._files import replaced_atomically

    with (
        replaced_atomically(out) as beside,
        open(beside, "x", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(["path", "label", "issue", "score", "detail"])
        for row in (_as_row(images, finding) for finding in found):
            writer.writerow([_as_text_cell(value) for value in row.values()])


def _as_text_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; NaN becomes empty."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value if value == value else ""


def _as_row(images: _CheckedImages, finding: Finding) -> dict[str, Any]:
    """Return a finding by column, with the paths of the images."""
    label = "" if images.labels is None else str(images.labels[finding.row])
    detail = finding.detail if finding.other < 0 else str(images.names[finding.other])
    return {
        "path": str(images.names[finding.row]),
        "label": label,
        "issue": finding.issue,
        "score": round(finding.score, 6),
        "detail": detail,
    }


def _as_document(place: str, images: _CheckedImages, findings: Findings) -> dict[str, Any]:
    checked = findings.labels
    return {
        "folder": shown_path(place),
        "n_images": len(images.names),
        "counts": _counts(findings),
        "n_wrong_labels": None
        if checked is None
        else {"expected": checked.n_expected, "interval": checked.n_expected_interval},
        "labels_not_checked": findings.unchecked or None,
        "findings": [_as_row(images, finding) for finding in findings.found],
    }


def _counts(findings: Findings) -> dict[str, int]:
    """Return the number of findings of each kind, in the order of the kinds."""
    from featx.evaluation.findings import KINDS

    counts = Counter(finding.issue for finding in findings.found)
    return {kind: counts[kind] for kind in KINDS}


def _print_findings(images: _CheckedImages, findings: Findings, out: Path | None) -> None:
    """Print how many findings of each kind there are, each with the worst of them."""
    worst: dict[str, dict[str, Any]] = {}
    for finding in findings.found:
        worst.setdefault(finding.issue, _as_row(images, finding))
    rows = [
        (issue, count, worst[issue]["path"], worst[issue]["detail"])
        for issue, count in _counts(findings).items()
        if count
    ]
    title = f"{len(findings.found)} findings in {len(images.names)} images"
    print_table(title, ("issue", "#findings", "first", "detail"), rows)
    if findings.labels is None:
        echo(f"labels were not checked: {one_line(findings.unchecked)}")
    else:
        low, high = findings.labels.n_expected_interval
        echo(
            f"about {findings.labels.n_expected:.0f} labels are probably wrong "
            f"({low:.0f} to {high:.0f}, 95% interval)"
        )
    if out is not None:
        echo(f"all findings in {one_line(out)}")
