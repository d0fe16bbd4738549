"""The frozen Keras model: a graph with its tap, pooling and preprocessing, and its space.

:class:`BackboneSpec` holds what a person asked for, :class:`Backbone` the model that was built for
it. Nothing that the caller passed in is changed: taps and pooling are new graphs around the same
layers, which share their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.engines.forking import check_can_run
from featx.exceptions import BackboneError, ParameterError
from featx.identity._graphs import is_graph, producer
from featx.identity.digests import Digester, graph_digest
from featx.identity.spaces import Space
from featx.networks.applications import Network, find_network
from featx.networks.models import called_model, file_model, is_file, named_model
from featx.networks.pooling import pooled, pooled_shape
from featx.networks.preprocessing import preprocess
from featx.networks.stored_model import StoredModel
from featx.networks.taps import find_tap
from featx.samples.images import DECODER, RESIZE

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class BackboneSpec:
    """What was asked for; the fields are the parameters of :class:`FeatureExtractor`.

    A layer may also be given as the tensor of the model's graph that it makes.
    """

    backbone: Any
    weights: Any
    backbone_params: dict[str, Any] | None
    preprocessing: Any
    layer: str | keras.KerasTensor | None
    pooling: str | None
    input_size: int | tuple[int, int] | None
    precision: str

    @cached_property
    def network(self) -> Network | None:
        """The network of that name; None if the backbone is no name."""
        named = isinstance(self.backbone, str) and not is_file(self.backbone)
        return find_network(self.backbone) if named else None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that were asked for, or that the network has by default."""
        if self.input_size is None:
            return (self.network.input_size,) * 2 if self.network else None
        sides = self.input_size
        height, width = sides if isinstance(sides, (tuple, list)) else (sides, sides)
        return (int(height), int(width))

    @property
    def label(self) -> str:
        """The backbone in a few words, for people."""
        if self.network:
            return self.network.name
        if is_file(self.backbone):
            return Path(self.backbone).stem
        kind = type(self.backbone).__name__
        return str(getattr(self.backbone, "name", getattr(self.backbone, "__name__", kind)))


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen model with its tap, pooling and preprocessing.

    Attributes
    ----------
    model : keras.Model
        As it was passed in or built.
    spec : BackboneSpec
    input_shape : tuple of int
        Of one input.
    """

    model: keras.Model
    spec: BackboneSpec
    input_shape: tuple[int, ...]

    @cached_property
    def tensor(self) -> keras.KerasTensor | None:
        """What is read of the model's graph; None if the model does more than run one.

        Raises
        ------
        ParameterError
            There is no layer of that name; near names are suggested.
        """
        layer = self.spec.layer
        if not getattr(self.model, "inputs", None):
            if layer is not None:
                raise ParameterError(
                    f"layer={layer!r}: {self.spec.label} is subclassed or not built, so it has "
                    "no graph to tap; pass layer=None, or a functional model"
                )
            return None
        if isinstance(layer, str):
            return find_tap(self.model, layer, label=self.spec.label)
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
    def tap(self) -> keras.Model:
        """The model up to the layer that is read."""
        import keras

        if self.tensor is None:
            return self.model
        return keras.Model(self.model.inputs, self.tensor)

    @property
    def preprocessing(self) -> Any:
        """How inputs are scaled, with ``"auto"`` resolved."""
        if isinstance(self.spec.preprocessing, str) and self.spec.preprocessing == "auto":
            return self.spec.network.preprocessing if self.spec.network else None
        return self.spec.preprocessing

    @cached_property
    def activation_shape(self) -> tuple[int, ...]:
        """Shape of what the layer gives for one sample."""
        import keras

        inputs = keras.KerasTensor((None, *self.input_shape))
        return tuple(self.tap.compute_output_spec(inputs).shape[1:])

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one embedding."""
        shape = pooled_shape(self.activation_shape, self.spec.pooling)
        if None in shape:
            raise BackboneError(
                f"the embedding of {self.spec.label} has the shape {shape}, which depends on the "
                "input: pass input_size, or a pooling"
            )
        return shape

    def space(self, digester: Digester | None = None) -> Space:
        """Describe what decides the numbers; the weights are hashed anew at each call.

        Parameters
        ----------
        digester : Digester, default=None
            See :func:`graph_digest`.

        Raises
        ------
        UnhashableCodeError
            Part of the graph is code that cannot be hashed.
        """
        description = {
            "graph": graph_digest(self.tap, digester=digester),
            "preprocessing": self._describe_preprocessing(),
            "input_shape": list(self.input_shape),
            "pooling": self.spec.pooling if len(self.activation_shape) > 1 else None,
            "precision": self.spec.precision,
            "dtype": "float32",
            "feature_shape": list(self.feature_shape),
        }
        if len(self.input_shape) == 3:
            description |= {"decoder": DECODER, "resize": RESIZE}
        return Space(description, label=self._label())

    def _describe_preprocessing(self) -> Any:
        import keras

        if self.preprocessing is None or isinstance(self.preprocessing, str):
            return self.preprocessing
        inputs = keras.Input(self.input_shape)
        return {"graph": graph_digest(keras.Model(inputs, self.preprocessing(inputs)))}

    def _layer_name(self) -> str:
        if isinstance(self.spec.layer, str):
            return self.spec.layer
        if self.tensor is None:
            return self.tap.layers[-1].name
        return producer(self.tensor)[0].operation.name

    def _label(self) -> str:
        return ", ".join(
            (
                self.spec.label,
                f"layer {self._layer_name()!r}",
                f"pooling {self.spec.pooling}",
                f"preprocessing {self.preprocessing}",
                *self._departures(),
            )
        )

    def _departures(self) -> list[str]:
        """Say in which other ways the backbone is not the one that its name stands for."""
        spec = self.spec
        departures = []
        if spec.network:
            params = spec.backbone_params or {}
            departures += [f"{name} {value}" for name, value in params.items()]
            if spec.weights != "imagenet":
                departures.append(f"weights {spec.weights and Path(spec.weights).name}")
        if spec.input_size is not None:
            departures.append("input " + "x".join(map(str, self.input_shape[:2])))
        if spec.precision != "float32":
            departures.append(f"precision {spec.precision}")
        return departures


