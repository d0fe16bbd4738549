"""Subcommands that make and use saved models: fit, predict, evaluate, export."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx._text import one_line
from featx.cli.options import (
    FOLDER,
    SEED,
    Command,
    GivenPath,
    extractor_options,
    fine_tune_options,
    head_option,
    make_extractor,
    make_fine_tune,
    or_none,
)
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_ending,
    check_output_files,
    describe_passes,
    echo,
    print_evaluation,
    print_json,
    show_result,
)
from featx.exceptions import InputError, SavedFileError

if TYPE_CHECKING:
    import numpy as np

    from featx.estimators import TransferClassifier

_FORMATS = {".keras": "keras", ".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}
_IMAGES = click.argument("images", nargs=-1, required=True, type=GivenPath())
MODEL = click.argument("model", type=GivenPath())
TRUSTED = click.option(
    "--trusted", multiple=True, help="A type inside the head that you trust; may be repeated."
)
_CACHE = click.option("--cache", type=GivenPath(), default="auto", help="A folder, or none.")
_ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["raise", "nan"]),
    default=None,
    help="Treatment of unreadable images; default: that of the saved model.",
)


@click.command(cls=Command)
@FOLDER
@click.option(
    "--out", required=True, type=GivenPath(path_type=Path), help="The saved model, a .featx file."
)
@FORCE
@head_option("--head", default="logistic")
@SEED
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@TRUSTED
@fine_tune_options
@extractor_options
@AS_JSON
def fit(
    folder: str,
    out: Path,
    force: bool,
    head: str,
    seed: int,
    backbone: str,
    trusted: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train a classifier on a folder per class and save it as one file.

    With --fine-tune the top of the network is trained as well, and kept if it is better.
    """
    check_ending(out, (".featx",), or_none=True)
    check_output_files(out, force=force)
    from featx.estimators import TransferClassifier
    from featx.inputs.folders import load_image_folder
    from featx.saving.persistence import check_savable, save

    extractor = make_extractor(backbone, options)
    fine_tune = make_fine_tune(options)
    images = load_image_folder(folder)
    classifier = TransferClassifier(extractor, head, fine_tune, random_state=seed)
    classifier.set_params(verbose=not options["quiet"]).check_params()
    check_savable(classifier, trusted=trusted)
    classifier.fit(images.data, images.target)
    save(classifier, out, trusted=trusted)
    result = {
        "model": str(out),
        "classes": classifier.classes_.tolist(),
        "report": classifier.report_,
    }
    show_result(
        result,
        as_json,
        f"{len(images.data)} images of {len(images.target_names)} classes, "
        f"{describe_passes(classifier.report_)}{_selection_text(classifier.report_)}; "
        f"saved as {one_line(out)}",
    )


@click.command(cls=Command)
@MODEL
@_IMAGES
@click.option("--proba", is_flag=True, help="Print the probability of each class too.")
@TRUSTED
@_CACHE
@_ON_ERROR
@AS_JSON
def predict(
    model: str,
    images: tuple[str, ...],
    proba: bool,
    trusted: tuple[str, ...],
    cache: str,
    on_error: str | None,
    as_json: bool,
) -> None:
    """Predict the class of images, or of all images below folders, with a saved model.

    With --on-error nan, images that cannot be read have no label. A model of several outputs gives
    each image a label, and probabilities, for each output. Control characters in names are
    printed as Python escapes, and with --json as JSON escapes.
    """
    from featx.heads.fit import predict as labels_of
    from featx.inputs.folders import list_images

    paths = list_images(images)
    classifier = load_classifier(model, trusted=trusted, cache=cache, on_error=on_error)
    if proba and not hasattr(classifier, "predict_proba"):
        raise InputError(f"the head of {model!r} has no probabilities: leave --proba out")
    is_read, rows = _readable_rows(classifier, paths)
    predictions: list[dict[str, Any]] = [{"image": path, "label": None} for path in paths]
    readable = list(itertools.compress(predictions, is_read))
    if readable:
        labels = _as_plain_labels(labels_of(classifier.head_, rows))
        for prediction, label in zip(readable, labels, strict=True):
            prediction["label"] = label
    if readable and proba:
        for prediction, by_class in zip(readable, _probabilities(classifier, rows), strict=True):
            prediction["proba"] = by_class
    if as_json:
        print_json(predictions)
        return
    for prediction in predictions:
        label = "" if prediction["label"] is None else prediction["label"]
        shown = _shown_probabilities(prediction.get("proba", {}))
        echo("\t".join(map(one_line, (prediction["image"], label, *shown))))


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


