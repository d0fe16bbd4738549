"""Metrics are scikit-learn's, as plain data; comparisons share the pass."""

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from featx import EmbeddingCache, FeatureExtractor
from featx.cli import reports
from featx.engines.keras_engine import KerasEngine
from featx.evaluation import check_folds, compare, evaluate
from featx.exceptions import BadSampleWarning, InputError, ParameterError, WeightsError


@pytest.fixture
def images():
    noise = np.random.default_rng(0).integers(0, 128, (20, 64, 64, 3), dtype=np.uint8)
    noise[::2] += 127
    return noise


@pytest.fixture
def labels():
    return np.array(["light", "dark"] * 10)


def test_compare_faults_of_all_parts_are_listed_before_the_pass(images, labels):
    extractors = [FeatureExtractor("tiny"), FeatureExtractor("tinny")]
    with pytest.raises(ParameterError, match="3 faulty parameters") as caught:
        next(compare(images, labels, extractors=extractors, heads=["ridge", "rigde", 3]))
    names = [fault.partition(":")[0] for fault in caught.value.faults]
    assert names == ["backbone='tinny'", "head='rigde'", "head=3"]
    assert EmbeddingCache().info()["n_forward"] == 0


def test_evaluate_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.integers(0, 3, (2, 50))
    result = evaluate(y_true, y_pred)
    assert result["accuracy"] == accuracy_score(y_true, y_pred)
    for name, average in (("macro", "macro"), ("weighted", "weighted")):
        expected = {
            "precision": precision_score(y_true, y_pred, average=average),
            "recall": recall_score(y_true, y_pred, average=average),
            "f1-score": f1_score(y_true, y_pred, average=average),
        }
        assert {key: result[name][key] for key in expected} == pytest.approx(expected)
    per_class = [result["classes"][str(label)]["recall"] for label in range(3)]
    np.testing.assert_allclose(per_class, recall_score(y_true, y_pred, average=None))
    assert np.sum(result["confusion"]["counts"]) == result["n_samples"] == 50
    json.dumps(result)


def test_evaluate_class_that_is_never_predicted_or_never_true():
    result = evaluate(["a", "a", "b"], ["a", "c", "a"])
    assert list(result["classes"]) == ["a", "b", "c"]
    assert result["classes"]["b"]["precision"] == 0
    assert result["classes"]["c"]["recall"] == 0
    assert result["confusion"]["counts"] == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("y", "n_folds", "groups", "message"),
    [
        ("aabbb", 3, None, r"3 folds need 3 samples of each class.*'a' \(2\)"),
        ("abc", 2, None, r"'a' \(1\), 'b' \(1\), 'c' \(1\)"),
        ("aabb", 1, None, "n_folds=1: expected at least 2"),
        ("aaabbb", 3, [0, 0, 0, 1, 1, 1], "3 folds need as many groups, but there are 2"),
    ],
)
def test_check_folds_too_few_samples_or_groups_raises(y, n_folds, groups, message):
    with pytest.raises(InputError, match=message):
        check_folds(list(y), n_folds=n_folds, groups=groups)


def test_compare_heads_share_the_pass_of_their_extractor(images, labels):
    extractors = [FeatureExtractor("tiny"), FeatureExtractor("tiny", layer="stage4")]
    heads = ["logistic", RidgeClassifier()]
    rows = list(compare(images, labels, extractors=extractors, heads=heads, n_folds=2))
    assert [row.n_forward for row in rows] == [20, 0, 20, 0]
    assert [row.head for row in rows] == ["logistic", "RidgeClassifier"] * 2
    assert [row.backbone for row in rows[::2]] == ["tiny", "tiny/stage4"]
    assert all(row.mean == np.mean(row.scores) == 1 for row in rows)
    json.dumps([row._asdict() for row in rows])


def test_compare_groups_never_part(images, labels):
    # Ten groups, each with one class of noise: whoever parts them finds more than is there.
    groups = np.arange(20) // 2
    (row,) = compare(
        images, labels, extractors=[FeatureExtractor("tiny")], heads=["knn"], groups=groups
    )
    assert len(row.scores) == 5


@pytest.mark.parametrize("grouped", [False, True])
def test_compare_on_error_nan_leaves_unreadable_samples_out_once(images, labels, grouped):
    samples = [*images[:19], b"no image"]
    extractor = FeatureExtractor("tiny", on_error="nan")
    groups = np.arange(20) // 2 if grouped else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = list(
            compare(samples, labels, extractors=[extractor], heads=["ridge", "knn"], groups=groups)
        )
    assert [type(w.message) for w in caught] == [BadSampleWarning]
    assert [(row.mean, row.n_forward) for row in rows] == [(1, 19), (1, 0)]


def test_compare_too_few_readable_samples_raises(images, labels):
    samples = [*images[:10], *[b"no image"] * 10]
    extractor = FeatureExtractor("tiny", on_error="nan")
    rows = compare(samples, labels, extractors=[extractor], heads=["ridge"], n_folds=6)
    with pytest.warns(BadSampleWarning), pytest.raises(InputError, match="6 folds need 6 samples"):
        next(rows)


def test_compare_too_many_folds_raises_before_the_pass(images, labels, cache_folder):
    rows = compare(
        images, labels, extractors=[FeatureExtractor("tiny")], heads=["ridge"], n_folds=11
    )
    with pytest.raises(InputError, match="11 folds"):
        next(rows)
    assert not cache_folder.exists()


@pytest.mark.parametrize("name", ["accuracy", "macro", "macro avg", "weighted"])
def test_evaluate_class_that_is_called_as_a_measure_is(name, capsys):
    result = evaluate([name] * 3 + ["other"] * 2, [name] * 4 + ["other"])
    assert result["classes"][name]["support"] == 3
    assert result["macro"]["recall"] == 0.75
    reports.print_evaluation(result)
    assert capsys.readouterr().out.count(name) >= 2


def test_compare_backbone_that_cannot_be_had_raises_before_any_pass(images, labels):
    gone = FeatureExtractor("vgg16", input_size=32)  # no network, no weights
    with pytest.raises(WeightsError):
        list(compare(images, labels, extractors=[FeatureExtractor("tiny"), gone], heads=["knn"]))
    assert EmbeddingCache().info()["n_rows"] == 0


def test_compare_without_a_cache_forwards_each_image_once(images, labels, monkeypatch):
    batches = []
    padded = KerasEngine.padded

    def counted(engine, inputs):
        batches.append(len(inputs))
        return padded(engine, inputs)

    monkeypatch.setattr(KerasEngine, "padded", counted)
    extractor = FeatureExtractor("tiny", cache=None)
    rows = list(compare(images, labels, extractors=[extractor], heads=["knn", "lda"], n_folds=2))
    assert [row.n_forward for row in rows] == [20, 0]
    assert sum(batches) == 20
