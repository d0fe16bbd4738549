"""``with_input_channels``: a network adapted to another number of channels than its three.

The kernel of the first convolution is adapted as in ``adapt_input_conv`` of timm
(``timm/models/_manipulate.py``). For one channel, it is summed over red, green and blue. Otherwise
it is repeated along the channels, cut to their number, and multiplied by 3 / number, so that
activations keep their scale. Constants per channel, such as a mean to subtract, are averaged for
one channel and repeated otherwise. All other layers and weights stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.exceptions import BackboneError

if TYPE_CHECKING:
    import keras

N_COLORS = 3
# Layers before the first convolution that may hold one constant per channel.
_CONSTANTS = {"Rescaling": ("scale", "offset"), "Normalization": ("mean", "variance")}


def constants_for_channels(constants: np.ndarray, n_channels: int) -> np.ndarray:
    """Return constants of three channels, float32, for another number of channels.

    Examples
    --------
    >>> means = np.float32([1, 2, 6])
    >>> constants_for_channels(means, 1), constants_for_channels(means, 4)
    (array([3.], dtype=float32), array([1., 2., 6., 1.], dtype=float32))
    """
    if n_channels == 1:
        return constants.mean(keepdims=True)
    return np.resize(constants, n_channels)


def kernel_for_channels(kernel: np.ndarray, n_channels: int) -> np.ndarray:
    """Return a kernel (height, width, 3, n_filters) for another number of channels.

    Examples
    --------
    >>> kernel = np.float32([1, 2, 6]).reshape(1, 1, 3, 1)
    >>> [kernel_for_channels(kernel, n).ravel().tolist() for n in (1, 2, 6)]
    [[9.0], [1.5, 3.0], [0.5, 1.0, 3.0, 0.5, 1.0, 3.0]]
    """
    if n_channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.tile(kernel, (1, 1, math.ceil(n_channels / N_COLORS), 1))[:, :, :n_channels]
    return repeated * np.float32(N_COLORS / n_channels)


def with_input_channels(
    model: keras.Model, n_channels: int, *, takes_bgr: bool, label: str
) -> keras.Model:
    """Copy a network for color images, for inputs of another number of channels.

    `takes_bgr` is True for a network that was trained on blue, green and red, in this order. The
    kernel of the copy has the order red, green, blue, red and so on. `label` names the network in
    messages.
    """
    import keras

    given = model.inputs[0]
    inputs = keras.Input((*given.shape[1:-1], n_channels), dtype=given.dtype, name=given.name)
    copy = keras.models.clone_model(
        model,
        input_tensors=inputs,
        clone_function=lambda layer: _layer_for_channels(layer, n_channels),
    )
    shapes = [tuple(weight.shape) for weight in copy.weights]
    adapted = [
        _weight_for_channels(np.asarray(weight), shape, takes_bgr=takes_bgr)
        for weight, shape in zip(model.weights, shapes, strict=True)
    ]
    if [weight.shape for weight in adapted] != shapes:
        raise BackboneError(
            f"{label} does not start with a convolution over {N_COLORS} channels: pass "
            "in_channels=None"
        )
    copy.set_weights(adapted)
    for layer in copy._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()  # otherwise it would ignore its statistics
    return copy


def _layer_for_channels(layer: keras.Layer, n_channels: int) -> keras.Layer:
    """Return a new layer whose constants fit another number of channels."""
    import keras

    if isinstance(layer, keras.Sequential):  # its first layer would take only three channels
        copied = [_layer_for_channels(each, n_channels) for each in layer.layers]
        return keras.Sequential(copied, name=layer.name)
    config = layer.get_config()
    for name in _CONSTANTS.get(type(layer).__name__, ()):
        if _are_color_constants(config[name]):
            config[name] = constants_for_channels(
                np.asarray(config[name], np.float32), n_channels
            ).tolist()
    return type(layer).from_config(config)


def _are_color_constants(constants: Any) -> bool:
    return isinstance(constants, Sequence) and len(constants) == N_COLORS


def _weight_for_channels(
    value: np.ndarray, shape: tuple[int, ...], *, takes_bgr: bool
) -> np.ndarray:
    """Return a weight in the shape that it has in the copy, adapted if it is of a first layer."""
    if value.shape == shape:
        return value
    if value.shape == (N_COLORS,):
        return constants_for_channels(value, *shape)
    if value.ndim == 4 and value.shape[2] == N_COLORS:
        return kernel_for_channels(value[:, :, ::-1] if takes_bgr else value, shape[2])
    return value
