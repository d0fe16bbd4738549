"""``load_labeled``: the images and labels that commands train on or evaluate, and their groups."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from featx._urls import is_url, shown_path
from featx.cli.options import or_none
from featx.exceptions import InputError

if TYPE_CHECKING:
    from featx.inputs.labeled import LabeledSamples

_N_PATHS_TRIED = 20


def columns_in(options: dict[str, Any]) -> dict[str, str | None]:
    """Remove the options that describe a table from those of a command, and return them."""
    return {name: options.pop(name) for name in ("sample", "target", "base")}


def load_labeled(
    place: str, columns: dict[str, str | None], *, groups: str | None = None
) -> LabeledSamples:
    """Return the images of a folder per class, or of a table with `columns`."""
    from featx.inputs.table_files import is_table

    if is_table(place):
        return load_table_of_images(place, columns, groups=groups)
    check_is_no_table(place, columns)
    from featx.inputs.folders import load_image_folder

    images = load_image_folder(place)
    if groups is not None:
        from featx.inputs.groups import read_groups

        images.groups = read_groups(groups, place, images.data)
    return images


def load_table_of_images(
    place: str, columns: dict[str, str | None], *, groups: str | None = None
) -> LabeledSamples:
    """Return the images of a table; raise if the paths in it lead nowhere."""
    from featx.inputs.tables import load_table

    table = load_table(
        place,
        sample=columns["sample"] or "path",
        target=or_none(columns["target"] or "label"),
        groups=groups,
        base=columns["base"],
    )
    some = list(table.data[:_N_PATHS_TRIED])
    is_found = (is_url(path) or os.path.lexists(path) for path in some)
    if hasattr(table.data, "dtype") and not any(is_found):
        raise InputError(
            f"{shown_path(place)!r}: none of its first {len(some)} files exists, such as "
            f"{some[0]!r}. Name the folder, archive or URL where its paths start: --base FOLDER"
        )
    return table


def check_is_no_table(place: str, columns: dict[str, str | None]) -> None:
    """Check that nothing describes a table if there is none."""
    from featx.inputs.table_files import TABLE_SUFFIXES

    if any(columns.values()):
        raise click.UsageError(
            f"--sample, --target and --base describe a table, but {shown_path(place)!r} is none "
            f"({', '.join(sorted(TABLE_SUFFIXES))})"
        )
