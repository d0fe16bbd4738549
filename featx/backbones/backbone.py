"""Backbones: frozen Keras models with layer, pooling, preprocessing and space.

:class:`BackboneSpec` holds the parameters of an extractor, :class:`Backbone` the model that was
built for them. Nothing that the caller passed in is changed: truncated models and pooling are new
graphs around the same layers, which share their weights.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx._text import one_line
from featx.backbones.channels import channel_axis, takes_channels_first
from featx.backbones.input_channels import N_COLORS
from featx.backbones.layers import find_layer_output, pooled, pooled_shape
from featx.backbones.load import (
    called_model,
    file_model,
    is_file,
    is_registered_last,
    named_model,
)
from featx.backbones.registry import Network, find_network, preprocess
from featx.backbones.stored_model import StoredModel, check_activations
from featx.digests.keras_graph import Digester, graph_digest, runs_user_code, user_code
from featx.digests.keras_settings import STANDARD, KerasSettings, current_settings
from featx.digests.space import Space
from featx.digests.tensor_history import calls_of, graph_outputs, is_graph, producer
from featx.engines.devices import check_can_run
from featx.exceptions import BackboneError, ParameterError
from featx.inputs.kinds import InputForm, InputKind, kind_of

if TYPE_CHECKING:
    import keras


_SPACE_VERSION = 2  # to be raised when the same description leads to other numbers


@dataclass(frozen=True, eq=False)
class BackboneSpec:
    """The parameters of :class:`FeatureExtractor` that decide the backbone.

    `layer` may also be a tensor of the model's graph.
    """

    backbone: Any
    weights: Any
    backbone_params: dict[str, Any] | None
    preprocessing: Any
    layer: str | keras.KerasTensor | None
    pooling: str | None
    input_size: int | tuple[int, int] | None
    resize: str
    in_channels: int | None
    precision: str

    @cached_property
    def network(self) -> Network | None:
        """Network of this name; None if the backbone is not a name."""
        named = isinstance(self.backbone, str) and not is_file(self.backbone)
        return find_network(self.backbone) if named else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the inputs; None if neither `input_size` nor a network sets them."""
        if self.input_size is None:
            return (self.network.input_size,) * 2 if self.network else None
        sides = self.input_size
        height, width = sides if isinstance(sides, (tuple, list)) else (sides, sides)
        return (int(height), int(width))

    @property
    def n_channels(self) -> int:
        """Number of channels of the inputs of a named network."""
        return int(self.in_channels or N_COLORS)

    @cached_property
    def settings(self) -> KerasSettings:
        """Settings of Keras under which the model is built and compiled; may import Keras."""
        is_own = self.network or is_file(self.backbone) or isinstance(self.backbone, StoredModel)
        return STANDARD if is_own else current_settings()

    @property
    def label(self) -> str:
        """Short name of the backbone, for messages."""
        if self.network:
            return self.network.name
        if is_file(self.backbone):
            return one_line(Path(self.backbone).stem)
        kind = type(self.backbone).__name__
        return one_line(getattr(self.backbone, "name", getattr(self.backbone, "__name__", kind)))


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen model with its layer, pooling and preprocessing.

    `model` is complete, as it was passed or built, and called under `settings`. `agreed` holds the
    digests of the remembered spaces that turned out to be equal to its own.
    """

    model: keras.Model
    spec: BackboneSpec
    input_shape: tuple[int, ...]
    settings: KerasSettings = STANDARD
    agreed: set[str] = field(default_factory=set)
    _outputs: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_outputs", graph_outputs(self.model))

    def has_latest_graph(self) -> bool:
        """Return True unless `Sequential.add` or `pop` gave the model another graph."""
        outputs = graph_outputs(self.model)
        same_number = len(outputs) == len(self._outputs)
        return same_number and all(map(operator.is_, outputs, self._outputs))

    def has_latest_code(self) -> bool:
        """Return True unless a file would now be loaded with other code, registered since then."""
        is_stored = is_file(self.spec.backbone) or isinstance(self.spec.backbone, StoredModel)
        return not is_stored or all(map(is_registered_last, user_code(self.model)))

    @property
    def input_form(self) -> InputForm:
        """Form of one input."""
        return InputForm(self.input_shape, self.spec.resize)

    @property
    def kind(self) -> InputKind:
        """Kind of sample that the backbone takes."""
        return kind_of(self.input_shape)

    @cached_property
    def tensor(self) -> keras.KerasTensor | None:
        """Layer output in the model's graph; None if the model has no graph."""
        layer = self.spec.layer
        if not getattr(self.model, "inputs", None):
            if layer is not None:
                raise ParameterError.of(
                    "layer",
                    layer,
                    f"{self.spec.label} is subclassed or not built, so it has no graph "
                    "to find layers in; pass layer=None, or a functional model",
                )
            return None
        if isinstance(layer, str):
            return find_layer_output(self.model, layer, label=self.spec.label)
        if layer is not None:
            return layer
        if not is_graph(self.model):
            return None
        if len(self.model.outputs) != 1:
            raise BackboneError(
                f"{self.spec.label} has {len(self.model.outputs)} outputs: name the layer to read "
                "with layer="
            )
        return self.model.outputs[0]

    @cached_property
    def truncated_model(self) -> keras.Model:
        """Model up to the layer that is read."""
        import keras

        if self.tensor is None:
            return self.model
        return keras.Model(self.model.inputs, self.tensor)

    @property
    def preprocessing(self) -> Any:
        """Scaling of the inputs, with ``"auto"`` resolved."""
        network = self.spec.network
        if not (isinstance(self.spec.preprocessing, str) and self.spec.preprocessing == "auto"):
            return self.spec.preprocessing
        if network is None:
            return None
        includes = (self.spec.backbone_params or {}).get("include_preprocessing", True)
        return network.preprocessing if includes else network.inner_preprocessing

    @cached_property
    def activation_shape(self) -> tuple[int, ...]:
        """Shape of the layer output for one sample."""
        import keras

        inputs = keras.KerasTensor((None, *self.input_shape), dtype="float32")
        return tuple(self.truncated_model.compute_output_spec(inputs).shape[1:])

    @cached_property
    def channel_axis(self) -> int:
        """Axis of the channels in the layer output; axis 0 is that of the samples."""
        axis = channel_axis(self.model, self.tensor)
        averages = self.spec.pooling in ("avg", "max", "avgmax") and len(self.activation_shape) > 1
        if axis is None and averages:
            raise BackboneError(
                f"pooling={self.spec.pooling!r}: {self.spec.label} has layers with "
                "data_format='channels_first', and the axis of the channels in the "
                f"{self.activation_shape} activations of the layer {self.layer_name!r} is unknown. "
                "Pass pooling='flatten' or None, name another layer, or end the model with a "
                "pooling of its own, such as keras.layers.GlobalAveragePooling2D"
            )
        return -1 if axis is None else axis

    @cached_property
    def takes_channels_first(self) -> bool:
        """True if inputs are images whose channels come first, (c, h, w)."""
        return self.kind.is_resized and takes_channels_first(self.model)

    def pooled(self, activations: keras.KerasTensor) -> keras.KerasTensor:
        """Pool a layer output, in float32."""
        from keras import ops

        return pooled(ops.cast(activations, "float32"), self.spec.pooling, self.channel_axis)

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one embedding."""
        shape = pooled_shape(self.activation_shape, self.spec.pooling, self.channel_axis)
        if None in shape:
            raise BackboneError(
                f"the embedding of {self.spec.label} has the shape {shape}, which depends on the "
                "input: pass input_size, or a pooling"
            )
        return shape

    def space(self, digester: Digester | None = None) -> Space:
        """Return the space of the embeddings; each call hashes the weights again."""
        description = {
            "version": _SPACE_VERSION,
            "graph": graph_digest(self.truncated_model, digester=digester),
            "preprocessing": self._describe_preprocessing(),
            "input_shape": list(self.input_shape),
            "pooling": self.spec.pooling if len(self.activation_shape) > 1 else None,
            "precision": self.spec.precision,
            "dtype": "float32",
            "feature_shape": list(self.feature_shape),
        }
        description |= self.input_form.reader
        if self.takes_channels_first:
            description["channels_first"] = True
        departures = self.settings.departures()
        if not self.runs_user_code:
            departures.pop("dtype_policy", None)  # that of each layer is in the graph
        if departures:
            description["keras"] = departures
        return Space(description, label=self._space_label())

    @cached_property
    def runs_user_code(self) -> bool:
        """True if user code runs, which may depend on any setting of Keras."""
        layer = self.preprocessing if callable(self.preprocessing) else None
        return any(map(runs_user_code, [self.truncated_model, *([layer] if layer else [])]))

    def _describe_preprocessing(self) -> Any:
        import keras

        if self.preprocessing is None or isinstance(self.preprocessing, str):
            return self.preprocessing
        inputs = keras.Input(self.input_shape, dtype="float32")
        return {"graph": graph_digest(keras.Model(inputs, self.preprocessing(inputs)))}

    @property
    def layer_name(self) -> str:
        """Name of the layer that is read."""
        if isinstance(self.spec.layer, str):
            return self.spec.layer
        if self.tensor is None:
            return self.truncated_model.layers[-1].name
        return producer(self.tensor)[0].operation.name

    def _space_label(self) -> str:
        reading = f"layer {self.layer_name!r}, pooling {self.spec.pooling}"
        scaling = f"preprocessing {self.preprocessing}"
        return ", ".join([self.spec.label, reading, scaling, *self._departures()])

    def _departures(self) -> list[str]:
        """Return the parameters that differ from the defaults of the named network."""
        spec = self.spec
        departures = []
        if spec.network:
            params = spec.backbone_params or {}
            departures += [f"{name} {value}" for name, value in params.items()]
            if spec.weights != "imagenet":
                departures.append(f"weights {spec.weights and Path(spec.weights).name}")
        if spec.input_size is not None:
            sides = self.input_shape[1:] if self.takes_channels_first else self.input_shape[:2]
            departures.append("input " + "x".join(map(str, sides)))
        if spec.n_channels != N_COLORS:
            departures.append(f"{spec.n_channels} channels")
        if spec.resize != "stretch":
            departures.append(f"resize {spec.resize}")
        if spec.precision != "float32":
            departures.append(f"precision {spec.precision}")
        return departures


def embedding_graph(backbones: Sequence[Backbone], dtype: str) -> keras.Model:
    """Make the model from inputs of a dtype to the embeddings of several layers.

    The backbones differ in layer and pooling only. The output is float32 of shape (n, sum of the
    features): flat embeddings side by side. Layers that several backbones share run once.
    """
    import keras
    from keras import ops

    first = backbones[0]
    inputs = keras.Input(first.input_shape, dtype=dtype)
    x = preprocess(inputs, first.preprocessing, 1 if first.takes_channels_first else -1)
    tensors = [backbone.tensor for backbone in backbones]
    if len(backbones) > 1 and all(tensor is not None for tensor in tensors):
        read = keras.Model(first.model.inputs, tensors)(x, training=False)
    else:
        read = [backbone.truncated_model(x, training=False) for backbone in backbones]
    flat = []
    for backbone, activations in zip(backbones, read, strict=True):
        vectors = backbone.pooled(activations)
        if len(vectors.shape) > 2:
            vectors = pooled(vectors, "flatten")
        flat.append(vectors)
    return keras.Model(inputs, flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1))


def build_backbone(spec: BackboneSpec, array_shape: tuple[int, ...] | None) -> Backbone:
    """Build or load the model of a spec, which has to have one input.

    `array_shape` is the shape of one sample, if the samples are arrays of one shape.
    """
    if not hasattr(spec.backbone, "layers"):
        check_can_run()
    settings = spec.settings
    if spec.network:
        shape = (*(spec.size or (0, 0)), spec.n_channels)
        model = named_model(
            spec.network, input_shape=shape, weights=spec.weights, params=spec.backbone_params or {}
        )
        return Backbone(model, spec, shape)
    if is_file(spec.backbone):
        model = file_model(spec.backbone)
    elif isinstance(spec.backbone, StoredModel):
        model = spec.backbone.load()
    elif hasattr(spec.backbone, "layers"):
        model = spec.backbone
    else:
        with settings.applied():
            model = called_model(spec.backbone, _shape_from_samples(spec, array_shape))
    input_shape = _input_shape(spec, model, array_shape)
    if isinstance(spec.backbone, StoredModel):
        check_activations(model, input_shape)
    return Backbone(model, spec, input_shape, settings)


def _shape_from_samples(spec: BackboneSpec, array_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if spec.size:
        n_channels = array_shape[2] if array_shape and kind_of(array_shape).is_resized else 3
        return (*spec.size, n_channels)
    if array_shape:
        return (*array_shape, 1) if len(array_shape) == 2 else array_shape
    raise BackboneError(
        f"the input shape of {spec.label} is not known, since the samples are files or of several "
        "shapes: pass input_size=(height, width)"
    )


def _input_shape(
    spec: BackboneSpec, model: keras.Model, array_shape: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the shape of one input: the model's own, with unknown sizes from the samples."""
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
    """Return the shape of one input (c, h, w); samples must have it, since none is resized."""
    if array_shape is not None and len(array_shape) == len(shape):
        given = (array_shape[0], *(spec.size or array_shape[1:]))
        pairs = zip(shape, given, strict=True)
        if given == array_shape and all(own in (None, side) for own, side in pairs):
            return array_shape
    raise BackboneError(channels_first_message(spec.label, shape, array_shape))


