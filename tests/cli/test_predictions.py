"""Predictions of many images, some at a time, and what becomes of those that cannot be read."""

import pytest

from featx import load, load_image_folder
from featx.cli.predictions import predict_in_parts
from featx.exceptions import BadSampleError, BadSampleWarning, CacheWriteWarning


def test_predict_in_parts_yields_before_later_images(photos, model):
    paths = load_image_folder(photos).data
    parts = predict_in_parts(load(model), paths, with_proba=True, n_at_once=5)
    first = next(parts)
    assert [row["image"] for row in first.by_image()] == list(paths[:5])
    assert first.labels.tolist() == ["dark"] * 5
    (photos / "light" / "2.png").write_text("no image")
    with pytest.raises(BadSampleError, match="1 of 12 samples cannot be read") as caught:
        list(parts)
    assert [(fault.position, fault.name) for fault in caught.value.faults] == [(8, paths[8])]


def test_predict_in_parts_nan_warns_once(photos, model):
    paths = [photos / "dark" / name for name in ("0.png", "gone.png", "1.png", "lost.png")]
    classifier = load(model)
    classifier.extractor_.set_params(on_error="nan")
    parts = predict_in_parts(classifier, list(map(str, paths)), with_proba=False, n_at_once=2)
    with pytest.warns(BadSampleWarning, match="2 of 4 samples cannot be read") as caught:
        labels = [row["label"] for part in parts for row in part.by_image()]
    assert labels == ["dark", None, "dark", None]
    assert [fault.position for fault in caught[0].message.faults] == [1, 3]
    assert len(caught) == 1


def test_predict_in_parts_shows_other_warnings(photos, model):
    classifier = load(model, cache=photos / "dark" / "0.png" / "no-folder")
    with pytest.warns(CacheWriteWarning, match="stored"):
        list(predict_in_parts(classifier, [str(photos / "dark" / "1.png")], with_proba=False))
