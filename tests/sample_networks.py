"""Networks to test with: one of each family, and one as a user might make it."""

import keras
import numpy as np
from keras import layers

# One network of each family, at the smallest size that keeps all its blocks.
FAMILIES = [
    ("MobileNet", {"alpha": 0.25}, 64),
    ("MobileNetV2", {"alpha": 0.35}, 64),
    ("MobileNetV3Small", {}, 64),
    ("VGG16", {}, 32),
    ("ResNet50", {}, 64),
    ("ResNet50V2", {}, 64),
    ("DenseNet121", {}, 64),
    ("EfficientNetB0", {}, 64),
    ("EfficientNetV2B0", {}, 64),
    ("ConvNeXtTiny", {}, 64),
    ("InceptionV3", {}, 96),
    ("InceptionResNetV2", {}, 96),
    ("Xception", {}, 96),
    ("NASNetMobile", {}, 64),
]


def with_statistics(model):
    """Give the normalizations of a model statistics that are not the ones they start with."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.1, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, shape))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.1, shape))
    return model


def family(name, params, size):
    keras.utils.set_random_seed(0)
    constructor = getattr(keras.applications, name)
    model = constructor(weights=None, include_top=False, input_shape=(size, size, 3), **params)
    inputs = keras.Input((size, size, 3), dtype="uint8")
    x = with_statistics(model)(keras.ops.cast(inputs, "float32") / 127.5 - 1)
    return keras.Model(inputs, keras.ops.mean(x, axis=(1, 2)))


def transformer():
    """Make a small vision transformer with a layer of its own, as a user might."""

    class Position(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape[1:], initializer="glorot_uniform")

        def call(self, x):
            return x + self.table

    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    x = layers.Conv2D(24, 8, strides=8)(layers.Rescaling(1 / 255)(inputs))
    x = Position()(layers.Reshape((16, 24))(x))
    for _ in range(2):
        normed = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(3, 8)(normed, normed)
        hidden = layers.Dense(48, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(24)(layers.Dropout(0.1)(hidden))
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


def convolutions():
    """Make a network of pixels that every engine converts at once."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), dtype="uint8")
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    for width in (8, 16):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU(6)(layers.BatchNormalization()(x))
    return with_statistics(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))


def small_network(input_shape=(16, 16, 3)):
    """Make a network with all that training may disturb."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(input_shape)
    x = inputs
    for number, width in enumerate((4, 8, 8, 8)):
        y = layers.Conv2D(width, 3, padding="same", name=f"conv_{number}")(x)
        y = layers.BatchNormalization(name=f"norm_{number}")(y)
        y = layers.ReLU()(y)
        y = layers.Dropout(0.1 * (number == 3))(y)
        x = layers.Add()([x, y]) if x.shape == y.shape else y
    return keras.Model(inputs, x)


def pixels(shape, n_images=3):
    return np.random.default_rng(0).integers(0, 256, (n_images, *shape), dtype=np.uint8)


def difference(rows, expected):
    return (np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max()
