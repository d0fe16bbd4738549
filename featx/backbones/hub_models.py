"""HubModel: a KerasHub backbone as a network of one input, with a call per block of its encoder.

A `keras_hub.models.Backbone` takes a dict of inputs, and its encoder is often a single layer. Its
graph is repeated on one input, with the same layers and weights. The calls inside an encoder
replace it, so that blocks can be read, stored and fine-tuned. Values that do not depend on the
sample, such as the angles of rotary positions, become constants. The outputs of both graphs are
compared. If they differ, or if an encoder cannot be repeated, it stays one layer.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.digests.keras_graph import runs_code_of
from featx.digests.tensor_history import calls_of, is_graph, upstream_tensors
from featx.exceptions import BackboneError

if TYPE_CHECKING:
    import keras

_AGREEMENT = 1e-5  # of the norm of the output
_MIN_BLOCKS = 2
_OPEN_SIDE = 64  # for a side that the network leaves open, in pixels
_IDS, _MASK, _SEGMENTS = "token_ids", "padding_mask", "segment_ids"

# Tokens before the patches: class, registers and distillation. Source: the constructors.
_PREFIX_TOKENS: dict[str, Callable[[Any], int]] = {
    "CLIPVisionEncoder": lambda model: 1,
    "DeiTBackbone": lambda model: 2,
    "DINOV2Backbone": lambda model: 1 + model.num_register_tokens,
    "DINOV3Backbone": lambda model: 1 + model.num_register_tokens,
    "SigLIPVisionEncoder": lambda model: 0,
    "SwinTransformerBackbone": lambda model: 0,
    "ViTBackbone": lambda model: int(model.use_class_token),
}


@dataclass(frozen=True, eq=False)
class HubModel:
    """A KerasHub backbone as a network of one input.

    Attributes
    ----------
    original : keras.Model
        The backbone of KerasHub.
    model : keras.Model
        The same layers on one input: pixels, or token ids of shape (n, length).
    outputs : dict of str to KerasTensor
        Outputs that no layer of `model` has, by name: ``"stage8"`` and others that KerasHub
        names, the encoder under its name, and its blocks as ``"encoder:0"``.
    n_prefix_tokens : int or None
        Number of tokens before the patches; None if it is not known.
    mask : KerasTensor or None
        Mask of shape (n, length), True for tokens that are not padding; None for images.
    scaling : keras.Layer or None
        The preset's scaling of pixels from 0 to 255; None if it has none.
    default_size : (int, int) or None
        The preset's image height and width, in pixels; None if it names none.
    pooling : str or None
        The pooling that the preset names; None if it names none.
    """

    original: keras.Model
    model: keras.Model
    outputs: Mapping[str, keras.KerasTensor] = field(default_factory=dict)
    n_prefix_tokens: int | None = None
    mask: keras.KerasTensor | None = None
    scaling: keras.Layer | None = None
    default_size: tuple[int, int] | None = None
    pooling: str | None = None

    @property
    def starts(self) -> dict[str, keras.KerasTensor]:
        """Outputs of the first layers of what `outputs` names: of an encoder, its first block."""
        return {name: self.outputs.get(f"{name}:0", end) for name, end in self.outputs.items()}


def is_hub_model(model: Any) -> bool:
    """Return True for a backbone of KerasHub, without importing it."""
    hub = sys.modules.get("keras_hub")
    return hub is not None and isinstance(model, hub.models.Backbone) and is_graph(model)


def hub_release(*parts: Any) -> str | None:
    """Return the release of KerasHub (``"0.32"``) whose code any of some models runs, or None.

    It belongs to their identity, since that code may compute something else in the next release;
    that of Keras does not.
    """
    runs_hub = any(runs_code_of("keras_hub", part) for part in parts)
    return version("keras-hub").rpartition(".")[0] if runs_hub else None


def n_token_ids(model: keras.Model) -> int | None:
    """Return the number of token ids that a text model knows.

    It is None for a model whose inputs do not go to a token embedding.
    """
    inputs = set(map(id, model.inputs))
    for call in calls_of(model):
        if any(id(tensor) in inputs for tensor in call.input_tensors):
            table = getattr(call.operation, "token_embedding", call.operation)
            if hasattr(table, "embeddings"):
                return int(table.input_dim)
    return None


def padding_id(model: keras.Model) -> int | None:
    """Return the token id with which a text model, as repeated here, compares its inputs.

    It is that of padding; None for a model that has no such comparison.
    """
    inputs = set(map(id, model.inputs))
    for call in calls_of(model):
        first, second = (*call.arguments.args, None, None)[:2]
        compares = type(call.operation).__name__ == "NotEqual" and id(first) in inputs
        if compares and isinstance(second, int | float | np.number):
            return int(second)
    return None


def max_text_length(model: keras.Model) -> int | None:
    """Return the number of positions of a text model; None if it is not limited."""
    layers = [layer for layer in model._flatten_layers() if _is_position_table(layer)]
    return min((layer.sequence_length for layer in layers), default=None)


def _is_position_table(layer: Any) -> bool:
    return type(layer).__name__ == "PositionEmbedding"


def single_input_model(model: keras.Model, *, pad_id: int | None, label: str) -> HubModel:
    """Repeat the graph of a KerasHub backbone on one input.

    `pad_id` is the token id of padding, None if it is not known or there are no tokens. Raise
    BackboneError for a backbone that has several inputs and is not a text model.
    """
    with warnings.catch_warnings():
        # Some layers attach a mask that the next ones do not support.
        warnings.filterwarnings("ignore", "(?s).*does not support masking", UserWarning)
        repeated = _RepeatedGraph(model, pad_id, label, unrolls=True)
        if repeated.differs and not _repeated_graph_agrees(model, repeated):
            repeated = _RepeatedGraph(model, pad_id, label, unrolls=False)
    count = _PREFIX_TOKENS.get(type(model).__name__)
    return HubModel(
        model,
        repeated.model(),
        repeated.outputs(),
        n_prefix_tokens=count(model) if count else None,
        mask=repeated.mask,
    )


class _RepeatedGraph:
    """The calls of a backbone, repeated on one input.

    `differs` is True if the calls inside a layer, or a constant, replace any call.
    """

    def __init__(
        self, model: keras.Model, pad_id: int | None, label: str, *, unrolls: bool
    ) -> None:
        self._original = model
        self._known, self.input, self.mask = _inputs_of_hub_model(model, pad_id, label)
        self._unrolls = unrolls and self.mask is None  # blocks of texts are layers
        self._encoders: dict[str, list[keras.KerasTensor]] = {}
        self.differs = False
        self._run()

    def _run(self) -> None:
        import keras

        ends = [*self._original.outputs, *self._pyramid.values()]
        for call in calls_of(keras.Model(self._original.inputs, ends)):
            arguments = (call.arguments.args, call.arguments.kwargs)
            positional, keywords = keras.tree.map_structure(self.of, arguments)
            outputs = keras.tree.flatten(self._call(call, positional, keywords))
            self._known.update(zip(map(id, call.outputs), outputs, strict=True))

    @property
    def _pyramid(self) -> dict[str, keras.KerasTensor]:
        return getattr(self._original, "pyramid_outputs", None) or {}

    def of(self, value: Any) -> Any:
        """Return the repeated tensor for an original one, and any other value unchanged."""
        return self._known.get(id(value), value)

    def _call(self, call: Any, positional: Any, keywords: Any) -> Any:
        """Repeat a call, replacing it if possible."""
        layer = call.operation
        if self._unrolls and not any(None in output.shape for output in call.outputs):
            self.differs = True
            return _constant_outputs(layer, positional, keywords)
        blocks = _encoder_blocks_in(layer) if self._unrolls else []
        if blocks:
            try:
                outputs = layer.call(*positional, **keywords)
                tensors = _outputs_of_encoder_blocks(blocks, outputs, list(self._known.values()))
            except Exception:
                # Code that does not work on symbolic tensors, such as that of DeiT: one layer.
                return layer(*positional, **keywords)
            self.differs = True
            self._encoders[layer.name] = [*tensors, _first_output_tensor(outputs)]
            return outputs
        outputs = layer(*positional, **keywords)
        return _tokens_of_true_length(layer, call, outputs) if _makes_tokens(call) else outputs

    @property
    def ends(self) -> list[keras.KerasTensor]:
        """Outputs of the original; if it names several, only the token vectors."""
        import keras

        output = self._original.output
        if isinstance(output, dict):
            output = output.get("sequence_output", output)
        return keras.tree.flatten(output)

    def model(self) -> keras.Model:
        """Build the network from the one input to the outputs."""
        import keras

        outputs = [self.of(tensor) for tensor in self.ends]
        name = self._original.name
        return keras.Model(self.input, outputs[0] if len(outputs) == 1 else outputs, name=name)

    def outputs(self) -> dict[str, keras.KerasTensor]:
        """Return the outputs that no layer has, by name: see :class:`HubModel`."""
        named = {name: self.of(tensor) for name, tensor in self._pyramid.items()}
        for name, (*blocks, output) in self._encoders.items():
            names = [name, name.removeprefix(f"{self._original.name}_")]
            if len(self._encoders) == 1:
                names.append("encoder")
            for each in names:
                named[each] = output
                named |= {f"{each}:{number}": block for number, block in enumerate(blocks)}
        return named


def _inputs_of_hub_model(
    model: keras.Model, pad_id: int | None, label: str
) -> tuple[dict[int, Any], keras.KerasTensor, keras.KerasTensor | None]:
    """Create the one input; return replacements of the original inputs, the input and the mask."""
    import keras
    from keras import ops

    by_name = {tensor.name: tensor for tensor in model.inputs}
    others = by_name.keys() - {_IDS, _MASK, _SEGMENTS}
    if others and len(by_name) > 1:
        raise BackboneError(
            f"{label} has {len(by_name)} inputs ({', '.join(by_name)}): expected images, or token "
            "ids. Pass a part of it, such as model.vision_encoder"
        )
    if others:
        (given,) = model.inputs
        pixels = keras.Input(given.shape[1:], dtype=given.dtype, name=given.name)
        return {id(given): pixels}, pixels, None
    if pad_id is None:
        raise BackboneError(
            f"{label} takes token ids, but the id of padding is not known: pass its preset, "
            "'keras_hub:FOLDER', with a tokenizer that KerasHub can read"
        )
    ids = keras.Input(by_name[_IDS].shape[1:], dtype=by_name[_IDS].dtype, name=_IDS)
    mask = ops.not_equal(ids, pad_id)
    values = {_IDS: ids, _MASK: ops.cast(mask, "int32"), _SEGMENTS: ops.zeros_like(ids)}
    return {id(tensor): values[name] for name, tensor in by_name.items()}, ids, mask


def _encoder_blocks_in(layer: Any) -> list[keras.Layer]:
    """Return the blocks of an encoder, layers of one class; return [] for other layers."""
    import keras

    if not (isinstance(layer, keras.Layer) and type(layer).__module__.startswith("keras_hub.")):
        return []
    inside = [part for part in layer._flatten_layers(include_self=False) if part is not layer]
    owned = {id(weight) for part in inside for weight in part.weights}
    if is_graph(layer) or any(id(weight) not in owned for weight in layer.weights):
        return []
    for value in vars(layer).values():
        are_layers = isinstance(value, list | tuple) and all(
            isinstance(part, keras.Layer) for part in value
        )
        # Each layer also keeps a list of all its parts, which are of several classes.
        if are_layers and len(value) >= _MIN_BLOCKS and len(set(map(type, value))) == 1:
            return list(value)
    return []


def _outputs_of_encoder_blocks(
    blocks: Sequence[keras.Layer], outputs: Any, known: Sequence[Any]
) -> list[keras.KerasTensor]:
    """Return the first output of each block of an encoder, given the encoder's outputs."""
    import keras

    ends = [each for each in keras.tree.flatten(outputs) if isinstance(each, keras.KerasTensor)]
    made = {id(tensor) for tensor in known}
    found: dict[int, keras.KerasTensor] = {}
    for tensor, call, _ in upstream_tensors(ends, made):
        made.add(id(tensor))
        found.setdefault(id(call.operation), call.outputs[0])
    return [found[id(block)] for block in blocks]


