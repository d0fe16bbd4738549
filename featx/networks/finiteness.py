"""The layer at which a network stops giving finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.identity._graphs import calls_of, is_graph
from featx.networks.backbones import Backbone
from featx.networks.preprocessing import preprocess


def why_not_finite(backbone: Backbone, inputs: np.ndarray) -> str:
    """Return a message on the first layer whose output is not finite, and how to cure it.

    Parameters
    ----------
    backbone : Backbone
    inputs : ndarray of shape (1, *backbone.input_shape), uint8 or float32
        Inputs for which the network gives NaN or infinite values.
    """
    layer = f"The layer that is read is {backbone.layer_name!r}"
    try:
        with backbone.settings.applied():
            found = next(_layers_not_finite(backbone, inputs), None)
    except Exception:  # a layer that cannot be called by itself
        found = None
    if found is not None:
        broken = any(not np.isfinite(np.asarray(w)).all() for w in getattr(found, "weights", ()))
        cause = ", whose weights are not finite either" if broken else ""
        cure = "Check its weights" if broken else "Check its weights and the scaling of the inputs"
        first = f"the first layer with outputs that are not finite is {found.name!r}{cause}"
        return f"{layer}; {first}. {cure}"
    if backbone.spec.precision != "float32":
        return f"{layer}. It may overflow in {backbone.spec.precision}: pass precision='float32'"
    return f"{layer}. Check its weights and the scaling of the inputs"


def _layers_not_finite(backbone: Backbone, inputs: np.ndarray) -> Iterator[Any]:
    """Yield the layers whose outputs are not finite, in the order of computation."""
    import keras

    if not is_graph(backbone.tap):
        return
    calls = [call for call in calls_of(backbone.tap) if len(call.outputs) == 1]
    tensors = [call.outputs[0] for call in calls]
    given = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
    scaled = preprocess(given, backbone.preprocessing, 1 if backbone.takes_channels_first else -1)
    x = keras.Model(given, scaled)(inputs, training=False)
    outputs = keras.Model(backbone.tap.inputs, tensors)(x, training=False)
    for call, output in zip(calls, keras.tree.flatten(outputs), strict=True):
        if not np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))).all():
            yield call.operation
