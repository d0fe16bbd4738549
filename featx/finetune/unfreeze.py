"""``choose_unfrozen``: the layers that ``unfreeze=`` asks for, and the frontier below them.

Batch normalizations stay frozen, unless requested otherwise, by ``trainable=False`` on the layer:
in Keras 3 calling a model with ``training=False`` does not keep their statistics (keras#20285).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras

from featx._validation import did_you_mean
from featx.backbones.blocks import Block, GraphCut, blocks_of, cuts_of, is_normalization
from featx.digests.tensor_history import calls_of
from featx.exceptions import ParameterError

_MAX_LIVE = 3
_RANDOM = ("Dropout", "Noise", "Random")  # in the names of layers that are random in training


@dataclass(frozen=True)
class Unfrozen:
    """The part of a model that is trained."""

    frontier: GraphCut  # below the trained part
    layers: dict[str, int]  # number of blocks above each layer with trained weights, by its name
    only: str | None  # "norm" or "bias", if training is limited to these weights
    batch_norm: str  # "frozen" or "trained"

    def apply(self, model: keras.Model) -> None:
        """Set ``trainable`` on the layers of a flat copy of the model."""
        for layer in model.layers:
            is_norm = _is_batch_norm(layer)
            keeps_statistics = is_norm and (self.only is not None or self.batch_norm == "frozen")
            layer.trainable = layer.name in self.layers and not keeps_statistics
            _freeze_interpolated(layer)
            if self.only and layer.name in self.layers:
                for variable in layer.weights:
                    variable.trainable = _is_variable_of_kind(layer, variable, self.only)


def choose_unfrozen(
    model: keras.Model,
    unfreeze: int | float | str,
    *,
    batch_norm: str,
    label: str,
    starts: Mapping[str, keras.KerasTensor] = MappingProxyType({}),
) -> Unfrozen:
    """Find the part of a functional and flat model that ``FineTune.unfreeze`` names.

    `starts` are outputs of the first layers of what has a name besides those of the layers.

    Raises
    ------
    ParameterError
        The model, `label` in messages, has no such part, or nothing in it can be trained.
    """
    blocks = blocks_of(model)
    calls = calls_of(model)
    only = unfreeze if unfreeze in ("norm", "bias") else None
    depth = _block_depths_of_calls(calls, blocks)
    trained = {
        calls[position].operation.name: depth[position]
        for position in _selected_calls(calls, blocks, unfreeze, label=label, starts=starts)
        if _has_trained_weights(calls[position].operation, only, batch_norm)
    }
    if not trained:
        raise ParameterError.of(
            "unfreeze", unfreeze, f"this selects no trainable weights of {label}"
        )
    # The first call of any trained layer, since a layer may be called in several places.
    first = min(p for p, call in enumerate(calls) if call.operation.name in trained)
    return Unfrozen(_frontier_below(first, calls, cuts_of(model)), trained, only, batch_norm)


def _selected_calls(
    calls: list[Any],
    blocks: list[Block],
    unfreeze: int | float | str,
    *,
    label: str,
    starts: Mapping[str, keras.KerasTensor],
) -> list[int]:
    """Return the positions of the calls that a parameter selects."""
    if not isinstance(unfreeze, str):
        number = unfreeze if unfreeze >= 1 else math.ceil(unfreeze * len(blocks))
        if not blocks:
            return []
        if number > len(blocks):
            expected = f"expected 1 to {len(blocks)}, or 'all'"
            raise ParameterError.of(
                "unfreeze", unfreeze, f"{label} has {len(blocks)} blocks: {expected}"
            )
        return list(range(blocks[-int(number)].start.position, len(calls)))
    if unfreeze in ("all", "norm", "bias"):
        return list(range(len(calls)))
    positions = _positions_by_name(calls, starts)
    if unfreeze in positions:
        return list(range(positions[unfreeze], len(calls)))
    return _matching_calls(calls, unfreeze, label=label, known=list(positions))


def _positions_by_name(calls: list[Any], starts: Mapping[str, keras.KerasTensor]) -> dict[str, int]:
    """Return the position of the first call of all that has a name."""
    makers = {id(tensor): at for at, call in enumerate(calls) for tensor in call.outputs}
    positions = {
        name: makers[id(tensor)] for name, tensor in starts.items() if id(tensor) in makers
    }
    for position, call in enumerate(calls):
        positions.setdefault(call.operation.name, position)
    return positions


def _matching_calls(calls: list[Any], unfreeze: str, *, label: str, known: list[str]) -> list[int]:
    """Return the positions of the calls of layers whose names match a regular expression."""
    names = [call.operation.name for call in calls]
    try:
        found = [number for number, name in enumerate(names) if re.search(unfreeze, name)]
    except re.error as exc:
        raise ParameterError.of(
            "unfreeze", unfreeze, f"neither a layer of {label} nor a regular expression ({exc})"
        ) from exc
    if not found:
        raise ParameterError.of(
            "unfreeze",
            unfreeze,
            f"{label} has no layer of this name, and none whose name it matches."
            f"{did_you_mean(unfreeze, known)} It has {len(names)} layers, the last being "
            f"{', '.join(map(repr, names[-5:]))}{_describe_names_of_blocks(known)}.",
        )
    return found


def _describe_names_of_blocks(known: list[str]) -> str:
    """Return an addition to a message that lists the blocks of the encoder by name."""
    blocks = [name for name in known if name.startswith("encoder:")]
    return f"; the blocks of its encoder are {blocks[0]!r} to {blocks[-1]!r}" if blocks else ""


def _block_depths_of_calls(calls: list[Any], blocks: list[Block]) -> list[int]:
    """Return, for each call, the number of blocks above its block."""
    starts = [block.start.position for block in blocks[1:]]
    return [sum(start > position for start in starts) for position in range(len(calls))]


def _has_trained_weights(layer: Any, only: str | None, batch_norm: str) -> bool:
    weights = getattr(layer, "weights", None) or []
    if only:
        return any(_is_variable_of_kind(layer, weight, only) for weight in weights)
    if _is_batch_norm(layer) and batch_norm == "frozen":
        return False
    if not weights:
        return False
    before = layer.trainable  # it may be False in the model that was copied
    try:
        layer.trainable = True
        return bool(layer.trainable_weights)
    finally:
        layer.trainable = before


def _is_batch_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _is_variable_of_kind(layer: Any, variable: Any, kind: str) -> bool:
    if kind == "bias":
        return variable.name == "bias"
    return is_normalization(layer) and variable.name in ("gamma", "beta", "scale")


def _frontier_below(first: int, calls: list[Any], cuts: list[GraphCut]) -> GraphCut:
    """Choose the highest cut below the first trained call that stores few numbers per sample.

    Layers without weights, such as pooling, and normalizations between the last frozen and the
    first trained layer may be on either side of it, unless they are random in training. The
    smallest of these cuts is chosen.
    """
    below = [cut for cut in cuts[: first + 1] if len(cut.tensors) <= _MAX_LIVE]
    best = below[-1]
    for cut in reversed(below[:-1]):
        between = [call.operation for call in calls[cut.position : best.position]]
        if any(getattr(x, "weights", None) and not is_normalization(x) for x in between):
            break
        if cut.n_numbers < best.n_numbers:
            best = cut
    return _below_random_layers(best, calls, below)


def _below_random_layers(best: GraphCut, calls: list[Any], below: list[GraphCut]) -> GraphCut:
    """Move the frontier below layers that are random in training and directly below it."""
    for cut in reversed([cut for cut in below if cut.position < best.position]):
        call = calls[cut.position]
        if not any(word in type(call.operation).__name__ for word in _RANDOM):
            break
        best = cut
    return best


def _freeze_interpolated(layer: keras.Layer) -> None:
    """Freeze weights that KerasHub does not save: it interpolates them when it loads a file."""
    for variable in layer.weights:
        if variable.name == "interpolated_position_embeddings":  # of DINOv2
            variable.trainable = False