def embedding_graph(backbones: Sequence[Backbone], dtype: str) -> keras.Model:
    """Make the graph from inputs to the embeddings of several layers of one model.

    Parameters
    ----------
    backbones : sequence of Backbone
        They differ in layer and pooling only.
    dtype : str
        Of the inputs.

    Returns
    -------
    keras.Model
        Its output has shape (n, sum of the features), float32: flat embeddings side by side.
        What lies under several layers is in it once.
    """
    import keras
    from keras import ops

    first = backbones[0]
    inputs = keras.Input(first.input_shape, dtype=dtype)
    x = preprocess(inputs, first.preprocessing)
    tensors = [backbone.tensor for backbone in backbones]
    if len(backbones) > 1 and all(tensor is not None for tensor in tensors):
        read = keras.Model(first.model.inputs, tensors)(x, training=False)
    else:
        read = [backbone.tap(x, training=False) for backbone in backbones]
    flat = []
    for backbone, activations in zip(backbones, read, strict=True):
        # In whatever precision the network computes, means of it are taken in float32.
        vectors = pooled(ops.cast(activations, "float32"), backbone.spec.pooling)
        if len(vectors.shape) > 2:
            vectors = pooled(vectors, "flatten")
        flat.append(vectors)
    return keras.Model(inputs, flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1))


def build_backbone(spec: BackboneSpec, array_shape: tuple[int, ...] | None) -> Backbone:
    """Build or load the model that was asked for.

    Parameters
    ----------
    spec : BackboneSpec
    array_shape : tuple of int or None
        Shape of one sample, if the samples are arrays of one shape.

    Raises
    ------
    WeightsError, BackboneError
        It cannot be had, or has not exactly one input of a known shape.
    EngineError
        It cannot be built in this process.
    """
    if not hasattr(spec.backbone, "layers"):
        check_can_run()
    if spec.network:
        height, width = spec.size or (0, 0)
        shape = (height, width, 3)
        model = named_model(
            spec.network,
            input_shape=shape,
            weights=spec.weights,
            params=spec.backbone_params or {},
        )
        return Backbone(model, spec, shape)
    if is_file(spec.backbone):
        model = file_model(spec.backbone)
    elif isinstance(spec.backbone, StoredModel):
        model = spec.backbone.load()
    elif hasattr(spec.backbone, "layers"):
        model = spec.backbone
    else:
        model = called_model(spec.backbone, _asked_shape(spec, array_shape))
    return Backbone(model, spec, _input_shape(spec, model, array_shape))


def _asked_shape(spec: BackboneSpec, array_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if spec.size:
        n_channels = array_shape[2] if array_shape and len(array_shape) == 3 else 3
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
    """Find the shape of one input: the model's own, unknown sizes filled in."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return _asked_shape(spec, array_shape)
    if len(inputs) != 1:
        raise BackboneError(
            f"{spec.label} has {len(inputs)} inputs: expected one. Wrap it in a model of one input."
        )
    shape = tuple(inputs[0].shape[1:])
    if None in shape:
        asked = _asked_shape(spec, array_shape)
        if len(asked) != len(shape):
            raise BackboneError(
                f"{spec.label} takes inputs of shape {shape}, but the samples have {asked}"
            )
        return tuple(a if own is None else own for own, a in zip(shape, asked, strict=True))
    if spec.size and len(shape) == 3 and spec.size != shape[:2]:
        raise BackboneError(
            f"input_size={spec.size}, but {spec.label} takes {shape[:2]} and nothing else: leave "
            "input_size out, or build the model with inputs of shape (None, None, c)"
        )
    return shape
