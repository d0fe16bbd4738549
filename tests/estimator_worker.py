"""A child process that fits or predicts with an estimator that came to it as bytes."""

import sys

import cloudpickle


def work(data, images, labels, answers):
    """Fit an estimator unless it is, predict, and answer with that and with what was imported."""
    estimator = cloudpickle.loads(data)
    if not hasattr(estimator, "head_"):
        estimator.fit(images, labels)
    answers.put((estimator.predict_proba(images), sorted(sys.modules.keys() & {"tensorflow"})))
