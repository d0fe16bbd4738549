"""Callbacks of scikit-learn hear of the tasks of a fit, from version 1.9 on."""

import io

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featx import FeatureExtractor, FineTune, TransferClassifier
from featx.exceptions import ParameterError

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
LABELS = np.arange(12) % 2


class Log:
    """Record the tasks that are reported, those of inner estimators too."""

    max_propagation_depth = None

    def __init__(self):
        self.begun, self.ended, self.n_setups, self.n_teardowns = [], [], 0, 0

    def setup(self, estimator, context):
        self.n_setups += 1

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((context.estimator_name, context.task_name))

    def on_fit_task_end(self, estimator, context):
        self.ended.append((context.estimator_name, context.task_name))

    def teardown(self, estimator, context):
        self.n_teardowns += 1


def test_fit_reports_embedding_and_head():
    log = Log()
    TransferClassifier("tiny", LogisticRegression()).set_callbacks(log).fit(IMAGES, LABELS)
    # Of a part that is the fit of another estimator, scikit-learn lets that one tell.
    assert log.begun[:3] == [
        ("TransferClassifier", "fit"),
        ("FeatureExtractor", "fit"),
        ("LogisticRegression", "fit"),
    ]
    assert log.ended[-1] == ("TransferClassifier", "fit")
    assert log.n_setups == log.n_teardowns == 1


def test_fit_reports_fine_tuning():
    log = Log()
    classifier = TransferClassifier("tiny", fine_tune=FineTune(epochs=1), random_state=0)
    classifier.set_callbacks(log).fit(IMAGES, LABELS)
    assert log.begun == [("TransferClassifier", "fit"), ("TransferClassifier", "fine-tune")]
    assert log.ended == log.begun[::-1]


def test_search_and_pipeline_report_inner_fits():
    log = Log()
    search = GridSearchCV(TransferClassifier("tiny"), {"head__C": [0.1, 1]}, cv=2)
    search.set_callbacks(log).fit(IMAGES, LABELS)
    assert log.ended.count(("TransferClassifier", "fit")) == 5
    log = Log()
    pipeline = make_pipeline(FeatureExtractor("tiny"), LogisticRegression())
    pipeline.set_callbacks(log).fit(IMAGES, LABELS)
    assert log.ended.count(("FeatureExtractor", "fit")) == 1


def test_failed_fit_is_torn_down():
    log = Log()
    with pytest.raises(ParameterError):
        TransferClassifier("tiny", "nope").set_callbacks(log).fit(IMAGES, LABELS)
    assert log.n_setups == log.n_teardowns
    extractor = FeatureExtractor("tiny", also_cache=["no such layer"])
    with pytest.raises(ParameterError):
        extractor.set_callbacks(log).fit(IMAGES)
    assert log.n_setups == log.n_teardowns


def test_clone_keeps_callbacks():
    log = Log()
    classifier = clone(TransferClassifier("tiny").set_callbacks(log))
    before = set(vars(classifier))
    classifier.fit(IMAGES, LABELS)
    assert log.n_setups == 1
    assert set(vars(classifier)) - before == {"extractor_", "head_", "_reports"}


def test_fit_drives_scikit_learn_callbacks(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    monitor = callback.ScoringMonitor(scoring="accuracy")
    classifier = TransferClassifier("tiny").set_callbacks(callback.ProgressBar(), monitor)
    classifier.fit(IMAGES, LABELS)
    assert "TransferClassifier - fit" in shown.getvalue()
    (row,) = [row for row in monitor.get_logs().data if row["task_name"] == "fit"]
    assert row["accuracy"] == classifier.score(IMAGES, LABELS)
