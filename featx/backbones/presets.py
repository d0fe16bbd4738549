"""Preset: a KerasHub backbone by name (``"keras_hub:..."``) or folder, without importing Keras.

A preset is a folder of configurations, weights and tokenizer files, as KerasHub's
``save_to_preset`` and Hugging Face's hub write it. Its files identify the backbone, so a folder
that was used before needs no Keras. KerasHub resolves the name of a preset to download, and keeps
its files; the cache of featx remembers the folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import os
import socket
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from featx._text import one_line
from featx._validation import did_you_mean
from featx.backbones.hub_models import HubModel, single_input_model
from featx.backbones.keras_models import fixed_seed
from featx.backbones.registry import PRETRAINED
from featx.digests.keras_settings import STANDARD
from featx.exceptions import BackboneError, ParameterError, WeightsError

if TYPE_CHECKING:
    import keras

    from featx.cache.facts import FactStore

PREFIX = "keras_hub:"
MISSING = "KerasHub, which is not installed: pip install 'featx[hub]'"

_CONFIG = "config.json"
_CONVERTER = "image_converter.json"
_POOLING = Path("1_Pooling") / _CONFIG
_KEYS_OF_CONFIG = ("registered_name", "model_type", "architecture")  # KerasHub, Hugging Face, timm
_MAX_CONFIG_BYTES = 2**24
_WEIGHTS_SUFFIXES = (".h5", ".safetensors")
_SUFFIXES = (".json", ".txt", ".model", ".spm", *_WEIGHTS_SUFFIXES)
_WITHOUT_EFFECT = ("metadata.json",)  # when it was saved, and by which version
_ALLOWED_MODULES = ("keras", "keras_hub", "builtins")
_CONNECT_S = 1.5
_IMAGES_AND_TEXTS = {"images", "token_ids"}  # inputs of CLIP, SigLIP and similar models

_WAYS_OUT = (
    "Run once on a machine with internet access and copy its download folder, KAGGLEHUB_CACHE "
    "(~/.cache/kagglehub) or HF_HOME (~/.cache/huggingface); or pass a folder, 'keras_hub:FOLDER'; "
    "or use another backbone, such as 'tiny', which needs no download."
)


def is_preset(backbone: Any) -> bool:
    """Return True if a backbone is named as a preset of KerasHub."""
    return isinstance(backbone, str) and backbone.startswith(PREFIX)


def is_hub_installed() -> bool:
    """Return True if KerasHub is installed, without importing it."""
    return importlib.util.find_spec("keras_hub") is not None


class PresetInfo(NamedTuple):
    """A preset that KerasHub lists.

    Attributes
    ----------
    name : str
        Name that ``FeatureExtractor(backbone=...)`` takes, as in ``"keras_hub:dinov2_base"``.
    kind : str
        Kind of input: ``"image"``, ``"text"``, ``"image and text"`` or ``"other"``.
    architecture : str
        Class of its backbone in ``keras_hub.models``.
    n_parameters : int or None
        Number of parameters.
    """

    name: str
    kind: str
    architecture: str
    n_parameters: int | None


def list_presets() -> list[PresetInfo]:
    """Import KerasHub and list its presets, by kind and architecture.

    Raise BackboneError if KerasHub is not installed.
    """
    hub = _import_keras_hub()
    members = vars(hub.models).values()
    classes: list[Any] = [kind for kind in members if isinstance(kind, type)]
    backbones = {kind for kind in classes if issubclass(kind, hub.models.Backbone)}
    bases = {base for backbone in backbones for base in backbone.__mro__[1:]}
    found = []
    for backbone in sorted(backbones - bases, key=lambda kind: kind.__name__):
        kind = _kind_of_hub_backbone(backbone)
        for name, about in backbone.presets.items():
            n_parameters = about.get("metadata", {}).get("params")
            found.append(PresetInfo(PREFIX + name, kind, backbone.__name__, n_parameters))
    return sorted(found, key=lambda each: (_KINDS.index(each.kind), each.architecture))


_KINDS = ("image", "text", "image and text", "other")


def _kind_of_hub_backbone(backbone: type) -> str:
    """Return the kind of input of a backbone class, from the parameters of its constructor."""
    names = inspect.signature(backbone.__init__).parameters.keys()  # type: ignore[misc]
    takes_images = bool(names & {"image_shape", "input_shape", "vision_encoder", "image_encoder"})
    takes_texts = bool(names & {"vocabulary_size", "vocab_size", "text_encoder"})
    if takes_images and takes_texts:
        return "image and text"
    return "image" if takes_images else "text" if takes_texts else "other"


@dataclass(frozen=True)
class Preset:
    """A preset by its name, as in ``Preset("dinov2_base")``.

    The name is a folder, a name from KerasHub's list, ``"hf://owner/name"`` or ``"kaggle://..."``.
    """

    name: str

    @classmethod
    def of(cls, backbone: str) -> Preset:
        """Return the preset of a ``backbone`` parameter."""
        return cls(backbone.removeprefix(PREFIX))

    @property
    def label(self) -> str:
        """Short name, for messages."""
        return one_line(self.name.rstrip("/").rpartition("/")[2] or self.name)

    @property
    def folder(self) -> Path | None:
        """The folder that the name denotes; None if the preset is a download."""
        path = Path(self.name).expanduser()
        return path.absolute() if "://" not in self.name and path.is_dir() else None

    @cached_property
    def is_path(self) -> bool:
        """True if the name is written as a path, whether the folder exists or not."""
        return "://" not in self.name and (self.folder is not None or os.sep in self.name)

    def find_folder(self, facts: FactStore | None, *, with_weights: bool) -> Path:
        """Return the folder of the files; download them if they are not on this machine.

        `facts` remembers the folder. Raise WeightsError if the folder does not exist or the
        download fails, and ParameterError for a name that KerasHub does not list.
        """
        if self.folder:
            return self.folder
        if self.is_path:
            raise WeightsError(f"{PREFIX}{self.name}: this folder does not exist")
        key = {"folder of preset": self.name}
        known = _FOLDERS.get(self.name) or (facts.recall(key) if facts else None)
        if isinstance(known, str) and _is_complete_preset(Path(known), with_weights=with_weights):
            _FOLDERS[self.name] = known
            return Path(known)
        folder = self._download(with_weights=with_weights)
        _FOLDERS[self.name] = os.fspath(folder)
        if facts:
            with contextlib.suppress(OSError):  # KerasHub finds it again
                facts.remember(key, os.fspath(folder))
        return folder

    def network(self) -> keras.Model:
        """Build the network of one input, with random weights.

        Raise WeightsError or BackboneError if it cannot be built.
        """
        folder = self.find_folder(None, with_weights=False)
        built = build_preset(folder, weights=None, params={}, size=None, label=self.label)
        return built.model

    def _download(self, *, with_weights: bool) -> Path:
        """Return the folder of a preset that KerasHub keeps or downloads."""
        hub = _import_keras_hub()
        handle = self.name
        if "://" not in handle:
            presets = hub.models.Backbone.presets
            if handle not in presets:
                raise ParameterError.of(
                    "backbone",
                    PREFIX + handle,
                    "neither a folder nor the name of a preset of KerasHub "
                    f"{hub.__version__}.{did_you_mean(handle, list(presets))} "
                    "`featx backbones --presets` lists all.",
                )
            handle = presets[handle]["kaggle_handle"]
        try:
            with STANDARD.applied(), contextlib.redirect_stdout(sys.stderr):
                return _downloaded_preset(hub, handle, with_weights=with_weights)
        except Exception as exc:
            # The message holds the cause; tracebacks of five repeated requests would bury it.
            reason = one_line(f"{type(exc).__name__}: {exc}", max_chars=300)
            raise WeightsError(
                f"{PREFIX}{self.name} is not on this machine and cannot be downloaded ({reason}). "
                f"{_WAYS_OUT}"
            ) from None


def hub_version() -> str | None:
    """Return the version of KerasHub without importing it; None if it is not installed."""
    return version("keras-hub") if is_hub_installed() else None


def _import_keras_hub() -> Any:
    if not is_hub_installed():
        raise BackboneError(f"'{PREFIX}...' needs {MISSING}")
    with contextlib.redirect_stdout(sys.stderr):
        import keras_hub

    return keras_hub


# Folders of the presets that were found in this process, by name.
_FOLDERS: dict[str, str] = {}


def _is_complete_preset(folder: Path, *, with_weights: bool) -> bool:
    return (folder / _CONFIG).is_file() and (not with_weights or _has_preset_weights(folder))


def _downloaded_preset(hub: Any, handle: str, *, with_weights: bool) -> Path:
    """Download a handle, ``"kaggle://..."`` or ``"hf://..."``, if needed; return its folder."""
    scheme, _, path = handle.partition("://")
    if scheme == "hf":
        import huggingface_hub

        with contextlib.suppress(huggingface_hub.errors.LocalEntryNotFoundError):
            local = huggingface_hub.hf_hub_download(path, _CONFIG, local_files_only=True)
            if _is_complete_preset(Path(local).parent, with_weights=with_weights):
                return Path(local).parent
        _check_reachable(huggingface_hub.constants.ENDPOINT)
    # KerasHub knows which files a backbone needs; the model is built from the folder later.
    hub.models.Backbone.from_preset(handle, load_weights=with_weights)
    for other in (hub.layers.ImageConverter, hub.models.Tokenizer):
        with contextlib.suppress(Exception):  # not all presets have one
            other.from_preset(handle)
    if scheme == "hf":
        return Path(huggingface_hub.hf_hub_download(path, _CONFIG)).parent
    import kagglehub

    return Path(kagglehub.model_download(path, _CONFIG)).parent


def _check_reachable(url: str) -> None:
    """Raise OSError soon if a server cannot be reached; the library would try five times."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()


