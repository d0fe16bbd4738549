"""EmbeddingSource and ``resolve``: the space of a backbone, without building it where possible.

A *recipe* is plain data that determine a backbone: the name of a network and the digest of its
weight file, the digest of a ``.keras`` file, or the code of a callable, and all options. The cache
remembers the space of each recipe, so that a later run with a named backbone, or one from a file,
needs no Keras at all. A model object has no recipe: its graph and weights are hashed each time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from featx._files import open_given
from featx._progress import activity
from featx._warning import warn_caller
from featx.backbones.backbone import Backbone, BackboneSpec
from featx.backbones.build import build_backbone
from featx.backbones.input_channels import N_COLORS
from featx.backbones.keras_models import is_backbone_file
from featx.backbones.layers import LayerSpec
from featx.backbones.presets import Preset, hub_version, preset_files
from featx.backbones.registry import PRETRAINED, TINY_FILE
from featx.backbones.stored_weights import StoredWeights
from featx.backbones.untrusted_model import StoredModel
from featx.cache.cache import EmbeddingCache
from featx.digests.code import UnhashableCodeError, code_digest
from featx.digests.hashing import digest_of, digest_of_json
from featx.digests.keras_graph import Digester
from featx.digests.keras_settings import backend_name, current_settings
from featx.digests.key_table import NO_KEY, keys_from
from featx.digests.space import Space
from featx.engines.compile import check_is_eager
from featx.exceptions import BackboneError, NotCachedWarning, UnstableBackboneWarning, WeightsError
from featx.inputs.file_index import FileIndex, file_key
from featx.inputs.kinds import KINDS, InputForm

_RECIPE_VERSION = 2
_MAX_BUILT = 8


def _nothing(digester: Digester | None = None) -> None:
    """Do nothing, for a backbone that belongs to featx."""


@dataclass(frozen=True, eq=False)
class EmbeddingSource:
    """A space, and a function that loads the backbone whose embeddings it describes.

    `has_recipe` is True if another process finds the space without building the backbone.
    `check_unchanged` raises BackboneError if a model, layer or reader that the caller can change no
    longer computes these embeddings. It hashes the weights again, but for those that the digester
    knows.
    """

    space: Space
    load_backbone: Callable[[], Backbone]  # the first call may take seconds
    is_cacheable: bool = True  # False if the code that computes them cannot be identified
    has_recipe: bool = False
    check_unchanged: Callable[[Digester], None] = _nothing

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of the backbone."""
        return self.space.input_shape

    @property
    def input_form(self) -> InputForm:
        """Form of one input of the backbone."""
        return InputForm.of_space(self.space.description)


def unique_sources(
    sources: Sequence[EmbeddingSource], others: Sequence[EmbeddingSource]
) -> Sequence[EmbeddingSource]:
    """Add other sources of the same model that are not among the first ones."""
    if not sources:
        return others
    model = sources[0].load_backbone().model
    known = {source.space.digest for source in sources}
    new = (other for other in others if other.space.digest not in known)
    return [*sources, *(other for other in new if other.load_backbone().model is model)]


def resolve(
    spec: BackboneSpec, *, array_shape: tuple[int, ...] | None, cache: EmbeddingCache | None
) -> EmbeddingSource:
    """Find the space of a backbone, building it only if its recipe is unknown.

    `array_shape` is the shape of one sample, if the samples are arrays of one shape.
    """
    source = _model_identity(spec, array_shape, cache)
    return _resolve_from_identity(source, spec, array_shape, cache, Digester())


