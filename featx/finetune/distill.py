"""``distill``: a smaller backbone is trained on the predictions of a larger one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier

from featx._training_data import Data, check_vectors, draw_seed, readable_mask
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune, as_extractor
from featx.finetune.plan import TrainingPlan
from featx.finetune.run import FineTuneOutcome, fine_tune
from featx.heads.fit import as_head_input

_SHARED = ("cache", "engine", "on_error", "n_jobs", "verbose")


def distill(
    params: FineTune,
    extractor: FeatureExtractor,
    new_head: Callable[[], BaseEstimator],
    data: Data,
    *,
    random_state: Any,
    verbose: Any,
) -> FineTuneOutcome:
    """Fine-tune the larger backbone, and train the smaller one, ``distill_to``, on its predictions.

    The teacher is fitted on the training part only, as the student is, so that both are evaluated
    on samples that neither has seen. Its report is ``"teacher"`` in that of the student. What
    cannot be trained raises before anything is computed where possible. KeyboardInterrupt is
    raised if the teacher's training was interrupted, since the student's did not begin.
    """
    shared = {name: getattr(extractor, name) for name in _SHARED}
    student = as_extractor(params.distill_to, **shared)
    student_params = clone(params).set_params(unfreeze="all", distill_to=None)
    check_vectors(student.fit(data.X))
    TrainingPlan(student_params, student)
    seed = draw_seed(random_state)
    data = data.split(params.validation, is_classifier=is_classifier(new_head()), seed=seed)
    state = None if random_state is None else seed
    options = {"is_seeded": state is not None, "verbose": verbose}
    teacher = fine_tune(params, extractor, new_head, data, seed=draw_seed(state), **options)
    if teacher.report["was_interrupted"]:
        raise KeyboardInterrupt
    data = replace(data, teacher_predictions=_teacher_predictions(teacher, data.X))
    outcome = fine_tune(student_params, student, new_head, data, seed=draw_seed(state), **options)
    outcome.report["teacher"] = teacher.report
    return outcome


def _teacher_predictions(teacher: FineTuneOutcome, X: Any) -> np.ndarray:
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
