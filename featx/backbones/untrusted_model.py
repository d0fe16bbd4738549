"""StoredModel: a model in a saved file of unknown origin, checked before Keras reads it.

A ``.keras`` file is an archive of a configuration and weights. The configuration names classes and
functions that Keras looks up and calls; several public advisories are about names that load code or
files, or open URLs. So it may name only classes and functions that do nothing but compute, which
``data/keras_names.toml`` lists, and custom layers that the application registered with
``keras.saving.register_keras_serializable``. Weights may only be plain arrays
(``cache/hdf5_checks.py``), and the configuration may not declare more of them than the file stores.
Keras reads the file in a new thread, in which settings of the application, such as
``keras.config.enable_unsafe_deserialization()``, have no effect.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx._archives import ArchiveError, read_members
from featx.backbones.keras_models import KERAS_SUFFIX, fixed_seed, network_graph
from featx.backbones.registry import Network
from featx.backbones.stored_weights import StoredWeights
from featx.cache.hdf5_child_process import inspect_weights
from featx.digests.hashing import digest_of
from featx.digests.tensor_history import calls_of, is_graph
from featx.exceptions import SavedFileError

if TYPE_CHECKING:
    import keras


_HUB = "keras_hub"
_CONFIGURATION, _WEIGHTS = "config.json", "model.weights.h5"
_MAX_BYTES = {_CONFIGURATION: 2**26, "metadata.json": 2**16, _WEIGHTS: 2**34}
_MAX_ACTIVATIONS = 2**28  # numbers in one tensor of one sample: 1 GiB
_SPARE_WEIGHTS = 2**20  # weights that layers declare without storing them


class StoredModel:
    """A model as the bytes of a ``.keras`` file, which Keras reads only when it is needed.

    `name` is that of the backbone that was saved, by which messages and features are named.
    """

    def __init__(self, data: bytes, name: str = "") -> None:
        self.data, self.name = data, name or "stored_model"
        self.digest = digest_of(data).hex()

    def __repr__(self) -> str:
        return f"<model of {len(self.data):,} bytes, {self.digest[:8]}>"

    def __sklearn_clone__(self) -> StoredModel:
        return self

    def check(self) -> tuple[dict[str, Any], bytes]:
        """Check the file without Keras, and return its configuration and weights."""
        try:
            file = io.BytesIO(self.data)
            members = read_members(
                file,
                _MAX_BYTES.get,
                max_members=len(_MAX_BYTES),
                required=(_CONFIGURATION, _WEIGHTS),
            )
            return check_configuration(members[_CONFIGURATION]), members[_WEIGHTS]
        except ArchiveError as exc:
            raise SavedFileError(f"the Keras model in it is damaged: {exc}") from exc
        except ConfigurationError as exc:
            raise SavedFileError(
                f"the Keras model in it does not consist of Keras' own layers alone: {exc}. "
                "Register your own layers with keras.saving.register_keras_serializable before "
                "loading the file; a Lambda cannot be saved."
            ) from exc

    def load(self) -> keras.Model:
        """Read the model; raise SavedFileError if it is damaged, or names or declares too much."""
        config, weights = self.check()
        with tempfile.TemporaryDirectory(prefix="featx-") as folder:
            file = Path(folder) / _WEIGHTS
            file.write_bytes(weights)
            if fault := inspect_weights(file):
                raise SavedFileError(f"the weights in it cannot be used: {fault.reason}")
            # A new archive, of the checked parts only.
            archive = Path(folder) / f"model{KERAS_SUFFIX}"
            with zipfile.ZipFile(archive, "w") as members:
                members.writestr(_CONFIGURATION, json.dumps(config))
                members.write(file, _WEIGHTS)
            # In a new thread, Keras' thread-local settings have their defaults. Seeded here, since
            # that thread would wait for the lock that this one may hold.
            with fixed_seed(), ThreadPoolExecutor(1) as threads:
                return threads.submit(_load_stored_model, archive, config, len(weights)).result()


def _load_stored_model(file: Path, config: dict[str, Any], weights_bytes: int) -> keras.Model:
    import keras

    try:
        if any(
            str(part.get("module")).startswith(f"{_HUB}.") for part in _configuration_dicts(config)
        ):
            importlib.import_module(_HUB)  # which registers its classes
        _check_model_memory(config, weights_bytes)
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except SavedFileError:
        raise
    except ModuleNotFoundError as exc:
        raise SavedFileError(
            f"the Keras model in it needs KerasHub: {exc}. pip install 'featx[hub]'"
        ) from exc
    except Exception as exc:  # whatever Keras raises of a senseless configuration
        raise SavedFileError(f"the Keras model in it cannot be loaded: {exc}") from exc


def _check_model_memory(config: dict[str, Any], weights_bytes: int) -> None:
    """Check the memory that a model needs, before any is allocated."""
    import keras

    try:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(config)
            n_weights = sum(map(_n_elements_of_tensor, getattr(model, "variables", ())))
            largest = max(map(_n_elements_of_tensor, _tensors_of_graph(model)), default=0)
    except Exception:
        if _names_registered(config):  # custom layers may need their weights to be built
            return
        raise
    if not isinstance(model, keras.Model):
        raise SavedFileError(f"it holds a {type(model).__name__}, expected a Keras model")
    _check_weights_are_stored(n_weights, weights_bytes)
    _check_activation(largest)


def _check_weights_are_stored(n_weights: int, stored_bytes: int) -> None:
    if n_weights > stored_bytes + _SPARE_WEIGHTS:
        raise SavedFileError(
            f"the Keras model in it declares {n_weights:,} weights, and stores "
            f"{stored_bytes:,} bytes of them"
        )


def check_network_memory(
    network: Network, input_shape: tuple[int, ...], params: dict[str, Any], weights: StoredWeights
) -> None:
    """Check the memory that a named network with stored weights needs, before any is allocated."""
    model = network_graph(network, input_shape=input_shape, params=params)
    _check_weights_are_stored(sum(map(_n_elements_of_tensor, model.variables)), len(weights.data))
    check_activations(model, input_shape)


def _check_activation(size: int) -> None:
    if size > _MAX_ACTIVATIONS:
        raise SavedFileError(
            f"the Keras model in it makes a tensor of {size:,} numbers for one sample, expected "
            f"{_MAX_ACTIVATIONS:,} at most"
        )


def check_activations(model: keras.Model, input_shape: Sequence[int]) -> None:
    """Check the sizes of a model's tensors for one sample, which configurations may leave open."""
    import keras

    if not is_graph(model):
        return
    try:
        inputs = [keras.KerasTensor((None, *input_shape), dtype=model.inputs[0].dtype)]
        for size in map(_n_elements_of_tensor, _activations_of(model, inputs)):
            _check_activation(size)
    except SavedFileError:
        raise
    except Exception as exc:  # whatever Keras raises of layers that take no such tensors
        raise SavedFileError(
            f"the Keras model in it takes no samples of shape {tuple(input_shape)}: {exc}"
        ) from exc


