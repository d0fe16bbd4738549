"""``featx card``: the model card of a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from featx._text import one_line
from featx.cli.models import MODEL, TRUSTED
from featx.cli.options import Command, GivenPath
from featx.cli.output import AS_JSON, FORCE, check_output, show_result
from featx.exceptions import InputError, SavedFileError

_MAX_BYTES = 2**30


@click.command(cls=Command)
@MODEL
@click.option(
    "--report", type=GivenPath(path_type=Path), help="Output of report --json or evaluate --json."
)
@click.option("--out", type=GivenPath(path_type=Path), help="A .md file; default: print the card.")
@FORCE
@TRUSTED
@AS_JSON
def card(
    model: str,
    report: Path | None,
    out: Path | None,
    force: bool,
    trusted: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the model card of a saved MODEL, in the form of Hugging Face.

    Scores come from the file of --report. Without one, the card says that they were not measured.
    """
    check_output(out, (".md",), force=force)
    measured = None if report is None else _read_report(report)
    from featx._transfer import TransferEstimator
    from featx.reporting.card import model_card
    from featx.saving.persistence import load

    estimator = load(model, trusted=trusted)
    if not isinstance(estimator, TransferEstimator):
        raise SavedFileError(
            f"{model!r} is a saved {type(estimator).__name__}: expected a TransferClassifier or "
            "TransferRegressor"
        )
    found = model_card(estimator, measured)
    if out is not None:
        found.save(out)
    result = {"out": None if out is None else str(out), "metadata": found.metadata}
    shown = str(found).rstrip() if out is None else f"model card in {one_line(out)}"
    show_result(result, as_json, shown)


def _read_report(path: Path) -> dict[str, Any]:
    """Return a report from a JSON file; the output of ``evaluate`` becomes its metrics."""
    from featx._files import open_given

    shown = repr(str(path))
    try:
        with open_given(path) as file:
            data = json.loads(file.read(_MAX_BYTES))
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{shown} is not a JSON file: {exc}") from exc
    if not isinstance(data, dict):
        raise InputError(f"{shown} holds no report: expected an object, as report --json prints it")
    return data if "metrics" in data or "accuracy" not in data else {"metrics": data}
