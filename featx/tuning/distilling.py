"""Transfer of knowledge: what a large model says of the samples, taught to a smaller backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier

from featx.exceptions import ParameterError
from featx.heads import as_head_input
from featx.tuning.data import Data
from featx.tuning.params import FineTune, as_extractor
from featx.tuning.stage import Outcome, fine_tune

_SHARED = ("cache", "engine", "on_error", "n_jobs", "verbose")


def check_teacher(head: BaseEstimator) -> None:
    """Check that a head says what a student can learn from.

    Raises
    ------
    ParameterError
        It is a classifier without probabilities.
    """
    if is_classifier(head) and not hasattr(head, "predict_proba"):
        raise ParameterError(
            f"fine_tune__distill_to needs a head with probabilities, which {head} has not: take "
            "head='logistic', for example"
        )


def distill(
    params: FineTune,
    teacher: Outcome,
    new_head: Callable[[], BaseEstimator],
    data: Data,
    **how: Any,
) -> Outcome:
    """Train the smaller backbone on labels and on what a teacher says.

    Parameters
    ----------
    params : FineTune
    teacher : Outcome
        What the larger backbone came to. Its embeddings, and so its answers, come from the cache
        where they are there.
    new_head : callable
        Makes an unfitted head.
    data : Data
    **how : dict
        See :func:`fine_tune`.

    Returns
    -------
    Outcome
        With ``"teacher"`` in its report, which is the report of the teacher.
    """
    shared = {name: getattr(teacher.extractor, name) for name in _SHARED}
    student = as_extractor(params.distill_to, **shared)
    whole = clone(params).set_params(unfreeze="all", distill_to=None)
    taught = replace(data, taught=_answers(teacher, data.X))
    outcome = fine_tune(whole, student, new_head, taught, **how)
    outcome.report["teacher"] = teacher.report
    return outcome


def _answers(teacher: Outcome, X: Any) -> np.ndarray:
    """Return probabilities or values; NaN where a sample cannot be read."""
    embeddings = np.asarray(teacher.extractor.transform(X))
    read = ~np.isnan(embeddings).any(axis=1)
    head = teacher.head
    answer = head.predict_proba if is_classifier(head) else head.predict
    some = answer(as_head_input(embeddings[read]))
    if isinstance(some, list):  # one array for each label
        some = np.stack([shares[:, -1] for shares in some], axis=1)
    answers = np.full((len(embeddings), *some.shape[1:]), np.nan)
    answers[read] = some
    return answers
