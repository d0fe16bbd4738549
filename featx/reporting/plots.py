r"""Plots of the displays: matplotlib when it is needed, colors, and names as plain text.

matplotlib takes a name such as ``$x_1$`` for a formula, leaves names that begin with ``_`` out of
legends, and breaks lines at ``\n``. Here, names of classes and files are shown as they are, in one
line; see :mod:`featx._text` for control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from featx._text import one_line
from featx.exceptions import MissingExtraError

# Colors that people with any color vision tell apart on white: Petroff 2021 (arXiv 2107.02270).
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = ("o", "^")
GRAY = "#999999"
AS_TEXT = {"parse_math": False, "usetex": False}  # options of a text that is shown as it is
BEST = {"marker": "*", "markersize": 14, "color": COLORS[2], "linestyle": "none", "zorder": 3}
_MAX_NAME_CHARS = 32


def import_pyplot(owner: str) -> Any:
    """Return ``matplotlib.pyplot``; MissingExtraError is raised if it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as exc:
        raise MissingExtraError(
            f"{owner} needs matplotlib, which is not installed: pip install 'featx[report]'"
        ) from exc
    return plt


def axes_or_new(ax: Any, owner: str, size: tuple[float, float] | None = None) -> Any:
    """Return the axes to plot on: those of the caller, or of a new figure (width, height)."""
    plt = import_pyplot(owner)
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def short_name(name: object, max_chars: int = _MAX_NAME_CHARS) -> str:
    r"""Return a name as one line; of a long one, the middle is left out.

    Examples
    --------
    >>> print(short_name("two\nlines"))
    two\nlines
    """
    return one_line(name, max_chars=max_chars)


def set_text(artist: Any, text: str) -> None:
    """Show a text as it is, without formulas."""
    artist.set(text=text, **AS_TEXT)


def add_legend(ax: Any, handles: Sequence[Any], names: Iterable[object], **options: Any) -> Any:
    """Add a legend that shows names as plain text, also those that begin with ``_``."""
    numbers = [str(number) for number in range(len(handles))]
    legend = ax.legend(handles, numbers, frameon=False, **options)
    for artist, name in zip(legend.get_texts(), names, strict=True):
        set_text(artist, short_name(name))
    return legend


def plot_folds(ax: Any, x: Any, scores: np.ndarray, **options: Any) -> tuple[Any, Any]:
    """Plot the mean of scores (n, n_folds), and the band from the lowest to the highest fold."""
    color = COLORS[0]
    (line,) = ax.plot(x, scores.mean(axis=1), color=color, **options)
    band = ax.fill_between(x, scores.min(axis=1), scores.max(axis=1), color=color, alpha=0.2, lw=0)
    return line, band
