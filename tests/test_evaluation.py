"""Metrics are scikit-learn's, as plain data."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from featx.cli import reports
from featx.evaluation import evaluate


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


@pytest.mark.parametrize("name", ["accuracy", "macro", "macro avg", "weighted"])
def test_evaluate_class_that_is_called_as_a_measure_is(name, capsys):
    result = evaluate([name] * 3 + ["other"] * 2, [name] * 4 + ["other"])
    assert result["classes"][name]["support"] == 3
    assert result["macro"]["recall"] == 0.75
    reports.print_evaluation(result)
    assert capsys.readouterr().out.count(name) >= 2
