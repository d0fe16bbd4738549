"""scikit-learn's own checks of estimators, on vectors, where its tools can make samples.

For images and paths the same contract is tested in ``test_image_contract.py``.
"""

import unittest

import keras
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from featx import FeatureExtractor, FineTune, TransferClassifier, TransferRegressor


class SmallNetwork:
    """Makes a network of vectors, the same each time."""

    def __call__(self, input_shape):
        inputs = keras.Input(input_shape)
        x = inputs
        for seed in range(2):
            start = keras.initializers.GlorotUniform(seed)
            x = keras.layers.Dense(16, activation="tanh", kernel_initializer=start)(x)
        return keras.Model(inputs, x)

    def __repr__(self):
        return "SmallNetwork()"  # the same in each process, as names of tests have to be


def estimators(**params):
    extractor = FeatureExtractor(SmallNetwork())
    return [TransferClassifier(extractor, **params), TransferRegressor(extractor, **params)]


def run(check, estimator):
    """Run a check, which must not skip itself."""
    try:
        check(estimator)
    except unittest.SkipTest as exc:
        pytest.fail(f"was skipped: {exc}")


@parametrize_with_checks([FeatureExtractor(SmallNetwork()), *estimators()])
def test_frozen_estimator_passes(estimator, check):
    run(check, estimator)


FINE_TUNED_CLASSIFIER, FINE_TUNED_REGRESSOR = estimators(
    fine_tune=FineTune(epochs=1), random_state=0
)


@pytest.mark.slow
@parametrize_with_checks([FINE_TUNED_CLASSIFIER])
def test_fine_tuned_classifier_passes(estimator, check):
    run(check, estimator)


@pytest.mark.long
@parametrize_with_checks([FINE_TUNED_REGRESSOR])
def test_fine_tuned_regressor_passes(estimator, check):
    run(check, estimator)


@pytest.mark.parametrize(
    ("estimator", "least"),
    list(zip([FeatureExtractor(SmallNetwork()), *estimators()], [45, 60, 58], strict=True)),
    ids=["extractor", "classifier", "regressor"],
)
def test_estimator_tags_leave_no_check_out(estimator, least):
    """Wrong tags would leave checks out."""
    assert len(list(estimator_checks_generator(estimator))) >= least
