"""Transfer of knowledge: what a large model says of the samples, taught to a smaller backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier

from featx._training_data import Data, check_vectors, readable_mask
from featx.exceptions import ParameterError
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune, as_extractor
from featx.finetune.plan import Plan
from featx.finetune.run import Outcome, fine_tune, seed_of
from featx.heads.fit import as_head_input

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
    extractor: FeatureExtractor,
    new_head: Callable[[], BaseEstimator],
    data: Data,
    *,
    random_state: Any,
    verbose: Any,
) -> Outcome:
    """Fine-tune the larger backbone, and teach what came of it to the smaller one.

    The teacher knows the labels of the training part only, as the student does, so that what is
    held out judges both. Its embeddings come from the cache where they are there.

    Parameters
    ----------
    params : FineTune
        With ``distill_to``.
    extractor, new_head, data, random_state, verbose
        See :func:`fine_tune`.

    Returns
    -------
    Outcome
        With ``"teacher"`` in its report, which is the report of the teacher.

    Raises
    ------
    ParameterError, InputError, BackboneError
        Of teacher or student, before anything is computed, as far as that can be known.
    KeyboardInterrupt
        The teacher's training was interrupted: the student's was not begun.
    """
    shared = {name: getattr(extractor, name) for name in _SHARED}
    student = as_extractor(params.distill_to, **shared)
    for_student = clone(params).set_params(unfreeze="all", distill_to=None)
    check_vectors(student.fit(data.X))
    Plan(for_student, student)
    seed = seed_of(random_state)
    data = data.split(params.validation, is_classifier=is_classifier(new_head()), seed=seed)
    how = {"random_state": None if random_state is None else seed, "verbose": verbose}
    teacher = fine_tune(params, extractor, new_head, data, **how)
    if teacher.report["was_interrupted"]:
        raise KeyboardInterrupt
    taught = replace(data, taught=_answers(teacher, data.X))
    outcome = fine_tune(for_student, student, new_head, taught, **how)
    outcome.report["teacher"] = teacher.report
    return outcome


def _answers(teacher: Outcome, X: Any) -> np.ndarray:
    """Return probabilities or values; NaN where a sample cannot be read."""
    embeddings = np.asarray(teacher.extractor.transform(X))
    read = readable_mask(embeddings)
    head = teacher.head_on_training_part
    answer = head.predict_proba if is_classifier(head) else head.predict
    some = answer(as_head_input(embeddings[read]))
    if isinstance(some, list):  # one array for each label
        some = np.stack([shares[:, -1] for shares in some], axis=1)
    answers = np.full((len(embeddings), *some.shape[1:]), np.nan)
    answers[read] = some
    return answers