def _resolve_from_identity(
    source: dict[str, Any] | None,
    spec: BackboneSpec,
    array_shape: tuple[int, ...] | None,
    cache: EmbeddingCache | None,
    digester: Digester,
) -> EmbeddingSource:
    dtype = cache.dtype if cache else "float32"
    recipe = _backbone_recipe(spec, source)
    build = _backbone_builder(spec, source, array_shape)
    remembered = _recall_space(cache, recipe) if recipe else None
    if recipe and remembered and not callable(spec.backbone):
        checked = functools.partial(_build_in_known_space, remembered, build, recipe, cache)
        return EmbeddingSource(
            remembered.stored_as(dtype),
            checked,
            has_recipe=True,
            check_unchanged=functools.partial(_check_unchanged, spec, None, remembered),
        )
    check_is_eager()
    backbone = build()
    backbone.check_pooling()
    backbone.check_preprocessing()
    try:
        space = backbone.space(digester)
    except UnhashableCodeError as exc:
        warn_caller(NotCachedWarning(f"embeddings are not cached: {exc}"))
        unknown = {
            "unidentified": uuid.uuid4().hex,
            "feature_shape": backbone.feature_shape,
            "input_shape": backbone.input_shape,
            **backbone.input_form.reader,
        }
        return EmbeddingSource(Space(unknown).stored_as("float32"), build, is_cacheable=False)
    if remembered and remembered != space:
        warn_caller(
            UnstableBackboneWarning(
                f"{spec.label} returned a model with other weights than at its last call, so its "
                "stored embeddings cannot be used. Seed its initializers, or save the model and "
                "pass the path of the .keras file."
            )
        )
    # User code may change while the file that refers to it stays the same.
    is_fixed_by_recipe = callable(spec.backbone) or not backbone.runs_user_code
    if recipe and remembered != space and is_fixed_by_recipe:
        _remember_space(cache, recipe, space)
    is_of_caller = callable(spec.backbone) or callable(spec.preprocessing)
    check = functools.partial(_check_unchanged, spec, backbone if is_of_caller else None, space)
    has_recipe = recipe is not None and is_fixed_by_recipe and not callable(spec.backbone)
    return EmbeddingSource(
        space.stored_as(dtype), build, has_recipe=has_recipe, check_unchanged=check
    )


def _check_unchanged(
    spec: BackboneSpec, backbone: Backbone | None, space: Space, digester: Digester
) -> None:
    """Raise BackboneError if a reader, or a backbone of the caller, is no longer the same."""
    if spec.read is not None:
        spec.read.check_unchanged()
    if backbone is None:
        return
    try:
        is_unchanged = backbone.space(digester) == space
    except UnhashableCodeError:
        is_unchanged = False
    if not is_unchanged:
        raise BackboneError(
            f"{backbone.spec.label} was changed while it embedded samples, such as by a training "
            "in another thread. Embeddings computed since the last check are not stored. Repeat "
            "the call while nothing changes the model"
        )


def _build_in_known_space(
    remembered: Space,
    build: Callable[[], Backbone],
    recipe: dict[str, Any],
    cache: EmbeddingCache | None,
) -> Backbone:
    """Build a backbone, and check that it computes the rows of the remembered space.

    If it computes other rows, raise BackboneError, and remember its own space from then on.
    """
    backbone = build()
    if remembered.digest in backbone.agreed:
        return backbone
    space = backbone.space()
    if space != remembered:
        _remember_space(cache, recipe, space)
        new, old = space.description, remembered.description
        differing = sorted(name for name in new | old if new.get(name) != old.get(name))
        place = f"the cache {os.fspath(cache.path)!r}" if cache else "this process"
        raise BackboneError(
            f"{backbone.spec.label} differs from the backbone that {place} remembers under this "
            f"name and parameters, in: {', '.join(differing)}. A weight file was replaced, or "
            "a library changed. No stored row was used. The new backbone is remembered from now "
            "on: repeat the call to embed all samples with it"
        )
    backbone.agreed.add(remembered.digest)
    return backbone


def describe_change(label: str, now: Space, fitted: Space) -> str:
    """Return a message on a backbone that has another space now than when fit was called."""
    cause = describe_release(now, fitted) or "its weights, its file or a parameter changed"
    return f"{label} gives other embeddings now than when fit was called: {cause}. Call fit again."


def describe_release(now: Space, fitted: Space) -> str | None:
    """Return a clause on a package whose release has changed since fit was called, if any."""
    versions, others = (space.description.get("packages", {}) for space in (fitted, now))
    for name, before in versions.items():
        if before != (after := others.get(name, before)):
            return (
                f"it was fitted with a reader that used {name} {before}, and {after} is installed, "
                "which may read other numbers: install that release again, or call fit again"
            )
    before, after = (space.description.get("keras_hub") for space in (fitted, now))
    if None in (before, after) or before == after:
        return None
    return (
        f"it was fitted with KerasHub {before}, and {after} is installed, which may compute other "
        f"numbers (pip install 'keras-hub=={before}.*' restores them)"
    )


