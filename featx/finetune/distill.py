"""Distillation: a smaller backbone is trained on the predictions of a larger one."""

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
from featx.finetune.run import Outcome, draw_seed, fine_tune
from featx.heads.fit import as_head_input

_SHARED = ("cache", "engine", "on_error", "n_jobs", "verbose")


def check_teacher(head: BaseEstimator) -> None:
    """Check that the predictions of a head can be distilled.

    Raises
    ------
    ParameterError
        The head is a classifier without probabilities.
    """
    if is_classifier(head) and not hasattr(head, "predict_proba"):
        raise ParameterError(
            f"fine_tune__distill_to needs a head with probabilities, but {head} has none: pass "
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
    """Fine-tune the larger backbone, and train the smaller one on its predictions.

    The teacher is fitted on the training part only, as the student is, so that both are evaluated
    on samples that neither has seen.

    Parameters
    ----------
    params : FineTune
        Parameters with ``distill_to``.
    extractor, new_head, data, random_state, verbose
        See :func:`fine_tune`.

    Returns
    -------
    Outcome
        Outcome of the student; ``"teacher"`` in its report is the report of the teacher.

    Raises
    ------
    ParameterError, InputError, BackboneError
        Teacher or student cannot be trained; raised before anything is computed where possible.
    KeyboardInterrupt
        The teacher's training was interrupted; the student's did not begin.
    """
    shared = {name: getattr(extractor, name) for name in _SHARED}
    student = as_extractor(params.distill_to, **shared)
    student_params = clone(params).set_params(unfreeze="all", distill_to=None)
    check_vectors(student.fit(data.X))
    Plan(student_params, student)
    seed = draw_seed(random_state)
    data = data.split(params.validation, is_classifier=is_classifier(new_head()), seed=seed)
    options = {"random_state": None if random_state is None else seed, "verbose": verbose}
    teacher = fine_tune(params, extractor, new_head, data, **options)
    if teacher.report["was_interrupted"]:
        raise KeyboardInterrupt
    data = replace(data, teacher_predictions=_predictions(teacher, data.X))
    outcome = fine_tune(student_params, student, new_head, data, **options)
    outcome.report["teacher"] = teacher.report
    return outcome


def _predictions(teacher: Outcome, X: Any) -> np.ndarray:
    """Return probabilities or values; NaN for samples that cannot be read."""
    embeddings = np.asarray(teacher.extractor.transform(X))
    is_readable = readable_mask(embeddings)
    head = teacher.head_on_training_part
    predict = head.predict_proba if is_classifier(head) else head.predict
    predicted = predict(as_head_input(embeddings[is_readable]))
    if isinstance(predicted, list):  # one array for each label
        predicted = np.stack([probabilities[:, -1] for probabilities in predicted], axis=1)
    predictions = np.full((len(embeddings), *predicted.shape[1:]), np.nan)
    predictions[is_readable] = predicted
    return predictions