def _activations_of(model: keras.Model, inputs: Sequence[Any]) -> Iterator[Any]:
    """Yield the tensors of a graph for these inputs, those of nested models too."""
    import keras

    known = dict(zip(map(id, model.inputs), inputs, strict=True))
    for call in calls_of(model):
        args, kwargs = call.arguments.fill_in(known)
        if is_graph(call.operation):
            yield from _activations_of(call.operation, keras.tree.flatten(args))
        outputs = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
        yield from outputs
        known.update(zip(map(id, call.outputs), outputs, strict=True))


def _tensors_of_graph(model: Any) -> Iterator[Any]:
    if not is_graph(model):
        return
    yield from model.inputs
    for call in calls_of(model):
        yield from call.outputs
        yield from _tensors_of_graph(call.operation)


def _n_elements_of_tensor(tensor: Any) -> int:
    return math.prod(side for side in tensor.shape if side is not None)


# Names that are allowed in a configuration.
_NAMES = tomllib.loads((Path(__file__).parents[1] / "data" / "keras_names.toml").read_text("utf-8"))
_FUNCTION_MODULES = ("builtins", "keras.activations")
_MAX_NUMBER = 2**63
_MAX_CALLS = 2**14
# Parameters of RandAugment, AugMix and SpectralNormalization: repetitions of a step in each call.
_REPEATS = ("chain_depth", "num_chains", "num_ops", "power_iterations")
_MAX_REPEATS = 32


