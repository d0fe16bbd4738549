"""Augmentation: layers that change images at random and make augmented views of single images.

While a network is trained, the layers change images differently in each epoch. An augmented view,
however, is determined by the pixels and its number, so that it is the same in every process and
does not depend on how the image was passed.
"""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from featx._validation import ParameterFaults, has_methods
from featx.backbones.hub_models import hub_release
from featx.backbones.keras_models import fixed_seed
from featx.cache.cache import EmbeddingCache
from featx.digests.hashing import DIGEST_BYTES, digest_of, digest_of_json
from featx.digests.keras_graph import graph_digest
from featx.digests.keras_settings import STANDARD, KerasSettings, backend_name, current_settings
from featx.engines.compile import compiled_training
from featx.engines.devices import check_can_run
from featx.exceptions import ParameterError
from featx.inputs.kinds import kind_of

if TYPE_CHECKING:
    import keras


_Result = TypeVar("_Result")

AUGMENTATIONS = ("standard",)
_SEEDING = "by pixels"  # to be changed when augmented views get their seeds in another way
_N_DRAWS = 10  # enough to see a change by layers that change one image in eight
_STANDARD_VERSION = 2  # to be raised when "standard" gets other layers
_SHIFT, _ZOOM, _TURN, _CONTRAST = 0.1, 0.1, 0.03, 0.2  # fractions of size, size, turn, contrast


def is_layer(value: Any) -> bool:
    """Return True for a Keras layer; a class, function, loss or optimizer is none."""
    return has_methods(value, "get_config", "compute_output_spec")


def check_augment(augment: Any, faults: ParameterFaults) -> None:
    """Add a fault unless `augment` is a name, Keras layers or None."""
    if isinstance(augment, str):
        faults.check_option("augment", augment, AUGMENTATIONS)
    elif augment is not None:
        given = augment if isinstance(augment, Sequence) else [augment]
        if not given or not all(map(is_layer, given)):
            faults.add("augment", augment, "'standard', Keras layers or None.")
        elif any(getattr(layer, "weights", None) for layer in given):
            expected = "layers without weights, since copies of them change the images; constants "
            expected += "belong in their configurations, as in Normalization(mean=, variance=)."
            faults.add("augment", augment, expected)


def check_takes_channels_first(augment: Any) -> None:
    """Raise ParameterError if augmentation layers expect the channels to be last."""
    given = augment if isinstance(augment, Sequence) else [augment]
    if isinstance(augment, str) or any(
        getattr(layer, "data_format", None) == "channels_last" for layer in given
    ):
        shown = "'standard'" if isinstance(augment, str) else augment
        raise ParameterError(
            f"augment={shown} takes images whose channels come last, but those of the backbone "
            "come first: pass Keras layers with data_format='channels_first', or put "
            "keras.layers.Permute((3, 1, 2)) before the model"
        )


def augmentation_layers(augment: Any) -> Sequence[keras.Layer]:
    """Return the layers that change pixels at random while training."""
    from keras import layers

    if augment is None:
        return ()
    if isinstance(augment, str):
        return (
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(_SHIFT, _SHIFT),
            layers.RandomZoom(_ZOOM),
            layers.RandomRotation(_TURN),
            layers.RandomContrast(_CONTRAST),
        )
    given = augment if isinstance(augment, Sequence) else [augment]
    # Copies, since their random generators change with use.
    return tuple(type(layer).from_config(layer.get_config()) for layer in given)


