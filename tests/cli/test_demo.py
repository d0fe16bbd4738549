"""The demo does what it says: embeddings beat pixels, and a second run embeds nothing."""

import json
from pathlib import Path

import pytest
from sklearn.base import clone

from featx.cli import demo, output
from featx.cli.demo import DemoRow
from featx.cli.main import main


@pytest.mark.long
def test_demo_embeddings_beat_pixels_in_one_pass(tmp_path, capsys, monkeypatch):
    # Fine-tuning starts from the head, so that one epoch does to beat pixels.
    monkeypatch.setattr(demo, "_FINE_TUNE", clone(demo._FINE_TUNE).set_params(epochs=1))
    main(["demo", "--out", str(tmp_path / "demo"), "--json"])
    text, messages = capsys.readouterr()
    assert len([line for line in messages.splitlines() if line.startswith("- ")]) == 10
    result = json.loads(text)
    rows = [DemoRow(**row) for row in result["rows"]]
    assert [row.n_forward for row in rows[:3] + rows[4:7]] == [0, 1797, 0, 0, 400, 0]
    for pixels, first, second, tuned in (rows[:4], rows[4:]):
        assert first.mean > pixels.mean + 0.02
        assert (second.mean, second.spread) == (first.mean, first.spread)
        assert tuned.mean > pixels.mean + 0.02
    assert rows[4].mean < 0.3
    assert rows[5].mean > 0.8
    for name in ("images", "cache", "model", "example"):
        assert Path(result[name]).exists()
    assert result["prediction"] == Path(result["example"]).parent.name
    output.print_demo({**result, "rows": rows})
    shown = capsys.readouterr().out
    for expected in ("raw pixels", "first run", "second run", "fine-tuned", result["model"]):
        assert expected in shown
