"""Predictions: labels and probabilities of images by a saved classifier, some images at a time."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from featx._urls import shown_path
from featx._warning import warn_caller
from featx.exceptions import BadSampleError, BadSampleWarning, SampleFault

if TYPE_CHECKING:
    import numpy as np

    from featx.estimators import TransferClassifier

_IMAGES_AT_ONCE = 1024  # whose embeddings are in memory, and whose rows are printed together


class Predictions(NamedTuple):
    """Predictions for images, in their order.

    Attributes
    ----------
    paths : sequence of str
        Paths of the images.
    is_read : ndarray of shape (n_images,), bool
        True where the image could be read.
    labels : ndarray of shape (n_read,) or (n_read, n_outputs)
        Labels of the images that could be read.
    proba : ndarray of shape (n_read, n_classes), list of them, or None
        Probabilities; a list has those of each of several outputs, and None stands for none.
    classes : ndarray of shape (n_classes,), or list of them
        Classes; a list has those of each of several outputs.
    """

    paths: Sequence[str]
    is_read: np.ndarray
    labels: np.ndarray
    proba: Any
    classes: Any

    def by_image(self) -> Iterator[dict[str, Any]]:
        """Yield image, label and probabilities by class; the label is None if it was not read."""
        labels, proba = iter(self.plain_labels()), iter(self._proba_by_class())
        for path, is_read in zip(self.paths, self.is_read, strict=True):
            prediction = {"image": shown_path(path), "label": next(labels) if is_read else None}
            if is_read and self.proba is not None:
                prediction["proba"] = next(proba)
            yield prediction

    def of_readable(self) -> Predictions:
        """Return the predictions of the images that could be read."""
        paths = list(itertools.compress(self.paths, self.is_read))
        return self._replace(paths=paths, is_read=self.is_read[self.is_read])

    def plain_labels(self) -> list[Any]:
        """Return labels as numbers and text; dates are text, since NumPy makes numbers of some."""
        is_date = self.labels.dtype.kind in "mM"
        return (self.labels.astype(str) if is_date else self.labels).tolist()

    def _proba_by_class(self) -> list[Any]:
        """Return the probabilities of each image by class; with several outputs, lists of these."""
        if self.proba is None:
            return []
        if not isinstance(self.proba, list):
            return _proba_by_class(self.proba, self.classes)
        outputs = map(_proba_by_class, self.proba, self.classes)
        return [list(of_image) for of_image in zip(*outputs, strict=True)]


def _proba_by_class(proba: np.ndarray, classes: np.ndarray) -> list[dict[str, float]]:
    names = list(map(str, classes))
    return [dict(zip(names, values, strict=True)) for values in proba.tolist()]


def predict_images(
    classifier: TransferClassifier, paths: Sequence[str], *, with_proba: bool
) -> Predictions:
    """Predict images in one pass; those that cannot be read raise or warn as in `transform`."""
    import numpy as np

    from featx._training_data import readable_mask
    from featx.heads.fit import as_head_input, predict

    embeddings = np.asarray(classifier.transform(paths))
    is_read = readable_mask(embeddings)
    head, classes = classifier.head_, classifier.classes_
    if not is_read.any():  # no head takes zero rows
        return Predictions(paths, is_read, np.empty(0, object), None, classes)
    rows = as_head_input(embeddings[is_read])
    proba = head.predict_proba(rows) if with_proba else None
    return Predictions(paths, is_read, predict(head, rows), proba, classes)


def mistakes_in(y_true: np.ndarray, y_pred: np.ndarray, proba: np.ndarray | None) -> np.ndarray:
    """Return the rows of wrong predictions, the most confident first if there are probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> proba = np.array([[0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    >>> mistakes_in(np.array([1, 1, 0]), np.array([0, 1, 1]), proba).tolist()
    [2, 0]
    """
    import numpy as np

    wrong = np.flatnonzero(y_pred != y_true)
    if proba is None:
        return wrong
    return wrong[np.argsort(-proba.max(axis=1)[wrong], kind="stable")]


def predict_in_parts(
    classifier: TransferClassifier,
    paths: Sequence[str],
    *,
    with_proba: bool,
    n_at_once: int = _IMAGES_AT_ONCE,
) -> Iterator[Predictions]:
    """Yield the predictions of some images at a time, so that few embeddings are in memory.

    Images that cannot be read are left out, and make one BadSampleError after the last part. If
    `on_error` of the extractor is "nan", they have no label, and make one warning.
    """
    on_error = classifier.extractor_.on_error
    classifier.extractor_.set_params(on_error="nan")
    faults: list[SampleFault] = []
    for first in range(0, len(paths), n_at_once):
        with _bad_samples_collected() as found:
            some = paths[first : first + n_at_once]
            part = predict_images(classifier, some, with_proba=with_proba)
        faults += [fault._replace(position=first + fault.position) for fault in found]
        yield part.of_readable() if on_error == "raise" else part
    if faults and on_error == "raise":
        raise BadSampleError(faults, len(paths))
    if faults:
        warn_caller(BadSampleWarning(faults, len(paths)))


@contextlib.contextmanager
def _bad_samples_collected() -> Iterator[list[SampleFault]]:
    """Collect the faults of samples that cannot be read, in place of the warnings of them."""
    faults: list[SampleFault] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", BadSampleWarning)
        show: Any = warnings.showwarning

        def collect(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if isinstance(message, BadSampleWarning):
                faults.extend(message.faults)
            else:
                show(message, *args, **kwargs)

        warnings.showwarning = collect
        yield faults
