"""``check_manifest``: the JSON of a saved file, checked field by field before anything is built.

It may hold only what :func:`featx.save` writes. In particular, it names no file, device or URL: the
backbone is a name of :func:`featx.list_backbones` or a member of the saved file, and its weights
are the published ones or in a member. :func:`featx.save` checks its own manifests in the same
way, so that all files that it writes can be loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from featx._json import RepeatedNameError, dict_without_repeats
from featx._validation import ParameterFaults
from featx.backbones.augment import AUGMENTATIONS
from featx.backbones.layers import POOLINGS
from featx.backbones.registry import PREPROCESSINGS, PRETRAINED, find_network, normalized_weights
from featx.backbones.stored_weights import has_hdf5_name
from featx.digests.space import MAX_SIZE, is_shape
from featx.engines.keras_engine import KerasEngine
from featx.engines.registry import ENGINES
from featx.exceptions import ParameterError
from featx.inputs.resize import RESIZES
from featx.saving.readers import is_reader_entry

FORMAT = 2
MANIFEST, HEAD, BACKBONE, WEIGHTS, LAYER, AUGMENT = (
    "featx.json",
    "head.skops",
    "backbone.keras",
    "weights.h5",
    "preprocessing.keras",
    "augment.keras",
)
# Attributes that `fit` sets on the extractor, and on an estimator around it.
FITTED = ("feature_shape_", "array_shape_", "float_range_", "n_features_in_", "feature_names_in_")
FITTED_AROUND = ("n_features_in_", "feature_names_in_")
# Metadata that each estimator can request for its methods, with ``set_fit_request`` and others.
_FOR_REGRESSORS = {
    "fit": ("sample_weight", "groups"),
    "partial_fit": ("sample_weight",),
    "score": ("sample_weight",),
}
REQUESTS: dict[str, dict[str, tuple[str, ...]]] = {
    "FeatureExtractor": {"transform": ("out",)},
    "TransferClassifier": {**_FOR_REGRESSORS, "partial_fit": ("classes", "sample_weight")},
    "TransferRegressor": _FOR_REGRESSORS,
}
_OUTPUTS = ("default", "pandas", "polars")
_MAX_TEXT = 2**16
_MAX_SIDE = 2**16
_MAX_CHANNELS = 2**12
_MAX_COLUMNS = 2**24
_MAX_BATCH = 2**16
_MAX_VIEWS = 2**12
_MAX_TOKENS = 2**20
_MAX_THREADS = 2**12
_MAX_DEPTH = 32
# Parameters of the constructors of named networks that refer to nothing outside the network.
_CONSTRUCTOR_PARAMS = {
    "alpha",
    "classes",
    "classifier_activation",
    "depth_multiplier",
    "dropout",
    "dropout_rate",
    "include_preprocessing",
    "minimalistic",
    "name",
}


def parse_manifest(data: bytes) -> Any:
    """Parse an unchecked manifest, which has to be plain JSON of limited depth."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_constant=_refuse_in_manifest,
            object_pairs_hook=dict_without_repeats,
        )
        _check_manifest_depth(value)
    except RepeatedNameError as exc:
        raise ParameterError(f"{MANIFEST} cannot be read: it holds {exc} twice") from exc
    except (ValueError, RecursionError) as exc:
        raise ParameterError(f"{MANIFEST} cannot be read: {exc}") from exc
    return value


def _refuse_in_manifest(name: str) -> Any:
    raise ValueError(f"it holds {name}")


def _check_manifest_depth(value: Any) -> None:
    """Check how deeply lists and dicts are nested, without recursion."""
    depth, level = 0, [value]
    while level := [part for part in level if isinstance(part, (dict, list))]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        level = [
            inner for part in level for inner in (part.values() if isinstance(part, dict) else part)
        ]


def check_manifest(manifest: Any, classes: Collection[str]) -> None:
    """Raise ParameterError unless a manifest holds only what :func:`featx.save` writes.

    `classes` are the names of the estimators that can be saved, the extractor first. The message
    lists all faulty fields.
    """
    faults = ParameterFaults(MANIFEST)
    is_known = partial(_is_option, options=classes)
    top = {**_TOP, "class": _ManifestField(is_known, f"one of {', '.join(classes)}")}
    fields = _check_fields("", manifest, top, faults)
    has_head = fields.get("class") != next(iter(classes))
    known = {**_ESTIMATOR, "requests": _requests_of(fields.get("class", ""))} if has_head else {}
    estimator = _check_fields("estimator.", fields.get("estimator", {}), known, faults)
    params = _check_fields("params.", fields.get("params", {}), _PARAMS, faults)
    if params.get("views", 1) > 1 and params.get("augment") is None:
        faults.add("params.views", params["views"], "1 with augment=None.")
    space = _check_fields("space.", fields.get("space", {}), _SPACE, faults)
    identity = _check_fields(
        "space.identity.", space.get("identity", {}), _IDENTITY, faults, is_open=True
    )
    fitted = _check_fields("fitted.", fields.get("fitted", {}), _FITTED, faults)
    around = _check_fields("estimator.fitted.", estimator.get("fitted", {}), _COLUMNS, faults)
    if fitted.get("feature_shape_") != identity.get("feature_shape"):
        faults.add("fitted.feature_shape_", fitted.get("feature_shape_"), "that of space.identity.")
    for prefix, part in (("fitted", fitted), ("estimator.fitted", around)):
        names, n_columns = part.get("feature_names_in_"), part.get("n_features_in_")
        if names is not None and len(names) != n_columns:
            faults.add(f"{prefix}.feature_names_in_", names, f"names of {n_columns} columns.")
    faults.raise_any()