def channels_first_message(
    label: str, shape: tuple[int | None, ...], got: tuple[int, ...] | None
) -> str:
    """Return a message on the samples that a channels-first backbone takes."""
    channels, height, width = shape
    given = f"have shape {got}" if got else "are files or images, whose channels come last"
    return (
        f"{label} takes inputs of shape {shape}, channels first, but the samples {given}: expected "
        "arrays of exactly that shape, since they are not resized. To pass other images, put "
        f"keras.Input(({height}, {width}, {channels})) and keras.layers.Permute((3, 1, 2)) before "
        "the model"
    )


def why_not_finite(backbone: Backbone, inputs: np.ndarray) -> str:
    """Return a message that names the first layer whose output is not finite, and a cure.

    `inputs` has shape (1, *backbone.input_shape), uint8 or float32; its embedding is not finite.
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

    if not is_graph(backbone.truncated_model):
        return
    calls = [call for call in calls_of(backbone.truncated_model) if len(call.outputs) == 1]
    tensors = [call.outputs[0] for call in calls]
    given = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
    scaled = preprocess(given, backbone.preprocessing, 1 if backbone.takes_channels_first else -1)
    x = keras.Model(given, scaled)(inputs, training=False)
    outputs = keras.Model(backbone.truncated_model.inputs, tensors)(x, training=False)
    for call, output in zip(calls, keras.tree.flatten(outputs), strict=True):
        if not np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))).all():
            yield call.operation
