"""Digests of models with a call of their own, and of models that have no graph."""

import keras
import numpy as np
import pytest
from digested_models import seeded, softly
from keras import layers

from featx.digests.code import UnhashableCodeError
from featx.digests.keras_graph import graph_digest


@keras.saving.register_keras_serializable("featx_tests")
class Subclassed(keras.Model):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(3, activation=softly), layers.Dense(2)]
        self.factor = factor

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs * self.factor


def subclassed(factor=2.0):
    model = Subclassed(factor)
    model(np.ones((1, 4)))
    return seeded(model)


def test_graph_digest_of_subclassed_model_survives_round_trip(tmp_path):
    model = subclassed()
    model.save(tmp_path / "model.keras")
    assert graph_digest(keras.models.load_model(tmp_path / "model.keras")) == graph_digest(model)


def test_graph_digest_of_subclassed_model_with_other_attribute_differs():
    assert graph_digest(subclassed(2.0)) != graph_digest(subclassed(3.0))


def test_graph_digest_of_subclassed_model_with_other_weights_differs():
    model = subclassed()
    before = graph_digest(model)
    model.blocks[1].bias.assign([1.0, 2.0])
    assert graph_digest(model) != before


def test_graph_digest_of_subclassed_model_ignores_traces_of_training():
    model = subclassed()
    before, weights = graph_digest(model), model.get_weights()
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((2, 4)), np.ones((2, 2))
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    model.set_weights(weights)
    assert graph_digest(model) == before


@pytest.mark.parametrize("make", [Subclassed, keras.Sequential])
def test_graph_digest_of_unbuilt_model_raises(make):
    with pytest.raises(UnhashableCodeError, match=r"not built\. Call it on a batch"):
        graph_digest(make())


def test_graph_digest_of_functional_model_with_call_of_its_own_follows_code_and_graph():
    class Doubling(keras.Model):
        def __init__(self, factor, units):
            inputs = keras.Input((4,))
            super().__init__(inputs, layers.Dense(units)(inputs))
            self.factor = factor

        def call(self, inputs, training=None, mask=None):
            return super().call(inputs) * self.factor

    models = [seeded(Doubling(*args)) for args in ((2, 3), (2, 3), (3, 3), (2, 4))]
    digests = [graph_digest(model) for model in models]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_graph_digest_of_sequential_without_graph_follows_its_layers():
    class AddParts(layers.Layer):
        def call(self, inputs):
            return inputs["a"] + inputs["b"]

    def make():
        model = keras.Sequential([AddParts(), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
        model({"a": np.ones((1, 3)), "b": np.ones((1, 3))})
        return seeded(model)

    model = make()
    before = graph_digest(model)
    assert graph_digest(make()) == before
    model.layers[1].function = lambda x: x * 3
    assert graph_digest(model) != before
