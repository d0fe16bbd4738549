"""The classes and functions of Keras that a model from a stranger may name.

The configuration in a ``.keras`` file names classes and functions that Keras looks up and calls.
Several public advisories are about names that do more than compute: they load code or files, or
open URLs. So only names that are known to do nothing but compute are passed on to Keras. A custom
layer may be named if the application registered it with
``keras.saving.register_keras_serializable``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

# Left out on purpose: Lambda, wrappers of foreign code (TFSMLayer, TorchModuleWrapper, JaxLayer,
# FlaxLayer), and layers that read a vocabulary (StringLookup, IntegerLookup, TextVectorization).
_LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
    AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop
    Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D
    Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D
    Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU
    EinsumDense Embedding Equalization Flatten GRU GRUCell GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing
    Hashing Identity InputLayer InputSpec LSTM LSTMCell LayerNormalization LeakyReLU Masking
    MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention
    Multiply Normalization PReLU Permute Pipeline RMSNormalization RNN RandAugment
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape
    Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN
    SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()  # noqa: SIM905
)
# Of keras.ops.core, those that call no function.
_CORE_OPS = frozenset(
    """
    Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack
    """.split()  # noqa: SIM905
)
_CLASSES: dict[str, frozenset[str] | None] = {  # None: all classes of the module
    "keras": frozenset({"DTypePolicy", "Functional", "Model", "Sequential"}),
    "keras.models": frozenset({"Functional", "Model", "Sequential"}),
    "keras.src.applications.convnext": frozenset({"LayerScale"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.src.models.sequential": frozenset({"Sequential"}),
    "keras.layers": _LAYERS,
    "keras.initializers": None,
    "keras.regularizers": None,
    "keras.constraints": None,
    "keras.dtype_policies": None,
    "keras.losses": None,
    "keras.metrics": None,
    "keras.optimizers": None,
    "keras.optimizers.schedules": None,
    "keras.quantizers": frozenset(
        {
            "AbsMaxQuantizer",
            "Float8QuantizationConfig",
            "Int4QuantizationConfig",
            "Int8QuantizationConfig",
        }
    ),
    "keras.random": frozenset({"SeedGenerator"}),
    "keras.src.random.seed_generator": frozenset({"SeedGenerator"}),
    "keras.src.ops.core": _CORE_OPS,
    "keras.src.ops.einops": None,
    "keras.src.ops.image": None,
    "keras.src.ops.linalg": None,
    "keras.src.ops.math": None,
    "keras.src.ops.nn": None,
    "keras.src.ops.numpy": None,
}
_FUNCTIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh
    leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax
    softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink
    threshold
    """.split()  # noqa: SIM905
)
_FUNCTION_MODULES = ("builtins", "keras.activations")
# Names that stand for plain values, not for classes.
_VALUES = frozenset({"__keras_tensor__", "__bytes__", "__ellipsis__", "__slice__"})
_ARRAYS = frozenset({"__tensor__", "__numpy__"})
_DTYPES = frozenset(
    """
    bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64
    """.split()  # noqa: SIM905
)
_MAX_NUMBER = 2**63
_MAX_CALLS = 2**14
# Parameters of RandAugment, AugMix and SpectralNormalization: how often a step is run at each call.
_REPEATS = ("chain_depth", "num_chains", "num_ops", "power_iterations")
_MAX_REPEATS = 32


class ConfigurationError(ValueError):
    """A configuration names something other than layers of Keras."""


def check_configuration(data: bytes) -> dict[str, Any]:
    """Check the configuration of a model before Keras sees it, and drop how it was compiled.

    Parameters
    ----------
    data : bytes
        The member ``config.json`` of a ``.keras`` file.

    Returns
    -------
    dict
        The checked configuration.

    Raises
    ------
    ConfigurationError
        It is not a configuration, or names a class or function that is not listed here.
    """
    try:
        config = json.loads(data.decode("utf-8"), object_hook=_not_compiled)
        if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
            raise ConfigurationError("its configuration is not that of a model")
        faults = sorted({fault for fault in map(_fault_of, _dicts_in(config)) if fault})
        _check_calls(config)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, ConfigurationError):
            raise
        raise ConfigurationError(f"its configuration cannot be read: {exc}") from exc
    if faults:
        raise ConfigurationError("; ".join(faults[:5]))
    return config


