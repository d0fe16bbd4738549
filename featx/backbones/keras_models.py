"""Models of backbones: ``named_model``, ``file_model`` and, from a callable, ``called_model``.

Every failure of Keras to build or load a model becomes one error that names the possible cures.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx._files import open_given
from featx._warning import warn_caller
from featx.backbones.downloads import checked_download, one_process_at_a_time
from featx.backbones.input_channels import N_COLORS, with_input_channels
from featx.backbones.registry import PRETRAINED, TINY_FILE, Network
from featx.backbones.stored_weights import StoredWeights, name_of_weights
from featx.digests.code import object_named
from featx.digests.keras_settings import STANDARD
from featx.exceptions import BackboneError, SavedFileError, WeightsError, WeightsWarning

if TYPE_CHECKING:
    import keras

_RANDOM_WEIGHTS_SEED = 0
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
KERAS_SUFFIX = ".keras"
# "pretrained", the path of a file, the weights in a saved file, or None for random ones.
Weights = str | os.PathLike[str] | StoredWeights | None


def named_model(
    network: Network,
    *,
    input_shape: tuple[int, ...],
    weights: Weights,
    params: dict[str, Any],
) -> keras.Model:
    """Build a network of ``keras.applications``, or the embedded one, for any number of channels.

    With ``weights=None`` they are drawn from a fixed seed; the caller's random state is unchanged.
    `params` go to the constructor, besides ``include_top=False``.
    """
    *size, n_channels = input_shape
    if network.constructor:
        _warn_of_scaling(network, weights)
        model = _keras_application(network, (*size, N_COLORS), weights, params)
    else:
        model = _tiny_network(weights)
    if n_channels == N_COLORS:
        return model
    takes_bgr = network.preprocessing == "caffe"
    with STANDARD.applied(), fixed_seed():  # initializers draw from Python's own generator
        return with_input_channels(model, n_channels, takes_bgr=takes_bgr, label=network.name)


def network_graph(
    network: Network,
    *,
    input_shape: tuple[int, ...] | None = None,
    params: dict[str, Any] | None = None,
) -> keras.Model:
    """Build the layers of a network, by default for its own size, without values of its weights."""
    if not network.constructor:
        return file_model(TINY_FILE)
    shape = input_shape or (network.input_size, network.input_size, N_COLORS)
    # In this thread, Keras would allocate the weights later, when the next model is built.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_graph_without_values, network, shape, params or {}).result()


def _graph_without_values(
    network: Network, input_shape: tuple[int, ...], params: dict[str, Any]
) -> keras.Model:
    import keras

    with keras.StatelessScope(initialize_variables=False):
        return named_model(network, input_shape=input_shape, weights=None, params=params)


def _warn_of_scaling(network: Network, weights: Weights) -> None:
    if weights in (None, PRETRAINED) or not network.scales_for_published_weights:
        return
    warn_caller(
        WeightsWarning(
            f"{network.constructor} with weights={name_of_weights(weights)!r}: only with "
            "weights='pretrained' does Keras scale the pixels once more, so the path of a "
            "published ImageNet file gives other embeddings. Put such a file into "
            "~/.keras/models and pass weights='pretrained'. A file of a network that was "
            "trained with weights=None needs no change"
        )
    )


def _keras_application(
    network: Network,
    input_shape: tuple[int, ...],
    weights: Weights,
    params: dict[str, Any],
) -> keras.Model:
    import keras

    constructor = getattr(keras.applications, network.constructor)
    arguments = {"include_top": False, "input_shape": input_shape, **params}
    try:
        with contextlib.ExitStack() as stack:
            if weights == PRETRAINED:
                stack.enter_context(one_process_at_a_time(network, arguments))
                stack.enter_context(checked_download(network))
            given = stack.enter_context(_weights_argument(weights))
            stack.enter_context(STANDARD.applied())
            stack.enter_context(fixed_seed())
            # Keras reports downloads on standard output, which is for results.
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            return constructor(weights=given, **arguments)
    except (SavedFileError, WeightsError):
        raise
    except Exception as exc:
        if weights is not None and not isinstance(exc, TypeError):
            raise _weights_error(network, weights, exc) from exc
        raise BackboneError(
            f"{network.constructor} cannot be built with {arguments}: {exc}"
        ) from exc


@contextlib.contextmanager
def _weights_argument(weights: Weights) -> Iterator[str | None]:
    """Yield the argument `weights` of a constructor of ``keras.applications``."""
    if isinstance(weights, StoredWeights):
        with weights.as_file() as file:
            yield str(file)
    elif weights == PRETRAINED:
        yield "imagenet"
    else:
        yield None if weights is None else os.fspath(weights)


def _weights_error(network: Network, weights: Any, exc: Exception) -> Exception:
    if weights == PRETRAINED:
        return BackboneError(
            f"{network.constructor} cannot be built with its pretrained weights: {exc}"
        )
    finding = (
        f"the weights in {name_of_weights(weights)!r} do not fit {network.constructor} with these "
        f"parameters: {exc}"
    )
    if isinstance(weights, StoredWeights):
        return SavedFileError(finding)
    return WeightsError(
        f"{finding}. Check that the file is of this network without its classifier, and "
        "that backbone_params (such as alpha) are those that it was trained with."
    )


def _tiny_network(weights: Weights) -> keras.Model:
    import keras

    if weights not in (None, PRETRAINED):
        raise WeightsError(
            "backbone='tiny' brings its own weights, or random ones (weights=None): got weights="
            f"{name_of_weights(weights)!r}. To use other weights, pass the path of a .keras file "
            "as the backbone."
        )
    model = file_model(TINY_FILE)
    if weights is None:
        with STANDARD.applied(), fixed_seed():
            return keras.Model.from_config(_without_seeds(model.get_config()))
    return model


def _without_seeds(config: dict[str, Any]) -> dict[str, Any]:
    """Clear the seeds of a configuration, so that its weights follow the seed in force."""
    if isinstance(config, dict):
        return {
            key: None if key == "seed" else _without_seeds(value) for key, value in config.items()
        }
    return [_without_seeds(value) for value in config] if isinstance(config, list) else config


def file_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a ``.keras`` file; raise WeightsError if it is missing, damaged, or holds code."""
    import keras

    try:
        open_given(path).close()
        # Keras draws random weights before it reads those of the file.
        with STANDARD.applied(), fixed_seed(), _with_suffix_of_content(path) as named:
            return keras.saving.load_model(named, compile=False)
    except Exception as exc:
        cure = (
            "If it holds custom layers, load it yourself with keras.saving.load_model and pass the "
            "model."
        )
        if "model config" in str(exc):
            cure = "If it holds weights alone, pass it as weights=, with a name as the backbone."
        raise WeightsError(
            f"{os.fspath(path)!r} cannot be loaded as a Keras model: {exc} {cure}"
        ) from exc