class Augmentation:
    """Makes augmented views of single images, determined by their pixels and a number.

    The cache remembers the digest of a named augmentation, so that it needs no Keras.
    """

    def __init__(
        self, augment: Any, input_shape: tuple[int, ...], cache: EmbeddingCache | None = None
    ) -> None:
        self._augment, self._input_shape, self._cache = augment, input_shape, cache

    def check(self) -> None:
        """Check that the layers can change images of this shape, before any work.

        Raise ParameterError if they cannot, return another shape, or draw random numbers that do
        not follow from a seed; EngineError if they are custom and Keras cannot run in this process.
        """
        if isinstance(self._augment, str):
            if not kind_of(self._input_shape).is_augmentable:
                raise ParameterError(
                    f"augment='standard' changes images, but the inputs of the backbone have shape "
                    f"{self._input_shape}: pass Keras layers that can change those"
                )
            return
        check_can_run()
        try:
            fault = self._seeded.fault()
        except Exception as exc:  # whatever custom layers may raise
            fault = f"cannot change inputs of shape {self._input_shape}: {exc}"
        if fault:
            raise ParameterError(f"augment={self._augment} {fault}")

    @functools.cached_property
    def digest(self) -> bytes:
        """Digest of everything that decides an augmented view except the image and the number.

        The random generators of Keras' backends differ, so the digest covers the backend.
        """
        facts = self._cache.facts if self._cache and isinstance(self._augment, str) else None
        known = facts.recall(self._fact_key()) if facts else None
        with contextlib.suppress(TypeError, ValueError):
            if len(remembered := bytes.fromhex(str(known))) == DIGEST_BYTES:
                return remembered
        parts = [graph_digest(self._seeded.layers), backend_name(), _SEEDING]
        if departures := self._seeded.settings.departures():
            parts.append(digest_of_json(departures))
        if release := hub_release(self._seeded.layers):
            parts.append(f"keras_hub {release}")
        digest = digest_of(*(part.encode() for part in parts))
        if facts:
            with contextlib.suppress(OSError):  # the next run computes it again
                facts.remember(self._fact_key(), digest.hex())
        return digest

    def key(self, key: bytes, number: int) -> bytes:
        """Return the key of an augmented view of the image with this key."""
        return digest_of(key, self.digest, str(number).encode())

    def __call__(self, image: np.ndarray, number: int) -> np.ndarray:
        """Return an augmented view of an image, float32."""
        seed = digest_of(np.ascontiguousarray(image).data.cast("B"), str(number).encode())
        return self._seeded(image, seed=int.from_bytes(seed[:4], "little"))

    @functools.cached_property
    def _seeded(self) -> _SeededLayers:
        return _seeded_layers_of(_AugmentKey.of(self._augment), self._input_shape)

    def _fact_key(self) -> dict[str, Any]:
        return {
            "augmentation": self._augment,
            "version": [_STANDARD_VERSION, _SEEDING],
            "strengths": [_SHIFT, _ZOOM, _TURN, _CONTRAST],
            "input_shape": list(self._input_shape),
            "keras": version_of("keras"),
            "backend": backend_name(),
        }


class _SeededLayers:
    """Augmentation layers that change images by a seed, in several threads at once."""

    def __init__(self, augment: Any, input_shape: tuple[int, ...], settings: KerasSettings) -> None:
        self._augment, self._input_shape, self.settings = augment, input_shape, settings
        self.layers = _augmentation_model(
            augment, input_shape, settings
        )  # change images in training mode
        self._states = generator_states(self.layers)
        self._lock = threading.RLock()

    def fault(self) -> str:
        """Return the reason why the layers cannot be used, as a predicate; empty if they can."""
        with self._lock:  # else a second thread would repeat the check
            return self._fault

    @functools.cached_property
    def _fault(self) -> str:
        shape = self.layers.output_shape[1:]
        if shape != self._input_shape:
            return (
                f"turns inputs of shape {self._input_shape} into {shape}: they must keep their "
                "shape"
            )
        if not self._follows_seeds():
            return (
                "draws random numbers that do not follow from a seed: layers must draw them from "
                "a keras.random.SeedGenerator of their own"
            )
        self(_noise_image(self._input_shape)[0], seed=0)  # some layers run, but cannot be compiled
        return ""

    def _follows_seeds(self) -> bool:
        """Return True if layers that start from the same states always give the same images."""
        import keras

        # A copy, since layers may change their state with each call. Not compiled, since a compiled
        # function draws from the generators of Python and NumPy only once, when it is traced.
        copy = _augmentation_model(self._augment, self._input_shape, self.settings)
        images = _noise_image(self._input_shape)

        def changed() -> np.ndarray:
            seed_generators(copy, 1)
            return keras.ops.convert_to_numpy(copy(images, training=True))

        def are_equal() -> bool:
            first = changed()
            return all(np.array_equal(changed(), first) for _ in range(_N_DRAWS - 1))

        return _with_own_generators(are_equal, self.settings)

    def __call__(self, image: np.ndarray, *, seed: int) -> np.ndarray:
        import keras

        with self._lock:
            function = self._function
        changed = function(image[np.newaxis], _generator_states_from_seed(seed, self._states))
        return np.asarray(keras.ops.convert_to_numpy(changed))[0]

    @functools.cached_property
    def _function(self) -> Callable[..., Any]:
        with self.settings.applied(in_helper=True):
            return compiled_training(self.layers, self._states)


