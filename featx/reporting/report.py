"""report and Report: how good a model is, where it is wrong, and what to do next."""

from __future__ import annotations

import datetime
import os
import platform
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.base import clone, is_classifier
from sklearn.utils.validation import check_is_fitted

from featx._files import check_replaceable, replaced_atomically
from featx._json import as_json_values
from featx._targets import as_groups
from featx._training_data import check_known
from featx._transfer import TransferEstimator
from featx._validation import InputFaults, ParameterFaults
from featx._version import __version__
from featx.evaluation.folds import Folds
from featx.evaluation.image_checks import find_image_issues
from featx.exceptions import BadSampleWarning, InputError, ParameterError
from featx.inputs.recognize import as_samples
from featx.inputs.samples import Samples
from featx.reporting.advice import advice_for
from featx.reporting.findings import baselines_of, learning_curve_of, scores_of
from featx.reporting.held_out import (
    HeldOut,
    as_transfer_estimator,
    cross_validated,
    describe_split,
    on_test_samples,
)
from featx.reporting.page import check_report_packages, html_page, summary_html
from featx.reporting.pictures import Pictures, has_pictures
from featx.reporting.projection import check_method
from featx.reporting.sections import (
    Describer,
    TrainingSamples,
    comparison_section,
    cost_section,
    data_section,
    duplicates_section,
    fine_tuning_section,
    images_section,
    labels_section,
    mistakes_section,
    model_section,
)