def check_members(manifest: dict[str, Any], members: Collection[str]) -> None:
    """Raise ParameterError unless a file has exactly the members that its manifest names."""
    backbone = manifest["backbone"]
    parts = (
        backbone,
        backbone.get("weights"),
        manifest["preprocessing"],
        manifest["params"]["augment"],
    )
    names = {part["file"] for part in parts if isinstance(part, dict) and "file" in part}
    names |= {MANIFEST} if manifest["class"] == "FeatureExtractor" else {MANIFEST, HEAD}
    if names != set(members):
        raise ParameterError(
            f"it has the members {', '.join(sorted(members))}, expected {', '.join(sorted(names))}"
        )


class _ManifestField(NamedTuple):
    """The rule for one field; messages describe the valid values as `expected`."""

    is_valid: Callable[[Any], bool]
    expected: str
    is_optional: bool = False


def _check_fields(
    prefix: str,
    given: Any,
    known: Mapping[str, _ManifestField],
    faults: ParameterFaults,
    *,
    is_open: bool = False,
) -> dict[str, Any]:
    """Collect the faults in the fields of one object, and return the valid fields."""
    if not isinstance(given, dict):
        faults.add(prefix.rstrip(".") or "it", given, "an object.")
        return {}
    for name in sorted(known.keys() - given.keys()):
        if not known[name].is_optional:
            faults.add_message(f"{prefix}{name} is missing")
    valid = {}
    for name, value in given.items():
        if name not in known:
            if not is_open:
                faults.add_message(f"{prefix}{name[:80]!r} is unknown")
        elif known[name].is_valid(value):
            valid[name] = value
        else:
            faults.add(f"{prefix}{name}", value, f"{known[name].expected}.")
    return valid


def _is_option(value: Any, options: Collection[Any]) -> bool:
    return (value is None or isinstance(value, str)) and value in options


