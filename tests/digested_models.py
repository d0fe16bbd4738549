"""Models to take digests of: all kinds of graphs, weights and layers."""

import keras
import numpy as np
from keras import layers, ops

from featx.digests.keras_graph import graph_digest


@keras.saving.register_keras_serializable("featx_tests")
class Scale(layers.Layer):
    """A custom layer with a weight, a layer within and state that its config shows."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.inner = layers.Dense(3)

    def build(self, input_shape):
        self.offset = self.add_weight(shape=(input_shape[-1],), name="offset")
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs * self.factor + self.offset)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("featx_tests")
def softly(x):
    return ops.maximum(x, 0.1 * x)


def seeded(model):
    """Give a model weights that depend on their shapes alone."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.random(w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def functional(shape, *steps, dtype="float32"):
    """Chain layers or functions into a functional model with seeded weights."""
    tensor = inputs = keras.Input(shape, dtype=dtype)
    for step in steps:
        tensor = step(tensor)
    return seeded(keras.Model(inputs, tensor))


def digest(shape, *steps, **options):
    return graph_digest(functional(shape, *steps, **options))


def convolutional():
    return functional(
        (8, 8, 3),
        layers.Rescaling([1.0, 2.0, 3.0], offset=0.5),
        layers.Conv2D(4, 3, strides=2, kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.DepthwiseConv2D(3),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.1, seed=1),
        layers.Dense(2),
    )


def masked_recurrent():
    return functional(
        (5,),
        layers.Embedding(10, 4, mask_zero=True),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]),
        dtype="int32",
    )


def attention():
    inputs = keras.Input((5, 4))
    attended = layers.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    return seeded(keras.Model(inputs, layers.LayerNormalization()(attended + inputs)))


def operations():
    inputs = keras.Input((4, 6))
    picked = ops.concatenate([inputs[:, ::2], inputs[..., 1:3, :], inputs[:, 0, None]], axis=1)
    scaled = picked * np.float32(2) + np.arange(6.0, dtype="float32")
    mean = ops.mean(ops.where(scaled > 0, scaled, -scaled), axis=(1,), keepdims=True)
    return keras.Model(inputs, [ops.pad(mean, ((0, 0), (1, 1), (0, 0))), ops.cast(mean, "int32")])


def time_distributed():
    inner = functional((4,), layers.Dense(3), layers.Dense(2))
    return functional((5, 4), layers.TimeDistributed(inner))


def shared_and_nested():
    one, other = keras.Input((4,)), keras.Input((4,))
    shared = functional((4,), layers.Dense(3), layers.Dense(3))
    calls = [shared(one), shared(other, training=False)]
    outputs = [layers.Subtract()(calls), layers.Concatenate()(calls)]
    return seeded(keras.Model([one, other], outputs))


def with_dicts():
    one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other")
    return keras.Model({"one": one, "other": other}, {"out": layers.Subtract()([one, other])})


def sequential():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    return seeded(model)


def foreign():
    return functional(
        (4,), Scale(3.0), layers.Dense(3, activation=softly), layers.Lambda(lambda x: x * 2 + 1)
    )


def mixed_precision():
    return functional(
        (8, 8, 3),
        layers.Conv2D(3, 3, dtype="mixed_bfloat16"),
        layers.SpectralNormalization(layers.Conv2D(2, 2)),
    )


def augmenting():
    return functional((8, 8, 3), layers.RandomFlip(), layers.RandomRotation(0.1), layers.Flatten())


MAKERS = [
    convolutional,
    masked_recurrent,
    attention,
    operations,
    time_distributed,
    shared_and_nested,
    with_dicts,
    sequential,
    foreign,
    mixed_precision,
    augmenting,
]