class Report:
    """Report on an estimator, as plain data and as a page with pictures.

    Use :func:`report` to make one. A notebook shows it as a short table.

    Parameters
    ----------
    data : dict
        Plain data that :meth:`to_dict` returns.
    describer : Describer
        Words of the page, in which samples and classes have names.
    pictures : Pictures
        Pictures of the samples, and the embeddings for the map.

    See Also
    --------
    report : Evaluate an estimator, and return such a report.
    model_card : Short description of a model, with the scores of a report.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferClassifier, report
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    >>> images[:20] //= 4
    >>> found = report(TransferClassifier("tiny", "ridge"), images, ["dark"] * 20 + ["light"] * 20)
    >>> found.to_dict()["metrics"]["accuracy"]
    1.0
    """

    def __init__(self, data: dict[str, Any], describer: Describer, pictures: Pictures) -> None:
        self._data, self._describer, self._pictures = data, describer, pictures

    def __repr__(self) -> str:
        data = self._data
        name = "R²" if data["task"] == "values" else "accuracy"
        score = data["metrics"]["r2" if data["task"] == "values" else "accuracy"]
        return (
            f"<Report on {data['data']['n_read']:,} samples: {name} {score:.3f}, {data['split']}>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the data of the report, which JSON can hold.

        Returns
        -------
        dict
            Plain data, with these items; what does not apply is None or empty:

            - ``task``, "classes", "labels" or "values"; ``data``, ``model`` and ``split``; of test
              samples, ``n_in_training``, the number that the model was trained on, and ``caveat``,
              a sentence on that;
            - ``metrics``, for classes those of :func:`evaluate`; ``baselines``, the scores of
              predictors that ignore the samples; ``fold_scores``; ``learning_curve``;
              ``comparison`` of several estimators; ``fine_tuning``;
            - ``mistakes``, the worst 1,000, and ``n_mistakes``, the number of all; ``confused``,
              pairs of a true class and the one that was predicted, with examples;
            - ``label_issues``, ``duplicates``, ``outliers`` and ``image_issues``, with the samples
              or the reason why they cannot be found; ``sizes``, width and height in pixels of the
              smallest, the median and the largest image;
            - ``advice``, what to do next; ``cost``, what the passes took; ``versions`` of packages;
              ``made``, the local time (ISO 8601).

        See Also
        --------
        to_html : Write the same as a page with pictures.
        """
        return as_json_values(self._data)

    def to_html(self, path: str | os.PathLike[str], *, projection: str = "pca") -> None:
        """Write the report as one HTML file with pictures, which opens without a network.

        Parameters
        ----------
        path : str or Path
            A file that ends with ``.html``; an existing one is replaced when the new one is
            complete.
        projection : {"pca", "umap", "tsne"}, default="pca"
            Method that places samples on the map. "umap" needs umap-learn; "tsne" takes minutes for
            10,000 samples.

        Raises
        ------
        ParameterError
            The projection is not one of these.
        InputError
            The path has another ending, or its folder does not exist.
        MissingExtraError
            ``featx[report]`` is not installed, or umap-learn for "umap".
        OSError
            The file cannot be written; an existing one is unharmed.

        See Also
        --------
        to_dict : Return the same as plain data.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> from featx import TransferClassifier, report
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        >>> images[:10] //= 4
        >>> found = report(TransferClassifier("tiny", "ridge"), images, [0] * 10 + [1] * 10)
        >>> path = os.path.join(tempfile.mkdtemp(), "report.html")
        >>> found.to_html(path)
        >>> os.path.exists(path)
        True
        """
        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"path={str(path)!r}: expected a file that ends with .html")
        if not path.absolute().parent.is_dir():
            raise InputError(f"path={str(path)!r}: its folder does not exist")
        check_replaceable(path)
        check_report_packages()
        check_method(projection)
        page = html_page(self._data, self._describer, self._pictures, projection)
        with replaced_atomically(path) as beside:
            beside.write_text(page, encoding="utf-8", errors="backslashreplace")

    def _repr_html_(self) -> str:
        return summary_html(self._data)


def report(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    *,
    X_test: Any = None,
    y_test: Any = None,
    cv: Any = 5,
    groups: Any = None,
) -> Report:
    """Evaluate an estimator, and find its mistakes, suspect labels, duplicates and outliers.

    Without `X_test`, the estimator is cross-validated on `X`; with it, a fitted estimator is
    evaluated as it is, and another one is fitted on `X` first. Embeddings come from the cache, so
    that each sample goes through the network once.

    Parameters
    ----------
    estimator : TransferClassifier, TransferRegressor or Pipeline, or sequence of them
        Estimator that the report describes; it is not changed. A pipeline has a
        :class:`FeatureExtractor` and a head. Of a sequence, the first one is described, and the
        others are compared with it on the same folds.
    X : samples, default=None
        Samples: see :meth:`FeatureExtractor.transform`.
        Those to train on, if `X_test` is given; not needed for a fitted estimator then.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Labels or values of `X`.
    X_test : samples, default=None
        Held-out samples, on which the estimator is evaluated.
    y_test : array-like of shape (n_test,) or (n_test, n_outputs), default=None
        Labels or values of `X_test`.
    cv : int or splitter, default=5
        Number of shuffled folds, stratified for classes, or a splitter of scikit-learn that tests
        each sample once. `X_test` makes it unused.
    groups : array-like of shape (n_samples,), default=None
        Groups of the samples in `X`, which stay in one fold; without `X`, those of `X_test`, by
        which intervals are computed.

    Returns
    -------
    Report
        Plain data by ``to_dict()``, a page with pictures by ``to_html(path)``, and a short table in
        notebooks.

    Raises
    ------
    ParameterError
        `estimator` or `cv` is not one of these, or a parameter of an estimator is faulty.
    InputError
        Samples, labels or groups are missing, invalid or of different lengths, or cannot be split
        into such folds.
    NotFittedError
        `X_test` is given without `X`, and an estimator is not fitted.
    BadSampleError
        Some samples cannot be read, and the extractor has ``on_error="raise"``.

    See Also
    --------
    evaluate : Metrics of predictions.
    find_label_issues : Suspect labels.
    find_image_issues : Images that are unreadable, dark, blurred, tiny, and the like.
    near_duplicates : Pairs of samples that are nearly the same.
    model_card : A README.md that describes a model, with the scores of a report.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferClassifier, report
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    >>> images[:20] //= 4
    >>> labels = np.repeat(["dark", "light"], 20)
    >>> report(TransferClassifier("tiny", "ridge"), images, labels, cv=4)
    <Report on 40 samples: accuracy 1.000, cross-validation with 4 folds, stratified and shuffled>
    """
    estimators = _checked_estimators(estimator)
    if X_test is None:
        samples, held_outs = _cross_validate_all(estimators, X, y, cv=cv, groups=groups)
        training = None
    else:
        samples, held_outs, training = _evaluate_on_test(
            estimators, (X, y), (X_test, y_test), groups
        )
    described = held_outs[0]
    describer = Describer.of(described, samples)
    samples = samples.read_by(described.extractor.reader)
    pictures = Pictures(samples, are_images=has_pictures(described.extractor))
    images = find_image_issues(samples) if pictures.are_images else None
    duplicates, copies = duplicates_section(describer, images, training)
    n_training = len(training.samples) if training and training.is_of_model else 0
    data: dict[str, Any] = {
        "task": described.task,
        "data": data_section(describer, samples, are_images=pictures.are_images),
        "model": model_section(described),
        "split": describe_split(described, cv, n_training=n_training),
        "caveat": None if n_training else described.caveat,
        "n_in_training": described.overlap and described.overlap.n_trained_on,
        "metrics": scores_of(described),
        "baselines": baselines_of(described),
        "fold_scores": described.fold_scores(),
        "comparison": comparison_section(held_outs),
        **mistakes_section(describer),
        "label_issues": labels_section(describer, copies),
        "duplicates": duplicates,
        **images_section(describer, images),
        "learning_curve": learning_curve_of(described),
        "fine_tuning": fine_tuning_section(described),
        "cost": cost_section(described),
        "versions": {
            "featx": __version__,
            "scikit-learn": sklearn.__version__,
            "Python": platform.python_version(),
        },
        "made": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
    }
    data["advice"] = [advice._asdict() for advice in advice_for(data)]
    return Report(data, describer, pictures)


def _checked_estimators(estimator: Any) -> list[TransferEstimator]:
    """Return the estimators, all checked."""
    is_several = isinstance(estimator, list | tuple)
    given = list(estimator) if is_several else [estimator]
    if not given:
        raise ParameterError.of("estimator", estimator, "expected at least one")
    faults = ParameterFaults("report")
    for each in given:
        faults.check_part(partial(_check_estimator, each))
    faults.raise_any()
    estimators = list(map(as_transfer_estimator, given))
    kinds = {type(each).__name__ for each in estimators}
    if len(kinds) > 1:
        raise ParameterError.of(
            "estimator", estimator, "expected classifiers only, or regressors only"
        )
    return estimators


def _check_estimator(estimator: Any) -> None:
    as_transfer_estimator(estimator).check_params()


def _cross_validate_all(
    estimators: Sequence[TransferEstimator], X: Any, y: Any, *, cv: Any, groups: Any
) -> tuple[Samples, list[HeldOut]]:
    if X is None:
        raise InputError("X and y, or X_test and y_test, must be passed")
    samples = as_samples(X)
    faults = InputFaults()
    y = faults.check(_checked_target, estimators[0], y, len(samples))
    if groups is not None:
        groups = faults.check(as_groups, groups, len(samples))
    faults.raise_any()
    stratified = is_classifier(estimators[0]) and y.ndim == 1
    folds = Folds.of(cv, y, groups, stratified=stratified)
    held_outs = [cross_validated(estimators[0], samples, y, folds=folds, groups=groups)]
    with warnings.catch_warnings(action="ignore", category=BadSampleWarning):  # said once
        for each in estimators[1:]:
            held_outs.append(cross_validated(each, samples, y, folds=folds, groups=groups))
    return samples, held_outs


def _checked_target(
    estimator: TransferEstimator, y: Any, n_samples: int, *, is_all: bool = True
) -> np.ndarray:
    """Return labels, or values as float64, which must differ."""
    y = estimator._checked_target(y, n_samples, is_all=is_all)
    if is_classifier(estimator):
        return y
    y = y.astype(np.float64)
    if (y == y[0]).all():
        raise InputError(f"y has one value only, {y.ravel()[0]:g}: R² is not defined")
    return y


def _evaluate_on_test(
    estimators: Sequence[TransferEstimator],
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    groups: Any,
) -> tuple[Samples, list[HeldOut], TrainingSamples | None]:
    """Return the test samples, predictions for them, and the training samples if there are any."""
    samples = as_samples(test[0])
    training = None
    faults = InputFaults()
    y_test = faults.check(_checked_target, estimators[0], test[1], len(samples), is_all=False)
    groups_of_test = None
    if train[0] is None:
        for each in estimators:
            faults.check(check_is_fitted, each)
        if groups is not None:
            groups_of_test = faults.check(as_groups, groups, len(samples))
    else:
        known = as_samples(train[0])
        y = faults.check(_checked_target, estimators[0], train[1], len(known))
        training = TrainingSamples(known, y, is_of_model=not hasattr(estimators[0], "head_"))
    faults.raise_any()
    fitted = [_fitted(each, training, groups) for each in estimators]
    for each in fitted:
        classes = getattr(each, "classes_", None)
        if isinstance(classes, np.ndarray) and y_test.ndim == 1:
            check_known(y_test, classes, source="the classes of the fitted estimator")
    held_outs = [on_test_samples(each, samples, y_test, groups=groups_of_test) for each in fitted]
    return samples, held_outs, training


def _fitted(
    estimator: TransferEstimator, training: TrainingSamples | None, groups: Any
) -> TransferEstimator:
    if training is None or hasattr(estimator, "head_"):
        return estimator
    return clone(estimator).fit(training.samples, training.y, groups=groups)
