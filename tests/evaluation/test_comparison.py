"""Comparisons are cross-validations on the same folds; heads share the pass."""

import json
import warnings

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    FineTune,
    KNNProbe,
    NearestMeanProbe,
    compare_heads,
)
from featx.engines.keras_engine import KerasEngine
from featx.evaluation.comparison import (
    BASELINE,
    BackboneFailure,
    Comparison,
    EmbeddingPass,
    _check_comparison_folds,
    compare,
    p_values,
)
from featx.exceptions import BadSampleWarning, InputError, ParameterError, WeightsError
from featx.heads.named import CLASSIFIER_HEADS, make_head


@pytest.fixture
def features():
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]


def _rows_of_heads(found):
    return [each for each in found if isinstance(each, Comparison) and each.backbone]


def test_compare_faults_are_listed_before_pass(images, labels):
    extractors = [FeatureExtractor("tiny"), FeatureExtractor("tinny")]
    with pytest.raises(ParameterError, match="3 faulty parameters") as caught:
        next(compare(images, labels, extractors=extractors, heads=["ridge", "rigde", 3]))
    names = [f"{fault.name}={fault.value}" for fault in caught.value.faults]
    assert names == ["backbone='tinny'", "head='rigde'", "head=3"]
    assert EmbeddingCache().info()["n_forward"] == 0


@pytest.mark.parametrize(
    ("y", "n_folds", "groups", "message"),
    [
        ("aabbb", 3, None, r"3 folds need 3 samples of each class.*'a' \(2\)"),
        ("abc", 2, None, r"'a' \(1\), 'b' \(1\), 'c' \(1\)"),
        ("aabb", 1, None, "n_folds=1: expected at least 2"),
        ("aaabbb", 3, [0, 0, 0, 1, 1, 1], "3 folds need as many groups, but there are 2"),
    ],
)
def test_check_folds_too_few_samples_raises(y, n_folds, groups, message):
    with pytest.raises(InputError, match=message):
        _check_comparison_folds(list(y), n_folds=n_folds, groups=groups)


def test_compare_heads_share_one_pass(images, labels):
    extractors = [FeatureExtractor("tiny"), FeatureExtractor("tiny", layer="stage4")]
    heads = ["logistic", RidgeClassifier()]
    found = list(compare(images, labels, extractors=extractors, heads=heads, n_folds=2))
    assert [each.n_forward for each in found if isinstance(each, EmbeddingPass)] == [20, 20]
    rows = _rows_of_heads(found)
    assert [row.head for row in rows] == ["logistic", "RidgeClassifier"] * 2
    assert [row.backbone for row in rows[::2]] == ["tiny", "tiny/stage4"]
    assert all(row.mean == np.mean(row.scores) == 1 for row in rows)
    json.dumps([row._asdict() for row in rows])


@pytest.mark.long  # test_cv_fine_tune_has_a_row is the short form
def test_compare_fine_tunes_in_each_fold(images, labels):
    found = list(
        compare(
            images,
            labels,
            extractors=[FeatureExtractor("tiny")],
            heads=["logistic", "knn"],
            n_folds=2,
            fine_tune=FineTune(1, epochs=1),
        )
    )
    *_, tuned = rows = _rows_of_heads(found)
    assert [row.head for row in rows] == ["logistic", "knn", "logistic + fine-tuned 1"]
    assert (tuned.backbone, tuned.scores) == ("tiny", [1, 1])


def test_compare_fine_tuning_faults_come_before_pass(images, labels):
    mean = keras.Sequential([keras.layers.GlobalAveragePooling2D()])
    for fine_tune, fault in ((FineTune(99), "99"), (FineTune(1, epochs=0), "epochs=0")):
        rows = compare(
            images,
            labels,
            extractors=[FeatureExtractor("tiny"), FeatureExtractor(mean, cache=None)],
            heads=["ridge"],
            fine_tune=fine_tune,
        )
        with pytest.raises(ParameterError, match=fault):
            next(rows)
    assert EmbeddingCache().info()["n_forward"] == 0


def test_compare_names_differing_weights(images, labels):
    extractors = [
        FeatureExtractor("tiny", weights=each, resize="pad") for each in ("pretrained", None)
    ]
    rows = _rows_of_heads(
        compare(images, labels, extractors=extractors, heads=["ridge"], n_folds=2)
    )
    assert [row.backbone for row in rows] == ["tiny (weights=pretrained)", "tiny (weights=None)"]


def test_compare_groups_never_part(images, labels):
    # Ten groups, each with one class of noise: whoever parts them finds more than is there.
    groups = np.arange(20) // 2
    found = compare(
        images, labels, extractors=[FeatureExtractor("tiny")], heads=["knn"], groups=groups
    )
    (row,) = _rows_of_heads(found)
    assert len(row.scores) == 5


@pytest.mark.parametrize("grouped", [False, True])
def test_compare_unreadable_samples_are_left_out(images, labels, grouped):
    samples = [*images[:19], b"no image"]
    extractor = FeatureExtractor("tiny", on_error="nan")
    groups = np.arange(20) // 2 if grouped else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(
            compare(samples, labels, extractors=[extractor], heads=["ridge", "knn"], groups=groups)
        )
    assert [type(w.message) for w in caught] == [BadSampleWarning]
    assert found[0].n_forward == 19
    assert [row.mean for row in _rows_of_heads(found)] == [1, 1]


def test_compare_too_few_readable_samples_raises(images, labels):
    samples = [*images[:10], *[b"no image"] * 10]
    extractor = FeatureExtractor("tiny", on_error="nan")
    rows = compare(samples, labels, extractors=[extractor], heads=["ridge"], n_folds=6)
    with pytest.warns(BadSampleWarning), pytest.raises(InputError, match="6 folds need 6 samples"):
        list(rows)


