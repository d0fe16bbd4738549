"""``featx predict``: the classes of images by a saved model, printed or as a file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx._text import one_line
from featx.cli.models import CACHE, MODEL, ON_ERROR, TRUSTED, load_classifier, readable_rows
from featx.cli.options import Command, GivenPath
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_ending,
    check_output_files,
    echo,
    print_json,
    show_result,
)
from featx.exceptions import InputError

if TYPE_CHECKING:
    import numpy as np

    from featx.cli.files import PredictionFile
    from featx.estimators import TransferClassifier

IMAGES = click.argument("images", nargs=-1, required=True, type=GivenPath(allow_dash=True))
COLUMN = click.option(
    "--column", help="The column of paths in CSV files; default: path, file, filename or image."
)


@click.command(cls=Command)
@MODEL
@IMAGES
@COLUMN
@click.option("--proba", is_flag=True, help="The probability of each class too.")
@click.option(
    "--out",
    type=GivenPath(path_type=Path),
    help="A .csv, .parquet, .npz or .h5 file, in place of printed lines.",
)
@FORCE
@TRUSTED
@CACHE
@ON_ERROR
@AS_JSON
def predict(
    model: str,
    images: tuple[str, ...],
    column: str | None,
    proba: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict the class of images with a saved model.

    IMAGES are files, folders, patterns such as 'photos/**/*.jpg', lists of paths (@list.txt, or -
    for standard input, a path on each line), and CSV files with a column of paths. Relative paths
    in lists and CSV files are relative to the folder of the file.

    With --on-error nan, images that cannot be read have no label. A model of several outputs gives
    each image a label, and probabilities, for each output. Control characters in names are
    printed as Python escapes, and with --json as JSON escapes.
    """
    from featx.cli.files import ENDINGS, check_file_packages
    from featx.cli.image_lists import images_of

    if out is not None:
        check_ending(out, ENDINGS)
        check_output_files(out, force=force)
        check_file_packages(out)
    paths = images_of(images, column)
    classifier = load_classifier(model, **options)
    if proba and not hasattr(classifier, "predict_proba"):
        raise InputError(f"the head of {model!r} has no probabilities: leave --proba out")
    predictions = _predictions(classifier, paths, proba=proba)
    if out is not None:
        _as_file(predictions).write(out)
        result = {"out": str(out), "n_samples": len(paths)}
        show_result(result, as_json, f"{len(paths)} predictions in {one_line(out)}")
    elif as_json:
        print_json(predictions)
    else:
        _print_predictions(predictions)


def _predictions(
    classifier: TransferClassifier, paths: Sequence[str], *, proba: bool
) -> list[dict[str, Any]]:
    """Return the image, the label, and with `proba` the probabilities, of each path."""
    from featx.heads.fit import predict as labels_of

    is_read, rows = readable_rows(classifier, paths)
    predictions: list[dict[str, Any]] = [{"image": path, "label": None} for path in paths]
    readable = list(itertools.compress(predictions, is_read))
    if readable:
        labels = _as_plain_labels(labels_of(classifier.head_, rows))
        for prediction, label in zip(readable, labels, strict=True):
            prediction["label"] = label
    if readable and proba:
        for prediction, by_class in zip(readable, _probabilities(classifier, rows), strict=True):
            prediction["proba"] = by_class
    return predictions


def _print_predictions(predictions: Sequence[dict[str, Any]]) -> None:
    for prediction in predictions:
        label = "" if prediction["label"] is None else prediction["label"]
        shown = _shown_probabilities(prediction.get("proba", {}))
        echo("\t".join(map(one_line, (prediction["image"], label, *shown))))


def _as_file(predictions: Sequence[dict[str, Any]]) -> PredictionFile:
    """Return predictions as columns; those of images that could not be read are empty, or NaN."""
    import numpy as np

    from featx.cli.files import PredictionFile

    labels = [each["label"] for each in predictions]
    n_outputs = max((len(label) for label in labels if isinstance(label, list)), default=0)
    texts = {"path": [each["image"] for each in predictions]}
    if n_outputs:
        filled = [label or [""] * n_outputs for label in labels]
        columns = zip(*filled, strict=True)
        texts |= {f"label_{n}": list(map(str, column)) for n, column in enumerate(columns, start=1)}
    else:
        texts["label"] = ["" if label is None else str(label) for label in labels]
    probabilities = [_by_column(each.get("proba", {})) for each in predictions]
    classes = next((list(row) for row in probabilities if row), [])
    values = [[row.get(name, np.nan) for name in classes] for row in probabilities]
    return PredictionFile(texts, classes, np.array(values).reshape(len(predictions), -1))


def _by_column(proba: Any) -> dict[str, float]:
    """Return probabilities by class, after the number of the output if there are several."""
    if isinstance(proba, list):
        return {
            f"{number}_{name}": value
            for number, by_class in enumerate(proba, start=1)
            for name, value in by_class.items()
        }
    return proba


def _as_plain_labels(labels: np.ndarray) -> list[Any]:
    """Return labels as numbers and text; dates are text, since NumPy makes numbers of some."""
    return (labels.astype(str) if labels.dtype.kind in "mM" else labels).tolist()


def _probabilities(classifier: TransferClassifier, rows: np.ndarray) -> list[Any]:
    """Return the probabilities of each image by class; with several outputs, a list of these."""
    probabilities, classes = classifier.head_.predict_proba(rows), classifier.classes_
    if not isinstance(probabilities, list):
        return _probabilities_by_class(probabilities, classes)
    outputs = map(_probabilities_by_class, probabilities, classes)
    return [list(of_image) for of_image in zip(*outputs, strict=True)]


def _probabilities_by_class(
    probabilities: np.ndarray, classes: np.ndarray
) -> list[dict[str, float]]:
    names = list(map(str, classes))
    return [dict(zip(names, values, strict=True)) for values in probabilities.tolist()]


def _shown_probabilities(proba: Any) -> list[str]:
    """Return probabilities as ``name=0.500``, after the number of the output, if any."""
    if isinstance(proba, list):
        return [
            f"{number}:{shown}"
            for number, by_class in enumerate(proba, start=1)
            for shown in _shown_probabilities(by_class)
        ]
    return [f"{name}={value:.3f}" for name, value in proba.items()]
