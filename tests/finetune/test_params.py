"""Faulty parameters of FineTune: named all at once, before the pass."""

import keras
import numpy as np
import pytest
from digit_tuning import classifier, tuning, unit_extractor
from sklearn.model_selection import PredefinedSplit

from featx import FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx.exceptions import InputError, ParameterError


def test_check_params_names_all_faults(digits, cache):
    images, labels = digits
    with pytest.raises(ParameterError) as caught:
        classifier(cache, epochs=0, unfreeze=1.5, optimizer="adamm", layer_decay=2).fit(
            images, labels
        )
    message = str(caught.value)
    for name in ("epochs=0", "unfreeze=1.5", "optimizer='adamm'", "layer_decay=2"):
        assert f"fine_tune__{name}" in message


def test_check_params_optimizer_object_limits_others():
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 100)
    with pytest.raises(ParameterError, match="learning_rate='find': expected a number"):
        FineTune(optimizer=keras.optimizers.Adam(), learning_rate="find").check_params()
    with pytest.raises(ParameterError, match=r"layer_decay=0\.5: expected 1 with an optimizer"):
        FineTune(optimizer=keras.optimizers.Adam(schedule), layer_decay=0.5).check_params()
    FineTune(optimizer=keras.optimizers.Adam(1e-3), layer_decay=0.5).check_params()


@pytest.mark.parametrize(
    ("estimator", "params", "expected"),
    [
        (TransferRegressor, {"loss": "cross_entropy"}, "loss='cross_entropy'"),
        (TransferRegressor, {"class_weight": "balanced"}, "class_weight='balanced'"),
        (TransferClassifier, {"loss": "mse"}, "loss='mse'"),
        (TransferClassifier, {"class_weight": {7: 2.0}}, "class_weight="),
        (TransferClassifier, {"augment": lambda pixels: pixels}, "augment="),
        (TransferClassifier, {"validation": PredefinedSplit(np.zeros(80) - 1)}, "validation="),
        (TransferClassifier, {"views": 2}, "views=2"),
    ],
)
def test_fine_tune_faults_raise_before_the_pass(
    network, empty_cache, few_digits, estimator, params, expected
):
    extractor = unit_extractor(network, empty_cache)
    with pytest.raises((ParameterError, InputError), match=expected):
        estimator(extractor, fine_tune=tuning(**params)).fit(*few_digits)
    assert empty_cache.info()["n_rows"] == 0


def test_fine_tune_augmented_vectors_raise(cache):
    inputs = keras.Input((5,))
    network = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    extractor = FeatureExtractor(network, cache=cache, pooling="flatten")
    X = np.random.default_rng(0).standard_normal((20, 5))
    classifier = TransferClassifier(extractor, fine_tune=tuning(augment="standard"))
    with pytest.raises(ParameterError, match="augment changes images"):
        classifier.fit(X, np.arange(20) % 2)
    assert cache.info()["n_rows"] == 0


def test_fine_tune_unpooled_embeddings_raise(network, empty_cache, few_digits):
    extractor = unit_extractor(network, empty_cache, pooling=None)
    with pytest.raises(ParameterError, match="a head needs vectors"):
        TransferClassifier(extractor, fine_tune=tuning()).fit(*few_digits)