def _makes_tokens(call: Any) -> bool:
    """Return True for a call that turns an image into tokens, (n, n_tokens, c)."""
    shapes = [len(tensor.shape) for tensor in (*call.input_tensors, *call.outputs)]
    return shapes == [4, 3] and None not in call.input_tensors[0].shape[1:]


def _tokens_of_true_length(layer: Any, call: Any, tokens: keras.KerasTensor) -> keras.KerasTensor:
    """Return the tokens with their true number in the static shape, if a layer declares another.

    The embedding of SigLIP declares a class token that it does not add. That of DINOv3 declares as
    many tokens as a square image of the shorter side has.
    """
    import keras

    image = keras.ops.zeros((1, *call.input_tensors[0].shape[1:]))
    n_tokens = layer(image).shape[1]
    if tokens.shape[1] < n_tokens:
        return keras.ops.reshape(tokens, (-1, n_tokens, tokens.shape[2]))
    return tokens if tokens.shape[1] == n_tokens else tokens[:, :n_tokens]


def _first_output_tensor(outputs: Any) -> keras.KerasTensor:
    import keras

    return keras.tree.flatten(outputs)[0]


def _constant_outputs(layer: Any, positional: Any, keywords: Any) -> Any:
    """Return the outputs of a call, which do not depend on the sample, as arrays."""
    import keras

    def value_of(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        return keras.ops.zeros([side or 1 for side in value.shape], value.dtype)

    arguments = keras.tree.map_structure(value_of, (positional, keywords))
    outputs = layer(*arguments[0], **arguments[1])
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _repeated_graph_agrees(model: keras.Model, repeated: _RepeatedGraph) -> bool:
    """Return True if both graphs have the same outputs for a random sample."""
    import keras

    shape = [side or _OPEN_SIDE for side in repeated.input.shape[1:]]
    sample = np.random.default_rng(0).uniform(0, 1, (1, *shape)).astype(np.float32)
    original = keras.Model(model.inputs[0], repeated.ends)
    pairs = zip(
        *(keras.tree.flatten(each(sample)) for each in (original, repeated.model())), strict=True
    )
    for expected, got in (map(keras.ops.convert_to_numpy, pair) for pair in pairs):
        if np.linalg.norm(got - expected) > _AGREEMENT * np.linalg.norm(expected):
            return False
    return True