def _is_manifest_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _is_int_between(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_backbone(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("file") == BACKBONE:
        return value.keys() <= {"file", "label"} and _is_manifest_text(value.get("label", ""))
    if not (value.keys() <= {"name", "weights"} and _is_manifest_text(value.get("name"))):
        return False
    try:
        network = find_network(value["name"])
    except ParameterError:
        return False
    return "weights" not in value or (bool(network.constructor) and _is_weights(value["weights"]))


def _is_weights(value: Any) -> bool:
    """Return True for the member that holds weights, and the name of the file they came from."""
    if not isinstance(value, dict) or value.keys() != {"file", "name"}:
        return False
    name = value["name"]
    return value["file"] == WEIGHTS and _is_manifest_text(name) and has_hdf5_name(name)


def _is_input_size(value: Any) -> bool:
    if value is None or _is_int_between(value, 1, _MAX_SIDE):
        return True
    return is_shape(value) and len(value) == 2 and max(value) <= _MAX_SIDE


def _is_float_range(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) == 2
        and all(type(bound) in (int, float) and math.isfinite(bound) for bound in value)
        and value[0] < value[1]
    )


def are_constructor_params(value: Any) -> bool:
    """Return True for parameters of a constructor that a saved file may hold."""
    return value is None or (
        isinstance(value, dict)
        and value.keys() <= _CONSTRUCTOR_PARAMS
        and all(isinstance(param, str | int | float | None) for param in value.values())
    )


def _are_requests(value: Any, known: Mapping[str, Collection[str]]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(names, dict)
        and names.keys() <= set(known.get(method, ()))
        and all(isinstance(asked, bool) or _is_alias(asked) for asked in names.values())
        for method, names in value.items()
    )


def _is_alias(value: Any) -> bool:
    return _is_manifest_text(value) and value.isidentifier()


def _requests_of(kind: str) -> _ManifestField:
    """Return the rule for the metadata requests of an estimator."""
    are_valid = partial(_are_requests, known=REQUESTS.get(kind, {}))
    return _ManifestField(are_valid, f"metadata requests of a {kind}", is_optional=True)


_OBJECT = _ManifestField(lambda value: isinstance(value, dict), "an object")
_OPTIONAL_OBJECT = _OBJECT._replace(is_optional=True)
_VERBOSE = _ManifestField(
    lambda value: isinstance(value, bool) or _is_int_between(value, -1000, 1000), "a small number"
)
_OUTPUT = _ManifestField(
    partial(_is_option, options=_OUTPUTS), f"one of {', '.join(_OUTPUTS)}", is_optional=True
)
_SHAPE = f"a shape of {MAX_SIZE} numbers at most"
_NAME = "a known name"
_COLUMNS = {
    "n_features_in_": _ManifestField(
        partial(_is_int_between, low=1, high=_MAX_COLUMNS), "a number of columns", is_optional=True
    ),
    "feature_names_in_": _ManifestField(
        lambda value: isinstance(value, list) and all(map(_is_manifest_text, value)),
        "names of columns",
        is_optional=True,
    ),
}
_TOP = {
    "format": _ManifestField(partial(_is_int_between, low=FORMAT, high=FORMAT), str(FORMAT)),
    "featx": _ManifestField(_is_manifest_text, "a version"),
    "backbone": _ManifestField(
        _is_backbone, f"a name of list_backbones(), maybe with weights, or the member {BACKBONE!r}"
    ),
    "preprocessing": _ManifestField(
        lambda value: _is_option(value, ("auto", *PREPROCESSINGS)) or value == {"file": LAYER},
        f"a known name, None or the member {LAYER!r}",
    ),
    "reader": _ManifestField(is_reader_entry, "a reader", is_optional=True),
    "params": _OBJECT,
    "fitted": _OBJECT,
    "space": _OBJECT,
    "output": _OUTPUT,
    "requests": _requests_of("FeatureExtractor"),
    "report": _OPTIONAL_OBJECT,
    "estimator": _OPTIONAL_OBJECT,
}
_PARAMS = {
    "weights": _ManifestField(
        lambda value: normalized_weights(value) == PRETRAINED, repr(PRETRAINED)
    ),
    "backbone_params": _ManifestField(are_constructor_params, "None, or plain parameters by name"),
    "layer": _ManifestField(
        lambda value: value is None or _is_manifest_text(value), "a name or None"
    ),
    "pooling": _ManifestField(partial(_is_option, options=("auto", *POOLINGS)), _NAME),
    "n_prefix_tokens": _ManifestField(
        lambda value: value is None or _is_int_between(value, 0, _MAX_TOKENS),
        f"None, or {_MAX_TOKENS} at most",
        is_optional=True,
    ),
    "input_size": _ManifestField(_is_input_size, f"None, or sides of {_MAX_SIDE} at most"),
    "in_channels": _ManifestField(
        lambda value: value is None or _is_int_between(value, 1, _MAX_CHANNELS),
        f"None, or {_MAX_CHANNELS} at most",
        is_optional=True,
    ),
    "resize": _ManifestField(partial(_is_option, options=tuple(RESIZES)), _NAME, is_optional=True),
    "batch_size": _ManifestField(
        lambda value: _is_option(value, ("auto",)) or _is_int_between(value, 1, _MAX_BATCH),
        f"'auto', or {_MAX_BATCH} at most",
    ),
    "precision": _ManifestField(partial(_is_option, options=KerasEngine.precisions), _NAME),
    "engine": _ManifestField(partial(_is_option, options=("auto", *ENGINES)), _NAME),
    "views": _ManifestField(partial(_is_int_between, low=1, high=_MAX_VIEWS), f"1 to {_MAX_VIEWS}"),
    "augment": _ManifestField(
        lambda value: _is_option(value, (None, *AUGMENTATIONS)) or value == {"file": AUGMENT},
        f"a known name, None or the member {AUGMENT!r}",
    ),
    "on_error": _ManifestField(partial(_is_option, options=("raise", "nan")), "'raise' or 'nan'"),
    "n_jobs": _ManifestField(
        lambda value: (
            value is None or (value != 0 and _is_int_between(value, -_MAX_THREADS, _MAX_THREADS))
        ),
        f"None, or a number up to {_MAX_THREADS} other than 0",
    ),
    "verbose": _VERBOSE,
}
_SPACE = {"label": _ManifestField(_is_manifest_text, "text"), "identity": _OBJECT}
_IDENTITY = {
    "dtype": _ManifestField(partial(_is_option, options=("float32", "float16")), _NAME),
    "input_shape": _ManifestField(is_shape, _SHAPE),
    "feature_shape": _ManifestField(is_shape, _SHAPE),
}
_FITTED = {
    "feature_shape_": _ManifestField(is_shape, _SHAPE),
    "array_shape_": _ManifestField(lambda value: value in (None, []) or is_shape(value), _SHAPE),
    "float_range_": _ManifestField(
        _is_float_range, "None, or two numbers in their order", is_optional=True
    ),
    **_COLUMNS,
}
_ESTIMATOR = {
    "random_state": _ManifestField(
        lambda value: value is None or _is_int_between(value, 0, 2**32 - 1), "None, or 32 bits"
    ),
    "verbose": _VERBOSE._replace(is_optional=True),
    "output": _OUTPUT,
    "report": _OPTIONAL_OBJECT,
    "fitted": _OPTIONAL_OBJECT,
}
