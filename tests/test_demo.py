"""The demo does what it says: embeddings beat pixels, and a second run embeds nothing."""

from pathlib import Path

import pytest

from featx.cli.demo import run_demo


@pytest.mark.slow
def test_run_demo_embeddings_beat_pixels_in_one_pass(tmp_path):
    steps = []
    result = run_demo(tmp_path, on_step=steps.append)
    assert len(steps) == 8
    rows = result["rows"]
    assert [row.n_forward for row in rows] == [0, 1797, 0, 0, 400, 0]
    for pixels, first, second in (rows[:3], rows[3:]):
        assert first.mean > pixels.mean + 0.02
        assert (second.mean, second.spread) == (first.mean, first.spread)
    assert rows[3].mean < 0.3
    assert rows[4].mean > 0.8
    for name in ("images", "cache", "model", "example"):
        assert Path(result[name]).exists()
    assert result["prediction"] == Path(result["example"]).parent.name
