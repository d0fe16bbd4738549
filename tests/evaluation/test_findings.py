"""All findings of images come in one list, whatever cannot be checked."""

import numpy as np
import pytest

from featx import find_image_issues
from featx.evaluation.findings import KINDS, find_all_issues


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)


def found_kinds(images, embeddings, **names):
    """Return the findings as (issue, row, other)."""
    found = find_all_issues(find_image_issues(list(images)), embeddings, **names).found
    return [(each.issue, each.row, each.other) for each in found]


def test_findings_copies_in_classes_and_splits(images, embeddings):
    images[[4, 7]] = images[[2, 3]]
    labels = np.array(["a", "b"] * 10)
    labels[4] = "b"
    splits = np.array(["train"] * 5 + ["test"] * 15)
    expected = [
        ("in two classes", 4, 2),
        ("in two splits", 7, 3),
        ("exact duplicate", 7, 3),
        ("exact duplicate", 4, 2),
    ]
    found = found_kinds(images, embeddings, labels=labels, splits=splits)
    assert sorted(each for each in found if each[0] != "suspect label") == sorted(expected)
    order = [KINDS.index(issue) for issue, *_ in found]
    assert order == sorted(order)


def test_findings_worst_images_come_first(images, embeddings):
    images[0], images[1] = images[0] // 40, images[1] // 4
    dark = [each for each in found_kinds(images, embeddings) if each[0] == "dark"]
    assert [row for _, row, _ in dark] == [0, 1]


def test_findings_unreadable_images_are_left_out(images, embeddings):
    content = [*images[:18], b"no image", images[0]]
    embeddings[5] = np.nan  # could not be embedded, as with another decoder
    found = find_all_issues(
        find_image_issues(content), embeddings, labels=np.array(["a", "b"] * 10)
    )
    assert [(each.row, each.issue) for each in found.found if each.other >= 0] == [
        (19, "in two classes"),
        (19, "exact duplicate"),
    ]
    assert np.isnan(found.found[0].score)
    assert "not an image" in found.found[0].detail
    assert found.unchecked == ""
    assert len(found.labels.scores) == 18


@pytest.mark.parametrize("n_images", [1, 2])
def test_findings_few_images_are_checked(n_images, images, embeddings):
    found = find_all_issues(
        find_image_issues(images[:n_images]), embeddings[:n_images], labels=["a", "b"]
    )
    assert found.found == []
    assert found.labels is None
    assert found.unchecked


def test_findings_of_unreadable_images_alone():
    found = find_all_issues(find_image_issues([b"a", b"b"]), np.full((2, 3), np.nan))
    assert [each.issue for each in found.found] == ["unreadable"] * 2
    assert found.unchecked == "there are no labels"
