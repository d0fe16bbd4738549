"""The ``featx`` command: the jobs of the library from the shell.

Exit codes: 0 all is well; 1 the job ran and found something wrong (damaged rows in a cache);
2 wrong usage; 3 bad input or parameters; 4 a backbone or its weights cannot be had; 5 a saved file
cannot be loaded or holds types that nobody vouched for; 6 the disk; 70 a fault of featx itself,
with its traceback; 130 interrupted.

With ``--json`` the result is one JSON document on standard output. Progress, warnings and errors
always go to standard error. Nothing heavy is imported before a job needs it.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx._version import __version__
from featx.cli.cache import cache
from featx.cli.options import extractor_options, make_extractor, or_none
from featx.cli.output import AS_JSON, as_options, print_json, show
from featx.cli.quiet_imports import keep_imports_quiet
from featx.exceptions import (
    BackboneError,
    FeatxError,
    InputError,
    SavedFileError,
    UntrustedTypesError,
    WeightsError,
)

if TYPE_CHECKING:
    from featx.estimators import TransferClassifier

_EXIT_CODES: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
    ((WeightsError, BackboneError), 4),
    ((SavedFileError, UntrustedTypesError), 5),
    ((FeatxError, ValueError), 3),
    ((OSError,), 6),
)
_IMAGES = click.argument("images", nargs=-1, required=True, type=click.Path())
_FOLDER = click.argument("folder", type=click.Path())
_MODEL = click.argument("model", type=click.Path())
_TRUSTED = click.option(
    "--trusted", multiple=True, help="A type inside the head that you vouch for; may be repeated."
)
_CACHE = click.option("--cache", default="auto", help="A folder, or none.")
_ON_ERROR = click.option(
    "--on-error",
    type=click.Choice(["raise", "nan"]),
    default=None,
    help="What to do with images that cannot be read; default: as the model was fitted.",
)
_HEAD_HELP = "logistic, ridge, svm, knn, lda or forest"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Transfer learning: every image goes through the frozen network once, ever.

    Exit codes: 0 well, 1 damage found, 2 usage, 3 input, 4 backbone or weights, 5 saved file,
    6 disk, 70 fault of featx, 130 interrupted.
    """


@cli.command()
@click.option("--out", default="featx-demo", type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--letters",
    default=40,
    show_default=True,
    type=click.IntRange(min=5),
    help="Images of each letter.",
)
@AS_JSON
def demo(out: Path, letters: int, as_json: bool) -> None:
    """Run the main job on images that come with the dependencies.

    Writes images, cache and model below the folder OUT. The cache there is cleared first.
    """
    from featx.cli import reports
    from featx.cli.demo import run_demo

    with reports.status("demo") as on_step:
        result = run_demo(out.absolute(), n_per_letter=letters, on_step=on_step)
    if as_json:
        print_json({**result, "rows": [row._asdict() for row in result["rows"]]})
    else:
        reports.print_demo(result)


