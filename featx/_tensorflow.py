"""``keep_tensorflow_quiet``: hides what TensorFlow's libraries print while featx loads them."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import BinaryIO

from featx._progress import activity

_TENSORFLOW = "tensorflow"
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_ERRORS_ONLY = "3"
# What its libraries write on their own before they read any setting (TensorFlow 2.20 and 2.21).
_LINE_OF_TENSORFLOW = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] |"
    rb"WARNING: All log messages before absl::InitializeLog|"
    rb"To enable the following instructions: "
)


def keep_tensorflow_quiet() -> None:
    """Hide TensorFlow's lines when featx imports it, but not when other code imports it first."""
    if not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow for imports by featx, and loads it quietly.

    Keras imports it, so the stack decides whose import it is. A user who set the log level to
    anything but errors sees all lines.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TENSORFLOW or not _is_called_by_featx(sys._getframe(1)):
            return None
        if os.environ.get(_LOG_LEVEL, _ERRORS_ONLY) != _ERRORS_ONLY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            quietly = _loading_quietly()(spec.loader.exec_module)
            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


def _is_called_by_featx(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "featx":
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _loading_quietly() -> Iterator[None]:
    os.environ[_LOG_LEVEL] = _ERRORS_ONLY
    logger = logging.getLogger(_TENSORFLOW)
    if logger.level == logging.NOTSET:
        # TensorFlow warns of retracing from the fifth network on, although each is traced once.
        logger.setLevel(logging.ERROR)
    with _lines_of_tensorflow_hidden(), activity("loading TensorFlow"):
        yield


@contextlib.contextmanager
def _lines_of_tensorflow_hidden() -> Iterator[None]:
    """Keep descriptor 2 in a file; then print it, without the lines of TensorFlow.

    After an error all lines are printed. Python's own standard error stays where it is.
    """
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
            stack.callback(os.close, kept)
            hidden = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # there is no descriptor 2, or no space: nothing is hidden
            yield
            return
        stack.enter_context(_python_stderr_on(kept))
        os.dup2(hidden.fileno(), 2)
        is_loaded = False
        try:
            yield
            is_loaded = True
        finally:
            os.dup2(kept, 2)
            _print_again(hidden, only_others=is_loaded)


def _print_again(hidden: BinaryIO, *, only_others: bool) -> None:
    hidden.seek(0)
    for line in hidden:
        if not (only_others and _LINE_OF_TENSORFLOW.match(line)):
            with contextlib.suppress(OSError):  # nobody reads standard error
                os.write(2, line)


@contextlib.contextmanager
def _python_stderr_on(descriptor: int) -> Iterator[None]:
    """Point ``sys.stderr`` to another descriptor while 2 is hidden, so that progress is seen."""
    given = sys.stderr
    try:
        is_hidden = given.fileno() == 2
    except (AttributeError, OSError, ValueError):  # none, or one of a kernel, or closed
        is_hidden = False
    if not is_hidden:
        yield
        return
    given.flush()
    with open(
        descriptor, "w", buffering=1, encoding=given.encoding, errors=given.errors, closefd=False
    ) as shown:
        sys.stderr = shown
        try:
            yield
        finally:
            if sys.stderr is shown:
                sys.stderr = given