def resolve_layers(
    spec: BackboneSpec,
    layers: Sequence[LayerSpec],
    own: EmbeddingSource,
    *,
    array_shape: tuple[int, ...] | None,
    cache: EmbeddingCache,
) -> list[EmbeddingSource]:
    """Find the sources of other layers and poolings of a backbone.

    The source of `spec` itself, duplicates and sources that cannot be cached are left out.
    """
    found, digester = {own.space.digest: own}, Digester()
    source = _model_identity(spec, array_shape, cache) if layers else None
    for each in layers:
        at_layer = replace(spec, layer=each.layer, pooling=each.pooling)
        other = _resolve_from_identity(source, at_layer, array_shape, cache, digester)
        if other.is_cacheable:
            found.setdefault(other.space.digest, other)
    return list(found.values())[1:]


# Spaces of recipes in this process, for callers without a cache.
_KNOWN: dict[str, Space] = {}


def _recall_space(cache: EmbeddingCache | None, recipe: dict[str, Any]) -> Space | None:
    if cache is None:
        return _KNOWN.get(digest_of_json(recipe))
    with contextlib.suppress(ValueError):  # a damaged fact counts as unknown
        return Space.from_json(cache.facts.recall({"space of": recipe}))
    return None


def _remember_space(cache: EmbeddingCache | None, recipe: dict[str, Any], space: Space) -> None:
    if cache is None:
        _KNOWN[digest_of_json(recipe)] = space
        return
    try:
        cache.facts.remember({"space of": recipe}, space.to_json())
        cache.files.flush()
    except OSError:
        # The next run builds the backbone again; the warning comes when rows are stored.
        return


def _model_identity(
    spec: BackboneSpec, array_shape: tuple[int, ...] | None, cache: EmbeddingCache | None
) -> dict[str, Any] | None:
    """Describe, without Keras, the source of a model; None if it cannot be identified."""
    source: dict[str, Any]
    files = cache.files if cache else FileIndex(None)
    if spec.preset:
        source = _preset_identity(spec.preset, spec.weights, cache) | {"array_shape": array_shape}
    elif spec.network:
        weights = _weights_identity(spec.network.name, spec.weights, files)
        source = {"name": spec.network.name, "weights": weights}
    elif is_backbone_file(spec.backbone):
        source = _file_identity(_file_digest(spec.backbone, files), array_shape)
    elif isinstance(spec.backbone, StoredModel):
        source = _file_identity(spec.backbone.digest, array_shape)
    elif not hasattr(spec.backbone, "layers"):
        try:
            source = {"callable": code_digest(spec.backbone), "array_shape": array_shape}
        except UnhashableCodeError:
            return None
        source["keras"] = current_settings().departures()
    else:
        return None
    plain: dict[str, Any] = {
        "source": source,
        "params": spec.backbone_params or {},
        "size": spec.size,
    }
    if spec.n_channels != N_COLORS:
        plain["in_channels"] = spec.n_channels
    if callable(spec.backbone) or spec.weights is None:
        plain["backend"] = backend_name()  # backends draw different numbers from one seed
    return {"keras": _keras_version(), **_recipe_as_json(plain)}


