"""Metrics are scikit-learn's, as plain data."""

import json

import numpy as np
import pytest
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from featx.cli import output
from featx.evaluation.intervals import fraction_interval, metric_intervals, wilson_interval
from featx.evaluation.metrics import evaluate, probabilities_at_temperature
from featx.exceptions import InputError


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


def test_evaluate_class_never_predicted_or_true():
    result = evaluate(["a", "a", "b"], ["a", "c", "a"])
    assert list(result["classes"]) == ["a", "b", "c"]
    assert result["classes"]["b"]["precision"] == 0
    assert result["classes"]["c"]["recall"] == 0
    assert result["confusion"]["counts"] == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("name", ["accuracy", "macro", "macro avg", "weighted"])
def test_evaluate_class_named_as_a_measure(name, capsys):
    result = evaluate([name] * 3 + ["other"] * 2, [name] * 4 + ["other"])
    assert result["classes"][name]["support"] == 3
    assert result["macro"]["recall"] == 0.75
    output.print_evaluation(result)
    assert capsys.readouterr().out.count(name) >= 2


def test_evaluate_labels_in_one_column_are_labels():
    column = np.array([[1.0], [0.0], [1.0]])
    assert evaluate(column, [1, 0, 0]) == evaluate([1.0, 0.0, 1.0], [1, 0, 0])


def labels_and_guesses(n_samples=400, n_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, n_classes, n_samples)
    y_pred = np.where(rng.random(n_samples) < 0.7, y_true, rng.integers(0, n_classes, n_samples))
    return y_true, y_pred


def test_intervals_are_those_of_resampled_samples():
    y_true, y_pred = labels_and_guesses()
    found = evaluate(y_true, y_pred)["intervals"]
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(y_true), (2000, len(y_true)))
    recalls = [recall_score(y_true[rows], y_pred[rows], average=None) for rows in drawn[:1000]]
    accuracies = (y_true[drawn] == y_pred[drawn]).mean(axis=1)
    np.testing.assert_allclose(
        found["accuracy"], np.percentile(accuracies, [2.5, 97.5]), atol=0.005
    )
    expected = np.percentile(recalls, [2.5, 97.5], axis=0)
    for label in range(4):
        np.testing.assert_allclose(
            found["classes"][str(label)]["recall"], expected[:, label], atol=0.02
        )
    macro = np.percentile(np.mean(recalls, axis=1), [2.5, 97.5])
    np.testing.assert_allclose(found["macro"]["recall"], macro, atol=0.01)


def test_intervals_cover_at_their_confidence():
    # In a population where 80 % is right, nine of ten intervals at 0.9 hold 0.8.
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        is_right = rng.random(200) < 0.8
        low, high = evaluate(np.ones(200, int), is_right.astype(int), confidence=0.9)["intervals"][
            "accuracy"
        ]
        held.append(low <= 0.8 <= high)
    assert 0.83 <= np.mean(held) <= 0.96


def test_intervals_repeat_and_narrow_with_samples():
    few, many = evaluate(*labels_and_guesses(100)), evaluate(*labels_and_guesses(10_000))
    assert evaluate(*labels_and_guesses(100)) == few
    assert np.ptp(many["intervals"]["accuracy"]) < np.ptp(few["intervals"]["accuracy"]) / 5


