"""What a student is trained on: labels, and what a teacher says."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class DistillationLoss(keras.losses.Loss):
    """The mean of a loss of labels and of one of a teacher's answers.

    As in Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network" (arXiv
    1503.02531): scores are divided by the temperature, and the loss is multiplied by its square,
    which keeps the size of its gradients.

    Parameters
    ----------
    of_labels, of_answers : keras.losses.Loss
        Of scores.
    temperature : float
    """

    def __init__(
        self, of_labels: keras.losses.Loss, of_answers: keras.losses.Loss, temperature: float
    ) -> None:
        super().__init__("distillation")
        self._of_labels, self._of_answers = of_labels, of_answers
        self._temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return a loss for each sample; `y_true` holds labels and answers side by side."""
        labels, answers = ops.split(y_true, 2, axis=-1)
        by_labels = self._of_labels.call(labels, y_pred)
        by_answers = self._of_answers.call(answers, y_pred / self._temperature)
        return (by_labels + self._temperature**2 * by_answers) / 2
