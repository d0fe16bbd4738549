"""``rewritten_for_inference``: a Keras graph that compilers run faster, with the same numbers.

- Batch normalization is folded into the convolution or dense layer before it.
- A convolution with one group per channel runs as a depthwise convolution, since grouped
  convolutions are slow on CPUs (ConvNeXtTiny: 5 -> 29 images/s, 2 cores, 2026-11).
- SiLU and the exact GELU are spelled out: TensorFlow's custom gradient hides SiLU from OpenVINO
  (EfficientNetB0: 90 -> 250 images/s), and ONNX has no ``erfc`` for GELU.
- `Normalization` is spelled out, since its statistics are tensors that exporters lose.

The rewritten graph is a layer that runs the calls of the original one by one. It calls the layers
of the original, which are neither copied nor changed, so that custom layers run as well. This
module imports Keras, so other modules import it where they need it.

The folding is that of Jacob et al. (2018), "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", section 3.2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from featx.digests.code import is_keras
from featx.digests.tensor_history import calls_of, is_graph, producing_call

_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_LINEAR = (*_CONVOLUTIONS, *_DEPTHWISE, *_SEPARABLE, layers.Dense)


def rewritten_for_inference(model: keras.Model) -> keras.Model:
    """Rewrite a functional model of one input for inference.

    Its outputs stay the same up to rounding. Folded weights are copies of their present values; all
    others are shared with `model`, which is not changed.
    """
    inputs = keras.Input(model.inputs[0].shape[1:], dtype=model.inputs[0].dtype)
    return keras.Model(inputs, _Graph(model)(inputs))


class _RewrittenCall(NamedTuple):
    """A call of the original graph, and the function that replaces it."""

    call: Any
    run: Callable[..., Any]


class _Graph(layers.Layer):
    """Runs the graph of a model, some calls in another form."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(autocast=False, dtype="float32")
        self.model = model
        self._nested: list[_Graph] = []
        self._steps = self._plan()
        self.built = True

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> Any:
        return [keras.KerasTensor(output.shape, output.dtype) for output in self.model.outputs]

    def call(self, inputs: Any) -> Any:
        return self.run(inputs)

    def run(self, inputs: Any) -> list[Any]:
        """Compute the outputs from the input, as tensors of the backend."""
        known = {id(self.model.inputs[0]): inputs}

        def tensor_of(value: Any) -> Any:
            return known[id(value)] if isinstance(value, keras.KerasTensor) else value

        for call, run in self._steps:
            arguments = (call.arguments.args, call.arguments.kwargs)
            positional, keywords = keras.tree.map_structure(tensor_of, arguments)
            if keywords.get("training"):
                keywords["training"] = False
            outputs = keras.tree.flatten(run(*positional, **keywords))
            known.update(zip(map(id, call.outputs), outputs, strict=True))
        return [known[id(output)] for output in self.model.outputs]

    def _plan(self) -> list[_RewrittenCall]:
        calls = calls_of(self.model)
        if any(map(_makes_mask, self.model._flatten_layers())):
            # The functions that replace calls would lose the mask of a tensor.
            return [_RewrittenCall(call, call.operation) for call in calls]
        folded = _foldable_batch_norms(calls, self.model.outputs)
        return [_RewrittenCall(call, self._replacement(call, folded)) for call in calls]

    def _replacement(self, call: Any, folded: dict[int, Any]) -> Callable[..., Any]:
        operation = call.operation
        if not _is_plain_call(call):
            return operation
        if id(call) in folded and type(operation) is layers.BatchNormalization:
            return lambda x, **_: x
        if _is_linear_call(call):
            weights = _weights_of_linear_layer(operation)
            if id(call) in folded:
                weights = self._own(
                    _fold_batch_norm(weights, folded[id(call)].operation, operation)
                )
            return lambda x, **_: _run_linear(operation, weights, x)
        if type(operation) is layers.Activation:
            dtype = operation.compute_dtype
            return lambda x, **_: _apply_activation(operation.activation, ops.cast(x, dtype))
        if type(operation) is layers.Normalization and not operation.invert:
            mean, spread = np.asarray(operation.mean), np.sqrt(np.asarray(operation.variance))
            spread = np.maximum(spread, keras.config.epsilon())
            return lambda x, **_: (ops.cast(x, operation.compute_dtype) - mean) / spread
        if _is_plain_nested_model(call):
            nested = _Graph(operation)
            self._nested.append(nested)
            return lambda x, **_: nested.run(x)
        return operation

    def _own(self, weights: _LinearWeights) -> _LinearWeights:
        """Keep folded weights as variables, so that compilers and exporters find them."""
        owned = []
        for value in weights:
            if isinstance(value, np.ndarray):
                variable = self.add_weight(value.shape, "zeros", "float32", trainable=False)
                variable.assign(value)
                owned.append(variable)
            else:
                owned.append(value)
        return _LinearWeights(*owned)


class _LinearWeights(NamedTuple):
    """The weights of a linear layer; a separable one has a kernel for each of two steps."""

    kernel: Any
    bias: Any
    depthwise_kernel: Any = None


def _makes_mask(layer: keras.Layer) -> bool:
    """Return True if a layer may give its output a mask that its input did not have."""
    if isinstance(layer, layers.Masking):
        return True
    if isinstance(layer, layers.Embedding):
        return bool(layer.mask_zero)
    return not is_keras(type(layer)) and type(layer).compute_mask is not keras.Layer.compute_mask


