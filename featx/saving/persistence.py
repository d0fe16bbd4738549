"""``save`` and ``load``: a fitted estimator as one file without pickle; TRUSTED_TYPES.

The file is a zip archive: ``featx.json`` (class, parameters, fitted attributes, space, digest of
the reader; see ``manifest.py``) and ``head.skops`` (the head; see ``heads.py``). A named network
with published weights needs no more. With weights of a file, ``weights.h5`` is that file (see
``backbones/stored_weights.py``), so that saving does not build the network; any other backbone is
``backbone.keras`` (see ``backbones/untrusted_model.py``). On loading, the digest of the space is
checked, so that a head never gets other embeddings than those it was trained on.

The origin of the file is not trusted: each part is checked before it is built. A file that is
damaged, or holds anything that :func:`save` does not write, raises a :class:`SavedFileError`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import config_context
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from featx._archives import ArchiveError, read_members
from featx._extractor_validation import check_verifiable
from featx._files import check_can_write, open_given, replaced_atomically
from featx._html import Record, shown_items
from featx._json import as_json_values
from featx._transfer import TransferEstimator
from featx._validation import as_path
from featx._version import __version__
from featx.backbones.augment import augmentation_layers
from featx.backbones.registry import PRETRAINED
from featx.backbones.resolve import EmbeddingSource, describe_change, describe_release
from featx.backbones.stored_weights import StoredWeights
from featx.backbones.untrusted_model import StoredModel, check_activations
from featx.cache.facts import file_fact
from featx.digests.space import Space
from featx.estimators import TransferClassifier, TransferRegressor
from featx.exceptions import (
    BackboneError,
    EngineError,
    ParameterError,
    SavedFileError,
    WeightsError,
)
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.saving.heads import HEAD_TYPES, head_bytes, load_head
from featx.saving.manifest import (
    AUGMENT,
    BACKBONE,
    FITTED,
    FITTED_AROUND,
    FORMAT,
    HEAD,
    LAYER,
    MANIFEST,
    REQUESTS,
    WEIGHTS,
    are_constructor_params,
    check_manifest,
    check_members,
    parse_manifest,
)
from featx.saving.readers import entry_of_reader, loaded_reader

if TYPE_CHECKING:
    import keras

_CLASSES: dict[str, Any] = {
    kind.__name__: kind for kind in (FeatureExtractor, TransferClassifier, TransferRegressor)
}
#: Types of featx that skops has to trust, to read a fitted estimator or head that skops itself or
#: MLflow wrote: ``skops.io.load(path, trusted=featx.TRUSTED_TYPES)``. It is for files of your own:
#: skops checks the types in a file, but :func:`load` its content too. Forests also need
#: ``"sklearn.tree._tree.Tree"``, which is not safe in a file of a stranger.
TRUSTED_TYPES = sorted(
    HEAD_TYPES
    + [
        f"{kind.__module__}.{kind.__name__}"
        for kind in (*_CLASSES.values(), FineTune, Record, Space)
    ]
)
_MAX_BYTES = {
    MANIFEST: 2**24,
    HEAD: 2**35,
    BACKBONE: 2**34,
    WEIGHTS: 2**34,
    LAYER: 2**30,
    AUGMENT: 2**30,
}
# Parameters that are saved in other members, or that depend on the machine, as the cache does.
_NOT_PLAIN = ("backbone", "preprocessing", "read", "cache", "also_cache")


def save(
    estimator: FeatureExtractor | TransferClassifier | TransferRegressor,
    path: str | os.PathLike[str],
    *,
    trusted: Sequence[str] = (),
) -> None:
    """Save a fitted estimator as one file.

    The file holds data only, no code, so that :func:`load` can check it before it builds anything.

    Parameters
    ----------
    estimator : FeatureExtractor, TransferClassifier or TransferRegressor
        Fitted estimator. After fine-tuning, the tuned backbone and its head are saved; the
        parameters of the training are not.
    path : str or Path
        Path of the file. An existing regular file is replaced once the new one is complete; its
        permissions are kept.
    trusted : sequence of str, default=()
        Types inside the head that you trust, although neither skops nor featx knows them to be
        safe. Named heads need none.

    Raises
    ------
    UntrustedTypesError
        The head holds other types; the message names them.
    NotFittedError
        The estimator was not fitted.
    ParameterError
        `path` is of another type, a folder, a link or a device, or its folder is missing; or a
        parameter, the head or a layer cannot be saved.
    BackboneError
        The backbone cannot be identified or loaded again: it has a ``Lambda``, code that cannot be
        hashed, or a custom layer that is not registered with
        ``keras.saving.register_keras_serializable`` or whose ``get_config`` is incomplete.
    OSError
        The file cannot be written; an existing file is unharmed.

    See Also
    --------
    load : Load the estimator.
    TransferClassifier.export : Write a model for a runtime without featx.
    model_card : Describe the estimator in a README.md.

    Notes
    -----
    The file keeps the parameters, the attributes that `fit` set, the report, the output format of
    ``set_output``, digests of up to 1,024 training samples, by which ``featx evaluate`` recognizes
    them, and metadata requests except those of the head. It does not keep `cache`,
    `also_cache`, `fine_tune`, a function passed as `verbose`, a generator passed as `random_state`,
    or the reference to activations that fine-tuning left in the cache.

    Examples
    --------
    >>> import tempfile, numpy as np, featx
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    >>> classifier = featx.TransferClassifier("tiny").fit(images, [0, 1, 0, 1])
    >>> path = f"{tempfile.mkdtemp()}/model.featx"
    >>> featx.save(classifier, path)
    >>> bool((featx.load(path).predict(images) == classifier.predict(images)).all())
    True
    """
    kind = type(estimator).__name__
    if _CLASSES.get(kind) is not type(estimator):
        raise ParameterError(
            f"estimator is a {kind}: expected a {', '.join(_CLASSES)}. Save other scikit-learn "
            "objects with skops.io.dump."
        )
    check_is_fitted(estimator)
    _check_trusted(trusted)
    path = as_path(path)
    if not path.absolute().parent.is_dir():
        raise ParameterError(f"{str(path)!r}: no such folder to write to")
    check_can_write(path)
    is_extractor = isinstance(estimator, FeatureExtractor)
    extractor = estimator if is_extractor else estimator.extractor_
    entries, manifest = _extractor_entries(extractor)
    manifest |= {
        **_settings_of_estimator(extractor),
        "format": FORMAT,
        "featx": __version__,
        "class": kind,
    }
    if not is_extractor:
        manifest["estimator"] = _estimator_entry(estimator)
        entries[HEAD] = head_bytes(estimator.head, estimator.head_, trusted)
    entries[MANIFEST] = json.dumps(manifest, indent=1, default=str).encode()
    _check_file_loads(entries, extractor, trusted)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with replaced_atomically(path) as beside:
        beside.write_bytes(buffer.getvalue())
    _remember_file_name(extractor, path)


def _check_trusted(trusted: Any) -> None:
    is_list = isinstance(trusted, list | tuple | set | frozenset)
    if not (is_list and all(isinstance(name, str) for name in trusted)):
        raise ParameterError(
            f"trusted={trusted!r}: expected a list of names of types, as in the message of an "
            "UntrustedTypesError"
        )


def _check_file_loads(
    entries: dict[str, bytes], extractor: FeatureExtractor, trusted: Sequence[str]
) -> None:
    """Check that the file to be written can be loaded, and gives the same embeddings."""
    manifest = parse_manifest(entries[MANIFEST])
    check_manifest(manifest, _CLASSES)
    try:
        loaded = _load_extractor(manifest, entries, extractor.cache, extractor.read)
        _check_space(loaded)
    except (WeightsError, EngineError):
        raise
    except Exception as exc:  # whatever Keras raises
        raise BackboneError(
            f"{extractor.label} cannot be saved, since loading it again fails: {exc}"
        ) from exc
    try:
        _load_estimator_around(loaded, manifest, entries, trusted)
    except SavedFileError as exc:
        raise ParameterError(
            f"the head cannot be saved, since loading it again fails: {exc}"
        ) from exc


def load(
    path: str | os.PathLike[str],
    *,
    trusted: Sequence[str] = (),
    read: Callable[..., Any] | None = None,
    cache: Any = "auto",
) -> Any:
    """Load an estimator that :func:`save` wrote.

    The file is checked before anything is built from it, so it may come from a stranger. Its
    backbone has to compute the same embeddings as when the estimator was fitted.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    trusted : sequence of str, default=()
        Types inside the head that you trust; see :func:`save`.
    read : callable, default=None
        Reader that the estimator was fitted with, if that is a function of your own. A file never
        holds code, but the digest of the reader, with which `read` is compared. Readers of
        :mod:`featx.readers` are found by name.
    cache : "auto", None, str, Path or EmbeddingCache, default="auto"
        Cache of the loaded extractor; a saved file does not name one.

    Returns
    -------
    FeatureExtractor, TransferClassifier or TransferRegressor
        Fitted estimator.

    Raises
    ------
    ParameterError
        `path` is of another type, `trusted` is no list of names, or `read` is passed without need.
    SavedFileError
        The file is not a saved estimator, is damaged, its backbone computes other embeddings than
        the head was trained on, or `read` is missing or other code.
    MissingExtraError
        The packages of a reader are not installed.
    UntrustedTypesError
        The head holds types that are not trusted; nothing of it was loaded.
    WeightsError
        The weights that the file names are not available.

    See Also
    --------
    save : Save a fitted estimator.

    Examples
    --------
    >>> import tempfile, numpy as np, featx
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    >>> path = f"{tempfile.mkdtemp()}/extractor.featx"
    >>> featx.save(featx.FeatureExtractor("tiny").fit(images), path)
    >>> featx.load(path).transform(images).shape
    (4, 400)
    """
    _check_trusted(trusted)
    as_path(path)
    entries = _read_entries(path)
    shown = repr(os.fspath(path))
    try:
        manifest = parse_manifest(entries[MANIFEST])
        check_manifest(manifest, _CLASSES)
        check_members(manifest, entries.keys())
    except (ParameterError, SavedFileError) as exc:
        raise SavedFileError(
            f"{shown} is not a saved featx estimator of this version: {exc}"
        ) from exc
    read = loaded_reader(manifest.get("reader"), read, path=shown)
    try:
        extractor = _load_extractor(manifest, entries, cache, read)
        loaded = _load_estimator_around(extractor, manifest, entries, trusted)
    except (ParameterError, SavedFileError) as exc:
        finding = str(exc).rstrip(".")
        raise SavedFileError(
            f"{shown} is not a saved featx estimator of this version: {finding}. Restore the file "
            "from a copy, or save the estimator again with this version of featx."
        ) from exc
    try:
        _check_space(extractor)
    except (WeightsError, EngineError):
        raise
    except Exception as exc:  # whatever Keras raises of models that do not fit together
        raise SavedFileError(f"{shown} cannot be used: {exc}") from exc
    _remember_file_name(extractor, Path(path))
    return loaded


def _remember_file_name(extractor: FeatureExtractor, path: Path) -> None:
    """Record in the cache the file of a backbone that has no name, such as a fine-tuned one."""
    cache = extractor.resolved_cache()
    if cache is None or extractor.has_named_weights():
        return
    fact = file_fact(extractor.current_source().space.digest)
    with contextlib.suppress(OSError):  # a cache that cannot be written still has its rows
        if cache.facts.recall(fact) != path.name:
            cache.facts.remember(fact, path.name)


def _load_estimator_around(
    extractor: FeatureExtractor,
    manifest: dict[str, Any],
    entries: dict[str, bytes],
    trusted: Sequence[str],
) -> Any:
    """Build the estimator around an extractor, if the file holds one."""
    kind = _CLASSES[manifest["class"]]
    if kind is FeatureExtractor:
        return extractor
    heads, n_features = kind._heads, extractor.space_.n_features
    parts = load_head(entries[HEAD], trusted, n_features=n_features, heads=heads)
    unfitted = FeatureExtractor(**extractor.get_params(deep=False))
    _restore_settings(unfitted, manifest)
    stored = manifest["estimator"]
    params = {"random_state": stored["random_state"], "verbose": stored.get("verbose", 0)}
    estimator = kind(unfitted, parts["head"], **params)
    estimator.extractor_, estimator.head_ = extractor, parts["head_"]
    _set_fitted_attributes(estimator, stored.get("fitted", {}))
    _restore_settings(estimator, stored)
    if "report" in stored:
        estimator.report_ = Bunch(**stored["report"])
    return estimator


def _extractor_entries(extractor: FeatureExtractor) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files that hold an extractor's models, and its part of the manifest."""
    entries, params = _model_entries(extractor, _checked_source(extractor))
    plain = {name: value for name, value in params.items() if name not in _NOT_PLAIN}
    manifest = {
        "backbone": params["backbone"],
        "preprocessing": params["preprocessing"],
        "params": _plain_params(plain),
        "fitted": _fitted_attributes(extractor, FITTED),
        "space": extractor.space_.to_json(),
    }
    if extractor.reader is not None:
        manifest["reader"] = entry_of_reader(extractor.reader)
    if hasattr(extractor, "report_"):
        # The digests of its samples are in the report of the estimator, which was trained on them.
        manifest["report"] = as_json_values(shown_items(extractor.report_))
    return entries, manifest


