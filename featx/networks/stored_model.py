"""A model inside a saved file, which a stranger may have made: checked before Keras sees it.

A ``.keras`` file is an archive of a configuration and weights. The configuration may name only
layers that compute (``keras_layers.py``), the weights may only be plain arrays
(``storage/_plain_hdf5.py``), and the configuration must not declare more weights than are stored.
Keras reads the file in a thread of its own, in which settings of the application, such as
``keras.config.enable_unsafe_deserialization()``, have no effect.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.archives import ArchiveError, read_members
from featx.exceptions import SavedFileError
from featx.identity._graphs import calls_of, is_graph
from featx.identity._hashing import digest_of
from featx.networks.keras_layers import ConfigurationError, check_configuration, names_registered
from featx.networks.models import KERAS_SUFFIX, fixed_seed
from featx.storage.inspection import inspect_weights

if TYPE_CHECKING:
    import keras

_CONFIGURATION, _WEIGHTS = "config.json", "model.weights.h5"
_MAX_BYTES = {_CONFIGURATION: 2**26, "metadata.json": 2**16, _WEIGHTS: 2**34}
_MAX_ACTIVATIONS = 2**28  # numbers in one tensor of one sample: 1 GiB
_SPARE_WEIGHTS = 2**20  # that layers need not store


class StoredModel:
    """A model as the bytes of a ``.keras`` file, which Keras reads only when it is needed.

    Parameters
    ----------
    data : bytes
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = digest_of(data).hex()

    def __repr__(self) -> str:
        return f"<model of {len(self.data):,} bytes, {self.digest[:8]}>"

    def __sklearn_clone__(self) -> StoredModel:
        return self

    def check(self) -> tuple[dict[str, Any], bytes]:
        """Check the file without Keras, and return its configuration and its weights.

        Raises
        ------
        SavedFileError
            It is damaged, or its configuration names something other than layers of Keras and
            classes that the application registered.
        """
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
                f"the Keras model in it is not made of Keras' own layers alone: {exc}. Layers of "
                "your own have to be registered with keras.saving.register_keras_serializable "
                "before the file is loaded; a Lambda cannot be saved."
            ) from exc

    def load(self) -> keras.Model:
        """Read the model.

        Raises
        ------
        SavedFileError
            See :meth:`check`; or its weights are not plain arrays, or fewer than its configuration
            declares, or Keras cannot read it.
        """
        config, weights = self.check()
        with tempfile.TemporaryDirectory(prefix="featx-") as folder:
            file = Path(folder) / _WEIGHTS
            file.write_bytes(weights)
            if fault := inspect_weights(file):
                raise SavedFileError(f"the weights in it cannot be used: {fault.reason}")
            # Only what was checked.
            archive = Path(folder) / f"model{KERAS_SUFFIX}"
            with zipfile.ZipFile(archive, "w") as members:
                members.writestr(_CONFIGURATION, json.dumps(config))
                members.write(file, _WEIGHTS)
            # Held here: the other thread would wait for this one.
            with fixed_seed():
                return _in_new_thread(partial(_load, archive, config, len(weights)))


def _in_new_thread(job: Callable[[], keras.Model]) -> keras.Model:
    """Run a job in a new thread, in which Keras' settings of threads have their defaults."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(job).result()


def _load(file: Path, config: dict[str, Any], weights_bytes: int) -> keras.Model:
    import keras

    try:
        _check_size(config, weights_bytes)
        return keras.saving.load_model(file, compile=False, safe_mode=True)
    except SavedFileError:
        raise
    except Exception as exc:  # whatever Keras raises of a configuration that makes no sense
        raise SavedFileError(f"the Keras model in it cannot be loaded: {exc}") from exc


def _check_size(config: dict[str, Any], weights_bytes: int) -> None:
    """Check how much memory a model needs, before any is allocated."""
    import keras

    try:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(config)
            n_weights = sum(map(_size, getattr(model, "variables", ())))
            largest = max(map(_size, _tensors_of(model)), default=0)
    except Exception:
        if names_registered(config):  # custom layers may need their weights to be built
            return
        raise
    if not isinstance(model, keras.Model):
        raise SavedFileError(f"it holds a {type(model).__name__}, expected a Keras model")
    if n_weights > weights_bytes + _SPARE_WEIGHTS:
        raise SavedFileError(
            f"the Keras model in it declares {n_weights:,} weights, and stores "
            f"{weights_bytes:,} bytes of them"
        )
    _check_activation(largest)


def _check_activation(size: int) -> None:
    if size > _MAX_ACTIVATIONS:
        raise SavedFileError(
            f"the Keras model in it makes a tensor of {size:,} numbers for one sample, expected "
            f"{_MAX_ACTIVATIONS:,} at most"
        )


def check_activations(model: keras.Model, input_shape: Sequence[int]) -> None:
    """Check what a model needs for one sample, where its configuration leaves sizes open.

    Parameters
    ----------
    model : keras.Model
    input_shape : sequence of int
        Shape of one sample.

    Raises
    ------
    SavedFileError
        It makes a tensor of too many numbers, or takes no such samples.
    """
    import keras

    if not is_graph(model):
        return
    try:
        inputs = [keras.KerasTensor((None, *input_shape), dtype=model.inputs[0].dtype)]
        for size in map(_size, _activations_of(model, inputs)):
            _check_activation(size)
    except SavedFileError:
        raise
    except Exception as exc:  # whatever Keras raises of layers that take no such tensors
        raise SavedFileError(
            f"the Keras model in it takes no samples of shape {tuple(input_shape)}: {exc}"
        ) from exc


def _activations_of(model: keras.Model, inputs: Sequence[Any]) -> Iterator[Any]:
    """Yield the tensors that a graph makes of given inputs, those of nested models too."""
    import keras

    known = dict(zip(map(id, model.inputs), inputs, strict=True))
    for call in calls_of(model):
        args, kwargs = call.arguments.fill_in(known)
        if is_graph(call.operation):
            yield from _activations_of(call.operation, keras.tree.flatten(args))
        outputs = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
        yield from outputs
        known.update(zip(map(id, call.outputs), outputs, strict=True))


def _tensors_of(model: Any) -> Iterator[Any]:
    if not is_graph(model):
        return
    yield from model.inputs
    for call in calls_of(model):
        yield from call.outputs
        yield from _tensors_of(call.operation)


def _size(tensor: Any) -> int:
    return math.prod(side for side in tensor.shape if side is not None)