def _is_plain_call(call: Any) -> bool:
    """Return True if a call runs an operation of Keras unchanged, on one tensor, for inference."""
    arguments = call.arguments
    keywords = {name for name, value in arguments.kwargs.items() if value is not None}
    return (
        "call" not in vars(call.operation)
        and len(arguments.args) == 1
        and isinstance(arguments.args[0], keras.KerasTensor)
        and keywords <= {"training"}
    )


def _is_plain_nested_model(call: Any) -> bool:
    """Return True if a plain call of a model as a layer does no more than run its graph."""
    model = call.operation
    if not is_graph(model) or len(model.inputs) != 1:
        return False
    inner, outer = model.inputs[0], call.arguments.args[0]
    return (outer.dtype, len(outer.shape)) == (inner.dtype, len(inner.shape))


def _is_linear_call(call: Any) -> bool:
    """Return True if a call is of a linear layer that this module can run itself."""
    layer = call.operation
    if type(layer) not in _LINEAR or not _is_plain_call(call):
        return False
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return False
    return getattr(layer, "padding", "valid") in ("valid", "same")


def _foldable_batch_norms(calls: list[Any], outputs: list[keras.KerasTensor]) -> dict[int, Any]:
    """Map linear calls and the batch normalizations that alone read them to each other, by id."""
    readers = Counter(id(tensor) for call in calls for tensor in call.input_tensors)
    readers.update(map(id, outputs))
    pairs = {}
    for call in calls:
        if type(call.operation) is not layers.BatchNormalization or not _is_plain_call(call):
            continue
        tensor = call.input_tensors[0]
        before = producing_call(tensor)[0]
        if readers[id(tensor)] != 1 or not _is_linear_call(before):
            continue
        if _can_fold_batch_norm(call, before.operation):
            pairs[id(call)], pairs[id(before)] = before, call
    return pairs


def _can_fold_batch_norm(call: Any, layer: Any) -> bool:
    axis = call.operation.axis
    n_axes = len(call.outputs[0].shape)
    return (
        layer.activation in (None, keras.activations.linear)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and axis in (-1, n_axes - 1)
        and layer.compute_dtype == call.operation.compute_dtype
    )


def _weights_of_linear_layer(layer: Any) -> _LinearWeights:
    bias = layer.bias if layer.use_bias else None
    if isinstance(layer, _SEPARABLE):
        return _LinearWeights(layer.pointwise_kernel, bias, layer.depthwise_kernel)
    return _LinearWeights(layer.kernel, bias)


def _fold_batch_norm(
    weights: _LinearWeights, norm: layers.BatchNormalization, layer: Any
) -> _LinearWeights:
    """Fold a batch normalization into the weights of the linear layer before it."""
    scale = 1 / np.sqrt(_variable_as_float64(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        scale = scale * _variable_as_float64(norm.gamma)
    bias = -_variable_as_float64(norm.moving_mean)
    if weights.bias is not None:
        bias = bias + _variable_as_float64(weights.bias)
    bias = bias * scale
    if norm.center:
        bias = bias + _variable_as_float64(norm.beta)
    kernel = _variable_as_float64(weights.kernel)
    # The outputs of a depthwise kernel are along its last two axes: channels and multipliers.
    kernel = kernel * (scale.reshape(kernel.shape[-2:]) if isinstance(layer, _DEPTHWISE) else scale)
    return _LinearWeights(
        kernel.astype(np.float32), bias.astype(np.float32), weights.depthwise_kernel
    )


def _variable_as_float64(variable: Any) -> np.ndarray:
    return np.asarray(variable, np.float64)


def _run_linear(layer: Any, weights: _LinearWeights, x: Any) -> Any:
    """Run a linear layer and its activation with given weights."""
    dtype = layer.compute_dtype
    x = ops.cast(x, dtype)
    kernel = ops.cast(weights.kernel, dtype)
    if isinstance(layer, layers.Dense):
        x = ops.matmul(x, kernel)
    else:
        x = _run_convolution(layer, x, kernel, weights.depthwise_kernel)
    if weights.bias is not None:
        bias = ops.cast(weights.bias, dtype)
        if getattr(layer, "data_format", None) == "channels_first":
            bias = ops.reshape(bias, (-1, *(1,) * (len(x.shape) - 2)))
        x = ops.add(x, bias)
    return _apply_activation(layer.activation, x)


def _run_convolution(layer: Any, x: Any, kernel: Any, depthwise_kernel: Any) -> Any:
    options = {
        "strides": layer.strides,
        "padding": layer.padding,
        "data_format": layer.data_format,
        "dilation_rate": layer.dilation_rate,
    }
    if isinstance(layer, _SEPARABLE):
        depthwise_kernel = ops.cast(depthwise_kernel, layer.compute_dtype)
        return ops.separable_conv(x, depthwise_kernel, kernel, **options)
    if isinstance(layer, _DEPTHWISE):
        return ops.depthwise_conv(x, kernel, **options)
    if layer.groups > 1 and kernel.shape[-2] == 1 and len(kernel.shape) <= 4:
        sizes = kernel.shape[:-2]
        return ops.depthwise_conv(x, ops.reshape(kernel, (*sizes, layer.groups, -1)), **options)
    return ops.conv(x, kernel, **options)


def _apply_activation(function: Any, x: Any) -> Any:
    """Apply an activation, spelled out where compilers need that."""
    if function is None:
        return x
    if function is keras.activations.silu:
        return x * ops.sigmoid(x)
    if function is keras.activations.gelu:
        return 0.5 * x * (1 + ops.erf(x / math.sqrt(2)))
    return function(x)
