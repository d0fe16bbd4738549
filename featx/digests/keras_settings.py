"""KerasSettings: global settings of Keras that change embeddings, and a context that applies them.

Keras reads its dtype policy, ``floatx``, ``epsilon`` and data format while layers are built, and
some layers read them again when they are called. featx builds and compiles its own models, such as
named networks, under the default settings, whatever the caller has set. A model that the caller
built runs under the caller's settings, which are then part of its space.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class KerasSettings:
    """Global settings of Keras; `policy` is the object that `dtype_policy` names.

    The name of a map of policies is its JSON.

    Examples
    --------
    >>> KerasSettings("float32", "float32", 1e-3, "channels_last").departures()
    {'epsilon': 0.001}
    """

    dtype_policy: str
    floatx: str
    epsilon: float
    image_data_format: str
    policy: Any = field(default="float32", compare=False, repr=False)

    def departures(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, as plain data."""
        standard = vars(STANDARD)
        return {
            name: value
            for name, value in vars(self).items()
            if name != "policy" and value != standard[name]
        }

    @contextlib.contextmanager
    def applied(self, *, in_helper: bool = False) -> Iterator[None]:
        """Apply these settings inside the context, and restore the earlier ones afterwards.

        Each thread has its own dtype policy; the other settings belong to the process. If these
        have to change, one thread at a time is inside the context. `in_helper` is True in a thread
        that works for another one, which may wait for it inside the context.
        """
        import keras

        policy = keras.config.dtype_policy()
        with _process_wide.kept_at(self._of_process, in_helper=in_helper):
            keras.config.set_dtype_policy(self.policy)
            try:
                yield
            finally:
                keras.config.set_dtype_policy(policy)

    @property
    def _of_process(self) -> tuple[str, float, str]:
        return (self.floatx, self.epsilon, self.image_data_format)


STANDARD = KerasSettings("float32", "float32", 1e-7, "channels_last")


def current_settings() -> KerasSettings:
    """Return the settings of the caller: those of this thread and of the process."""
    from keras import config

    policy = config.dtype_policy()
    plain = str(policy.name)
    if type(policy).__name__ == "DTypePolicyMap":
        plain = json.dumps(policy.get_config(), sort_keys=True, default=str)
    return KerasSettings(plain, *_process_wide.as_seen_here(), policy=policy)


class _ProcessWideSettings:
    """The process-wide settings, and the threads that keep them at given values."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: Counter[int] = Counter()
        self._before = STANDARD._of_process

    def as_seen_here(self) -> tuple[str, float, str]:
        """Return the settings for this thread, without temporary ones of other threads."""
        with self._changed:
            is_holder = threading.get_ident() in self._holders
            return _read_keras_settings() if is_holder or not self._holders else self._before

    @contextlib.contextmanager
    def kept_at(self, wanted: tuple[str, float, str], *, in_helper: bool) -> Iterator[None]:
        """Keep the settings at given values; wait for other threads if they have to change."""
        thread = threading.get_ident()

        def is_free() -> bool:
            if not self._holders or thread in self._holders:
                return True
            return _read_keras_settings() == wanted and (in_helper or self._before == wanted)

        with self._changed:
            self._changed.wait_for(is_free)
            found = _read_keras_settings()
            if not self._holders:
                self._before = found
            self._holders[thread] += 1
            _write_keras_settings(wanted)
        try:
            yield
        finally:
            with self._changed:
                if found != wanted:  # helpers may have entered the context
                    self._changed.wait_for(lambda: set(self._holders) == {thread})
                    _write_keras_settings(found)
                self._holders[thread] -= 1
                if not self._holders[thread]:
                    del self._holders[thread]
                self._changed.notify_all()


def _read_keras_settings() -> tuple[str, float, str]:
    from keras import config

    return (config.floatx(), config.epsilon(), config.image_data_format())


def _write_keras_settings(values: tuple[str, float, str]) -> None:
    from keras import config

    floatx, epsilon, image_data_format = values
    config.set_floatx(floatx)
    config.set_epsilon(epsilon)
    config.set_image_data_format(image_data_format)


_process_wide = _ProcessWideSettings()

if hasattr(os, "register_at_fork"):

    def _forget_holders() -> None:  # a child has none of the threads
        global _process_wide
        _process_wide = _ProcessWideSettings()

    os.register_at_fork(after_in_child=_forget_holders)


def backend_name() -> str:
    """Return the backend on which Keras runs, or would run if it were imported."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "backend"):
        return str(keras.backend.backend())
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    try:
        return str(json.loads((keras_home() / "keras.json").read_bytes())["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"


def keras_home() -> Path:
    """Return the folder of Keras' configuration, by Keras' own rules."""
    if "KERAS_HOME" in os.environ:
        return Path(os.environ["KERAS_HOME"]).expanduser()
    home = os.path.expanduser("~")
    return Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras"  # noqa: S108
