"""Save a fitted estimator as one file without pickle, and load it again.

The file is a zip archive: ``featx.json`` (class, parameters, space), ``head.skops`` (the head, by
skops, which runs no code that was not vouched for) and, unless the weights are ``"imagenet"`` or
those of ``"tiny"``, ``backbone.keras``. On loading, the digest of the space is checked: a head is
never put on embeddings of another kind than those it was trained on.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skops.io
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from featx._files import check_replaceable, replaced_atomically
from featx._text import one_line
from featx._version import __version__
from featx.estimators import TransferClassifier, TransferRegressor
from featx.exceptions import ParameterError, SavedFileError, UntrustedTypesError
from featx.extractor import FeatureExtractor
from featx.extractor_checks import check_can_be_checked
from featx.heads.folds import SampleFolds
from featx.identity.spaces import Space
from featx.networks.augmentation import augmentation_layers
from featx.networks.models import StoredModel
from featx.probes.linear import LinearProbe
from featx.probes.nearest_mean import NearestMeanProbe
from featx.probes.neighbors import KNNProbe
from featx.probes.pca import MomentPCA
from featx.probes.ridge import RidgeProbe, RidgeProbeRegressor
from featx.transfer import TransferEstimator

if TYPE_CHECKING:
    import keras

_FORMAT = 2
_MANIFEST, _HEAD, _BACKBONE, _LAYER, _AUGMENT = (
    "featx.json",
    "head.skops",
    "backbone.keras",
    "preprocessing.keras",
    "augment.keras",
)
_CLASSES: dict[str, Any] = {
    kind.__name__: kind for kind in (FeatureExtractor, TransferClassifier, TransferRegressor)
}
# Heads of featx, which skops has not heard of.
_OWN_TYPES = [
    f"{kind.__module__}.{kind.__name__}"
    for kind in (
        KNNProbe,
        LinearProbe,
        MomentPCA,
        NearestMeanProbe,
        RidgeProbe,
        RidgeProbeRegressor,
        SampleFolds,
    )
]
# Neither where this machine keeps its cache nor the objects that are saved on their own.
_NOT_PLAIN = ("backbone", "preprocessing", "cache", "also_cache")
_FITTED = ("feature_shape_", "array_shape_", "n_features_in_")


def save(
    estimator: FeatureExtractor | TransferClassifier | TransferRegressor,
    path: str | os.PathLike[str],
    *,
    trusted: Sequence[str] = (),
) -> None:
    """Save a fitted estimator as one file.

    Parameters
    ----------
    estimator : FeatureExtractor, TransferClassifier or TransferRegressor
        Fitted. One that was fine-tuned is saved as what it became, the tuned backbone and its
        head; how it was trained is not.
    path : str or Path
        A regular file that is there is replaced, whole, and its permissions are kept.
    trusted : sequence of str, default=()
        Types inside the head that skops does not know to be safe and that you vouch for, such as
        ``"sklearn.tree._tree.Tree"`` in a forest.

    Raises
    ------
    UntrustedTypesError
        The head holds other types; the message names them.
    NotFittedError
        The estimator was not fitted.
    ParameterError
        `path` is a folder, a link or a device, or in a folder that is not there.
    BackboneError
        What the extractor computes cannot be identified, so that `load` could not check it.
    OSError
        The file cannot be written; one that was there is unharmed.

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
    if not Path(path).absolute().parent.is_dir():
        raise ParameterError(f"{os.fspath(path)!r}: no such folder to write to")
    check_replaceable(Path(path))
    extractor = estimator if isinstance(estimator, FeatureExtractor) else estimator.extractor_
    check_can_be_checked(extractor.current_resolution(), label=extractor.label)
    entries, manifest = _extractor_entries(extractor)
    manifest |= {"format": _FORMAT, "featx": __version__, "class": kind}
    if not isinstance(estimator, FeatureExtractor):
        entries[_HEAD] = _head_bytes(estimator.head, estimator.head_, trusted)
        manifest["estimator"] = _plain({"random_state": estimator.random_state})
    entries[_MANIFEST] = json.dumps(manifest, indent=1).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with replaced_atomically(Path(path)) as beside:
        beside.write_bytes(buffer.getvalue())


