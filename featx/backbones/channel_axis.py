"""``channel_axis``: the axis of a tensor's channels, first or last, inferred from its graph.

Layers declare it by their ``data_format``. Operations between such a layer and a tensor may move
axes, so each axis gets a mark, which is followed through the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.digests.tensor_history import is_graph, upstream_tensors

if TYPE_CHECKING:
    import keras

_CHANNEL, _LOST, _OTHER = "channel", "lost", "other"
_FIRST, _LAST = "channels_first", "channels_last"
# Layers whose features are along the last axis.
_ON_LAST_AXIS = (
    *("Dense", "EinsumDense", "Embedding", "MultiHeadAttention", "GroupedQueryAttention"),
    *("GroupQueryAttention", "Attention", "AdditiveAttention", "LSTM", "GRU", "SimpleRNN", "RNN"),
)

_Marks = tuple[Any, ...]


def channel_axis(model: keras.Model, tensor: keras.KerasTensor | None) -> int | None:
    """Return the axis of the channels in a layer output; axis 0 is that of the samples.

    `tensor` is None for a model without a graph. The axis is -1 if no layer declares another one,
    and None if channels come first in some layer and a later operation makes their axis unclear.
    """
    if tensor is None:
        return None if _FIRST in _data_formats_in(model) else -1
    marks = _ChannelMarks(model, [tensor]).marks[id(tensor)]
    if _CHANNEL in marks:
        return marks.index(_CHANNEL)
    if ("input", 1) in marks and takes_channels_first(model):
        return marks.index(("input", 1))
    return None if _LOST in marks else -1


def takes_channels_first(model: keras.Model) -> bool:
    """Return True if the first layers with a data format take inputs of shape (c, ...)."""
    if len(getattr(model, "inputs", None) or ()) != 1 or not is_graph(model):
        return False
    walk = _ChannelMarks(model, model.outputs)
    return walk.input_axis == 1 and len(model.inputs[0].shape) > 2


class _ChannelMarks:
    """Marks of all tensors that some tensors depend on, by the ids of the tensors."""

    def __init__(
        self,
        model: keras.Model,
        tensors: Sequence[keras.KerasTensor],
        given: Sequence[_Marks] | None = None,
    ) -> None:
        given = given or [_marks_of_input(tensor) for tensor in model.inputs]
        self.marks = dict(zip(map(id, model.inputs), given, strict=True))
        # Axis of the input that the first layer with a data format takes for the channels.
        self.input_axis: int | None = None
        for _, call, _ in upstream_tensors(tensors, self.marks):
            for output, marks in zip(call.outputs, self._marks_after(call), strict=True):
                self.marks[id(output)] = marks

    def _marks_after(self, call: Any) -> list[_Marks]:
        before = [self.marks[id(tensor)] for tensor in call.input_tensors]
        operation = call.operation
        if is_graph(operation) and len(before) == len(operation.inputs):
            inner = _ChannelMarks(operation, operation.outputs, before)
            self._note_input(inner.input_axis)
            return [inner.marks[id(output)] for output in operation.outputs]
        return [self._marks_of(call, output, before) for output in call.outputs]

    def _note_input(self, axis: int | None) -> None:
        self.input_axis = axis if self.input_axis is None else self.input_axis

    def _marks_of(self, call: Any, output: Any, before: list[_Marks]) -> _Marks:
        operation, rank = call.operation, len(output.shape)
        axis = _declared_channel_axis(operation, rank)
        if axis is not None and before:
            # Counted in the input, since global pooling leaves fewer axes in the output.
            taken = _declared_channel_axis(operation, len(before[0])) or 0
            if len(before[0]) > taken and isinstance(before[0][taken], tuple):
                self._note_input(before[0][taken][1])
            return _marks_of_channel_axis(rank, axis)
        name = type(operation).__name__
        if name in _ON_LAST_AXIS:
            return _marks_of_channel_axis(rank, rank - 1)
        if not before:
            return (_OTHER,) * rank
        moved = _marks_after_axis_move(operation, before[0])
        if moved is not None:
            return moved
        if name == "Reshape":
            return _marks_after_reshape(before[0], call.input_tensors[0].shape, output.shape)
        return _marks_after_merge(
            [marks for marks in before if len(marks) == rank], rank
        ) or _marks_of_unclear_axes(before, rank)


def _marks_of_input(tensor: Any) -> _Marks:
    return tuple(("input", axis) for axis in range(len(tensor.shape)))


def _marks_of_channel_axis(rank: int, axis: int) -> _Marks:
    return tuple(_CHANNEL if place == axis % rank else _OTHER for place in range(rank))


def _declared_channel_axis(operation: Any, rank: int) -> int | None:
    """Return the axis that a layer with a data format takes for the channels."""
    formats = _data_formats_in(operation)
    if len(formats) != 1 or type(operation).__name__ == "Flatten":
        return None
    if rank < 3 or formats == {_LAST}:
        return rank - 1
    if isinstance(getattr(operation, "rank", None), int):
        return rank - operation.rank - 1  # a sequence of images has one more axis in front
    return 2 if type(operation).__name__ == "TimeDistributed" else 1


def _data_formats_in(operation: Any) -> set[str]:
    """Return the data formats of a layer, or of the layers inside it."""
    own = getattr(operation, "data_format", None)
    if own in (_FIRST, _LAST):
        return {own}
    inner = getattr(operation, "_flatten_layers", None)
    if inner is None:
        return set()
    found = [getattr(layer, "data_format", None) for layer in inner(include_self=False)]
    return {each for each in (_FIRST, _LAST) if each in found}


def _marks_after_axis_move(operation: Any, marks: _Marks) -> _Marks | None:
    """Return the marks after axes were moved or dropped; None for other operations."""
    name, axes = type(operation).__name__, range(len(marks))
    if name == "Permute":
        return (marks[0], *(marks[axis] for axis in operation.dims))
    if name == "Transpose":
        order = operation.axes if operation.axes is not None else axes[::-1]
        return tuple(marks[axis] for axis in order)
    places = np.arange(len(marks)).reshape(1, -1)[0]
    stand_in = np.empty(tuple(range(1, len(marks) + 1)))  # each axis has another length
    if name == "Moveaxis":
        stand_in = np.moveaxis(stand_in, operation.source, operation.destination)
    elif name in ("Swapaxes", "SwapAxes"):
        stand_in = np.swapaxes(stand_in, operation.axis1, operation.axis2)
    else:
        return _marks_after_reduction(operation, name, marks)
    return tuple(marks[places[length - 1]] for length in stand_in.shape)


def _marks_after_reduction(operation: Any, name: str, marks: _Marks) -> _Marks | None:
    """Return the marks after a reduction or a squeeze."""
    if name not in ("Mean", "Max", "Min", "Sum", "Squeeze"):
        return None
    axis = getattr(operation, "axis", None)
    if axis is None or getattr(operation, "keepdims", False):
        return None
    gone = {each % len(marks) for each in np.atleast_1d(axis).tolist()}
    left = tuple(mark for place, mark in enumerate(marks) if place not in gone)
    return left if _CHANNEL in left or _CHANNEL not in marks else (_OTHER,) * len(left)


def _marks_after_reshape(marks: _Marks, before: Sequence[Any], after: Sequence[Any]) -> _Marks:
    """Return the marks after a reshape, which loses the channels if it splits or joins them."""
    found: list[Any] = [_OTHER] * len(after)
    for place, mark in enumerate(marks[1:], 1):
        for target in range(1, len(after)):
            same = before[place] == after[target] and before[place] not in (None, 1)
            if (
                same
                and _n_elements_of_shape(before[1:place])
                == _n_elements_of_shape(after[1:target])
                is not None
            ):
                found[target] = mark
    if _CHANNEL in marks and _CHANNEL not in found:
        return _marks_of_unclear_axes([marks], len(after))
    return tuple(found)


def _n_elements_of_shape(shape: Sequence[Any]) -> int | None:
    return None if None in shape else math.prod(shape)


def _marks_after_merge(before: list[_Marks], rank: int) -> _Marks | None:
    """Return the marks of an output that keeps the axes of its inputs; None without inputs."""
    marked = [marks for marks in before if _CHANNEL in marks or _LOST in marks]
    if not marked:
        return before[0] if before else None
    places = {marks.index(_CHANNEL) if _CHANNEL in marks else None for marks in marked}
    return marked[0] if len(places) == 1 else _marks_of_unclear_axes(marked, rank)


def _marks_of_unclear_axes(before: list[_Marks], rank: int) -> _Marks:
    """Return neutral marks, or lost ones if the channels were not last."""
    is_lost = any(
        _LOST in marks or (_CHANNEL in marks and marks.index(_CHANNEL) != len(marks) - 1)
        for marks in before
    )
    return ((_LOST if is_lost else _OTHER),) * rank
