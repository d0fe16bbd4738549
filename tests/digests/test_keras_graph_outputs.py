"""Digests of taps: they depend on what lies upstream, and on nothing else."""

import keras
import pytest
from digested_models import convolutional
from keras import layers

from featx.digests.keras_graph import graph_digest
from featx.exceptions import ParameterError


def test_graph_digest_of_tap_ignores_what_lies_downstream():
    model = convolutional()
    tap = model.layers[4].output
    before = graph_digest(model, [tap])
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 2)
    assert graph_digest(model, [tap]) == before


def test_graph_digest_of_tap_equals_that_of_model_cut_there():
    model = convolutional()
    tap = model.layers[4].output
    assert graph_digest(model, [tap]) == graph_digest(keras.Model(model.inputs, tap))


def test_graph_digest_of_each_tap_differs():
    model = convolutional()
    taps = [layer.output for layer in model.layers]
    assert len({graph_digest(model, [tap]) for tap in taps}) == len(taps)


def test_graph_digest_of_shared_lower_blocks_is_equal():
    model = convolutional()
    lower = model.layers[5].output
    other = keras.Model(model.inputs, layers.Dense(7)(layers.Flatten()(lower)))
    again = keras.models.clone_model(other)
    again.set_weights(other.get_weights())
    for position in range(6):
        taps = [m.layers[position].output for m in (model, other, again)]
        digests = {
            graph_digest(m, [tap]) for m, tap in zip((model, other, again), taps, strict=True)
        }
        assert len(digests) == 1
    assert graph_digest(model) != graph_digest(other)


def test_graph_digest_of_several_outputs_depends_on_their_order():
    model = convolutional()
    taps = [model.layers[2].output, model.layers[3].output]
    assert graph_digest(model, taps) != graph_digest(model, taps[::-1])


def test_graph_digest_of_tensor_from_another_graph_raises():
    with pytest.raises(ParameterError, match=r"'input_layer.*no input of the model.*Take them"):
        graph_digest(convolutional(), convolutional().outputs)
