"""Digests of truncated models depend on what lies upstream of a layer, and on nothing else."""

import keras
from digested_models import convolutional
from keras import layers

from featx.digests.keras_graph import graph_digest


def digest_at(model, *positions):
    """Return the digest of a model truncated at layers."""
    outputs = [model.layers[position].output for position in positions]
    return graph_digest(keras.Model(model.inputs, outputs))


def test_graph_digest_truncated_ignores_layers_downstream():
    model = convolutional()
    before = digest_at(model, 4)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 2)
    assert digest_at(model, 4) == before


def test_graph_digest_of_each_layer_differs():
    model = convolutional()
    digests = {digest_at(model, position) for position in range(len(model.layers))}
    assert len(digests) == len(model.layers)


def test_graph_digest_of_shared_lower_blocks_is_equal():
    model = convolutional()
    lower = model.layers[5].output
    other = keras.Model(model.inputs, layers.Dense(7)(layers.Flatten()(lower)))
    again = keras.models.clone_model(other)
    again.set_weights(other.get_weights())
    for position in range(6):
        assert len({digest_at(each, position) for each in (model, other, again)}) == 1
    assert graph_digest(model) != graph_digest(other)


def test_graph_digest_depends_on_order_of_outputs():
    model = convolutional()
    assert digest_at(model, 2, 3) != digest_at(model, 3, 2)
