"""Checkpoint: the state of a training, written after each epoch: weights, optimizer, history.

When the same fit is called again after it was killed, the training resumes at its last epoch and
ends, on a CPU, with the very same bits. The file is named after a digest of everything that decides
the run: space, samples, labels, split, head and parameters.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from featx._files import read_regular, seal, unseal, write_atomically
from featx.backbones.augment import generator_states
from featx.digests.hashing import digest_of_json


@dataclass
class TrainingProgress:
    """The progress of a training."""

    epoch: int  # number of finished epochs
    history: dict[str, list[float]]  # losses and scores, one number per epoch
    best_epoch: int  # 0 is the head itself
    best_score: float
    best_loss: float
    best_weights: list[np.ndarray]  # values of `trained_weights`
    state: list[np.ndarray]  # values of `model_state`, then those of the optimizer
    seed: int
    batch_size: int  # the one that fitted into memory
    learning_rate: float | None = None  # the highest; None for an optimizer that has a schedule
    names: list[str] = field(default_factory=list)  # names of the optimizer's variables


class Checkpoint:
    """The file in a folder, or none, that keeps the progress of the run that `key` identifies."""

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self._path = folder / f"{digest_of_json(key)}.tuning" if folder else None

    @property
    def is_kept(self) -> bool:
        """True if the progress is written to a file."""
        return self._path is not None

    def load(self) -> TrainingProgress | None:
        """Return the saved progress; None if there is none, or if it is damaged."""
        if self._path is None:
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            payload = unseal(read_regular(self._path))
            if payload is not None:
                return _unpacked_progress(payload)
        return None

    def save(self, progress: TrainingProgress) -> None:
        """Replace what was saved before; an OSError leaves it unharmed."""
        if self._path is not None:
            write_atomically(self._path, seal(_packed_progress(progress)))

    def remove(self) -> None:
        """Remove the file."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def described_param(value: Any) -> Any:
    """Return a parameter as plain data; objects of Keras by their configuration.

    Examples
    --------
    >>> import keras
    >>> described_param(keras.layers.Rescaling(2.0)) == described_param(keras.layers.Rescaling(2.0))
    True
    """
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [described_param(part) for part in value]
    if isinstance(value, dict):
        return {str(name): described_param(part) for name, part in value.items() if name != "name"}
    if hasattr(value, "get_config"):
        return [
            f"{type(value).__module__}.{type(value).__qualname__}",
            described_param(value.get_config()),
        ]
    return repr(value)


def trained_weights(model: keras.Model) -> list[Any]:
    """Return the weights of a model that a step may change, moving statistics included."""
    frozen = {id(weight) for layer in _frozen_layers(model) for weight in layer.weights}
    return [weight for weight in model.weights if id(weight) not in frozen]


def model_state(model: keras.Model) -> list[Any]:
    """Return the variables that a step may change: trained weights and states of generators."""
    return trained_weights(model) + generator_states(model)


def _frozen_layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model._flatten_layers(include_self=False):
        # Its own `trainable_weights` is empty, even if some of its variables are trained.
        if not layer.trainable and not any(weight.trainable for weight in layer.weights):
            yield layer


def values_of_variables(variables: list[Any]) -> list[np.ndarray]:
    """Return copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign_values(variables: list[Any], values: list[np.ndarray]) -> None:
    """Assign values to variables; raise ValueError if their numbers differ."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _packed_progress(progress: TrainingProgress) -> bytes:
    arrays: dict[str, Any] = {f"best_{n}": array for n, array in enumerate(progress.best_weights)}
    arrays |= {f"state_{n}": array for n, array in enumerate(progress.state)}
    names = [each.name for each in fields(progress) if each.name not in ("best_weights", "state")]
    plain = {
        **{name: getattr(progress, name) for name in names},
        "n_best": len(progress.best_weights),
        "n_state": len(progress.state),
    }
    buffer = io.BytesIO()
    np.savez(buffer, plain=np.array(json.dumps(plain)), **arrays)
    return buffer.getvalue()


def _unpacked_progress(payload: bytes) -> TrainingProgress:
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        plain = json.loads(str(arrays["plain"]))
        best = [arrays[f"best_{n}"] for n in range(plain.pop("n_best"))]
        state = [arrays[f"state_{n}"] for n in range(plain.pop("n_state"))]
        return TrainingProgress(best_weights=best, state=state, **plain)