def _augmentation_model(
    augment: Any, input_shape: tuple[int, ...], settings: KerasSettings
) -> keras.Model:
    """Chain copies of the layers that change images."""
    import keras

    # Layers without a seed would draw one from the caller's generators.
    with settings.applied(in_helper=True), fixed_seed():
        layers = augmentation_layers(augment)

        def chained() -> keras.Model:
            inputs = changed = keras.Input(input_shape, dtype="float32")
            for layer in layers:
                changed = layer(changed)
            return keras.Model(inputs, changed)

        return _with_own_generators(chained, settings)


def _with_own_generators(function: Callable[[], _Result], settings: KerasSettings) -> _Result:
    """Call a function that calls layers, and leave the caller's random generators unchanged.

    Layers without a seed draw from the generators of Python, NumPy or Keras. Keras has one for each
    thread, so the function runs in a new thread; the states of the others are restored.
    """

    def call() -> _Result:
        with settings.applied(in_helper=True):
            return function()

    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(call).result()
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def _noise_image(shape: tuple[int, ...]) -> np.ndarray:
    """Return a batch of one image of noise, (1, *shape), float32."""
    return np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)


@dataclass(frozen=True)
class _AugmentKey:
    """The key of an augmentation: its name, or its layers and their present settings."""

    key: Hashable
    settings: KerasSettings
    augment: Any = field(compare=False)  # keeps the objects alive whose ids are in the key

    @classmethod
    def of(cls, augment: Any) -> _AugmentKey:
        if isinstance(augment, str):
            return cls(augment, STANDARD, augment)
        layers = tuple(augment) if isinstance(augment, Sequence) else (augment,)
        key = tuple((id(layer), repr(layer.get_config())) for layer in layers)
        return cls(key, current_settings(), layers)


_making = threading.Lock()  # lru_cache would let two threads make the same layers


def _seeded_layers_of(key: _AugmentKey, input_shape: tuple[int, ...]) -> _SeededLayers:
    """Return the layers that an earlier call made and compiled, or new ones."""
    with _making:
        return _kept_seeded_layers(key, input_shape)


@functools.lru_cache(maxsize=8)
def _kept_seeded_layers(key: _AugmentKey, input_shape: tuple[int, ...]) -> _SeededLayers:
    return _SeededLayers(key.augment, input_shape, key.settings)


def generator_states(model: keras.Model) -> list[Any]:
    """List the variables that hold the states of a model's random generators."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _generator_states_from_seed(seed: int, variables: Sequence[Any]) -> list[np.ndarray]:
    """Return a different initial state for each of these variables."""
    return [
        np.array([seed % 2**31, number], np.int64).astype(variable.dtype)
        for number, variable in enumerate(variables)
    ]


def seed_generators(model: keras.Model, seed: int) -> None:
    """Restart all random generators of a model from a seed."""
    variables = generator_states(model)
    for variable, state in zip(
        variables, _generator_states_from_seed(seed, variables), strict=True
    ):
        variable.assign(state)