def _checked_source(extractor: FeatureExtractor) -> EmbeddingSource:
    """Return the source of the embeddings; raise if it cannot be saved or changed after `fit`."""
    source = extractor.current_source()
    check_verifiable(source, label=extractor.label)
    if not source.space.is_equal_but_for_storage(extractor.space_):
        raise BackboneError(describe_change(extractor.label, source.space, extractor.space_))
    return source


def _model_entries(
    extractor: FeatureExtractor, source: EmbeddingSource
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of an extractor's models, and its parameters that name these files."""
    params = extractor.get_params(deep=False)
    entries = {}
    if extractor.has_named_weights():
        params["backbone"] = {"name": str(params["backbone"])}
    elif weights := _weights_to_store(extractor):
        entries[WEIGHTS] = weights.data
        member = {"file": WEIGHTS, "name": weights.name}
        params["backbone"] = {"name": str(params["backbone"]), "weights": member}
        params["weights"] = PRETRAINED  # those of the member replace them
    else:
        built = source.load_backbone()
        entries[BACKBONE] = _keras_file_bytes(built.saveable_model, label=extractor.label)
        # A layer that the file ends with still names the features.
        ends_with_layer = params["layer"] if built.saved_layer is None else None
        label = "_".join(filter(None, (built.spec.label, ends_with_layer)))
        params |= {"backbone": {"file": BACKBONE, "label": label}}
        params |= {"preprocessing": built.preprocessing, "layer": built.saved_layer}
        # The model contains them.
        params |= {"weights": PRETRAINED, "backbone_params": None, "in_channels": None}
    preprocessing, augment = params["preprocessing"], params["augment"]
    if preprocessing is not None and not isinstance(preprocessing, str):
        entries[LAYER] = _layers_bytes(extractor, "preprocessing", [preprocessing])
        params["preprocessing"] = {"file": LAYER}
    if augment is not None and not isinstance(augment, str):
        entries[AUGMENT] = _layers_bytes(extractor, "augment", augmentation_layers(augment))
        params["augment"] = {"file": AUGMENT}
    return entries, params


def _weights_to_store(extractor: FeatureExtractor) -> StoredWeights | None:
    """Return the weight file of a named network; None if the saved file must hold the model."""
    spec = extractor._spec()
    if spec.network is None or spec.weights is None:
        return None
    if not are_constructor_params(spec.backbone_params):
        return None
    return StoredWeights.read(spec.weights)


def _estimator_entry(estimator: TransferEstimator) -> dict[str, Any]:
    """Return the part of the manifest that describes the estimator around an extractor."""
    params = _plain_params({name: getattr(estimator, name) for name in ("random_state", "verbose")})
    fitted = _fitted_attributes(estimator, FITTED_AROUND)
    report = as_json_values(getattr(estimator, "report_", {}))
    return {**params, **_settings_of_estimator(estimator), "fitted": fitted, "report": report}


def _settings_of_estimator(estimator: Any) -> dict[str, Any]:
    """Return what ``set_output`` and ``set_fit_request`` and others set, if anything."""
    routing = estimator.get_metadata_routing()
    requests = {}
    for method in REQUESTS[type(estimator).__name__]:
        given = getattr(routing, method).requests
        if asked := {name: value for name, value in given.items() if value is not None}:
            requests[method] = asked
    output = getattr(estimator, "_sklearn_output_config", {}).get("transform")
    return {name: value for name, value in (("output", output), ("requests", requests)) if value}


def _restore_settings(
    estimator: FeatureExtractor | TransferEstimator, stored: Mapping[str, Any]
) -> None:
    """Restore what :func:`_settings_of_estimator` returned."""
    if "output" in stored:
        estimator.set_output(transform=stored["output"])
    with config_context(enable_metadata_routing=True):
        for method, asked in stored.get("requests", {}).items():
            getattr(estimator, f"set_{method}_request")(**asked)


def _load_extractor(
    manifest: dict[str, Any], entries: dict[str, bytes], cache: Any, read: Any
) -> FeatureExtractor:
    backbone, preprocessing = manifest["backbone"], manifest["preprocessing"]
    own: dict[str, Any] = {"cache": cache, "read": read}
    if "file" in backbone:
        # Files of earlier versions have only the label of the space, which begins with that.
        of_space = manifest["space"]["label"].partition(", layer ")[0]
        backbone = StoredModel(entries[BACKBONE], backbone.get("label", of_space))
        backbone.check()
    else:
        if stored := backbone.get("weights"):
            own["weights"] = StoredWeights(entries[WEIGHTS], stored["name"])
        backbone = backbone["name"]
    if isinstance(preprocessing, dict):
        preprocessing = _load_layers(entries[LAYER], manifest)
    params = manifest["params"] | {"preprocessing": preprocessing} | own
    if isinstance(params["augment"], dict):
        params["augment"] = _load_layers(entries[AUGMENT], manifest).layers
    extractor = FeatureExtractor(backbone, **params)
    extractor.space_ = Space.from_json(manifest["space"])
    _set_fitted_attributes(extractor, manifest["fitted"])
    _restore_settings(extractor, manifest)
    if "report" in manifest:
        extractor.report_ = Bunch(**manifest["report"])
    return extractor


def _load_layers(data: bytes, manifest: dict[str, Any]) -> keras.Model:
    model = StoredModel(data).load()
    check_activations(model, manifest["space"]["identity"]["input_shape"])
    return model


def _fitted_attributes(estimator: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the attributes that `fit` set, as plain data."""
    return {
        name: as_json_values(getattr(estimator, name)) for name in names if hasattr(estimator, name)
    }


def _set_fitted_attributes(estimator: Any, fitted: Mapping[str, Any]) -> None:
    for name, value in fitted.items():
        if name == "feature_names_in_":
            value = np.array(value, dtype=object)
        setattr(estimator, name, tuple(value) if isinstance(value, list) else value)


def _check_space(extractor: FeatureExtractor) -> None:
    space = extractor.current_source().space
    if not space.is_equal_but_for_storage(extractor.space_):
        cause = describe_release(space, extractor.space_)
        raise SavedFileError(
            f"it was fitted on embeddings of the space {extractor.space_digest_}, but its backbone "
            f"now computes those of {space.digest}: "
            f"{cause or 'the weights or the versions of Keras differ'}. Fit it again here."
        )


def _plain_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as plain data, with defaults for functions and generators."""
    lost = {
        name: None if isinstance(value, np.random.RandomState) else 0
        for name, value in params.items()
        if isinstance(value, np.random.RandomState) or callable(value)
    }
    return as_json_values(params | lost)


def check_savable(estimator: TransferEstimator, *, trusted: Sequence[str] = ()) -> None:
    """Check, before any long work, that an unfitted estimator can be saved once it is fitted.

    A copy of the head is fitted on a few random numbers, since some types exist only then. Raise
    UntrustedTypesError, which names them, if they are neither known nor `trusted`: see
    :func:`save`.
    """
    rng = np.random.default_rng(0)
    head = estimator.new_head()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head.fit(rng.normal(size=(40, 8)), np.arange(40) % 2)
    except Exception:
        return  # the head does not take such numbers; it is checked when it is saved
    head_bytes(estimator.head, head, trusted)


def _keras_file_bytes(model: keras.Model, *, label: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        file = Path(folder) / BACKBONE
        try:
            model.save(file)
        except Exception as exc:  # whatever the configurations of layers raise
            raise BackboneError(f"{label} cannot be saved as a .keras file: {exc}") from exc
        return file.read_bytes()


def _layers_bytes(extractor: FeatureExtractor, name: str, layers: Sequence[keras.Layer]) -> bytes:
    import keras

    inputs = keras.Input(extractor.space_.input_shape)
    return _keras_file_bytes(keras.Sequential([inputs, *layers]), label=name)


def _read_entries(path: str | os.PathLike[str]) -> dict[str, bytes]:
    shown = repr(os.fspath(path))
    try:
        with open_given(path) as file:
            return read_members(
                file, _MAX_BYTES.get, max_members=len(_MAX_BYTES), required=(MANIFEST,)
            )
    except FileNotFoundError:
        raise SavedFileError(f"{shown}: no such file") from None
    except ArchiveError as exc:
        # Models of Keras are archives as well.
        is_model = "'config.json'" in str(exc)
        cure = ". For a model of Keras: FeatureExtractor(path)" if is_model else ""
        raise SavedFileError(
            f"{shown} is not a saved featx estimator, or is damaged: {exc}. Expected a file that "
            f"featx.save wrote{cure}"
        ) from exc
    except (OSError, ValueError) as exc:
        if os.path.isdir(path):
            raise SavedFileError(f"{shown} is a folder, not a saved file") from exc
        raise SavedFileError(
            f"{shown} cannot be read: {getattr(exc, 'strerror', None) or exc}"
        ) from exc