def _has_preset_weights(folder: Path) -> bool:
    """Return True if a folder holds weights that KerasHub can read."""
    return any(name.endswith(_WEIGHTS_SUFFIXES) for name in os.listdir(folder))


def preset_files(folder: Path, *, with_weights: bool) -> list[Path]:
    """List the files of a preset that decide what it computes, sorted by name.

    Raise WeightsError if the configuration is missing, or weights that are to be loaded.
    """
    if not (folder / _CONFIG).is_file():
        raise WeightsError(f"{os.fspath(folder)!r} is not a preset: it has no {_CONFIG}")
    suffixes = tuple(set(_SUFFIXES) - set(() if with_weights else _WEIGHTS_SUFFIXES))
    if with_weights and not _has_preset_weights(folder):
        raise WeightsError(
            f"{os.fspath(folder)!r} has no weights (.h5 or .safetensors): pass weights=None for "
            "random weights, or complete the folder"
        )
    paths = (path for path in sorted(folder.rglob("*")) if path.name.endswith(suffixes))
    return [path for path in paths if path.is_file() and path.name not in _WITHOUT_EFFECT]


def checked_preset_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a preset, which may name only classes of Keras and KerasHub."""
    path = folder / _CONFIG
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError) as exc:
        raise WeightsError(f"{os.fspath(path)!r} cannot be read: {exc}") from exc
    if not (isinstance(config, dict) and any(key in config for key in _KEYS_OF_CONFIG)):
        raise WeightsError(
            f"{os.fspath(path)!r} is not the configuration of a preset: expected an entry "
            f"{' or '.join(map(repr, _KEYS_OF_CONFIG))}"
        )
    for module in _modules_in_config(config):
        if str(module).partition(".")[0] not in _ALLOWED_MODULES:
            raise WeightsError(
                f"{os.fspath(path)!r} names the module {module!r}: expected classes of Keras "
                "and KerasHub only. Load a model with other classes yourself, and pass it as the "
                "backbone"
            )
    return config


def _modules_in_config(config: Any) -> list[Any]:
    """Return the modules of all objects in a configuration."""
    if isinstance(config, list):
        return [module for item in config for module in _modules_in_config(item)]
    if not isinstance(config, dict):
        return []
    own = [config["module"]] if config.get("module") and "class_name" in config else []
    return own + [module for item in config.values() for module in _modules_in_config(item)]


def build_preset(
    folder: Path,
    *,
    weights: str | os.PathLike[str] | None,
    params: dict[str, Any],
    size: tuple[int, int] | None,
    label: str,
) -> HubModel:
    """Build the backbone of a preset, with its weights, or random ones from a fixed seed.

    `params` go to the constructor of the backbone, as does `size` for images. Of a backbone for
    images and texts, only the image encoder is kept.
    """
    config = checked_preset_config(folder)
    hub = _import_keras_hub()
    # Other networks take images of any size, or none.
    is_sized = "registered_name" not in config or "image_shape" in config.get("config", {})
    arguments = {"image_shape": (*size, 3), **params} if size and is_sized else dict(params)
    try:
        with STANDARD.applied(), fixed_seed(), contextlib.redirect_stdout(sys.stderr):
            is_published = weights == PRETRAINED
            backbones = hub.models.Backbone
            model = backbones.from_preset(os.fspath(folder), load_weights=is_published, **arguments)
            _check_known(params, type(model))
            if weights is not None and not is_published:
                model.load_weights(os.fspath(weights))
            if {tensor.name for tensor in model.inputs} >= _IMAGES_AND_TEXTS:
                model = model.vision_encoder
            parts = _PresetParts(hub, folder)
            return replace(
                single_input_model(model, pad_id=parts.pad_id(), label=label),
                scaling=parts.scaling(model.inputs[0].shape[-1]),
                default_size=parts.image_size(),
                pooling=_named_pooling(folder),
            )
    except (BackboneError, ParameterError, WeightsError):
        raise
    except Exception as exc:
        given = f" with {arguments}" if arguments else ""
        cure = (
            ""
            if size is None
            else (". Its position embeddings may fit only one image size: leave input_size out")
        )
        message = f"{label} cannot be built{given}: {one_line(str(exc), max_chars=500)}{cure}"
        raise BackboneError(message) from exc


def _check_known(params: dict[str, Any], kind: type) -> None:
    """Raise ParameterError for names that a backbone class would ignore."""
    known = list(inspect.signature(kind.__init__).parameters)[1:]  # type: ignore[misc]
    unknown = [name for name in params if name not in (*known, "name", "trainable")]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise ParameterError.of(
            "backbone_params",
            params,
            f"{kind.__name__} has no parameter {names}.{did_you_mean(unknown[0], known)}",
        )


class _PresetParts:
    """The parts of a preset around its backbone."""

    def __init__(self, hub: Any, folder: Path) -> None:
        self._hub, self._folder = hub, folder
        self._converter = self._image_converter()

    def _part(self, kind: Any) -> Any:
        """Return the part of a kind; None if the preset has none, or none that can be read."""
        try:
            return kind.from_preset(os.fspath(self._folder))
        except Exception:  # whatever KerasHub raises of a file; what needs the part says so
            return None

    def _image_converter(self) -> Any:
        """Return the image converter, which holds scaling and size; None if there is none."""
        path = self._folder / _CONVERTER
        converter = self._part(self._hub.layers.ImageConverter)
        if converter is None and path.is_file():
            raise WeightsError(
                f"{os.fspath(path)!r} cannot be read by KerasHub {self._hub.__version__}, so the "
                "scaling of pixels is not known: replace the file, or remove it and pass "
                "preprocessing="
            )
        return converter

    def pad_id(self) -> int | None:
        """Return the token id of padding; None if the preset does not name it."""
        config = checked_preset_config(self._folder)
        if isinstance(config.get("pad_token_id"), int):  # of Hugging Face
            return config["pad_token_id"]
        if not (self._folder / "tokenizer.json").is_file():
            return None
        tokenizer = self._part(self._hub.models.Tokenizer)
        return getattr(tokenizer, "pad_token_id", None)

    def scaling(self, n_channels: int) -> keras.Layer | None:
        """Return the scaling of pixels from 0 to 255; None if the preset has no image converter.

        Raise WeightsError if it does not fit the number of channels.
        """
        import keras

        if self._converter is None:
            return None
        scale = 1.0 if self._converter.scale is None else self._converter.scale
        offset = 0.0 if self._converter.offset is None else self._converter.offset
        try:
            np.broadcast_to(
                np.asarray(scale, np.float32) + np.asarray(offset, np.float32), n_channels
            )
        except ValueError as exc:
            raise WeightsError(
                f"{os.fspath(self._folder / _CONVERTER)!r} scales pixels by {scale!r} and "
                f"{offset!r}: expected a number, or one for each of {n_channels} channels"
            ) from exc
        return keras.layers.Rescaling(scale, offset, name="preset_scaling")

    def image_size(self) -> tuple[int, int] | None:
        """Return the preset's image height and width, in pixels; None if it names none."""
        return getattr(self._converter, "image_size", None)


def _named_pooling(folder: Path) -> str | None:
    """Return the pooling that the folder of a sentence-transformers model names.

    Source: its module ``Pooling``, whose configuration has a flag ``pooling_mode_...`` for each.
    """
    try:
        config = json.loads((folder / _POOLING).read_bytes())
    except (OSError, ValueError):
        return None
    modes = {"cls_token": "cls", "mean_tokens": "avg", "max_tokens": "max"}
    return next((name for mode, name in modes.items() if config.get(f"pooling_mode_{mode}")), None)
