"""Distillation: a small network learns, on real digits, what a larger one predicts."""

import keras
import numpy as np
import pytest
from digit_tuning import tuning, unit_extractor
from sample_digits import first_digits
from scipy.special import softmax

from featx import FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx.exceptions import ParameterError
from featx.finetune.model import DistillationLoss


@pytest.fixture(scope="module")
def digits():
    return first_digits(200, n_classes=10)


def student(input_shape=(16, 16, 3)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(8, 3, activation="relu")(x))


def distilling(**params):
    smaller = FeatureExtractor(student(), input_size=16, cache=None, preprocessing="unit")
    params = {"epochs": 8, "learning_rate": 1e-2, "patience": None, **params}
    return FineTune(distill_to=smaller, **params)


def test_distill_classifier_predicts_with_small_network(digits):
    images, labels = digits
    classifier = TransferClassifier("tiny", fine_tune=distilling(), random_state=0).fit(
        images, labels
    )
    report = classifier.report_
    assert classifier.extractor_.feature_shape_ == (8,)
    assert report.kept == "tuned"
    assert report.tuned_score > report.head_score
    assert report.teacher["n_forward"] in (0, len(images))
    assert classifier.predict_proba(images).shape == (len(images), 10)
    assert classifier.score(images, labels) > 0.7


@pytest.mark.long
def test_distill_regressor_learns_values(digits):
    images, labels = digits
    regressor = TransferRegressor("tiny", fine_tune=distilling(), random_state=0).fit(
        images, labels
    )
    assert regressor.extractor_.feature_shape_ == (8,)
    assert np.isfinite(regressor.report_.history["loss"]).all()


def test_distill_without_probabilities_raises(digits):
    with pytest.raises(ParameterError, match="distill_to needs a head with probabilities"):
        TransferClassifier("tiny", "ridge", distilling()).fit(*digits)


def test_distill_faulty_student_raises_before_teacher(network, empty_cache, few_digits):
    no_vectors = FeatureExtractor(network, pooling=None)
    for student in (no_vectors, FeatureExtractor("no_such_network")):
        classifier = TransferClassifier(
            unit_extractor(network, empty_cache),
            fine_tune=tuning(epochs=3, distill_to=student),
        )
        with pytest.raises(ParameterError):
            classifier.fit(*few_digits)
    assert empty_cache.info()["n_rows"] == 0


def test_check_params_names_parameters_of_student():
    faulty = FineTune(distill_to=FeatureExtractor("tiny", pooling="average"))
    with pytest.raises(ParameterError, match="distill_to__pooling='average'"):
        faulty.check_params()


def test_distillation_loss_agrees_with_its_formula():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((5, 3)), np.eye(3)[[0, 1, 2, 0, 1]]
    teacher_probs = softmax(rng.standard_normal((5, 3)), axis=1)
    plain = keras.losses.CategoricalCrossentropy(from_logits=True)
    loss = DistillationLoss(plain, plain, temperature=3.0)
    computed = loss(np.hstack([labels, teacher_probs]).astype("float32"), scores.astype("float32"))

    def cross_entropy(targets, scores):
        return -(targets * np.log(softmax(scores, axis=1))).sum(axis=1).mean()

    expected = (cross_entropy(labels, scores) + 9 * cross_entropy(teacher_probs, scores / 3)) / 2
    assert float(computed) == pytest.approx(expected, rel=1e-5)
