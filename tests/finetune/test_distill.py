"""Transfer of knowledge: a small network learns what a larger one says, on real digits."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits

from featx import FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx.exceptions import ParameterError
from featx.finetune.distillation_loss import DistillationLoss


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    chosen = np.arange(200)
    return (images[chosen].reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels[chosen]


def student(input_shape=(16, 16, 3)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(8, 3, activation="relu")(x))


def tuning(**params):
    smaller = FeatureExtractor(student(), input_size=16, cache=None, preprocessing="unit")
    params = {"epochs": 8, "learning_rate": 1e-2, "patience": None, **params}
    return FineTune(distill_to=smaller, **params)


def test_fit_distilled_classifier_predicts_with_the_small_network_alone(digits):
    images, labels = digits
    classifier = TransferClassifier("tiny", fine_tune=tuning(), random_state=0).fit(images, labels)
    report = classifier.report_
    assert classifier.extractor_.feature_shape_ == (8,)
    assert report.kept == "tuned"
    assert report.tuned_score > report.head_score
    assert report.teacher["n_forward"] in (0, len(images))
    assert classifier.predict_proba(images).shape == (len(images), 10)
    assert classifier.score(images, labels) > 0.7


def test_fit_distilled_regressor_learns_values(digits):
    images, labels = digits
    regressor = TransferRegressor("tiny", fine_tune=tuning(), random_state=0).fit(images, labels)
    assert regressor.extractor_.feature_shape_ == (8,)
    assert np.isfinite(regressor.report_.history["loss"]).all()


def test_fit_distilling_needs_probabilities(digits):
    with pytest.raises(ParameterError, match="distill_to needs a head with probabilities"):
        TransferClassifier("tiny", "ridge", tuning()).fit(*digits)


def test_check_params_of_the_student_are_named():
    faulty = FineTune(distill_to=FeatureExtractor("tiny", pooling="average"))
    with pytest.raises(ParameterError, match="distill_to__pooling='average'"):
        faulty.check_params()


def test_distillation_loss_is_the_mean_of_both_with_the_temperature_squared():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((5, 3)), np.eye(3)[[0, 1, 2, 0, 1]]
    answers = softmax(rng.standard_normal((5, 3)), axis=1)
    plain = keras.losses.CategoricalCrossentropy(from_logits=True)
    loss = DistillationLoss(plain, plain, temperature=3.0)
    computed = loss(np.hstack([labels, answers]).astype("float32"), scores.astype("float32"))

    def cross_entropy(targets, scores):
        return -(targets * np.log(softmax(scores, axis=1))).sum(axis=1).mean()

    expected = (cross_entropy(labels, scores) + 9 * cross_entropy(answers, scores / 3)) / 2
    assert float(computed) == pytest.approx(expected, rel=1e-5)