@cli.command()
@_FOLDER
@click.option("--out", required=True, type=click.Path(path_type=Path), help="An .npz file.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@extractor_options
@AS_JSON
def extract(
    folder: str,
    out: Path,
    force: bool,
    backbone: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Embed the images of a folder per class: an .npz with embeddings, paths and labels."""
    if out.exists() and not force:
        raise InputError(f"{str(out)!r} is there already: pass --force to replace it")
    _check_writable(out)
    import io

    import numpy as np

    from featx._files import write_atomically
    from featx.samples.folders import load_image_folder

    images = load_image_folder(folder)
    extractor = make_extractor(backbone, options)
    embeddings = extractor.fit_transform(images.data)
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=embeddings, paths=images.data, labels=images.target)
    write_atomically(out, buffer.getvalue())
    result = {"out": str(out), "shape": list(embeddings.shape), "report": extractor.report_}
    show(result, as_json, f"{embeddings.shape} embeddings in {out} ({_passes(extractor.report_)})")


@cli.command()
@_FOLDER
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The saved model.")
@click.option("--head", default="logistic", show_default=True, help=_HEAD_HELP)
@click.option("--seed", default=0, show_default=True)
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@_TRUSTED
@extractor_options
@AS_JSON
def fit(
    folder: str,
    out: Path,
    head: str,
    seed: int,
    backbone: str,
    trusted: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Train a classifier on a folder per class and save it as one file."""
    _check_writable(out)
    from featx.estimators import TransferClassifier
    from featx.persistence import check_savable, save
    from featx.samples.folders import load_image_folder

    images = load_image_folder(folder)
    extractor = make_extractor(backbone, options)
    classifier = TransferClassifier(extractor, head, random_state=seed)
    classifier.check_params()
    check_savable(classifier, trusted=trusted)
    classifier.fit(images.data, images.target)
    save(classifier, out, trusted=trusted)
    result = {
        "model": str(out),
        "classes": classifier.classes_.tolist(),
        "report": classifier.report_,
    }
    show(
        result,
        as_json,
        f"{len(images.data)} images of {len(images.target_names)} classes, "
        f"{_passes(classifier.report_)}; saved as {out}",
    )


@cli.command()
@_MODEL
@_IMAGES
@click.option("--proba", is_flag=True, help="Print the probability of each class too.")
@_TRUSTED
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

    Images that cannot be read have no label with --on-error nan.
    """
    import numpy as np

    from featx.heads import as_head_input
    from featx.samples.folders import list_images
    from featx.training_data import were_read

    paths = list_images(images)
    classifier = _load_classifier(model, trusted=trusted, cache=cache, on_error=on_error)
    if proba and not hasattr(classifier, "predict_proba"):
        raise InputError(f"the head of {model!r} gives no probabilities: leave --proba out")
    embeddings = np.asarray(classifier.transform(paths))
    read = were_read(embeddings)
    readable = [path for path, is_read in zip(paths, read, strict=True) if is_read]
    rows: dict[str, dict[str, Any]] = {path: {"image": path, "label": None} for path in paths}
    matrix = as_head_input(embeddings[read])
    if readable:
        labels = classifier.head_.predict(matrix).tolist()
        for path, label in zip(readable, labels, strict=True):
            rows[path]["label"] = label
    if readable and proba:
        names = [str(name) for name in classifier.classes_]
        for path, chances in zip(readable, classifier.head_.predict_proba(matrix), strict=True):
            rows[path]["proba"] = dict(zip(names, chances.tolist(), strict=True))
    predictions = [rows[path] for path in paths]
    if as_json:
        print_json(predictions)
        return
    for row in predictions:
        shown = "".join(f"\t{name}={chance:.3f}" for name, chance in row.get("proba", {}).items())
        click.echo(f"{row['image']}\t{row['label'] or ''}{shown}")


@cli.command()
@_MODEL
@_FOLDER
@_TRUSTED
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
    """Measure a saved model on a folder per class.

    Images that cannot be read are left out with --on-error nan.
    """
    import numpy as np

    from featx.cli import reports
    from featx.evaluation import evaluate as measure
    from featx.heads import as_head_input
    from featx.samples.folders import load_image_folder
    from featx.training_data import rows_that_were_read

    images = load_image_folder(folder)
    classifier = _load_classifier(model, trusted=trusted, cache=cache, on_error=on_error)
    unknown = sorted(set(images.target_names) - set(map(str, classifier.classes_)))
    if unknown:
        raise InputError(
            f"{folder!r} has classes that the model does not know: {', '.join(unknown)}. It knows "
            f"{', '.join(map(str, classifier.classes_))}."
        )
    embeddings = np.asarray(classifier.transform(images.data))
    read = rows_that_were_read(embeddings, job="evaluation")
    predicted = classifier.head_.predict(as_head_input(embeddings[read])).astype(str)
    result = measure(images.target[read], predicted)
    if as_json:
        print_json(result)
    else:
        reports.print_evaluation(result)


@cli.command()
@_FOLDER
@click.option("--backbone", "backbones", multiple=True, default=["mobilenet_v2"], show_default=True)
@click.option("--head", "heads", multiple=True, default=["logistic"], help=_HEAD_HELP)
@click.option("--folds", default=5, show_default=True, type=click.IntRange(min=2))
@click.option("--seed", default=0, show_default=True)
@extractor_options
@AS_JSON
def cv(
    folder: str,
    backbones: tuple[str, ...],
    heads: tuple[str, ...],
    folds: int,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Cross-validate heads and backbones on a folder per class; both may be repeated."""
    from featx.cli import reports
    from featx.evaluation import compare
    from featx.samples.folders import load_image_folder

    images = load_image_folder(folder)
    extractors = [make_extractor(backbone, options) for backbone in backbones]
    comparisons = compare(
        images.data,
        images.target,
        extractors=extractors,
        heads=heads,
        n_folds=folds,
        random_state=seed,
    )
    rows = list(comparisons)
    if as_json:
        print_json([row._asdict() for row in rows])
    else:
        reports.print_comparisons(rows, n_folds=folds)


@cli.command()
@AS_JSON
def backbones(as_json: bool) -> None:
    """List the networks that have a name."""
    from featx.networks.applications import list_backbones

    networks = list_backbones()
    if as_json:
        print_json([network._asdict() for network in networks])
        return
    from featx.cli import reports

    reports.print_backbones(networks)


cli.add_command(cache)


def _check_writable(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{str(out)!r} is a folder: expected the name of a file")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{str(out.absolute().parent)!r}: no such folder to write to")


def _load_classifier(
    model: str, *, trusted: tuple[str, ...], cache: str, on_error: str | None
) -> TransferClassifier:
    """Load a saved classifier that works with this cache, and treats bad images so."""
    from featx.estimators import TransferClassifier
    from featx.persistence import load

    classifier = load(model, trusted=trusted, cache=or_none(cache))
    if not isinstance(classifier, TransferClassifier):
        raise SavedFileError(
            f"{model!r} is a saved {type(classifier).__name__}: expected a TransferClassifier"
        )
    if on_error:
        classifier.extractor_.set_params(on_error=on_error)
    return classifier


def _passes(report: Any) -> str:
    return f"{report.n_forward} forward passes, {report.n_hits} from the cache"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    click.echo(f"{category.__name__}: {message}", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors become one message and an exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keep_imports_quiet()
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        cli.main(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        # Also what click makes of Ctrl-C.
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (FeatxError, ValueError, OSError) as exc:
        click.echo(f"error: {as_options(str(exc))}", err=True)
        sys.exit(next(code for kinds, code in _EXIT_CODES if isinstance(exc, kinds)))
    except Exception:
        traceback.print_exc()
        click.echo("error: this is a fault of featx itself; please report it", err=True)
        sys.exit(70)