def load(path: str | os.PathLike[str], *, trusted: Sequence[str] = (), cache: Any = "auto") -> Any:
    """Load an estimator that :func:`save` wrote.

    Parameters
    ----------
    path : str or Path
    trusted : sequence of str, default=()
        Types inside the head that you vouch for; see :func:`save`.
    cache : "auto", None, str, Path or EmbeddingCache, default="auto"
        The cache of the loaded extractor; a saved file does not name one.

    Returns
    -------
    FeatureExtractor, TransferClassifier or TransferRegressor
        Fitted.

    Raises
    ------
    SavedFileError
        The file is no saved estimator, is damaged, or its backbone makes other embeddings than
        the head was trained on.
    UntrustedTypesError
        The head holds types that nobody vouched for; nothing of it was loaded.
    WeightsError
        The weights that the file names cannot be had.

    Examples
    --------
    >>> import tempfile, numpy as np, featx
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    >>> path = f"{tempfile.mkdtemp()}/extractor.featx"
    >>> featx.save(featx.FeatureExtractor("tiny").fit(images), path)
    >>> featx.load(path).transform(images).shape
    (4, 400)
    """
    entries = _read_entries(path)
    try:
        manifest = _manifest_of(entries)
        kind = _CLASSES[manifest["class"]]
        extractor = _load_extractor(manifest, entries, cache)
        if kind is not FeatureExtractor:
            _check_trusted(entries[_HEAD], trusted)
            parts = skops.io.loads(entries[_HEAD], trusted=[*trusted, *_OWN_TYPES])
    except UntrustedTypesError:
        raise
    except (KeyError, ValueError, TypeError, zipfile.BadZipFile, AttributeError) as exc:
        raise SavedFileError(
            f"{os.fspath(path)!r} is not a saved featx estimator of this version: {exc!r}"
        ) from exc
    _check_space(extractor, path)
    if kind is FeatureExtractor:
        return extractor
    unfitted = FeatureExtractor(**extractor.get_params(deep=False))
    estimator = kind(unfitted, parts["head"], **manifest["estimator"])
    estimator.extractor_, estimator.head_ = extractor, parts["head_"]
    return estimator


def _extractor_entries(extractor: FeatureExtractor) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files that hold an extractor's models, and its part of the manifest."""
    params = extractor.get_params(deep=False)
    entries = {}
    backbone, preprocessing = params["backbone"], params["preprocessing"]
    if extractor.has_named_weights():
        backbone = {"name": str(backbone)}
    else:
        built = extractor.current_resolution().build()
        entries[_BACKBONE] = _keras_bytes(built.model)
        backbone, preprocessing = {"file": _BACKBONE}, built.preprocessing
        # They are in the model now.
        params |= {"weights": "imagenet", "backbone_params": None}
    if preprocessing is not None and not isinstance(preprocessing, str):
        entries[_LAYER] = _layers_bytes(extractor, [preprocessing])
        preprocessing = {"file": _LAYER}
    if params["augment"] is not None and not isinstance(params["augment"], str):
        entries[_AUGMENT] = _layers_bytes(extractor, augmentation_layers(params["augment"]))
        params["augment"] = {"file": _AUGMENT}
    plain = {name: value for name, value in params.items() if name not in _NOT_PLAIN}
    fitted = {name: getattr(extractor, name) for name in _FITTED if hasattr(extractor, name)}
    return entries, {
        "backbone": backbone,
        "preprocessing": preprocessing,
        "params": _plain(plain),
        "fitted": fitted,
        "space": extractor.space_.to_json(),
    }


def _manifest_of(entries: dict[str, bytes]) -> dict[str, Any]:
    manifest = json.loads(entries[_MANIFEST])
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']}, not {_FORMAT}")
    return manifest


def _load_extractor(
    manifest: dict[str, Any], entries: dict[str, bytes], cache: Any
) -> FeatureExtractor:
    backbone, preprocessing = manifest["backbone"], manifest["preprocessing"]
    backbone = StoredModel(entries[_BACKBONE]) if "file" in backbone else backbone["name"]
    if isinstance(preprocessing, dict):
        preprocessing = StoredModel(entries[_LAYER]).load()
    params = manifest["params"] | {"preprocessing": preprocessing, "cache": cache}
    if isinstance(params.get("augment"), dict):
        params["augment"] = StoredModel(entries[_AUGMENT]).load().layers
    extractor = FeatureExtractor(backbone, **params)
    extractor.space_ = Space.from_json(manifest["space"])
    for name, value in manifest["fitted"].items():
        setattr(extractor, name, tuple(value) if isinstance(value, list) else value)
    return extractor


