"""Block: the blocks and cuts of a network, found in its graph; fine-tuning unfreezes whole blocks.

At each moment of a forward pass some tensors are *live*: they were computed, and will be read. A
graph can be cut where few tensors are live. The end of a block is found by the first of these rules
that gives several blocks: a merge (of a shortcut or of branches) leaves one tensor live; the
resolution drops after it; a merge leaves two or three tensors live (NASNet); a layer with weights
follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from featx.digests.tensor_history import calls_of

if TYPE_CHECKING:
    import keras

_MIN_BLOCKS = 3
_MAX_LIVE = 3


@dataclass(frozen=True)
class GraphCut:
    """A place to cut a graph: the number of calls below it, and the tensors that are live there."""

    position: int
    tensors: tuple[keras.KerasTensor, ...]

    @property
    def n_numbers(self) -> int:
        """Number of values that one sample has at the cut; unknown sizes count as 1."""
        shapes = (tensor.shape[1:] for tensor in self.tensors)
        return sum(math.prod(size or 1 for size in shape) for shape in shapes)


@dataclass(frozen=True)
class Block:
    """A part of a graph, up to the start of the next block."""

    start: GraphCut
    layers: tuple[str, ...]  # names of those with weights, from inputs to outputs
    n_params: int


class LayerInfo(NamedTuple):
    """A layer that ``layer=`` and ``unfreeze=`` can name."""

    name: str
    kind: str  # name of its class
    block: int  # counted from the top, as in ``unfreeze=``
    shape: tuple[int | None, ...]  # of its output for one sample
    n_params: int


def layers_of(model: keras.Model) -> list[LayerInfo]:
    """List the layers of a functional or Sequential model, from inputs to outputs."""
    starts = [block.start.position for block in blocks_of(model)[1:]]
    return [
        LayerInfo(
            call.operation.name,
            type(call.operation).__name__,
            1 + sum(start > position for start in starts),
            tuple(call.outputs[0].shape[1:]),
            _n_params_of_calls([call]),
        )
        for position, call in enumerate(calls_of(model))
    ]


def cuts_of(model: keras.Model) -> list[GraphCut]:
    """List the cuts of a functional or Sequential model, from its inputs to its outputs."""
    calls = calls_of(model)
    last_read = {id(tensor): len(calls) for tensor in model.outputs}
    for position in range(len(calls) - 1, -1, -1):
        for tensor in calls[position].input_tensors:
            last_read.setdefault(id(tensor), position)
    live = list(model.inputs)
    cuts = [GraphCut(0, tuple(live))]
    for position, call in enumerate(calls):
        live = [tensor for tensor in live if last_read.get(id(tensor), -1) > position]
        live += [tensor for tensor in call.outputs if id(tensor) in last_read]
        cuts.append(GraphCut(position + 1, tuple(live)))
    return cuts


def blocks_of(model: keras.Model) -> list[Block]:
    """Divide a functional or Sequential model into blocks, from inputs to outputs.

    Each block has weights other than those of a normalization.
    """
    calls, cuts = calls_of(model), cuts_of(model)
    most: list[Block] = []
    for ends in _block_ends_by_rule(calls, cuts):
        blocks = _blocks_between_cuts(calls, [cuts[0], *ends, cuts[-1]])
        if len(blocks) >= _MIN_BLOCKS:
            return blocks
        most = max(most, blocks, key=len)
    return most


def _block_ends_by_rule(calls: Sequence[Any], cuts: Sequence[GraphCut]) -> Iterator[list[GraphCut]]:
    """Yield the ends of blocks for each rule: see the module."""

    def ends(n_live: int, is_end: Callable[[int], bool]) -> list[GraphCut]:
        inner = cuts[1:-1]
        return [cut for cut in inner if len(cut.tensors) <= n_live and is_end(cut.position)]

    def ends_in_merge(position: int) -> bool:
        return _is_branch_merge(calls[position - 1])

    yield ends(1, ends_in_merge)
    yield ends(1, lambda position: _lowers_resolution(calls[position]))
    for n_live in range(2, _MAX_LIVE + 1):
        yield ends(n_live, ends_in_merge)
    yield ends(1, lambda position: bool(_n_params_of_calls([calls[position]])))


def _blocks_between_cuts(calls: Sequence[Any], ends: Sequence[GraphCut]) -> list[Block]:
    """Make blocks between cuts; calls without weights join the block below them."""
    blocks: list[Block] = []
    start = ends[0]
    for end in ends[1:]:
        inside = calls[start.position : end.position]
        n_params = _n_params_of_calls(inside)
        names = tuple(dict.fromkeys(c.operation.name for c in inside if _n_params_of_calls([c])))
        if not all(map(_is_call_without_kernels, inside)):
            blocks.append(Block(start, names, n_params))
        elif blocks:
            last = blocks.pop()
            blocks.append(Block(last.start, last.layers + names, last.n_params + n_params))
        else:
            continue  # scaling of the inputs belongs to the first block
        start = end
    return blocks


def _n_params_of_calls(calls: Sequence[Any]) -> int:
    layers = {id(call.operation): call.operation for call in calls}.values()
    return sum(layer.count_params() for layer in layers if hasattr(layer, "count_params"))


def is_normalization(layer: Any) -> bool:
    """Return True if the class of a layer is named as a normalization of activations."""
    name = type(layer).__name__
    return name.endswith("Normalization") and name != "SpectralNormalization"


def _is_call_without_kernels(call: Any) -> bool:
    """Return True if a call has no weights, or only those of a normalization."""
    return not _n_params_of_calls([call]) or is_normalization(call.operation)


def _is_branch_merge(call: Any) -> bool:
    """Return True if a call joins tensors of one resolution, and does not only gate channels."""
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