def test_compare_too_many_folds_raises_early(images, labels, cache_folder):
    rows = compare(
        images, labels, extractors=[FeatureExtractor("tiny")], heads=["ridge"], n_folds=11
    )
    with pytest.raises(InputError, match="11 folds"):
        next(rows)
    assert not cache_folder.exists()


def test_compare_missing_backbone_leaves_others(images, labels):
    gone = FeatureExtractor("vgg16", input_size=32)  # no network, no weights
    first, *others = compare(
        images, labels, extractors=[FeatureExtractor("tiny"), gone], heads=["knn"], n_folds=2
    )
    assert isinstance(first, BackboneFailure)
    assert isinstance(first.error, WeightsError)
    assert first.backbone == "vgg16 (input_size=32)"
    assert [each.backbone for each in others] == ["tiny", "", "tiny"]  # pass, baseline, head


def test_compare_names_tell_extractors_apart(images, labels):
    small = {"weights": None, "input_size": 32}
    extractors = [
        FeatureExtractor("mobilenet_v2", backbone_params={"alpha": 0.35}, pooling="max", **small),
        FeatureExtractor("vgg16", input_size=32),  # its weights are missing
        FeatureExtractor("tiny", pooling=None),
    ]
    found = compare(images, labels, extractors=extractors, heads=["knn"], n_folds=2)
    assert {each.backbone for each in found} == {
        "mobilenet_v2 (alpha=0.35, input_size=32, max)",
        "vgg16 (input_size=32)",
        "tiny (no pooling)",
        "",
    }


def test_compare_baseline_is_majority_class(images, labels):
    y = ["a"] * 14 + ["b"] * 6
    extractors = [FeatureExtractor("tiny")]
    _, baseline, _ = compare(images, y, extractors=extractors, heads=["knn"], n_folds=2)
    assert (baseline.head, baseline.backbone) == (BASELINE, "")
    assert baseline.mean == pytest.approx(0.7)


def test_compare_uncached_forwards_each_once(images, labels, monkeypatch):
    batches = []
    padded = KerasEngine.padded

    def counted(engine, inputs):
        batches.append(len(inputs))
        return padded(engine, inputs)

    monkeypatch.setattr(KerasEngine, "padded", counted)
    extractor = FeatureExtractor("tiny", cache=None)
    list(compare(images, labels, extractors=[extractor], heads=["knn", "lda"], n_folds=2))
    assert sum(batches) == 20


HEADS = ["ridge", "nearest_mean", KNNProbe([5], cv=2)]


def test_compare_heads_scores_are_cross_validations(features):
    X, y = features
    rows = compare_heads(X, y, heads=HEADS, n_folds=4, random_state=1)
    folds = StratifiedKFold(4, shuffle=True, random_state=1)
    for row, head in zip(rows, HEADS, strict=True):
        expected = cross_val_score(make_head(head, CLASSIFIER_HEADS), X, y, cv=folds)
        assert row.scores == pytest.approx(expected.tolist())
        assert (row.mean, row.spread) == pytest.approx((expected.mean(), expected.std()))
    assert [row.head for row in rows] == ["ridge", "nearest_mean", "KNNProbe"]
    assert [row.p_value for row in rows] == p_values([row.scores for row in rows])
    json.dumps([row._asdict() for row in rows])


def test_compare_heads_groups_never_part(features):
    X, y = features
    groups = np.arange(len(y)) // 20
    seen = []

    class Watching(NearestMeanProbe):
        def fit(self, X, y):
            seen.append(X)
            return super().fit(X, y)

    compare_heads(X, y, heads=[Watching()], n_folds=3, groups=groups)
    of_row = {row.tobytes(): group for row, group in zip(X, groups, strict=True)}
    for rows in seen:
        trained = [of_row[row.tobytes()] for row in rows]
        assert all(trained.count(group) == 20 for group in set(trained))


def test_compare_heads_faults_are_all_named(features):
    X, y = features
    with pytest.raises(ParameterError, match="2 faulty") as caught:
        compare_heads(X, y, heads=["ridge", "rigde", 3])
    assert len(caught.value.faults) == 2
    with pytest.raises(InputError, match="300 folds need 300"):
        compare_heads(X, y, heads=["ridge"], n_folds=300)
    with pytest.raises(InputError, match="X has 300 samples and y has 299"):
        compare_heads(X, y[:-1], heads=["ridge"])


def test_p_values_equal_the_corrected_t_test():
    best, other = np.array([0.9, 0.92, 0.91, 0.95]), np.array([0.85, 0.9, 0.86, 0.93])
    gaps = best - other
    plain = stats.ttest_rel(best, other)
    # Its variance is that of the mean, and 1/3 of a test row for each row of training more.
    widened = plain.statistic * np.sqrt((1 / 4) / (1 / 4 + 1 / 3))
    expected = 2 * stats.t.sf(widened, 3)
    assert p_values([other, best]) == pytest.approx([expected, 1.0])
    assert expected > plain.pvalue
    assert gaps.mean() > 0


def test_p_values_without_any_spread():
    assert p_values([[0.9, 0.9], [0.9, 0.9], [0.8, 0.8]]) == [1, 1, 0.5]
    assert p_values([[0.75, 0.5, 0.5], [0.5, 0.25, 0.25]]) == [1, 0.25]


def test_compare_heads_of_values_raises(features):
    X, _ = features
    with pytest.raises(InputError, match="values, not classes"):
        compare_heads(X, X[:, 3] + 0.5, heads=["ridge"])


def test_compare_heads_none_raises():
    with pytest.raises(ParameterError, match="at least one"):
        compare_heads(np.eye(10), np.arange(10) % 2, heads=[])
