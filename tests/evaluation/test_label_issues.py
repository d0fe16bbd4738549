"""Wrong labels are found, whatever the labels are and wherever the embeddings lie."""

import h5py
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit

from featx import find_label_issues
from featx.exceptions import InputError, ParameterError


@pytest.fixture
def blobs():
    """Three classes that overlap little, with 6 of 120 labels wrong; and the rows of these."""
    X, y = make_blobs(120, 8, centers=3, cluster_std=3.0, random_state=0)
    rows = np.arange(0, 120, 20)
    y[rows] = (y[rows] + 1) % 3
    return X.astype(np.float32), y, rows


def test_find_label_issues_ranks_turned_labels_first():
    X, y = load_digits(return_X_y=True)
    true, turned = y.copy(), np.random.default_rng(0).choice(len(y), 90, replace=False)
    y[turned] = (y[turned] + np.random.default_rng(1).integers(1, 10, 90)) % 10
    found = find_label_issues(X, y)
    assert np.isin(turned, found.indices[:180]).mean() > 0.95
    assert (found.suggested[turned] == true[turned]).mean() > 0.95
    assert found.n_expected_interval[0] <= 90 <= found.n_expected_interval[1]
    assert found.n_expected == pytest.approx(90, abs=40)


def test_find_label_issues_results_agree(blobs):
    X, y, rows = blobs
    found = find_label_issues(X, y)
    assert set(found.indices[:6]) == set(rows)
    assert found.indices.dtype == np.int64
    assert (found.scores.dtype, found.proba.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found.proba.sum(axis=1), 1, atol=1e-5)
    assert found.scores.min() >= 0
    assert found.scores.max() <= 1
    assert (np.diff(found.scores[found.indices]) >= 0).all()
    np.testing.assert_array_equal(np.flatnonzero(found.suggested != y), np.sort(found.indices))
    assert found.classes.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: np.array(["ant", "bee", "cat"])[y],
        lambda y: list(map(str, y)),
        lambda y: pd.Categorical(np.array(["ant", "bee", "cat"])[y]),
        lambda y: pd.Series(y + 2**60, dtype="Int64"),
        lambda y: np.datetime64("2026-01-01") + y,
    ],
    ids=["strings", "list", "categorical", "large integers", "dates"],
)
def test_find_label_issues_takes_labels_of_any_kind(convert, blobs):
    X, y, _ = blobs
    expected, found = find_label_issues(X, y), find_label_issues(X, convert(y))
    np.testing.assert_array_equal(found.indices, expected.indices)
    given = np.asarray(list(convert(y)))
    np.testing.assert_array_equal(found.suggested != given, expected.suggested != y)


def test_find_label_issues_two_classes_of_booleans(blobs):
    X, y, _ = blobs
    labels = y == 0
    turned = [7, 50]
    labels[turned] = ~labels[turned]
    found = find_label_issues(X, labels)
    assert set(turned) <= set(found.indices)
    assert found.suggested.dtype == bool
    assert found.proba.shape == (120, 2)


def test_find_label_issues_class_of_two_samples(blobs):
    X, y, _ = blobs
    y[[1, 2]], X[[1, 2]] = 3, [[40.0] * 8, [41.0] + [40.0] * 7]
    found = find_label_issues(X, y)
    assert found.proba.shape == (120, 4)
    assert not {1, 2} & set(found.indices)
    y[2] = 0
    with pytest.raises(
        InputError, match=r"all samples of 3 \(1\) are in the test part of one fold"
    ):
        find_label_issues(X, y)


def test_find_label_issues_unread_rows_are_left_out(blobs):
    X, y, rows = blobs
    X[[3, 70]] = np.nan
    found = find_label_issues(X, y)
    assert set(found.indices[:6]) == set(rows)
    assert np.flatnonzero(np.isnan(found.scores)).tolist() == [3, 70]
    assert np.isnan(found.proba[[3, 70]]).all()
    np.testing.assert_array_equal(found.suggested[[3, 70]], y[[3, 70]])
    X[5, 2] = np.inf
    with pytest.raises(InputError, match="beside others in rows 5"):
        find_label_issues(X, y)
    with pytest.raises(InputError, match="none of the 120 samples could be read"):
        find_label_issues(np.full_like(X, np.nan), y)


