"""scikit-learn's own checks of estimators, on vectors, where its tools can make samples.

For images and paths the same contract is tested in ``test_image_contract.py``.
"""

import unittest

import keras
import pytest
from sklearn.base import clone
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


# What fine-tuning might change; the others, with a training each, run in the long form.
GATE = {
    "check_classifiers_one_label",
    "check_classifiers_train",
    "check_dict_unchanged",
    "check_dont_overwrite_attributes",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
    "check_readonly_memmap_input",
}


def fine_tuned_checks():
    """Return all checks of a fine-tuned classifier and regressor, as pytest's parameters."""
    for estimator in estimators(fine_tune=FineTune(epochs=1), random_state=0):
        for _, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            in_gate = isinstance(estimator, TransferClassifier) and name in GATE
            in_gate &= not getattr(check, "keywords", None)  # a repeat on read-only data
            mark = pytest.mark.slow if in_gate else pytest.mark.long
            yield pytest.param(
                estimator, check, id=f"{type(estimator).__name__}-{name}", marks=mark
            )


@pytest.mark.parametrize(("estimator", "check"), fine_tuned_checks())
def test_fine_tuned_estimator_passes(estimator, check):
    run(check, clone(estimator))


@pytest.mark.parametrize(
    ("estimator", "least"),
    list(zip([FeatureExtractor(SmallNetwork()), *estimators()], [45, 60, 58], strict=True)),
    ids=["extractor", "classifier", "regressor"],
)
def test_estimator_tags_leave_no_check_out(estimator, least):
    """Wrong tags would leave checks out."""
    assert len(list(estimator_checks_generator(estimator))) >= least
