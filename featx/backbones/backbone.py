"""Backbone and BackboneSpec: a frozen Keras model with layer, pooling, preprocessing and space.

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
from featx._warning import warn_caller
from featx.backbones.channel_axis import channel_axis, takes_channels_first
from featx.backbones.hub_models import HubModel, hub_release, n_token_ids, padding_id
from featx.backbones.input_channels import N_COLORS
from featx.backbones.keras_models import (
    is_backbone_file,
    is_registered_last,
)
from featx.backbones.layers import (
    check_token_pooling,
    counts_prefix_tokens,
    find_layer_output,
    is_token_pooling,
    pooled_activations,
    pooled_shape,
    pooled_tokens,
)
from featx.backbones.presets import Preset, is_preset
from featx.backbones.registry import (
    PRETRAINED,
    Network,
    find_network,
    normalized_weights,
    preprocess,
)
from featx.backbones.stored_weights import name_of_weights
from featx.backbones.untrusted_model import StoredModel
from featx.digests.keras_graph import (
    Digester,
    graph_digest,
    runs_code_of,
    runs_user_code,
    user_code,
)
from featx.digests.keras_settings import STANDARD, KerasSettings, current_settings
from featx.digests.space import Space
from featx.digests.tensor_history import calls_of, graph_outputs, is_graph, producing_call
from featx.exceptions import BackboneError, ParameterError, ParameterWarning
from featx.inputs.kinds import InputForm, InputKind, kind_of
from featx.inputs.reader import Reader

if TYPE_CHECKING:
    import keras


_SPACE_VERSION = 2  # to be raised when the same description leads to other numbers


@dataclass(frozen=True, eq=False)
class BackboneSpec:
    """The parameters of :class:`FeatureExtractor` that decide the backbone and what it gets.

    `weights` is ``"pretrained"`` where ``"imagenet"`` is given, and `layer` may also be a tensor of
    the model's graph.
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
    n_prefix_tokens: int | None = None
    read: Reader | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", normalized_weights(self.weights))

    @cached_property
    def network(self) -> Network | None:
        """Network of this name; None if the backbone is not the name of one."""
        named = (
            isinstance(self.backbone, str)
            and not is_backbone_file(self.backbone)
            and not self.preset
        )
        return find_network(self.backbone) if named else None

    @cached_property
    def preset(self) -> Preset | None:
        """Preset of KerasHub of this name; None if the backbone is not the name of one."""
        return Preset.of(self.backbone) if is_preset(self.backbone) else None

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
        is_own = self.network or self.preset or is_backbone_file(self.backbone)
        is_own = is_own or isinstance(self.backbone, StoredModel)
        return STANDARD if is_own else current_settings()

    @property
    def label(self) -> str:
        """Short name of the backbone, for messages."""
        if self.network:
            return self.network.name
        if self.preset:
            return self.preset.label
        if is_backbone_file(self.backbone):
            return one_line(Path(self.backbone).stem)
        kind = type(self.backbone).__name__
        return one_line(getattr(self.backbone, "name", getattr(self.backbone, "__name__", kind)))


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen model with its layer, pooling and preprocessing.

    `model` is complete, as it was passed or built, and called under `settings`. `agreed` holds the
    digests of the remembered spaces that turned out to be equal to its own. For a backbone of
    KerasHub, `model` is the network of one input of `hub`.
    """

    model: keras.Model
    spec: BackboneSpec
    input_shape: tuple[int, ...]
    settings: KerasSettings = STANDARD
    hub: HubModel | None = None
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
        is_stored = is_backbone_file(self.spec.backbone) or isinstance(
            self.spec.backbone, StoredModel
        )
        return not is_stored or all(map(is_registered_last, user_code(self.model)))

    @property
    def input_form(self) -> InputForm:
        """Form of one input."""
        ids, any_values = self._token_ids, self._takes_any_values
        return InputForm(self.input_shape, self.spec.resize, *ids, any_values)

    @property
    def _takes_any_values(self) -> bool:
        """True for images of a reader if neither featx nor the named network scales pixels."""
        is_scaled_inside = self.spec.network is not None and self.spec.preprocessing is not None
        is_image = self.spec.read is not None and self.kind.is_resized
        return is_image and self.preprocessing is None and not is_scaled_inside

    def describe_reading(self) -> dict[str, Any]:
        """Return what reads the samples, which spaces describe.

        Raises
        ------
        UnhashableCodeError
            The reader that the caller passed cannot be identified.
        """
        own = self.input_form.reader
        if self.spec.read is None:
            return own
        own.pop("decoder", None)
        return own | self.spec.read.identity

    @cached_property
    def _token_ids(self) -> tuple[int | None, int | None]:
        """Number of token ids that a backbone of texts knows, and that of padding, if known."""
        takes_texts = not self.kind.is_resized and is_graph(self.model)
        if not (takes_texts and runs_code_of("keras_hub", self.model)):
            return None, None
        return n_token_ids(self.model), padding_id(self.model)

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
            others = self.hub.outputs if self.hub else {}
            tensor = find_layer_output(self.model, layer, label=self.spec.label, others=others)
            return self._without_padding(tensor)
        if layer is not None:
            return layer
        if not is_graph(self.model):
            return None
        if len(self.model.outputs) != 1:
            raise BackboneError(
                f"{self.spec.label} has {len(self.model.outputs)} outputs: name the layer to read "
                "with layer="
            )
        return self._without_padding(self.model.outputs[0])

    def _without_padding(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """Pool the vectors of the tokens of a text; return other layer outputs unchanged.

        The tokens of padding are left out, which takes the inputs, so it is part of the graph.
        """
        if self.hub is None or self.hub.mask is None:
            return tensor
        return pooled_tokens(tensor, self.pooling, self.hub.mask)

    @property
    def saveable_model(self) -> keras.Model:
        """Model for a file: as it was passed or built, but that of texts up to its embedding."""
        is_text = self.hub is not None and self.hub.mask is not None
        return self.truncated_model if is_text else self.original_model

    @property
    def saved_layer(self) -> Any:
        """Layer of `saveable_model` that is read."""
        return self.spec.layer if self.saveable_model is self.original_model else None

    @property
    def original_model(self) -> keras.Model:
        """Model as it was passed or built; that of KerasHub, for its backbones."""
        return self.hub.original if self.hub else self.model

    @cached_property
    def pooling(self) -> str | None:
        """Pooling of the layer output, with ``"auto"`` resolved."""
        if self.spec.pooling != "auto":
            return self.spec.pooling
        if self.hub and self.hub.mask is not None:
            return self.hub.pooling or "avg"
        return "cls" if self.has_tokens and self.n_prefix_tokens else "avg"

    @property
    def has_tokens(self) -> bool:
        """True if the layer output has one vector for each token, (n_tokens, c)."""
        return len(self.activation_shape) == 2 and self.kind.is_resized

    @property
    def n_prefix_tokens(self) -> int | None:
        """Number of tokens before those of the patches; None if it is not known."""
        if self.spec.n_prefix_tokens is not None:
            return self.spec.n_prefix_tokens
        return self.hub.n_prefix_tokens if self.hub else None

    def check_pooling(self) -> None:
        """Check that the layer output has the tokens that the pooling names.

        Raise ParameterError if it has not. Warn of a mean over tokens of different kinds.
        """
        if self.hub and self.hub.mask is not None:
            return
        pooling, label, n_prefix = self.pooling, self.spec.label, self.n_prefix_tokens
        if not self.has_tokens:
            if is_token_pooling(pooling) and len(self.activation_shape) > 1:
                raise ParameterError.of(
                    "pooling",
                    pooling,
                    f"the output of the layer {self.layer_name!r} of {label} has the shape "
                    f"{self.activation_shape}, not one vector for each token: expected 'avg', "
                    "'max', 'avgmax', 'gem', 'flatten' or None",
                )
            return
        n_tokens = self.activation_shape[0]
        check_token_pooling(pooling, n_prefix, n_tokens=n_tokens, label=label)
        if pooling in ("avg", "avgmax", "max") and n_prefix and self.spec.pooling != "auto":
            warn_caller(
                ParameterWarning(
                    f"pooling={pooling!r} pools all {n_tokens} tokens of {label}, "
                    f"the first {n_prefix} of which stand for no patch: pass 'patches' for the "
                    "mean of the patches, 'cls' for the class token, or 'cls+patches' for both"
                )
            )

    def check_preprocessing(self) -> None:
        """Raise ParameterError if token ids would be scaled like pixels."""
        takes_texts = self.hub is not None and self.hub.mask is not None
        if takes_texts and self.preprocessing is not None:
            raise ParameterError.of(
                "preprocessing",
                self.preprocessing,
                f"expected 'auto' or None, since {self.spec.label} takes token ids, not pixels.",
            )

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
            return self.hub.scaling if self.hub else None
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
        if self.hub and self.has_tokens:  # its layers name the format of the images, not of these
            return -1
        axis = channel_axis(self.model, self.tensor)
        averages = self.pooling not in ("flatten", None) and len(self.activation_shape) > 1
        if axis is None and averages:
            raise BackboneError(
                f"pooling={self.pooling!r}: {self.spec.label} has layers with "
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

        n_prefix = self.n_prefix_tokens or 0 if self.has_tokens else 0
        vectors = ops.cast(activations, "float32")
        return pooled_activations(vectors, self.pooling, self.channel_axis, n_prefix)

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one embedding."""
        shape = pooled_shape(self.activation_shape, self.pooling, self.channel_axis)
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
            "pooling": self.pooling if len(self.activation_shape) > 1 else None,
            "precision": self.spec.precision,
            "dtype": "float32",
            "feature_shape": list(self.feature_shape),
        }
        description |= self.describe_reading()
        if self.takes_channels_first:
            description["channels_first"] = True
        if self.has_tokens and counts_prefix_tokens(self.pooling):
            description["n_prefix_tokens"] = self.n_prefix_tokens
        if release := hub_release(*self._parts):
            description["keras_hub"] = release
        departures = self.settings.departures()
        if not self.runs_user_code:
            departures.pop("dtype_policy", None)  # that of each layer is in the graph
        if departures:
            description["keras"] = departures
        return Space(description, label=self._space_label())

    @cached_property
    def runs_user_code(self) -> bool:
        """True if user code runs, which may depend on any setting of Keras."""
        return any(map(runs_user_code, self._parts))

    @property
    def _parts(self) -> list[Any]:
        """What computes embeddings: the model, and the preprocessing if it is a layer."""
        layer = self.preprocessing if callable(self.preprocessing) else None
        return [self.truncated_model, *([layer] if layer else [])]

    def _describe_preprocessing(self) -> Any:
        import keras

        if self.preprocessing is None or isinstance(self.preprocessing, str):
            return self.preprocessing
        inputs = keras.Input(self.input_shape, dtype="float32")
        return {"graph": graph_digest(keras.Model(inputs, self.preprocessing(inputs)))}

    @property
    def layer_name(self) -> str:
        """Name of the layer that is read; that of the model if it has no layers."""
        if isinstance(self.spec.layer, str):
            return self.spec.layer
        if self.tensor is None:
            model = self.truncated_model
            return (model.layers[-1] if model.layers else model).name
        is_pooled = self.hub is not None and self.hub.mask is not None and self.spec.layer is None
        tensor = self.model.outputs[0] if is_pooled else self.tensor
        return producing_call(tensor)[0].operation.name

    def _space_label(self) -> str:
        reading = f"layer {self.layer_name!r}, pooling {self.pooling}"
        scaling = f"preprocessing {self._name_of_preprocessing()}"
        return ", ".join([self.spec.label, reading, scaling, *self._departures()])

    def _name_of_preprocessing(self) -> str:
        preprocessing = self.preprocessing
        if self.hub and preprocessing is self.hub.scaling and preprocessing is not None:
            return "of the preset"
        return str(preprocessing)

    def _departures(self) -> list[str]:
        """Return the parameters that differ from the defaults of the named network."""
        spec = self.spec
        departures = []
        if spec.network:
            params = spec.backbone_params or {}
            departures += [f"{name} {value}" for name, value in params.items()]
            if spec.weights != PRETRAINED:
                named = spec.weights and Path(name_of_weights(spec.weights)).name
                departures.append(f"weights {named}")
        if spec.input_size is not None:
            sides = self.input_shape[1:] if self.takes_channels_first else self.input_shape[:2]
            departures.append("input " + "x".join(map(str, sides)))
        if spec.n_channels != N_COLORS:
            departures.append(f"{spec.n_channels} channels")
        if spec.resize != "stretch":
            departures.append(f"resize {spec.resize}")
        if spec.read is not None:
            departures.append(f"read by {spec.read.label}")
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
            vectors = pooled_activations(vectors, "flatten")
        flat.append(vectors)
    return keras.Model(inputs, flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1))


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
