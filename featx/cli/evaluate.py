"""Subcommands that score saved models on a folder per class: evaluate, compare."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx._text import counted, one_line
from featx._urls import shown_path
from featx.cli.labeled import columns_in, load_labeled
from featx.cli.models import MODEL, load_classifier, loading_options
from featx.cli.options import GROUPS, Command, GivenPath, labeled_images
from featx.cli.output import (
    AS_JSON,
    FORCE,
    check_output,
    echo,
    print_evaluation,
    print_json,
    print_overlaps,
    print_paired,
)
from featx.cli.predictions import Predictions, mistakes_in, predict_images
from featx.exceptions import InputError

if TYPE_CHECKING:
    import numpy as np

    from featx.estimators import TransferClassifier
    from featx.inputs.labeled import LabeledSamples


@click.command(cls=Command)
@MODEL
@labeled_images
@click.option(
    "--out",
    type=GivenPath(path_type=Path),
    help="A .csv file for the mistakes: file, true, predicted, confidence.",
)
@FORCE
@GROUPS
@loading_options
@AS_JSON
def evaluate(
    model: str,
    place: str,
    out: Path | None,
    force: bool,
    groups: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate a saved model on labeled images: a folder per class, or a table.

    FOLDER may be an archive (.zip, .tar) or a URL, as in s3://bucket/photos, and TABLE a URL.

    With --on-error nan, images that cannot be read are left out. The confusion matrix is shown if
    the terminal is wide enough for it, else the ten pairs of classes that are confused most often.
    The file of --out has a row for each mistake, the most confident first. A line reports how many
    of the images the model was trained on, if there are any.
    """
    check_output(out, (".csv",), force=force)
    from featx.evaluation.metrics import evaluate as measure
    from featx.evaluation.training_overlap import training_overlap

    images = _load_labels_as_text(place, columns_in(options), groups)
    (classifier,) = _load_classifiers([model], images, place, options)
    predicted = _predict_readable(classifier, images)
    result = measure(
        images.target[predicted.is_read],
        predicted.labels.astype(str),
        proba=predicted.proba,
        classes=classifier.classes_.astype(str),
        groups=_groups_of(images, predicted.is_read),
    )
    overlap = training_overlap(classifier)
    if as_json:
        print_json({**result, "n_in_training": None if overlap is None else overlap.n_trained_on})
    else:
        print_evaluation(result)
        print_overlaps({model: overlap})
    if out is not None:
        n_mistakes = _write_mistakes(predicted, images, out)
        echo(f"{counted(n_mistakes, 'mistake')} in {one_line(out)}", err=as_json)


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, type=GivenPath(), metavar="MODEL MODEL...")
@labeled_images
@loading_options
@AS_JSON
def compare(models: tuple[str, ...], place: str, as_json: bool, **options: Any) -> None:
    """Compare saved models on labeled images: a folder per class, or a table.

    FOLDER may be an archive (.zip, .tar) or a URL, as in s3://bucket/photos, and TABLE a URL.

    Each model is compared with the first: the difference of their accuracies with a 95% interval,
    and the p-value of McNemar's exact test. The p-values are not corrected for several models. With
    --on-error nan, images that one of the models cannot read are left out. A line for each model
    reports how many of the images it was trained on, if there are any.
    """
    if len(models) < 2:
        raise click.UsageError("expected two or more models, and a folder or a table")
    from featx.evaluation.training_overlap import training_overlap

    images = _load_labels_as_text(place, columns_in(options))
    classifiers = _load_classifiers(models, images, place, options)
    predictions = [_predict_readable(each, images) for each in classifiers]
    result = _paired_results(models, predictions, images)
    overlaps = list(map(training_overlap, classifiers))
    if as_json:
        for row, overlap in zip(result["models"], overlaps, strict=True):
            row["n_in_training"] = None if overlap is None else overlap.n_trained_on
        print_json(result)
    else:
        print_paired(result)
        print_overlaps(dict(zip(models, overlaps, strict=True)))