@contextlib.contextmanager
def _with_suffix_of_content(path: str | os.PathLike[str]) -> Iterator[str | os.PathLike[str]]:
    """Yield a path of a file whose suffix is that of its content, by which Keras decides."""
    if zipfile.is_zipfile(path):
        expected: tuple[str, ...] = (KERAS_SUFFIX,)
    else:
        with open_given(path) as file:
            expected = (".h5", ".hdf5") if file.read(8) == _HDF5_SIGNATURE else ("",)
    if os.fspath(path).endswith(expected):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        named = Path(folder, f"model{expected[0]}")
        try:
            named.symlink_to(os.path.abspath(path))
        except OSError:  # Windows allows links to few users
            shutil.copy(path, named)
        yield named


def is_registered_last(code: Any) -> bool:
    """Return True unless Keras would now find other code for a class or function in a file.

    Code that neither a registry nor its module holds, such as that of a scope that has ended,
    counts as the last.
    """
    import keras

    found = keras.saving.get_registered_object(keras.saving.get_registered_name(code))
    if found is None:
        found = object_named(code.__module__, code.__qualname__)
    return found is None or found is code


def called_model(
    function: Callable[[tuple[int, ...]], keras.Model], input_shape: tuple[int, ...]
) -> keras.Model:
    """Call a function for its model; raise BackboneError if it returns something else."""
    import keras

    model = function(input_shape)
    if not isinstance(model, keras.Model):
        raise BackboneError(
            f"backbone={function!r} returned a {type(model).__name__} for "
            f"input_shape={input_shape}: expected a keras.Model"
        )
    return model


def is_backbone_file(backbone: Any) -> bool:
    """Return True if a backbone is the path of a file rather than a name."""
    return isinstance(backbone, os.PathLike) or (
        isinstance(backbone, str) and (backbone.endswith(KERAS_SUFFIX) or Path(backbone).is_file())
    )


_seeding = threading.RLock()


@contextlib.contextmanager
def fixed_seed() -> Iterator[None]:
    """Make Keras' initializers draw the same weights each time inside the context.

    Initializers without a seed draw one from Python's own generator, which all threads share. So
    only one thread at a time is inside this context, and it must not wait for another thread.
    """
    with _seeding:
        state = random.getstate()
        random.seed(_RANDOM_WEIGHTS_SEED)
        try:
            yield
        finally:
            random.setstate(state)


class _UndisturbedSeed:
    """Restores Python's own generator, even where several threads draw from it."""

    def __init__(self) -> None:
        self._n_threads, self._state = 0, random.getstate()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with _seeding:
            if not self._n_threads:
                self._state = random.getstate()
            self._n_threads += 1
        try:
            yield
        finally:
            with _seeding:  # not while another thread draws weights
                self._n_threads -= 1
                if not self._n_threads:
                    random.setstate(self._state)


undisturbed_seed = _UndisturbedSeed()
