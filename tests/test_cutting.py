"""Whether batches are cut into parts is found out by doing both."""

import numpy as np
import pytest

from featx.engines.cutting import Cutting


def images(n_images):
    return np.zeros((n_images, 224, 224, 3), np.uint8)


def tried(cutting, batch, *, whole_s, parts_s):
    while cutting.is_on_trial(batch):
        parts = cutting.parts_of(batch)
        cutting.note(parts, seconds=parts_s.pop() if len(parts) > 1 else whole_s.pop())
    return len(cutting.parts_of(batch))


@pytest.mark.parametrize(
    ("whole_s", "parts_s", "n_parts"), [([4, 4, 9], [3, 5, 5], 3), ([2, 5, 5], [3, 3, 3], 1)]
)
def test_parts_of_keeps_to_the_way_of_the_fastest_batch(whole_s, parts_s, n_parts):
    assert tried(Cutting(), images(8), whole_s=whole_s, parts_s=parts_s) == n_parts


def test_parts_of_gives_all_images_in_order():
    batch = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1) * np.ones((224, 224, 3), np.uint8)
    parts = Cutting().parts_of(batch)
    assert len(parts) == 3
    assert np.array_equal(np.concatenate(parts), batch)


def test_is_on_trial_small_batches_are_not():
    assert not Cutting().is_on_trial(images(3))


def test_note_batches_of_two_sizes_are_not_compared():
    cutting = Cutting()
    for n_images in (8, 16, 8, 16, 8):
        cutting.note(cutting.parts_of(images(n_images)), seconds=1.0)
    assert cutting.is_on_trial(images(8))
