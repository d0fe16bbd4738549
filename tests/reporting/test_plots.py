"""Names as plain text in figures, and figures where matplotlib is not installed."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from featx import (
    EmbeddingMapDisplay,
    LayerDisplay,
    MistakesDisplay,
    ProbePathDisplay,
    TransferClassifier,
    TuningHistoryDisplay,
)
from featx.exceptions import MissingExtraError
from featx.reporting.plots import add_legend

NAMES = ["$x_1$", "$unbalanced", "_hidden", "two\nlines", "esc\x1b[2J", "n" * 200]
SHOWN = ["$x_1$", "$unbalanced", "_hidden", r"two\nlines", r"esc\x1b[2J"]


def test_legend_hostile_names_are_plain_text():
    figure, ax = plt.subplots()
    lines = [ax.plot(0, number)[0] for number in range(len(NAMES))]
    texts = add_legend(ax, lines, NAMES).get_texts()
    figure.canvas.draw()  # a formula that is not closed would raise here
    assert [text.get_text() for text in texts[:-1]] == SHOWN
    assert len(texts[-1].get_text()) < 40
    assert not any(text.get_parse_math() for text in texts)


def test_layer_names_are_plain_text():
    display = LayerDisplay(layers=[*NAMES, None], scores=np.eye(7)).plot()
    display.figure_.canvas.draw()
    labels = display.ax_.get_xticklabels()
    assert [label.get_text() for label in labels[:5]] == SHOWN
    assert labels[-1].get_text() == "output"
    assert not any(label.get_parse_math() for label in labels)


@pytest.mark.parametrize(
    "plot",
    [
        lambda: EmbeddingMapDisplay.from_estimator(None, None),
        lambda: EmbeddingMapDisplay.from_embeddings(None),
        lambda: MistakesDisplay.from_estimator(None, None, None),
        lambda: MistakesDisplay.from_predictions(None, None, None),
        lambda: LayerDisplay.from_estimator(TransferClassifier(), None, None),
        lambda: LayerDisplay(layers=[None], scores=np.ones((1, 2))).plot(),
        lambda: ProbePathDisplay(strengths=[1], scores=np.ones((1, 2)), selected=1).plot(),
        lambda: TuningHistoryDisplay(losses={}, scores=[1.0], best_epoch=1).plot(),
    ],
)
def test_plot_without_matplotlib_names_extra(plot, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'featx\[report\]'"):
        plot()
