"""How pixels from 0 to 255 are scaled for a network, inside the compiled graph.

The names are those of Keras: ``"tf"`` is x / 127.5 - 1; ``"torch"`` is x / 255, then standardised
with the mean and spread of ImageNet's channels; ``"caffe"`` flips RGB to BGR and subtracts
ImageNet's mean. ``"unit"`` is x / 255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.exceptions import BackboneError

if TYPE_CHECKING:
    import keras

PREPROCESSINGS = ("tf", "torch", "caffe", "unit", None)
EFFICIENTNET_V2 = "x / 128 - 1"  # what EfficientNetV2S, M and L do themselves

_TORCH_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_TORCH_STD = np.array([0.229, 0.224, 0.225], np.float32)
_BGR = np.array([2, 1, 0])
_CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)


def preprocess(
    inputs: keras.KerasTensor, preprocessing: Any, channel_axis: int = -1
) -> keras.KerasTensor:
    """Scale inputs, as operations of a Keras graph.

    Parameters
    ----------
    inputs : KerasTensor of shape (None, h, w, c), uint8 or float32
    preprocessing : str, None or keras.Layer
        One of ``PREPROCESSINGS``, ``EFFICIENTNET_V2``, or a layer that is given float32.
    channel_axis : int, default=-1
        Axis of the channels, 1 for inputs of shape (None, c, h, w).

    Returns
    -------
    KerasTensor, float32
    """
    from keras import ops

    x = ops.cast(inputs, "float32")
    if preprocessing is None:
        return x
    if not isinstance(preprocessing, str):
        return preprocessing(x)
    if preprocessing == "tf":
        return x / 127.5 - 1.0
    if preprocessing == "unit":
        return x / 255.0
    if preprocessing == EFFICIENTNET_V2:
        return x / 128.0 - 1.0
    if inputs.shape[channel_axis] != 3:
        raise BackboneError(
            f"preprocessing={preprocessing!r} is made for 3 channels, but the backbone takes "
            f"{inputs.shape[channel_axis]}: pass preprocessing='tf', 'unit', None or a Keras layer"
        )
    shape = (3,) if channel_axis == -1 else (3, *(1,) * (len(inputs.shape) - 1 - channel_axis))
    if preprocessing == "torch":
        return (x / 255.0 - _TORCH_MEAN.reshape(shape)) / _TORCH_STD.reshape(shape)
    # Taken, not flipped: OpenVINO lets the convolution that follows read its channels so.
    return ops.take(x, _BGR, axis=channel_axis) - _CAFFE_MEAN_BGR.reshape(shape)
