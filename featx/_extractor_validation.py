"""Checks of the parameters, samples and ``out=`` array of a :class:`FeatureExtractor`.

All faults of parameters are found at once, before any work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from featx._validation import ParameterFaults
from featx.backbones.augment import check_augment, is_layer
from featx.backbones.build import channels_first_message
from featx.backbones.keras_models import is_backbone_file
from featx.backbones.layers import POOLINGS, LayerSpec
from featx.backbones.presets import MISSING, PREFIX, Preset, is_hub_installed, is_preset
from featx.backbones.registry import (
    PREPROCESSINGS,
    PRETRAINED,
    Network,
    find_network,
    normalized_weights,
)
from featx.backbones.resolve import EmbeddingSource
from featx.backbones.stored_weights import StoredWeights
from featx.backbones.untrusted_model import StoredModel
from featx.cache.cache import EmbeddingCache, resolve_cache
from featx.digests.packages import installed_version
from featx.engines.keras_engine import KerasEngine
from featx.engines.registry import ENGINES, missing_packages
from featx.exceptions import BackboneError, InputError, ParameterError
from featx.inputs.reader import TAKES, Reader
from featx.inputs.resize import RESIZES
from featx.inputs.samples import Samples

# Parameters of a network's constructor that parameters of the extractor decide.
_DECIDED_BY = {
    "input_shape": "input_size",
    "input_tensor": "layer",
    "weights": "weights",
    "pooling": "pooling",
    "include_top": "layer",
}


def check_extractor_params(owner: str, params: dict[str, Any]) -> None:
    """Raise ParameterError, which lists all faults, if parameters of an extractor are faulty.

    `owner` names the estimator in the message; `params` may hold other entries, which are ignored.
    """
    faults = ParameterFaults(owner)
    _check_backbone(params, faults)
    faults.check_option("pooling", params["pooling"], ("auto", *POOLINGS))
    n_prefix = params["n_prefix_tokens"]
    if n_prefix is not None and not _is_nonnegative_int(n_prefix):
        faults.add("n_prefix_tokens", n_prefix, "a number of tokens, 0 or more, or None.")
    preprocessing = params["preprocessing"]
    if preprocessing is None or isinstance(preprocessing, str):
        faults.check_option("preprocessing", preprocessing, ("auto", *PREPROCESSINGS))
    elif not is_layer(preprocessing):
        options = ", ".join(map(repr, ("auto", *PREPROCESSINGS)))
        expected = f"one of {options}, or a Keras layer, which keras.Sequential makes of several."
        faults.add("preprocessing", preprocessing, expected)
    _check_read(params["read"], faults)
    if params["layer"] is not None and not isinstance(params["layer"], str):
        faults.add("layer", params["layer"], "the name of a layer, or None for the output.")
    if not _is_image_size(params["input_size"]):
        expected = "a positive number of pixels, or a pair (height, width)."
        faults.add("input_size", params["input_size"], expected)
    faults.check_option("resize", params["resize"], tuple(RESIZES))
    cache = params["cache"]
    if not (cache is None or isinstance(cache, EmbeddingCache | str | os.PathLike)):
        faults.add("cache", cache, "'auto', None, a folder or an EmbeddingCache.")
    else:
        faults.check_part(lambda: resolve_cache(cache))
    faults.check_positive_int("batch_size", params["batch_size"], also=("auto",))
    _check_engine(params["engine"], params["precision"], faults)
    _check_also_cache(params["also_cache"], faults)
    _check_views(params["views"], params["augment"], faults)
    faults.check_option("on_error", params["on_error"], ("raise", "nan"))
    check_verbose(params["verbose"], faults)
    n_jobs = params["n_jobs"]
    if n_jobs is not None and (not isinstance(n_jobs, Integral) or not n_jobs):
        faults.add("n_jobs", n_jobs, "a number of threads other than 0, or None.")
    faults.raise_any()


def _check_read(read: Any, faults: ParameterFaults) -> None:
    if read is None:
        return
    if isinstance(read, type) or not callable(read):
        faults.add("read", read, "None, or a function from the bytes of a file to an array.")
        return
    reader = Reader(read)
    if reader.takes not in TAKES:
        faults.add(
            "read", read, f"an attribute takes that is one of {', '.join(map(repr, TAKES))}."
        )
    missing = [name for name in reader.packages if installed_version(name) is None]
    if missing:
        faults.add("read", read, f"the packages that it names, but {missing} are not installed.")


def check_verbose(verbose: Any, faults: ParameterFaults) -> None:
    """Add a fault unless `verbose` is an integer or a function."""
    if not (isinstance(verbose, Integral) or callable(verbose)):
        faults.add("verbose", verbose, "a number, or a function of the number done and the total.")


def as_layer_specs(also_cache: Sequence[Any], pooling: str | None) -> list[LayerSpec]:
    """Turn each item of `also_cache` into a layer and a pooling.

    Examples
    --------
    >>> as_layer_specs([(None, "max")], "avg")
    [LayerSpec(layer=None, pooling='max')]
    """
    return [
        LayerSpec(given, pooling) if given is None or isinstance(given, str) else LayerSpec(*given)
        for given in also_cache
    ]


def _check_also_cache(layers: Any, faults: ParameterFaults) -> None:
    expected = (
        "a list of layers, or of (layer, pooling) pairs, where a layer is a name or None for the "
        f"output, and a pooling one of {', '.join(map(repr, POOLINGS))}."
    )
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        faults.add("also_cache", layers, expected)
        return
    for given in layers:
        is_pair = isinstance(given, (tuple, list)) and len(given) == 2
        layer, pooling = given if is_pair else (given, None)
        are_names = all(name is None or isinstance(name, str) for name in (layer, pooling))
        if not are_names or pooling not in ("auto", *POOLINGS):
            faults.add("also_cache", given, expected)


def _check_views(views: Any, augment: Any, faults: ParameterFaults) -> None:
    n_before = len(faults.faults)
    faults.check_positive_int("views", views)
    check_augment(augment, faults)
    if len(faults.faults) == n_before and augment is None and views != 1:
        faults.add("views", views, "1 with augment=None: pass augment='standard'.")


def _check_engine(engine: Any, precision: Any, faults: ParameterFaults) -> None:
    precisions = KerasEngine.precisions
    faults.check_option("engine", engine, ("auto", *ENGINES))
    faults.check_option("precision", precision, precisions)
    if not isinstance(engine, str) or engine not in ENGINES:
        return
    if precision in precisions and precision not in ENGINES[engine].precisions:
        known = ", ".join(map(repr, ENGINES[engine].precisions))
        faults.add("precision", precision, f"{known}, with engine={engine!r}.")
    missing = missing_packages(engine)
    if missing:
        cure = f"{' and '.join(missing)} to be installed: pip install 'featx[{engine}]'."
        faults.add("engine", engine, cure)


def _check_backbone(params: dict[str, Any], faults: ParameterFaults) -> None:
    backbone = params["backbone"]
    network = None
    if isinstance(backbone, StoredModel):
        pass
    elif isinstance(backbone, type) or not (
        isinstance(backbone, (str, os.PathLike)) or callable(backbone)
    ):
        faults.add("backbone", backbone, "a name, a .keras file, a model or a callable.")
    elif is_backbone_file(backbone):
        if not Path(backbone).expanduser().is_file():
            faults.add("backbone", os.fspath(backbone), "an existing .keras file.")
    elif is_preset(backbone):
        _check_preset(Preset.of(backbone), params, faults)
    elif isinstance(backbone, str):
        try:
            network = find_network(backbone)
        except ParameterError as exc:
            faults.faults += exc.faults
    has_name = isinstance(backbone, str) and not is_backbone_file(backbone)
    is_adaptable = has_name and not is_preset(backbone)
    _check_in_channels(params["in_channels"], faults, is_adaptable=is_adaptable)
    _check_constructor_params(params["backbone_params"], network, faults, has_name=has_name)
    _check_weights(params["weights"], faults, has_name=has_name)
    if network and network.is_fixed_size:
        only, size = network.input_size, params["input_size"]
        if size is not None and _is_image_size(size) and _as_height_and_width(size) != (only, only):
            faults.add("input_size", size, f"{only}, the only size of {backbone!r}.")


def _check_preset(preset: Preset, params: dict[str, Any], faults: ParameterFaults) -> None:
    backbone = PREFIX + preset.name
    if not is_hub_installed():
        faults.add("backbone", backbone, MISSING)
    elif not preset.name:
        faults.add("backbone", backbone, "the name or the folder of a preset after the colon.")
    elif preset.is_path and not preset.folder:
        faults.add("backbone", backbone, "an existing folder, or a name without a slash.")
    given = params["backbone_params"]
    if isinstance(given, dict) and "image_shape" in given and params["input_size"] is not None:
        expected = "no 'image_shape' beside input_size, which decides it, too."
        faults.add("backbone_params", given, expected)


def _check_in_channels(n_channels: Any, faults: ParameterFaults, *, is_adaptable: bool) -> None:
    if n_channels is None:
        return
    if not is_adaptable:
        expected = "None, since only the networks of list_backbones() can be adapted."
        faults.add("in_channels", n_channels, expected)
    else:
        faults.check_positive_int("in_channels", n_channels, also=(None,))


def _check_weights(weights: Any, faults: ParameterFaults, *, has_name: bool) -> None:
    if weights is None or isinstance(weights, StoredWeights):
        return
    if not isinstance(weights, (str, os.PathLike)):
        faults.add("weights", weights, "'pretrained', None, or the path of a file.")
    elif normalized_weights(weights) == PRETRAINED:
        return
    elif not has_name:
        expected = "'pretrained', since a backbone without a name brings its own."
        faults.add("weights", os.fspath(weights), expected)
    elif not Path(weights).expanduser().is_file():
        faults.add("weights", os.fspath(weights), "'pretrained', None, or an existing file.")


def _check_constructor_params(
    given: Any, network: Network | None, faults: ParameterFaults, *, has_name: bool
) -> None:
    if given is None:
        return
    if not isinstance(given, dict):
        faults.add("backbone_params", given, "a dict for the network's constructor, or None.")
    elif given and (not has_name or (network is not None and not network.constructor)):
        faults.add("backbone_params", given, "None for a backbone that has no constructor here.")
    if network and network.constructor.startswith("EfficientNetV2") and "name" in (given or {}):
        expected = "no 'name', by which this network chooses how it scales pixels."
        faults.add("backbone_params", given, expected)
    for name in sorted(_DECIDED_BY.keys() & (given if isinstance(given, dict) else {})):
        expected = f"no {name!r}, which the parameter {_DECIDED_BY[name]!r} decides."
        faults.add("backbone_params", given, expected)


def _is_nonnegative_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _as_height_and_width(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(height), int(width)


def _is_image_size(size: Any) -> bool:
    if size is None:
        return True
    sides = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size,)
    return all(
        isinstance(side, Integral) and not isinstance(side, bool) and int(side) > 0
        for side in sides
    )


def check_verifiable(source: EmbeddingSource, *, label: str) -> None:
    """Check that loading a saved extractor can verify that it computes the same embeddings."""
    if not source.is_cacheable:
        raise BackboneError(
            f"{label} cannot be saved: what it computes cannot be identified (a warning gave the "
            "reason), so its embeddings could not be verified after loading. Code is identified by "
            "its functions, classes, plain data and arrays: keep other objects out"
        )
    if settings := source.space.description.get("keras"):
        raise BackboneError(
            f"{label} cannot be saved: it runs under settings of Keras that are not the defaults "
            f"({settings}), and a saved file does not keep them. Restore the defaults with "
            "keras.config, and call fit again"
        )


def check_channels_first(samples: Samples, source: EmbeddingSource, *, label: str) -> None:
    """Raise InputError if samples of another shape would be resized along the wrong axes."""
    shape = source.input_shape
    if source.space.description.get("channels_first") and samples.array_shape != shape:
        raise InputError(channels_first_message(label, shape, samples.array_shape))


def check_out_array(out: Any, shape: tuple[int, ...]) -> None:
    """Raise ParameterError unless `out` is a writable, C-contiguous float32 array of a shape."""
    expected = f"a writable, C-contiguous float32 array of shape {shape}"
    if not isinstance(out, np.ndarray):
        raise ParameterError(f"out is a {type(out).__name__}: expected {expected}")
    if out.shape != shape or out.dtype != np.float32:
        raise ParameterError(
            f"out has shape {out.shape} and dtype {out.dtype}: expected {expected}"
        )
    if not (out.flags.writeable and out.flags.c_contiguous):
        raise ParameterError(f"out cannot be written row by row: expected {expected}")
