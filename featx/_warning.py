"""``warn_caller``: warnings that quote a line of the caller's own code."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# A search or a pipeline of scikit-learn may be between the caller's line and the warning.
_PACKAGES = ("featx", "sklearn", "joblib", "keras")
_BETWEEN = (*_PACKAGES, "contextlib", "concurrent", "threading", "multiprocessing")


def warn_caller(warning: Warning) -> None:
    """Warn at the innermost line outside of featx and scikit-learn.

    The caller sees a line of their own code, and Python's filters show a warning that repeats below
    that line only once. A thread may have no such line; then Python quotes none.
    """
    frame: FrameType | None = sys._getframe(1)
    stacklevel = 2
    while frame is not None and _package_of_frame(frame) in _BETWEEN:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(warning, stacklevel=stacklevel)


def _package_of_frame(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