def _not_compiled(config: dict[str, Any]) -> dict[str, Any]:
    """Drop losses, metrics and optimizers, which embeddings do not need."""
    return {name: value for name, value in config.items() if name != "compile_config"}


def _dicts_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all dicts at any depth, and check the numbers between them."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and abs(value) > _MAX_NUMBER:
            raise ConfigurationError(f"its configuration holds the number {value}")


def _check_calls(config: dict[str, Any]) -> None:
    """Check how often one pass calls layers: nested models that call twice double at each level."""
    shared: dict[Any, Any] = {}
    for part in _dicts_in(config):
        if "shared_object_id" in part:
            # Keras takes what it met first under an id, whatever else the others say.
            meaning = [part.get(name) for name in ("class_name", "config")]
            if shared.setdefault(str(part["shared_object_id"]), meaning) != meaning:
                raise ConfigurationError("its configuration has an id for two objects")
    n_calls = _n_calls(config)
    if n_calls > _MAX_CALLS:
        raise ConfigurationError(
            f"its configuration calls layers {n_calls:,} times, expected {_MAX_CALLS:,} at most"
        )


def _n_calls(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_n_calls, value))
    if not isinstance(value, dict):
        return 0
    calls = value.get("inbound_nodes")
    inner = sum(_n_calls(part) for name, part in value.items() if name != "inbound_nodes")
    times = len(calls) if isinstance(calls, list) and calls else 1
    return times * (inner + ("class_name" in value))


def _fault_of(config: dict[str, Any]) -> str:
    """Describe what is wrong with one object of a configuration; empty if nothing is."""
    if "class_name" not in config:
        return ""
    kind, module, inner = config["class_name"], config.get("module"), config.get("config")
    if not isinstance(kind, str) or not isinstance(module, str | None):
        return f"class {kind!r} of module {module!r}"
    if module is None and kind in _VALUES:
        return ""
    if module is None and kind in _ARRAYS:
        dtype = inner.get("dtype") if isinstance(inner, dict) else None
        return "" if dtype in _DTYPES else f"an array of dtype {dtype!r}"
    if kind.startswith("__"):
        return f"{kind}, which is code"
    if is_registered(config):
        return ""
    if kind == "function":
        is_known = module in _FUNCTION_MODULES and inner in _FUNCTIONS
        return "" if is_known else f"the function {inner!r} of {module}"
    names = _CLASSES.get(module or "", frozenset())
    if not (kind[:1].isupper() and kind.isidentifier() and (names is None or kind in names)):
        return f"{kind} of {module or 'an unknown module'}"
    # Keras would rather take what is registered under that name.
    if config.get("registered_name") not in (None, kind):
        return f"{kind} under the name {config['registered_name']!r}"
    repeats = {name: inner.get(name) for name in _REPEATS} if isinstance(inner, dict) else {}
    for name, count in repeats.items():
        if isinstance(count, int | float) and count > _MAX_REPEATS:
            return f"{kind} with {name}={count}, expected {_MAX_REPEATS} at most"
    return ""


def names_registered(config: dict[str, Any]) -> bool:
    """Return True if a configuration names anything that the application registered."""
    return any("class_name" in part and is_registered(part) for part in _dicts_in(config))


def is_registered(config: dict[str, Any]) -> bool:
    """Return True if the application registered the named class or function.

    This does not import Keras: before it is imported, nothing is registered.
    """
    keras = sys.modules.get("keras")
    is_function = config["class_name"] == "function"
    name = config.get("config") if is_function else config.get("registered_name")
    if keras is None or not isinstance(name, str):
        return False
    found = getattr(keras, "saving", None) and keras.saving.get_custom_objects().get(name)
    if is_function or found is None:
        return callable(found)
    return isinstance(found, type) and hasattr(found, "get_config")