class ConfigurationError(ValueError):
    """A configuration names something other than layers of Keras."""


def check_configuration(data: bytes) -> dict[str, Any]:
    """Parse and check the configuration of a model, and drop its settings of ``compile``."""
    try:
        config = json.loads(data.decode("utf-8"), object_hook=_without_compile_config)
        if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
            raise ConfigurationError("its configuration is not that of a model")
        faults = sorted(
            {fault for fault in map(_configuration_fault, _configuration_dicts(config)) if fault}
        )
        _check_calls(config)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, ConfigurationError):
            raise
        raise ConfigurationError(f"its configuration cannot be read: {exc}") from exc
    if faults:
        raise ConfigurationError("; ".join(faults[:5]))
    return config


def _without_compile_config(config: dict[str, Any]) -> dict[str, Any]:
    """Drop losses, metrics and optimizers, which embeddings do not need."""
    return {name: value for name, value in config.items() if name != "compile_config"}


def _configuration_dicts(value: Any) -> Iterator[dict[str, Any]]:
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
    """Check the number of calls in one pass, which nested models can double at each level."""
    shared: dict[Any, Any] = {}
    for part in _configuration_dicts(config):
        if "shared_object_id" in part:
            # Keras takes the first object with an id, whatever the others are.
            meaning = [part.get(name) for name in ("class_name", "config")]
            if shared.setdefault(str(part["shared_object_id"]), meaning) != meaning:
                raise ConfigurationError("its configuration gives one id to two objects")
    n_calls = _n_layer_calls(config)
    if n_calls > _MAX_CALLS:
        raise ConfigurationError(
            f"its configuration calls layers {n_calls:,} times, expected {_MAX_CALLS:,} at most"
        )


def _n_layer_calls(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(_n_layer_calls, value))
    if not isinstance(value, dict):
        return 0
    calls = value.get("inbound_nodes")
    inner = sum(_n_layer_calls(part) for name, part in value.items() if name != "inbound_nodes")
    times = len(calls) if isinstance(calls, list) and calls else 1
    return times * (inner + ("class_name" in value))


def _configuration_fault(config: dict[str, Any]) -> str:
    """Describe the fault of one object of a configuration; empty if it has none."""
    if "class_name" not in config:
        return ""
    kind, module, inner = config["class_name"], config.get("module"), config.get("config")
    if not isinstance(kind, str) or not isinstance(module, str | None):
        return f"class {kind!r} of module {module!r}"
    if module is None and kind in _NAMES["values"]:
        return ""
    if module is None and kind in _NAMES["arrays"]:
        dtype = inner.get("dtype") if isinstance(inner, dict) else None
        return "" if dtype in _NAMES["dtypes"] else f"an array of dtype {dtype!r}"
    if kind.startswith("__"):
        return f"{kind}, which is code"
    if _is_registered(config):
        return ""
    if kind == "function":
        is_known = module in _FUNCTION_MODULES and inner in _NAMES["functions"]
        return "" if is_known else f"the function {inner!r} of {module}"
    names = _NAMES["classes"].get(module or "", ())
    if not (kind[:1].isupper() and kind.isidentifier() and (names == "all" or kind in names)):
        return f"{kind} of {module or 'an unknown module'}"
    # Keras would take the class that is registered under that name.
    own = f"{_HUB}>{kind}" if (module or "").startswith(f"{_HUB}.") else kind
    if config.get("registered_name") not in (None, kind, own):
        return f"{kind} under the name {config['registered_name']!r}"
    repeats = {name: inner.get(name) for name in _REPEATS} if isinstance(inner, dict) else {}
    for name, count in repeats.items():
        if isinstance(count, int | float) and count > _MAX_REPEATS:
            return f"{kind} with {name}={count}, expected {_MAX_REPEATS} at most"
    return ""


def _names_registered(config: dict[str, Any]) -> bool:
    """Return True if a configuration names anything that the application registered."""
    return any(
        "class_name" in part and _is_registered(part) for part in _configuration_dicts(config)
    )


def _is_registered(config: dict[str, Any]) -> bool:
    """Return True if the application registered the named class or function.

    Keras is not imported for this: without it, nothing is registered.
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