def _load_labels_as_text(
    place: str, columns: dict[str, str | None], groups: str | None = None
) -> LabeledSamples:
    """Return labeled images, whose labels are compared as text with those of saved models."""
    images = load_labeled(place, columns, groups=groups)
    if images.target is None or images.target.ndim > 1 or not images.target_names:
        raise InputError(
            f"{shown_path(place)!r} has no single class for each image: evaluate it in "
            "Python, with score or sklearn.metrics"
        )
    images.target = images.target.astype(str)
    images.target_names = list(map(str, images.target_names))
    return images


def _groups_of(images: LabeledSamples, is_read: np.ndarray) -> list[Any] | None:
    """Return the groups of the images that could be read, if they have groups."""
    groups = images.get("groups")
    return None if groups is None else list(itertools.compress(groups, is_read))


def _predict_readable(classifier: TransferClassifier, images: LabeledSamples) -> Predictions:
    """Predict images with probabilities, if the head has any; raise if none could be read."""
    has_proba = hasattr(classifier, "predict_proba")
    predicted = predict_images(classifier, images.data, with_proba=has_proba)
    if not predicted.is_read.any():
        raise InputError(f"none of the {len(predicted.is_read)} samples could be read")
    return predicted


def _load_classifiers(
    models: Sequence[str], images: LabeledSamples, place: str, options: dict[str, Any]
) -> list[TransferClassifier]:
    """Load saved classifiers, and check that all know the classes of the images."""
    classifiers = [load_classifier(model, **options) for model in models]
    for model, classifier in zip(models, classifiers, strict=True):
        _check_has_one_output(classifier, model)
    faults = []
    for model, classifier in zip(models, classifiers, strict=True):
        unknown = sorted(set(images.target_names) - set(map(str, classifier.classes_)))
        if unknown:
            faults.append(
                f"{shown_path(place)!r} has classes that the model {model!r} does not know: "
                f"{', '.join(map(one_line, unknown))}. It knows "
                f"{', '.join(map(one_line, classifier.classes_))}."
            )
    if faults:
        raise InputError("\n".join(faults))
    return classifiers


def _check_has_one_output(classifier: TransferClassifier, model: str) -> None:
    """Check that a classifier predicts one label per image."""
    import numpy as np

    embedding = np.zeros((1, classifier.extractor_.space_.n_features), np.float32)
    shape = np.shape(classifier.head_.predict(embedding))
    if len(shape) > 1:
        raise InputError(
            f"{model!r} predicts {shape[1]} labels for each image, but each image here has one: "
            "evaluate it in Python, with score or sklearn.metrics"
        )


def _write_mistakes(predicted: Predictions, images: LabeledSamples, out: Path) -> int:
    """Write the mistakes to a CSV file, the most confident first, and return their number."""
    from featx.cli.files import write_text_table

    kept = predicted.is_read
    names = list(itertools.compress(images.names, kept))
    true, labels = images.target[kept], predicted.labels.astype(str)
    confidence = [""] * len(labels)
    if predicted.proba is not None:
        confidence = [f"{value:.6f}" for value in predicted.proba.max(axis=1)]
    wrong = mistakes_in(true, labels, predicted.proba)
    rows = [(names[row], true[row], labels[row], confidence[row]) for row in wrong]
    write_text_table(out, ("file", "true", "predicted", "confidence"), rows)
    return len(rows)


def _paired_results(
    models: Sequence[str], predictions: Sequence[Predictions], images: LabeledSamples
) -> dict[str, Any]:
    """Return the accuracy of each model, and its difference from the first, as plain data."""
    import numpy as np

    from featx.evaluation.intervals import wilson_interval
    from featx.evaluation.paired import compare_paired

    kept = np.all([each.is_read for each in predictions], axis=0)
    if not kept.any():
        raise InputError("no image could be read by all models")
    right = [
        (each.labels.astype(str) == images.target[each.is_read])[kept[each.is_read]]
        for each in predictions
    ]
    rows = [
        {
            "model": model,
            "accuracy": float(is_right.mean()),
            "interval": wilson_interval(int(is_right.sum()), len(is_right)),
            "from_first": compare_paired(is_right, right[0]) if number else None,
        }
        for number, (model, is_right) in enumerate(zip(models, right, strict=True))
    ]
    return {"n_samples": int(kept.sum()), "confidence": 0.95, "models": rows}
