"""The blocks of a network, found in its graph: where one may stop freezing.

At each moment of a forward pass some tensors are *live*: computed, and still to be read. Where one
tensor is live the graph can be cut in two there. A block ends where a merge (of a shortcut or of
branches) leaves one tensor live; in networks without such merges, before the resolution drops; in
those that carry several tensors along (NASNet), where a merge leaves two or three. A chain of
layers without any of these has a block for each layer with weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx.digests.graph import calls_of

if TYPE_CHECKING:
    import keras

_FEWEST = 3
_MAX_LIVE = 3


@dataclass(frozen=True)
class Cut:
    """A place where a graph can be cut.

    Attributes
    ----------
    position : int
        How many of the model's calls lie below it.
    tensors : tuple of KerasTensor
        What is live there.
    """

    position: int
    tensors: tuple[keras.KerasTensor, ...]

    @property
    def n_numbers(self) -> int:
        """How many numbers one sample has there; those of unknown sizes count as one."""
        shapes = (tensor.shape[1:] for tensor in self.tensors)
        return sum(math.prod(size or 1 for size in shape) for shape in shapes)


@dataclass(frozen=True)
class Block:
    """A stretch of a graph.

    Attributes
    ----------
    start, end : Cut
        What goes in, and what comes out.
    layers : tuple of str
        Names of those in it that have weights, from below.
    n_params : int
    """

    start: Cut
    end: Cut
    layers: tuple[str, ...]
    n_params: int


def cuts_of(model: keras.Model) -> list[Cut]:
    """List all places where a graph can be cut, from its inputs to its outputs.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.
    """
    calls = calls_of(model)
    last_read = {id(tensor): len(calls) for tensor in model.outputs}
    for position in range(len(calls) - 1, -1, -1):
        for tensor in calls[position].input_tensors:
            last_read.setdefault(id(tensor), position)
    live = list(model.inputs)
    cuts = [Cut(0, tuple(live))]
    for position, call in enumerate(calls):
        live = [tensor for tensor in live if last_read.get(id(tensor), -1) > position]
        live += [tensor for tensor in call.outputs if id(tensor) in last_read]
        cuts.append(Cut(position + 1, tuple(live)))
    return cuts


def blocks_of(model: keras.Model) -> list[Block]:
    """Divide a graph into blocks, each of which has weights that are not of a normalisation.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.

    Returns
    -------
    list of Block
        From inputs to outputs.

    Examples
    --------
    >>> import keras
    >>> inputs = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    >>> for number in range(3):
    ...     y = keras.layers.Conv2D(4, 3, padding="same", name=f"conv_{number}")(x)
    ...     x = keras.layers.Add()([x, y])
    >>> [block.layers for block in blocks_of(keras.Model(inputs, x))]
    [('stem', 'conv_0'), ('conv_1',), ('conv_2',)]
    """
    calls, cuts = calls_of(model), cuts_of(model)
    most: list[Block] = []
    for ends in _divisions(calls, cuts):
        blocks = _blocks(calls, [cuts[0], *ends, cuts[-1]])
        if len(blocks) >= _FEWEST:
            return blocks
        most = max(most, blocks, key=len)
    return most


def _divisions(calls: Sequence[Any], cuts: Sequence[Cut]) -> Iterator[list[Cut]]:
    """Yield where blocks may end, by one rule after the other."""

    def ends(n_live: int, is_end: Callable[[int], bool]) -> list[Cut]:
        inner = cuts[1:-1]
        return [cut for cut in inner if len(cut.tensors) <= n_live and is_end(cut.position)]

    def ends_in_merge(position: int) -> bool:
        return _is_merge(calls[position - 1])

    yield ends(1, ends_in_merge)
    yield ends(1, lambda position: _lowers_resolution(calls[position]))
    for n_live in range(2, _MAX_LIVE + 1):
        yield ends(n_live, ends_in_merge)
    yield ends(1, lambda position: bool(_n_params([calls[position]])))


def _blocks(calls: Sequence[Any], ends: Sequence[Cut]) -> list[Block]:
    """Make blocks of what lies between cuts; what has no weights goes with what is below it."""
    blocks: list[Block] = []
    start = ends[0]
    for end in ends[1:]:
        inside = calls[start.position : end.position]
        n_params = _n_params(inside)
        names = tuple(dict.fromkeys(c.operation.name for c in inside if _n_params([c])))
        if not all(map(_is_light, inside)):
            blocks.append(Block(start, end, names, n_params))
        elif blocks:
            last = blocks.pop()
            blocks.append(Block(last.start, end, last.layers + names, last.n_params + n_params))
        else:
            continue  # scaling of the inputs belongs to the first block
        start = end
    return blocks


def _n_params(calls: Sequence[Any]) -> int:
    layers = {id(call.operation): call.operation for call in calls}.values()
    return sum(layer.count_params() for layer in layers if hasattr(layer, "count_params"))


def is_normalization(layer: Any) -> bool:
    """Tell whether a layer is a normalisation of activations, going by the name of its class."""
    name = type(layer).__name__
    return name.endswith("Normalization") and name != "SpectralNormalization"


def _is_light(call: Any) -> bool:
    """Tell whether a call has no weights but those of a normalisation."""
    return not _n_params([call]) or is_normalization(call.operation)


def _is_merge(call: Any) -> bool:
    """Tell whether a call joins tensors of one resolution; a gate for each channel does not."""
    tensors = {id(tensor): tensor for tensor in call.input_tensors}
    is_gate = type(call.operation).__name__ == "Multiply"
    shapes = {tensor.shape[1:-1] for tensor in tensors.values()}
    return len(tensors) > 1 and len(shapes) == 1 and not is_gate


def _lowers_resolution(call: Any) -> bool:
    if not call.input_tensors:
        return False
    before, after = call.input_tensors[0].shape[1:-1], call.outputs[0].shape[1:-1]
    pairs = [(b, a) for b, a in zip(before, after, strict=False) if b and a]
    return len(before) == len(after) and any(a <= b / 2 + 1 and a < b for b, a in pairs)