@click.command(cls=Command)
@MODEL
@FOLDER
@TRUSTED
@_CACHE
@_ON_ERROR
@AS_JSON
def evaluate(
    model: str,
    folder: str,
    trusted: tuple[str, ...],
    cache: str,
    on_error: str | None,
    as_json: bool,
) -> None:
    """Evaluate a saved model on a folder per class.

    With --on-error nan, images that cannot be read are left out.
    """
    from featx.evaluation.metrics import evaluate as measure
    from featx.heads.fit import predict as labels_of
    from featx.inputs.folders import load_image_folder

    images = load_image_folder(folder)
    classifier = load_classifier(model, trusted=trusted, cache=cache, on_error=on_error)
    _check_has_one_output(classifier, model)
    unknown = sorted(set(images.target_names) - set(map(str, classifier.classes_)))
    if unknown:
        raise InputError(
            f"{folder!r} has classes that the model does not know: "
            f"{', '.join(map(one_line, unknown))}. It knows "
            f"{', '.join(map(one_line, classifier.classes_))}."
        )
    is_read, rows = _readable_rows(classifier, images.data)
    if not is_read.any():
        raise InputError(f"none of the {len(is_read)} samples could be read")
    has_proba = hasattr(classifier, "predict_proba")
    result = measure(
        images.target[is_read],
        labels_of(classifier.head_, rows).astype(str),
        proba=classifier.head_.predict_proba(rows) if has_proba else None,
        classes=classifier.classes_.astype(str),
    )
    if as_json:
        print_json(result)
    else:
        print_evaluation(result)


@click.command(cls=Command)
@MODEL
@click.argument("out", type=GivenPath(path_type=Path))
@click.option("--include-resize", is_flag=True, help="Take images of any size, and resize them.")
@FORCE
@TRUSTED
@AS_JSON
def export(
    model: str,
    out: Path,
    include_resize: bool,
    force: bool,
    trusted: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a saved model for a runtime that does not need featx.

    The ending of OUT decides the format: .keras, .onnx, .xml (OpenVINO), .tflite (LiteRT). Without
    an ending, OUT is the folder of a TensorFlow SavedModel.
    """
    check_ending(out, tuple(_FORMATS), or_none=True)
    from featx.export import FULL_PRECISION, check_model_export, describe_precision, exported_files

    format = _FORMATS.get(out.suffix.lower(), "saved_model")
    check_output_files(*exported_files(out, format), force=force)
    check_model_export(out, format)
    classifier = load_classifier(model, trusted=trusted, cache="none", on_error=None)
    classifier.export(out, format=format, include_resize=include_resize)
    code = _code_for(classifier, out, format, include_resize=include_resize)
    show_result(
        {
            "out": str(out),
            "format": format,
            "full_precision": FULL_PRECISION[format],
            "run_code": code,
        },
        as_json,
        f"{format} model in {one_line(out)}\n{describe_precision(format)}\nrun it with\n\n{code}",
    )


def _code_for(
    classifier: TransferClassifier, out: Path, format: str, *, include_resize: bool
) -> str:
    from featx.cli.run_code import run_code
    from featx.export import describe_inputs

    inputs = describe_inputs(classifier.extractor_.current_source().load_backbone())
    if include_resize:
        inputs["shape"] = [None, None, inputs["shape"][2]]
    return run_code(out, format, inputs, names_columns=hasattr(classifier, "predict_proba"))


def load_classifier(
    model: str, *, trusted: tuple[str, ...], cache: str, on_error: str | None
) -> TransferClassifier:
    """Load a saved classifier with a cache and a treatment of unreadable images."""
    from featx.estimators import TransferClassifier
    from featx.saving.persistence import load

    classifier = load(model, trusted=trusted, cache=or_none(cache))
    if not isinstance(classifier, TransferClassifier):
        raise SavedFileError(
            f"{model!r} is a saved {type(classifier).__name__}: expected a TransferClassifier"
        )
    if on_error:
        classifier.extractor_.set_params(on_error=on_error)
    return classifier


def _check_has_one_output(classifier: TransferClassifier, model: str) -> None:
    """Check that a classifier predicts one label per image, as a folder per class has."""
    import numpy as np

    embedding = np.zeros((1, classifier.extractor_.space_.n_features), np.float32)
    shape = np.shape(classifier.head_.predict(embedding))
    if len(shape) > 1:
        raise InputError(
            f"{model!r} predicts {shape[1]} labels for each image, but a folder per class has one: "
            "evaluate it in Python, with score or sklearn.metrics"
        )


def _readable_rows(
    classifier: TransferClassifier, paths: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of the images that could be read, and the input of the head for those."""
    import numpy as np

    from featx._training_data import readable_mask
    from featx.heads.fit import as_head_input

    embeddings = np.asarray(classifier.transform(paths))
    is_read = readable_mask(embeddings)
    return is_read, as_head_input(embeddings[is_read])


def _selection_text(report: Any) -> str:
    if "kept" not in report:
        return ""
    tuned = "" if report.tuned_score is None else f", {report.tuned_score:.3f} (fine-tuned)"
    kept = "the fine-tuned model" if report.kept == "tuned" else "the head"
    return f", held-out accuracy {report.head_score:.3f} (head){tuned}: {kept} is kept"