def test_find_label_issues_copies_confirm_no_label(blobs):
    X, y, rows = blobs
    X, y = np.vstack([X, *[X[rows]] * 3]), np.concatenate([y, *[y[rows]] * 3])
    groups = np.concatenate([np.arange(120), *[rows] * 3])
    found = find_label_issues(X, y, groups=groups)
    copies = np.flatnonzero(np.isin(groups, rows))
    assert np.isin(copies, found.indices[: len(copies)]).mean() > 0.9


def test_find_label_issues_groups_predict_each_other_not(blobs):
    X, y, _ = blobs
    groups = np.repeat(np.arange(24), 5)
    expected = find_label_issues(X, y, groups=groups, cv=GroupKFold(5))
    shuffled = find_label_issues(X, y, groups=groups)
    for found in (expected, shuffled):
        assert found.proba.shape == (120, 3)
    with pytest.raises(ParameterError, match="expected folds that keep groups together, but fold"):
        find_label_issues(X, y, groups=groups, cv=KFold(5))
    with pytest.raises(ParameterError, match="expected at most 24, the number of groups"):
        find_label_issues(X, y, groups=groups, cv=25)


def test_find_label_issues_drawn_rows_suffice(blobs, monkeypatch, tmp_path):
    X, y = load_digits(return_X_y=True)
    X, turned = X.astype(np.float32), np.arange(0, 1797, 20)
    y[turned] = (y[turned] + 1) % 10
    monkeypatch.setattr("featx.evaluation.label_issues._MAX_ROWS_DRAWN", 600)
    monkeypatch.setattr("featx.evaluation.label_issues._MAX_VOTERS", 300)
    monkeypatch.setattr("featx.probes._arrays._ROWS_AT_ONCE", 500)
    expected = find_label_issues(X, y)
    assert np.isin(turned, expected.indices[: 2 * len(turned)]).mean() > 0.9
    np.save(tmp_path / "X.npy", X)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        for rows in (file.create_dataset("X", data=X), np.load(tmp_path / "X.npy", "r")):
            found = find_label_issues(rows, y)
            np.testing.assert_array_equal(found.indices, expected.indices)


def test_find_label_issues_draws_rare_classes(blobs, monkeypatch):
    X, y, _ = blobs
    X, y = np.vstack([X] * 10) + np.arange(1200)[:, np.newaxis] / 1e3, np.tile(y, 10)
    y[[5, 900]], X[[5, 900]] = 3, [[40.0] * 8, [41.0] + [40.0] * 7]
    monkeypatch.setattr("featx.evaluation.label_issues._MAX_ROWS_DRAWN", 100)
    found = find_label_issues(X.astype(np.float32), y)
    assert not {5, 900} & set(found.indices)


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_find_label_issues_takes_other_arrays(library, blobs):
    xp = pytest.importorskip(library)
    X, y, _ = blobs
    with sklearn.config_context(array_api_dispatch=True):
        found = find_label_issues(xp.asarray(X), xp.asarray(y))
    np.testing.assert_array_equal(found.indices, find_label_issues(X, y).indices)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (1, "cv=1: expected an integer from 2 on"),
        (True, "cv=True: expected an integer from 2 on"),
        ("five", "cv='five': .*"),
        (ShuffleSplit(5, random_state=0), "expected folds that test each sample exactly once"),
        (200, "cv=200: expected at most 120, the number of samples"),
        ([(np.arange(60), np.arange(60, 120))], "test each sample exactly once"),
    ],
    ids=str,
)
def test_find_label_issues_faulty_folds_raise(cv, message, blobs):
    X, y, _ = blobs
    with pytest.raises(ParameterError, match=message):
        find_label_issues(X, y, cv=cv)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.linspace(0, 1, 120), "y holds values, not classes"),
        (np.eye(3)[np.arange(120) % 3].astype(int), r"y has shape \(120, 3\)"),
        (np.arange(119) % 3, "X has 120 samples and y has 119"),
        (np.zeros(120, int), "y has one class only"),
        (["a", None] * 60, "y has 60 missing labels"),
    ],
    ids=["values", "columns", "length", "one class", "missing"],
)
def test_find_label_issues_faulty_labels_raise(y, message, blobs):
    with pytest.raises(InputError, match=message):
        find_label_issues(blobs[0], y)


def test_find_label_issues_lists_all_faults(blobs):
    with pytest.raises(InputError, match=r"(?s)2 faults.*119.*groups.shape"):
        find_label_issues(blobs[0], np.arange(119) % 3, groups=[1, 2])