def probabilities(y_true, temperature, n_classes=4, seed=0):
    """Probabilities that would be right at a temperature of 1, divided by one."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.5, (len(y_true), n_classes))
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    drawn = (chances.cumsum(axis=1) > rng.random((len(y_true), 1))).argmax(axis=1)
    return drawn, probabilities_at_temperature(chances, 1 / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_calibration_finds_the_temperature(temperature):
    y_true, proba = probabilities(np.zeros(20_000), temperature)
    found = evaluate(y_true, proba.argmax(axis=1), proba=proba)["calibration"]
    assert found["temperature"] == pytest.approx(temperature, rel=0.05)
    assert found["log_loss"] == pytest.approx(log_loss(y_true, proba))
    assert found["log_loss_at_temperature"] <= found["log_loss"] + 1e-9
    expected = {0.5: "underconfident", 1.0: None, 3.0: "overconfident"}
    assert found["tendency"] == expected[temperature]
    if temperature == 1:
        assert found["error"] < 0.02
    else:
        assert found["error"] > 0.08


def test_calibration_error_is_the_mean_gap():
    y_true, proba = probabilities(np.zeros(500), 2.0)
    found = evaluate(y_true, proba.argmax(axis=1), proba=proba)["calibration"]
    sure, right = proba.max(axis=1), proba.argmax(axis=1) == y_true
    expected = 0.0
    for low in np.arange(15) / 15:
        part = (sure >= low) & (sure < low + 1 / 15 if low < 14 / 15 else sure <= 1)
        if part.any():
            expected += part.mean() * abs(sure[part].mean() - right[part].mean())
    assert found["error"] == pytest.approx(expected)
    assert sum(part["n_samples"] for part in found["bins"]) == 500
    json.dumps(found)


def test_calibration_columns_go_by_their_classes():
    y_true, proba = probabilities(np.zeros(300), 2.0)
    names = np.array(["d", "c", "b", "a"])
    plain = evaluate(y_true, proba.argmax(axis=1), proba=proba)["calibration"]
    named = evaluate(names[y_true], names[proba.argmax(axis=1)], proba=proba, classes=names)
    for name in ("error", "log_loss", "temperature"):
        assert named["calibration"][name] == pytest.approx(plain[name])


def test_calibration_of_right_predictions_is_perfect():
    found = evaluate([0, 1, 1], [0, 1, 1], proba=[[1, 0], [0, 1], [0, 1]])["calibration"]
    assert (found["error"], found["temperature"]) == (0, None)
    assert found["log_loss_at_temperature"] == found["log_loss"]


def test_calibration_takes_probabilities_in_float32():
    y_true, proba = probabilities(np.zeros(300), 2.0)
    single = (proba * (1 + 1e-4)).astype(np.float32)
    found = evaluate(y_true, proba.argmax(axis=1), proba=single)["calibration"]
    plain = evaluate(y_true, proba.argmax(axis=1), proba=proba)["calibration"]
    assert found["log_loss"] == pytest.approx(plain["log_loss"], rel=1e-5)


def test_intervals_of_few_right_samples_are_wide():
    found = evaluate(["a"] * 3 + ["b"] * 2, ["a"] * 3 + ["b"] * 2)["intervals"]
    assert found["accuracy"] == pytest.approx([0.566, 1.0], abs=1e-3)
    assert found["classes"]["b"]["recall"] == pytest.approx([0.342, 1.0], abs=1e-3)


def test_intervals_of_right_samples_are_wide_for_all_measures():
    labels = np.repeat(["a", "b", "c"], 21)
    found = evaluate(labels, labels)["intervals"]
    assert found["classes"]["b"]["f1-score"] == pytest.approx([0.916, 1.0], abs=1e-3)
    for name in ("precision", "recall", "f1-score"):
        low, high = found["macro"][name]
        assert (high, low < 0.95) == (1.0, True)


def test_intervals_of_f1_and_averages_cover():
    """In a population of three classes where 90% is right, as in the simulations of the docs."""
    rng = np.random.default_rng(0)
    cells = (np.eye(3) * 0.85 + 0.05).ravel() / 3
    held = []
    for _ in range(300):
        counts = rng.multinomial(60, cells).reshape(3, 3)
        found = metric_intervals(counts)
        ends = [found["macro"][name] for name in ("precision", "recall", "f1-score")]
        ends += [each["f1-score"] for each in found["classes"]]
        held.append([low <= 0.9 <= high for low, high in ends])
    assert (np.mean(held, axis=0) > [0.88, 0.88, 0.9, 0.92, 0.92, 0.92]).all()


def test_intervals_by_groups_are_those_of_the_groups():
    """Ten images of each of twenty patients that are all right or all wrong are twenty samples."""
    rng = np.random.default_rng(0)
    is_right = np.repeat(np.arange(20) < 15, 10)
    groups, y_true = np.repeat(np.arange(20), 10), np.tile([0, 1], 100)
    y_pred = np.where(is_right, y_true, 1 - y_true)
    few = wilson_interval(15, 20)
    order = rng.permutation(200)
    grouped = evaluate(y_true[order], y_pred[order], groups=groups[order])
    low, high = grouped["intervals"]["accuracy"]
    assert low < few[0] < 0.75 < few[1] < high  # the quantiles of Student's t are larger
    assert high - low < 1.2 * (few[1] - few[0])
    plain = evaluate(y_true, y_pred)["intervals"]
    for name in ("precision", "recall", "f1-score"):
        assert np.ptp(grouped["intervals"]["macro"][name]) > 2 * np.ptp(plain["macro"][name])
    assert grouped["n_groups"] == 20
    assert grouped["accuracy"] == 0.75


def test_intervals_by_groups_of_right_samples_count_groups():
    labels, groups = np.repeat(["a", "b"], 50), np.repeat(np.arange(10), 10)
    found = evaluate(labels, labels, groups=groups)["intervals"]
    low, high = wilson_interval(10, 10)
    assert found["accuracy"][0] < low
    assert found["accuracy"][1] == high == 1


def test_intervals_by_groups_of_one_are_nearly_plain():
    y_true, y_pred = labels_and_guesses(300)
    plain = evaluate(y_true, y_pred)["intervals"]["accuracy"]
    grouped = evaluate(y_true, y_pred, groups=np.arange(300))["intervals"]["accuracy"]
    assert grouped == pytest.approx(plain, abs=0.002)


def test_intervals_by_groups_cover_at_their_confidence():
    """Patients whose images are right with a probability of their own, 0.8 on average."""
    rng = np.random.default_rng(0)
    groups, held = np.repeat(np.arange(30), 8), []
    for _ in range(300):
        is_right = rng.random(240) < np.repeat(rng.beta(2, 0.5, 30), 8)
        ends = (fraction_interval(is_right, each) for each in (None, groups))
        held.append([low <= 0.8 <= high for low, high in ends])
    independent, grouped = np.mean(held, axis=0)
    assert independent < 0.88
    assert grouped > 0.92


@pytest.mark.parametrize("groups", [[1, 2], [1, 2, None], [[1, 1], [2, 2], [3, 3]]])
def test_evaluate_faulty_groups_raise(groups):
    with pytest.raises(InputError, match="groups"):
        evaluate([0, 1, 1], [0, 1, 1], groups=groups)


@pytest.mark.parametrize(
    ("n_right", "tendency"), [(40, "overconfident"), (60, "overconfident"), (98, None), (100, None)]
)
def test_calibration_tendency_of_sure_predictions(n_right, tendency):
    """No temperature helps if most of 100 samples that are 98% sure are wrong."""
    y_true = np.r_[np.zeros(n_right, int), np.ones(100 - n_right, int)]
    proba = np.tile([0.98, 0.02], (100, 1))
    found = evaluate(y_true, np.zeros(100, int), proba=proba, classes=[0, 1])["calibration"]
    assert found["tendency"] == tendency
    assert (found["temperature"] is None) == (n_right in (40, 100))


def test_calibration_of_unsure_right_predictions_is_underconfident():
    proba = np.tile([0.6, 0.4], (50, 1))
    found = evaluate(np.zeros(50, int), np.zeros(50, int), proba=proba, classes=[0, 1])
    assert (found["calibration"]["tendency"], found["calibration"]["temperature"]) == (
        "underconfident",
        None,
    )


def test_intervals_of_unpredicted_class_are_full():
    found = evaluate(["a", "a", "b"], ["a", "a", "a"])["intervals"]["classes"]["b"]
    assert found["precision"] == [0.0, 1.0]
    assert found["recall"][0] == 0.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y_true": [], "y_pred": []}, "no samples"),
        ({"y_pred": np.full((3, 2), 0.5)}, r"y_pred has shape \(3, 2\): .* pass .* as proba="),
        ({"y_true": np.eye(3)}, r"y_true has shape \(3, 3\): expected one label for each sample"),
        ({"y_true": 3}, r"y_true has shape \(\)"),
        ({"y_true": [1.0, 2.5, 3.0]}, "y_true has numbers such as 2.5, .* for classifiers"),
        ({"y_true": [1, 2, 3], "y_pred": [0.9, 2.1, 3]}, "y_pred has numbers such as 0.9"),
        ({"proba": [[0.5, 0.5]] * 3, "classes": ["a", "b", "c"]}, "a column for each of the 3"),
        ({"proba": [[0.5, 0.5]] * 3, "classes": ["a", "c"]}, r"no column for the labels \['b'\]"),
        ({"proba": [[0.5, 0.1]] * 3}, "not probabilities"),
        ({"confidence": 1.5}, "confidence=1.5"),
        ({"confidence": "0.9"}, "confidence='0.9'"),
        ({"proba": [[0.5, 0.5]] * 3, "classes": ["a", "a"]}, "each once"),
        ({"y_true": ["a"] * 3, "y_pred": ["a"] * 3, "proba": [[1.0]] * 3}, "two or more"),
    ],
)
def test_evaluate_faulty_input_is_told(given, message):
    given = {"y_true": ["a", "b", "a"], "y_pred": ["a", "a", "b"], **given}
    with pytest.raises(ValueError, match=message):
        evaluate(**given)


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8),
    reason="temperature scaling is there from scikit-learn 1.8 on",
)
def test_evaluate_at_temperature_is_better_calibrated():
    X, y = load_digits(return_X_y=True)
    X = X + np.random.default_rng(0).normal(0, 12, X.shape)
    head = LogisticRegression(C=100.0, max_iter=5000)
    errors = []
    for estimator in (head, CalibratedClassifierCV(head, method="temperature", ensemble=False)):
        estimator.fit(X[:500], y[:500])
        proba = estimator.predict_proba(X[500:])
        found = evaluate(y[500:], estimator.predict(X[500:]), proba=proba)["calibration"]
        errors.append(found["error"])
    assert errors[1] < errors[0] / 2


def test_macro_of_class_without_samples_is_in_interval():
    y_true = ["a"] * 30 + ["b"] * 30
    y_pred = ["a"] * 25 + ["c"] * 5 + ["b"] * 27 + ["a"] * 3
    found = evaluate(y_true, y_pred)
    for name in ("precision", "recall", "f1-score"):
        low, high = found["intervals"]["macro"][name]
        assert low < found["macro"][name] < high


def test_evaluation_is_shown_as_lines_and_table():
    result = evaluate(["<cat>", "<cat>", "dog"], ["<cat>", "dog", "dog"])
    accuracy, f1, cat, _dog = repr(result).splitlines()
    assert accuracy.split() == ["accuracy", "0.667", "(0.208", "to", "0.939)", "on", "3"]
    assert f1 == "macro F1    0.667"
    assert cat == "<cat>       precision 1.000, recall 0.500, F1 0.667 on 2"
    assert "<th>&lt;cat&gt;</th>" in result._repr_html_()
    assert json.loads(json.dumps(result)) == result


def test_evaluation_shows_calibration_and_few_classes():
    y = np.arange(25)
    result = evaluate(y, y, proba=np.eye(25))
    assert "calibration error    0.000" in repr(result)
    assert repr(result).endswith("...                  and 5 more classes")
