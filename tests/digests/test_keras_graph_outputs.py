"""Digests of layer outputs: they depend on what lies upstream, and on nothing else."""

import keras
from digested_models import convolutional
from keras import layers

from featx.digests.keras_graph import graph_digest


def output_digest(model, *positions):
    """Digest the outputs of some layers of a model."""
    outputs = [model.layers[position].output for position in positions]
    return graph_digest(keras.Model(model.inputs, outputs))


def test_graph_digest_ignores_what_lies_downstream():
    model = convolutional()
    before = output_digest(model, 4)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 2)
    assert output_digest(model, 4) == before


def test_graph_digest_of_each_layer_output_differs():
    model = convolutional()
    positions = range(len(model.layers))
    assert len({output_digest(model, position) for position in positions}) == len(positions)


def test_graph_digest_of_shared_lower_blocks_agrees():
    model = convolutional()
    lower = model.layers[5].output
    other = keras.Model(model.inputs, layers.Dense(7)(layers.Flatten()(lower)))
    again = keras.models.clone_model(other)
    again.set_weights(other.get_weights())
    for position in range(6):
        assert len({output_digest(each, position) for each in (model, other, again)}) == 1
    assert graph_digest(model) != graph_digest(other)


def test_graph_digest_depends_on_order_of_outputs():
    model = convolutional()
    assert output_digest(model, 2, 3) != output_digest(model, 3, 2)
