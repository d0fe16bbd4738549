"""Digests of models within models: those of the same layers without a model around them."""

import keras
from digested_models import digest, functional, seeded
from keras import layers

from featx.digests.keras_graph import graph_digest


def nested_and_flat():
    """Build one graph twice: with a nested model, and without."""
    inner = functional((4,), layers.Dense(3, activation="relu"), layers.BatchNormalization())
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, layers.Dense(2)(inner(inputs * 2.0, training=False)))
    tensor = inputs = keras.Input((4,))
    for step in (lambda x: x * 2.0, *inner.layers[1:], nested.layers[-1]):
        tensor = step(tensor)
    return nested, keras.Model(inputs, tensor)


def test_graph_digest_nested_model_equals_flat():
    nested, flat = nested_and_flat()
    assert graph_digest(nested) == graph_digest(flat)


def test_graph_digest_nested_sequential_equals_functional():
    steps = [layers.Dense(3), layers.ReLU()]
    in_functional = functional((4,), functional((4,), *steps))
    in_sequential = functional((4,), keras.Sequential([keras.Input((4,)), *steps]))
    assert graph_digest(in_functional) == graph_digest(in_sequential)


def test_graph_digest_nested_training_differs():
    inner = functional((4,), layers.BatchNormalization())
    still, training = (digest((4,), lambda x, on=on: inner(x, training=on)) for on in (False, True))
    assert still != training


def test_graph_digest_nested_cast_differs():
    inner = functional((4,), lambda x: x, dtype="int32")
    assert digest((4,), inner) != digest((4,), lambda x: x)


def test_graph_digest_nested_ignores_outputs_not_upstream():
    inputs = keras.Input((4,))
    low, high = layers.Dense(3), layers.Dense(2)
    inner = seeded(keras.Model(inputs, [low(inputs), high(low(inputs))]))
    outer = functional((4,), lambda x: inner(x)[0])
    before = graph_digest(outer)
    high.kernel.assign(high.kernel * 2)
    assert graph_digest(outer) == before


def test_graph_digest_dict_inputs_follows_names():
    names = ("one", "other")
    one, other = (keras.Input((4,), name=name) for name in names)
    inner = keras.Model([one, other], layers.Subtract()([one, other]))

    def outer(by_name):
        inputs = dict(zip(names, (keras.Input((4,)), keras.Input((4,))), strict=True))
        called = inner(inputs if by_name else list(inputs.values()))
        return keras.Model(list(inputs.values()), called)

    assert graph_digest(outer(by_name=True)) == graph_digest(outer(by_name=False))


def test_graph_digest_several_inputs_equals_flat():
    one, other = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model([one, other], layers.Subtract()([one, other]))
    nested = keras.Model([one, other], inner([one, other]))
    assert graph_digest(nested) == graph_digest(inner)


def test_graph_digest_shared_model_separates_calls():
    innermost = functional((4,), layers.Dense(4))
    inner = functional((4,), innermost)
    one, other = keras.Input((4,)), keras.Input((4,))
    both = [inner(one), inner(other)]
    model = keras.Model([one, other], layers.Subtract()(both))
    swapped = keras.Model([one, other], layers.Subtract()(both[::-1]))
    same = keras.Model([one, other], layers.Subtract()([both[0], both[0]]))
    assert len({graph_digest(m) for m in (model, swapped, same)}) == 3
