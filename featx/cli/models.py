"""Subcommands that make and export saved models, and how commands load one: fit, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx._text import one_line
from featx.cli.labeled import columns_in, load_labeled
from featx.cli.options import (
    GROUPS,
    SEED,
    Command,
    GivenPath,
    add_options,
    extractor_options,
    fine_tune_options,
    head_option,
    labeled_images,
    make_extractor,
    make_fine_tune,
    or_none,
)
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_ending,
    check_output,
    check_output_files,
    describe_passes,
    show_result,
)
from featx.exceptions import SavedFileError

if TYPE_CHECKING:
    from featx.estimators import TransferClassifier

_FORMATS = {".keras": "keras", ".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}
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
loading_options = add_options(TRUSTED, _CACHE, _ON_ERROR)


@click.command(cls=Command)
@labeled_images
@click.option(
    "--out", required=True, type=GivenPath(path_type=Path), help="The saved model, a .featx file."
)
@FORCE
@head_option("--head", default="logistic")
@click.option("--calibrate", is_flag=True, help="Calibrate the probabilities on held-out folds.")
@GROUPS
@SEED
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@TRUSTED
@fine_tune_options
@extractor_options
@AS_JSON
def fit(
    place: str,
    out: Path,
    force: bool,
    head: str,
    calibrate: bool,
    groups: str | None,
    seed: int,
    backbone: str,
    trusted: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train a classifier on labeled images and save it as one file.

    FOLDER has a folder per class, and may be an archive (.zip, .tar) or a URL, as in
    s3://bucket/photos. TABLE is a file (.csv, .tsv, .jsonl, .parquet), or its URL, with a column of
    paths, relative to its folder, and a column of labels. Images of a group stay together where the
    classifier splits the data: for --calibrate, to select a strength, or for fine-tuning.

    With --fine-tune the top of the network is trained as well, and kept if it is better. With
    --calibrate, a probability of 0.8 is right in about 8 of 10 cases; knn needs none.
    """
    check_output(out, (".featx",), force=force, or_none=True)
    if calibrate and options["unfreeze"] is not None:
        raise click.UsageError("--calibrate works without --fine-tune only")
    from featx._html import shown_items
    from featx.estimators import TransferClassifier
    from featx.heads.named import CLASSIFIER_HEADS, calibrated_head
    from featx.saving.persistence import check_savable, save

    extractor = make_extractor(backbone, options)
    fine_tune = make_fine_tune(options)
    images = load_labeled(place, columns_in(options), groups=groups)
    # An unknown name is reported with the other faults.
    made = calibrated_head(head) if calibrate and head in CLASSIFIER_HEADS else head
    classifier = TransferClassifier(extractor, made, fine_tune, random_state=seed)
    classifier.set_params(verbose=not options["quiet"]).check_params()
    check_savable(classifier, trusted=trusted)
    classifier.fit(images.data, images.target, groups=images.get("groups"))
    for each in (classifier, classifier.extractor_):  # a service that loads it shows no progress
        each.set_params(verbose=False)
    save(classifier, out, trusted=trusted)
    result = {
        "model": str(out),
        "classes": classifier.classes_.tolist(),
        "report": shown_items(classifier.report_),
    }
    show_result(
        result,
        as_json,
        f"{images}, "
        f"{describe_passes(classifier.report_)}{_selection_text(classifier.report_)}; "
        f"saved as {one_line(out)}",
    )


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
    classifier = load_classifier(model, trusted=trusted, cache="auto", on_error=None)
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
    classifier.extractor_.set_params(verbose=True)
    if on_error:
        classifier.extractor_.set_params(on_error=on_error)
    return classifier


def _selection_text(report: Any) -> str:
    if "kept" not in report:
        return ""
    tuned = "" if report.tuned_score is None else f", {report.tuned_score:.3f} (fine-tuned)"
    kept = "the fine-tuned model" if report.kept == "tuned" else "the head"
    return f", held-out accuracy {report.head_score:.3f} (head){tuned}: {kept} is kept"