def _backbone_recipe(spec: BackboneSpec, source: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return, without Keras, the recipe of a backbone; None if it cannot be identified."""
    if source is None or not (spec.preprocessing is None or isinstance(spec.preprocessing, str)):
        return None
    reading = {
        "version": _RECIPE_VERSION,
        "preprocessing": spec.preprocessing,
        "layer": spec.layer,
        "pooling": "avg" if spec.network and spec.pooling == "auto" else spec.pooling,
        "precision": spec.precision,
        "decoder": [name for kind in KINDS for name in kind.reader(spec.resize).values()],
    }
    if spec.read is not None:
        try:
            reading["read"] = spec.read.identity
        except UnhashableCodeError:
            return None
    if spec.n_prefix_tokens is not None:
        reading["n_prefix_tokens"] = spec.n_prefix_tokens
    return {**source, **_recipe_as_json(reading)}


@functools.cache
def _keras_version() -> str:
    return version("keras")


def _recipe_as_json(value: Any) -> Any:
    """Return a recipe as it would be read from JSON."""
    if isinstance(value, dict):
        return {str(key): _recipe_as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_recipe_as_json(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _weights_identity(name: str, weights: Any, files: FileIndex) -> Any:
    if name == "tiny" and weights is not None:
        return {"file": _file_digest(TINY_FILE, files)}
    if weights is None:
        return None
    if weights == PRETRAINED:
        return "imagenet"  # its name when the first recipes were hashed
    if isinstance(weights, StoredWeights):
        return {"file": weights.digest}
    return {"file": _file_digest(weights, files)}


def _preset_identity(preset: Preset, weights: Any, cache: EmbeddingCache | None) -> dict[str, Any]:
    files, facts = (cache.files, cache.facts) if cache else (FileIndex(None), None)
    is_published = weights == PRETRAINED
    folder = preset.find_folder(facts, with_weights=is_published)
    paths = preset_files(folder, with_weights=is_published)
    other = None if weights is None or is_published else _file_digest(weights, files)
    return {
        "preset": {str(path.relative_to(folder)): _file_digest(path, files) for path in paths},
        "weights": "published" if is_published else other,
        "keras_hub": hub_version(),
    }


def _file_identity(digest: str, array_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Describe the file of a model, which may hold layers of KerasHub, if that is installed."""
    release = {"keras_hub": installed} if (installed := hub_version()) else {}
    return {"file": digest, "array_shape": array_shape, **release}


def _file_digest(path: str | os.PathLike[str], files: FileIndex) -> str:
    absolute = os.path.abspath(Path(path).expanduser())
    try:
        status = os.stat(absolute)
        state = file_key(absolute, status)
        digest = files.find(keys_from([state], count=1)).tobytes()
        if digest == NO_KEY:
            with open_given(absolute) as file:
                digest = digest_of(file.read())
            files.add(state, digest, modified_s=max(status.st_mtime, status.st_ctime))
    except OSError as exc:
        raise WeightsError(f"{os.fspath(path)!r} cannot be read: {exc.strerror or exc}") from exc
    return digest.hex()


# Backbones by model, then by layer, pooling, preprocessing and precision.
_BUILT: OrderedDict[Hashable, dict[Hashable, Backbone]] = OrderedDict()
_building = threading.RLock()


def _key_of_model(
    spec: BackboneSpec, source: dict[str, Any] | None, array_shape: tuple[int, ...] | None
) -> Hashable:
    digest = digest_of_json(source) if source else None
    if callable(spec.backbone) or digest is None:
        # The digest too, since the attributes of a callable may change.
        return (id(spec.backbone), spec.size, array_shape, spec.settings, digest)
    return digest


def _backbone_builder(
    spec: BackboneSpec, source: dict[str, Any] | None, array_shape: tuple[int, ...] | None
) -> Callable[[], Backbone]:
    """Return a function that builds the backbone once; the last few models are kept for clones."""
    key = _key_of_model(spec, source, array_shape)
    reading = (
        *(spec.preprocessing, spec.layer, spec.pooling, spec.precision),
        *(spec.resize, spec.n_prefix_tokens, spec.read and spec.read.key),
    )

    def build() -> Backbone:
        # Each keeps its spec, so that the objects whose ids are keys stay alive.
        with _building:
            backbones = _BUILT.setdefault(key, {})
            _BUILT.move_to_end(key)
            same = next(iter(backbones.values()), None)
            if same and not same.has_latest_code():
                backbones.clear()
                same = None
            elif not all(each.has_latest_graph() for each in backbones.values()):
                backbones.clear()  # and keep a model that a callable returned
                same = None if hasattr(spec.backbone, "layers") else same
            if reading not in backbones:
                with activity(f"building {spec.label}"):
                    backbones[reading] = (
                        replace(same, spec=spec, agreed=set())
                        if same
                        else build_backbone(spec, array_shape)
                    )
                if source and callable(spec.backbone):  # the call may have changed attributes
                    changed = _model_identity(spec, array_shape, None)
                    _BUILT[_key_of_model(spec, changed, array_shape)] = backbones
            while len(_BUILT) > _MAX_BUILT:
                _BUILT.popitem(last=False)
            return backbones[reading]

    return build
