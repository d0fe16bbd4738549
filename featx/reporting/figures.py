"""Still pictures of the page of a report, as SVG that follows the colors of the page.

Text and lines have the color of the text around the picture, so that it suits a dark page too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx._text import one_line
from featx.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#123457"  # replaced by the color of the text; no picture uses it otherwise
_BLUE, _ORANGE = "#3b78c4", "#d2691e"
_MOST_NUMBERED, _MOST_NAMED = 15, 60  # classes of a matrix
_LONGEST_NAME = 24  # characters


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of that many inches without a graphical backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _svg(figure: Figure, description: str) -> str:
    """Return a figure as the text of an SVG element with a description for screen readers."""
    from markupsafe import escape
    from matplotlib import rc_context
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.tick_params(colors=_INK, which="both")
        for spine in axes.spines.values():
            spine.set_color(_INK)
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_color(_INK)
        axes.set_facecolor("none")
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    written = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "featx"}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([^;\"]*?)px [^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    opening = (
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width} {height}" '
        f'style="max-width: {float(width) * 4 / 3:.0f}px" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink"'
    )
    return opening + svg[svg.index(">") :]


def _short(name: str) -> str:
    return one_line(name, max_chars=_LONGEST_NAME)


def confusion_svg(labels: Sequence[str], counts: np.ndarray) -> str:
    """Draw a confusion matrix: rows are true classes, colors are fractions of a row."""
    from sklearn.metrics import ConfusionMatrixDisplay

    n_classes = len(labels)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(1.6 + 0.42 * n_classes, 3.2, 8.5))
    figure, axes = _figure(side + 0.5, side)
    names = [_short(name) for name in labels]
    display = ConfusionMatrixDisplay(fractions, display_labels=names)
    style = {"vmin": 0, "vmax": 1}
    display.plot(ax=axes, cmap="Blues", include_values=False, colorbar=False, im_kw=style)
    if n_classes <= _MOST_NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if fractions[row, column] > 0.5 else "#1b2a3a"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=shade, fontsize=9)
    is_named = n_classes <= _MOST_NAMED
    size = 9 if n_classes <= 20 else 5.5
    for axis in (axes.xaxis, axes.yaxis):
        if not is_named:
            axis.set_ticks([])
        axis.set_tick_params(labelsize=size, length=0)
    axes.tick_params(axis="x", rotation=90 if n_classes > 5 else 0)
    axes.set(xlabel="predicted", ylabel="true")
    return _svg(
        figure, f"Confusion matrix of {n_classes} classes; the most confused pairs follow below"
    )


def calibration_svg(bins: Sequence[dict[str, Any]]) -> str:
    """Draw the accuracy of predictions against their probability, with 95% intervals."""
    figure, axes = _figure(4.2, 3.6)
    probability, accuracy, n = (
        np.array([each[name] for each in bins]) for name in ("probability", "accuracy", "n_samples")
    )
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle="--")
    n_right = np.rint(accuracy * n).astype(int)
    ends = np.array([wilson_interval(*pair) for pair in zip(n_right, n, strict=True)]).T
    axes.vlines(probability, *ends, color=_BLUE, alpha=0.4, linewidth=1.5)
    axes.scatter(probability, accuracy, s=20 + 300 * n / n.sum(), color=_BLUE, alpha=0.75)
    axes.set(xlabel="probability of the predicted class", ylabel="accuracy", xlim=(0, 1.03))
    axes.set_ylim(0, 1.03)
    points = "; ".join(f"{p:.2f}: {a:.2f}" for p, a in zip(probability, accuracy, strict=True))
    return _svg(figure, f"Calibration curve, accuracy by mean probability: {points}")


def learning_curve_svg(curve: dict[str, list[float]], score_name: str) -> str:
    """Draw the score against the number of training samples, one standard deviation shaded."""
    figure, axes = _figure(4.6, 3.3)
    n, mean, spread = (np.array(curve[name]) for name in ("n_train", "mean", "spread"))
    axes.fill_between(n, mean - spread, mean + spread, color=_BLUE, alpha=0.2, linewidth=0)
    axes.plot(n, mean, color=_BLUE, marker="o", linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xticks(n, [f"{count:,}" for count in n])
    axes.minorticks_off()
    axes.set(xlabel="training samples", ylabel=score_name)
    points = "; ".join(f"{count:,}: {score:.3f}" for count, score in zip(n, mean, strict=True))
    return _svg(figure, f"Learning curve, {score_name} by training samples: {points}")


def residuals_svg(y_true: np.ndarray, y_pred: np.ndarray) -> str:
    """Draw the residual, true minus predicted value, against the prediction."""
    figure, axes = _figure(5.2, 3.4)
    if len(y_true) > 10_000:
        axes.set_rasterization_zorder(5)
    axes.scatter(y_pred, y_true - y_pred, s=12, color=_BLUE, alpha=0.5, linewidth=0)
    axes.axhline(0, color=_INK, linewidth=0.8, linestyle="--")
    axes.set(xlabel="predicted", ylabel="true - predicted")
    return _svg(figure, f"Residuals of {len(y_true)} predictions against the predicted value")


def training_svg(history: dict[str, Sequence[float]], report: dict[str, Any]) -> str:
    """Draw the validation score of fine-tuning by epoch, and that of the head as a line."""
    figure, axes = _figure(4.6, 3.3)
    scores = list(history["val_score"])
    axes.plot(range(1, len(scores) + 1), scores, color=_BLUE, marker="o", label="fine-tuned")
    axes.axhline(report["head_score"], color=_ORANGE, linestyle="--", label="head alone")
    axes.set(xlabel="epoch", ylabel="validation score")
    axes.set_xticks(range(1, len(scores) + 1))
    legend = axes.legend(frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(_INK)
    return _svg(figure, f"Validation score of {len(scores)} epochs: {scores}")


def together_svg(names: Sequence[str], together: np.ndarray) -> str:
    """Draw which fraction of the samples of a label (row) has each other label (column)."""
    fractions = together / np.maximum(np.diag(together)[:, np.newaxis], 1)
    side = float(np.clip(1.8 + 0.42 * len(names), 3.2, 8.5))
    figure, axes = _figure(side + 0.5, side)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    places, short = range(len(names)), [_short(name) for name in names]
    axes.set_xticks(places, short, rotation=90)
    axes.set_yticks(places, short)
    axes.set(xlabel="also has", ylabel="samples with")
    return _svg(figure, f"Co-occurrence of {len(names)} labels")
