"""``featx predict``: the classes of images by a saved model, printed or as a file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx._text import one_line
from featx._urls import shown_path
from featx.cli.models import MODEL, load_classifier, loading_options
from featx.cli.options import BASE, Command, GivenPath
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_output,
    echo,
    print_json,
    show_result,
)
from featx.cli.predictions import Predictions, predict_in_parts
from featx.exceptions import InputError

if TYPE_CHECKING:
    import numpy as np

    from featx.cli.files import PredictionFile

IMAGES = click.argument("images", nargs=-1, required=True, type=GivenPath(allow_dash=True))
COLUMN = click.option(
    "--sample",
    "column",
    help="The column of paths in tables; default: path, file, filename or image.",
)


@click.command(cls=Command)
@MODEL
@IMAGES
@COLUMN
@BASE
@click.option("--proba", is_flag=True, help="The probability of each class too.")
@click.option(
    "--out",
    type=GivenPath(path_type=Path),
    help="A .csv, .parquet, .npz or .h5 file, in place of printed lines.",
)
@FORCE
@loading_options
@AS_JSON
def predict(
    model: str,
    images: tuple[str, ...],
    column: str | None,
    base: str | None,
    proba: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict the class of images with a saved model.

    IMAGES are files, folders, archives (.zip, .tar), URLs as in s3://bucket/photos, patterns such
    as 'photos/**/*.jpg', lists of paths (@list.txt, or - for standard input, a path on each line),
    and tables (.csv, .tsv, .jsonl, .parquet) with a column of paths. Relative paths in lists and
    tables start from the folder of the file, or those in tables from --base.

    Lines are printed while the images are predicted, 1,024 at a time; a file, or the document of
    --json, is written once all are. Images that cannot be read are left out, and are an error at
    the end: no file is written then. With --on-error nan, they have no label, and are a warning.

    A model of several outputs gives each image a label, and probabilities, for each output. Control
    characters in names are printed as Python escapes, and with --json as JSON escapes.
    """
    from featx.cli.files import ENDINGS, check_file_packages
    from featx.cli.image_lists import images_of

    check_output(out, ENDINGS, force=force)
    if out is not None:
        check_file_packages(out)
    paths = images_of(images, column, base)
    classifier = load_classifier(model, **options)
    if proba and not hasattr(classifier, "predict_proba"):
        raise InputError(f"the head of {model!r} has no probabilities: leave --proba out")
    parts = predict_in_parts(classifier, paths, with_proba=proba)
    if out is not None:
        _as_file(list(parts)).write(out)
        result = {"out": str(out), "n_samples": len(paths)}
        show_result(result, as_json, f"{len(paths)} predictions in {one_line(out)}")
    elif as_json:
        print_json([prediction for part in parts for prediction in part.by_image()])
    else:
        for prediction in itertools.chain.from_iterable(part.by_image() for part in parts):
            echo(_as_line(prediction))


def _as_line(prediction: dict[str, Any]) -> str:
    label = "" if prediction["label"] is None else prediction["label"]
    shown = _shown_probabilities(prediction.get("proba", {}))
    return "\t".join(map(one_line, (prediction["image"], label, *shown)))


def _shown_probabilities(proba: Any) -> list[str]:
    """Return probabilities as ``name=0.500``, after the number of the output, if any."""
    if isinstance(proba, list):
        return [
            f"{number}:{shown}"
            for number, by_class in enumerate(proba, start=1)
            for shown in _shown_probabilities(by_class)
        ]
    return [f"{name}={value:.3f}" for name, value in proba.items()]


def _as_file(parts: Sequence[Predictions]) -> PredictionFile:
    """Return predictions as columns; images that could not be read have none, or NaN."""
    import numpy as np

    from featx.cli.files import PredictionFile

    is_read = np.concatenate([part.is_read for part in parts])
    read = [part for part in parts if part.is_read.any()]
    labels = np.array([label for part in read for label in part.plain_labels()], object)
    n_outputs = labels.shape[1] if labels.ndim > 1 else 1
    cells = np.full((len(is_read), n_outputs), None, object)
    cells[is_read] = labels.reshape(-1, n_outputs)
    names = ["label"] if labels.ndim == 1 else [f"label_{n + 1}" for n in range(n_outputs)]
    texts: dict[str, list[str | None]] = {
        "path": [shown_path(path) for part in parts for path in part.paths]
    }
    texts |= {
        name: [None if cell is None else str(cell) for cell in column]
        for name, column in zip(names, cells.T, strict=True)
    }
    if not read or read[0].proba is None:
        return PredictionFile(texts, [], np.empty((len(is_read), 0)))
    classes = _column_names(read[0].classes)
    proba = np.full((len(is_read), len(classes)), np.nan)
    proba[is_read] = np.concatenate([_side_by_side(part.proba) for part in read])
    return PredictionFile(texts, classes, proba)


def _column_names(classes: Any) -> list[str]:
    """Return the names of classes, after the number of the output if there are several."""
    if isinstance(classes, list):
        return [f"{number}_{name}" for number, of in enumerate(classes, start=1) for name in of]
    return list(map(str, classes))


def _side_by_side(proba: Any) -> np.ndarray:
    import numpy as np

    return np.hstack(proba) if isinstance(proba, list) else proba
