"""Curves of probes and of fine-tuning."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import (
    FineTune,
    KNNProbe,
    LinearProbe,
    NearestMeanProbe,
    ProbePathDisplay,
    RidgeProbe,
    RidgeProbeRegressor,
    TransferClassifier,
    TuningHistoryDisplay,
    load,
    save,
)
from featx.exceptions import InputError, ParameterError

HISTORY = {"loss": [0.9, 0.4], "val_loss": [0.8, 0.6], "val_f1": [0.7, 0.9], "val_auc": [0.9, 0.8]}


@pytest.mark.parametrize(
    ("probe", "name", "load_data"),
    [
        (LinearProbe([0.001, 0.1]), "C", load_digits),
        (RidgeProbe([1.0, 10.0]), "alpha", load_digits),
        (RidgeProbeRegressor([1.0, 10.0]), "alpha", load_diabetes),
        (KNNProbe([1, 5]), "n_neighbors", load_digits),
    ],
)
def test_probe_path_shows_scores_of_folds(probe, name, load_data):
    X, y = load_data(return_X_y=True)
    model = make_pipeline(StandardScaler(), probe).fit(X[:300], y[:300])
    display = ProbePathDisplay.from_estimator(model)
    np.testing.assert_allclose(display.line_.get_ydata(), probe.path_["scores"].mean(axis=1))
    assert display.selected_.get_xdata() == [getattr(probe, f"{name}_")]
    assert display.selected_.get_ydata() == [pytest.approx(probe.best_score_)]
    assert display.ax_.get_xlabel() == name


@pytest.mark.parametrize("head", [RidgeClassifier(), NearestMeanProbe()])
def test_probe_path_of_other_estimator_raises(head):
    head.fit(*load_digits(return_X_y=True))
    with pytest.raises(ParameterError, match="expected a LinearProbe"):
        ProbePathDisplay.from_estimator(head)


@pytest.fixture(scope="module")
def tuned():
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
    images[::2] //= 4
    tuning = FineTune(1, epochs=2, patience=None)
    classifier = TransferClassifier("tiny", fine_tune=tuning, random_state=0)
    return classifier.fit(images, ["dark", "light"] * 10)


def test_tuning_history_shows_report(tuned, tmp_path):
    save(tuned, tmp_path / "tuned.featx")
    display = TuningHistoryDisplay.from_estimator(load(tmp_path / "tuned.featx"))
    report = tuned.report_
    training, validation, scores = (line.get_ydata().tolist() for line in display.lines_)
    assert training == pytest.approx(report.history["loss"])
    assert validation == pytest.approx(report.history["val_loss"])
    assert scores == pytest.approx(report.history["val_score"])
    assert display.head_line_.get_ydata()[0] == report.head_score
    assert display.best_[-1].get_xdata() == [report.best_epoch]


def test_tuning_history_of_keras_marks_best_epoch():
    display = TuningHistoryDisplay.from_history(HISTORY)
    assert display.best_epoch == 2
    assert display.axes_[1].get_ylabel() == "validation f1"
    assert display.head_line_ is None
    assert TuningHistoryDisplay.from_history(HISTORY, metric="auc").best_epoch == 1


@pytest.mark.parametrize(
    ("history", "metric"),
    [({}, None), ({"loss": [1.0]}, None), (HISTORY, "accuracy"), ({"val_f1": [1.0]}, None)],
)
def test_tuning_history_incomplete_raises(history, metric):
    with pytest.raises(InputError, match="expected 'loss', and 'val_"):
        TuningHistoryDisplay.from_history(history, metric=metric)


def test_tuning_history_without_training_raises(images, labels):
    classifier = TransferClassifier("tiny").fit(images, labels)
    with pytest.raises(InputError, match="no layer of this TransferClassifier was trained: pass"):
        TuningHistoryDisplay.from_estimator(classifier)


def test_tuning_history_after_trial_gives_reason(images, labels):
    classifier = TransferClassifier("tiny").fit(images, labels)
    classifier.report_.update(history={}, trial={"is_worth_it": False})
    with pytest.raises(InputError, match="its trial found"):
        TuningHistoryDisplay.from_estimator(classifier)