def _check_space(extractor: FeatureExtractor, path: str | os.PathLike[str]) -> None:
    space = extractor.current_resolution().space
    if not space.is_equal_but_for_storage(extractor.space_):
        raise SavedFileError(
            f"{os.fspath(path)!r} was made for embeddings of the space {extractor.space_digest_}, "
            f"but its backbone makes those of {space.digest}: the weights or the versions of Keras "
            "differ. Fit it again here."
        )


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    """Keep parameters that are plain data, and not what is told of progress or draws numbers."""
    plain = {}
    for name, value in params.items():
        if isinstance(value, np.integer):
            value = int(value)
        if isinstance(value, np.random.RandomState):
            value = None
        elif callable(value):
            value = 0
        plain[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
    return plain


def check_savable(estimator: TransferEstimator, *, trusted: Sequence[str] = ()) -> None:
    """Check, before any long work, that what will be fitted can be saved.

    A copy of the head is fitted on a few random numbers, since some types are only there then.

    Parameters
    ----------
    estimator : TransferClassifier or TransferRegressor
        Not fitted yet.
    trusted : sequence of str, default=()
        See :func:`save`.

    Raises
    ------
    UntrustedTypesError
        The head will hold other types; the message names them.
    """
    rng = np.random.default_rng(0)
    head = estimator.new_head()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head.fit(rng.normal(size=(40, 8)), np.arange(40) % 2)
    except Exception:
        return  # such numbers are not for this head, which is checked when it is saved
    _head_bytes(estimator.head, head, trusted)


def _head_bytes(head: Any, fitted: Any, trusted: Sequence[str]) -> bytes:
    parts = copy.deepcopy({"head": head, "head_": fitted})
    for part in _objects_in(parts, set()):
        # What a part asks of metadata routing matters to `fit` only, and refers to the part itself,
        # round which skops walks for ever.
        for name in _request_attributes():
            vars(part).pop(name, None)
    data = skops.io.dumps(parts)
    _check_trusted(data, trusted)
    return data


@functools.cache
def _request_attributes() -> set[str]:
    """Return the attributes in which scikit-learn keeps what an estimator asks of routing."""
    with config_context(enable_metadata_routing=True):
        asking = StandardScaler().set_fit_request(sample_weight=True)
    return set(vars(asking)) - set(vars(StandardScaler()))


def _objects_in(value: Any, seen: set[int]) -> Iterator[Any]:
    """Find estimators, and what scikit-learn keeps estimators in, in whatever is held by a head."""
    if id(value) in seen:
        return
    seen.add(id(value))
    is_of_sklearn = type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__")
    if isinstance(value, BaseEstimator) or is_of_sklearn:
        yield value
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, list | tuple):
        for each in value:
            yield from _objects_in(each, seen)


def _check_trusted(data: bytes, trusted: Sequence[str]) -> None:
    unknown = set(skops.io.get_untrusted_types(data=data))
    untrusted = sorted(unknown - set(trusted) - set(_OWN_TYPES))
    if untrusted:
        shown = ", ".join(map(one_line, untrusted))
        raise UntrustedTypesError(
            f"the head holds types that skops does not know to be safe: {shown}. "
            f"If you trust them, name them: trusted={untrusted!r}"
        )


def _keras_bytes(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _BACKBONE
        model.save(file)
        return file.read_bytes()


def _layers_bytes(extractor: FeatureExtractor, layers: Sequence[keras.Layer]) -> bytes:
    import keras

    inputs = keras.Input(extractor.space_.input_shape)
    return _keras_bytes(keras.Sequential([inputs, *layers]))


def _read_entries(path: str | os.PathLike[str]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except FileNotFoundError:
        raise SavedFileError(f"{os.fspath(path)!r}: no such file") from None
    except IsADirectoryError:
        raise SavedFileError(f"{os.fspath(path)!r} is a folder, not a saved file") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as exc:
        raise SavedFileError(
            f"{os.fspath(path)!r} is not a saved featx estimator, or is damaged: {exc}"
        ) from exc
    if _MANIFEST not in entries:
        # Models of Keras are such archives, too.
        cure = ". For a model of Keras: FeatureExtractor(path)" if "config.json" in entries else ""
        raise SavedFileError(
            f"{os.fspath(path)!r} is not a saved featx estimator: expected a file that featx.save "
            f"wrote{cure}"
        )
    return entries
