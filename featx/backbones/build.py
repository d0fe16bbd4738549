"""``build_backbone``: a Backbone from the parameters of an extractor: name, preset, file or model.

The model defines the shape of one input; sizes that it leaves open come from `input_size`, the
preset, or the samples.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from featx._warning import warn_caller
from featx.backbones.backbone import Backbone, BackboneSpec
from featx.backbones.channel_axis import takes_channels_first
from featx.backbones.hub_models import is_hub_model, max_text_length, single_input_model
from featx.backbones.keras_models import called_model, file_model, is_backbone_file, named_model
from featx.backbones.presets import Preset, build_preset
from featx.backbones.registry import PRETRAINED
from featx.backbones.stored_weights import StoredWeights
from featx.backbones.untrusted_model import (
    StoredModel,
    check_activations,
    check_network_memory,
)
from featx.digests.keras_settings import STANDARD
from featx.engines.devices import check_can_run
from featx.exceptions import BackboneError, ParameterWarning
from featx.inputs.kinds import kind_of

if TYPE_CHECKING:
    import keras

_DEFAULT_SIZE = (224, 224)  # for presets that take images of any size and name none


def build_backbone(spec: BackboneSpec, array_shape: tuple[int, ...] | None) -> Backbone:
    """Build or load the model of a spec, which must have one input.

    `array_shape` is the shape of one sample, if the samples are arrays of one shape.
    """
    if not hasattr(spec.backbone, "layers"):
        check_can_run()
    settings = spec.settings
    if spec.network:
        shape, params = (*(spec.size or (0, 0)), spec.n_channels), spec.backbone_params or {}
        if isinstance(spec.weights, StoredWeights):
            check_network_memory(spec.network, shape, params, spec.weights)
        model = named_model(spec.network, input_shape=shape, weights=spec.weights, params=params)
        return Backbone(model, spec, shape)
    if spec.preset:
        return _preset_backbone(spec, spec.preset, array_shape)
    if is_backbone_file(spec.backbone):
        model = file_model(spec.backbone)
    elif isinstance(spec.backbone, StoredModel):
        model = spec.backbone.load()
    elif hasattr(spec.backbone, "layers"):
        model = spec.backbone
    else:
        with settings.applied():
            model = called_model(spec.backbone, _shape_from_samples(spec, array_shape))
    hub = single_input_model(model, pad_id=None, label=spec.label) if is_hub_model(model) else None
    model = hub.model if hub else model
    input_shape = _input_shape(spec, model, array_shape)
    if isinstance(spec.backbone, StoredModel):
        check_activations(model, input_shape)
    return Backbone(model, spec, input_shape, settings, hub)


def _preset_backbone(
    spec: BackboneSpec, preset: Preset, array_shape: tuple[int, ...] | None
) -> Backbone:
    """Build the model of a preset; its own image size is the default."""
    hub = build_preset(
        preset.find_folder(None, with_weights=spec.weights == PRETRAINED),
        weights=spec.weights,
        params=spec.backbone_params or {},
        size=spec.size,
        label=spec.label,
    )
    takes_images = hub.mask is None
    if takes_images and hub.scaling is None and spec.preprocessing == "auto":
        warn_caller(
            ParameterWarning(
                f"preprocessing='auto': the preset {spec.label} does not define how pixels are "
                "scaled (it has no image_converter.json), so the network gets values from 0 to "
                "255. Pass preprocessing='tf', 'torch', 'unit' or a Keras layer, or None for these "
                "values"
            )
        )
    sized = spec
    if takes_images and None in hub.model.inputs[0].shape[1:] and spec.size is None:
        sized = replace(spec, input_size=hub.default_size or _DEFAULT_SIZE)
    if not takes_images:
        _check_texts(hub.model, array_shape, label=spec.label)
    shape = _input_shape(sized, hub.model, array_shape)
    return Backbone(hub.model, spec, shape, STANDARD, hub)


def _check_texts(model: keras.Model, array_shape: tuple[int, ...] | None, *, label: str) -> None:
    """Raise BackboneError unless samples are rows of token ids of a length that fits."""
    longest = max_text_length(model)
    limit = "" if longest is None else f", of {longest} tokens at most"
    length = array_shape[0] if array_shape and len(array_shape) == 1 else math.inf
    if length > (longest or sys.maxsize):
        given = f"have shape {array_shape}" if array_shape else "are not arrays of one shape"
        raise BackboneError(
            f"{label} takes texts as token ids, an integer array (n_samples, length){limit}; the "
            f"samples {given}"
        )


def _shape_from_samples(spec: BackboneSpec, array_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if spec.size:
        n_channels = array_shape[2] if array_shape and kind_of(array_shape).is_resized else 3
        return (*spec.size, n_channels)
    if array_shape:
        return (*array_shape, 1) if len(array_shape) == 2 else array_shape
    raise BackboneError(
        f"the input shape of {spec.label} is not known, since the samples are files or have "
        "several shapes: pass input_size=(height, width)"
    )


def _input_shape(
    spec: BackboneSpec, model: keras.Model, array_shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the shape of one input: the model's own, with open sizes from the samples."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return _shape_from_samples(spec, array_shape)
    if len(inputs) != 1:
        raise BackboneError(
            f"{spec.label} has {len(inputs)} inputs: expected one. Wrap it in a model of one input."
        )
    shape = tuple(inputs[0].shape[1:])
    if kind_of(shape).is_resized and takes_channels_first(model):
        return _channels_first_shape(spec, shape, array_shape)
    if None in shape:
        given = _shape_from_samples(spec, array_shape)
        if len(given) != len(shape):
            raise BackboneError(
                f"{spec.label} takes inputs of shape {shape}, but the samples have shape {given}"
            )
        return tuple(side if own is None else own for own, side in zip(shape, given, strict=True))
    if spec.size and kind_of(shape).is_resized and spec.size != shape[:2]:
        raise BackboneError(
            f"input_size={spec.size}, but {spec.label} takes only {shape[:2]}: leave input_size "
            "out, or build the model with inputs of shape (None, None, c)"
        )
    return shape


def _channels_first_shape(
    spec: BackboneSpec, shape: tuple[int | None, ...], array_shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the shape of one input (c, h, w); samples must have it, as they are not resized."""
    if array_shape is not None and len(array_shape) == len(shape):
        given = (array_shape[0], *(spec.size or array_shape[1:]))
        pairs = zip(shape, given, strict=True)
        if given == array_shape and all(own in (None, side) for own, side in pairs):
            return array_shape
    raise BackboneError(channels_first_message(spec.label, shape, array_shape))


def channels_first_message(
    label: str, shape: tuple[int | None, ...], got: tuple[int, ...] | None
) -> str:
    """Return a message about the samples that a channels-first backbone takes."""
    channels, height, width = shape
    given = f"have shape {got}" if got else "are files or images, whose channels come last"
    return (
        f"{label} takes inputs of shape {shape}, channels first, but the samples {given}: expected "
        "arrays of exactly that shape, since they are not resized. To pass other images, put "
        f"keras.Input(({height}, {width}, {channels})) and keras.layers.Permute((3, 1, 2)) before "
        "the model"
    )
