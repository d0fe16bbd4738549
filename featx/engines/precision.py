"""A Keras model that computes in another precision than it was built for."""

from __future__ import annotations

from typing import Any

import keras

from featx.exceptions import EngineError

_POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Return a model that computes in a precision; weights stay float32.

    Parameters
    ----------
    model : keras.Model
        Functional; not changed.
    precision : {"float32", "tf32", "bfloat16", "float16"}

    Returns
    -------
    keras.Model
        The model itself where no layer has to change, else a copy.

    Raises
    ------
    EngineError
        A layer cannot be copied.
    """
    policy = _POLICIES.get(precision)
    if policy is None:
        return model

    def in_policy(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.Layer) and layer.dtype_policy.name == "float32":
            config["dtype"] = policy
        return type(layer).from_config(config)

    try:
        copy = keras.models.clone_model(model, clone_function=in_policy, recursive=True)
        copy.set_weights(model.get_weights())
        for layer in copy._flatten_layers():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # statistics become what it computes with
    except Exception as exc:
        raise EngineError(
            f"this network cannot be copied to compute in {precision}: {exc}"
        ) from exc
    return copy
