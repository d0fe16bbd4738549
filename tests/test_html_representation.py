"""What notebooks show of an estimator."""

import json
import pickle

import numpy as np
import pytest
from sample_networks import pixels
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from featx import FeatureExtractor, RidgeProbe, TransferClassifier
from featx._html import Record


def estimators():
    return [
        TransferClassifier(FeatureExtractor("tiny"), head=RidgeProbe()),
        make_pipeline(FeatureExtractor("tiny"), RidgeProbe()),
    ]


@pytest.mark.parametrize("estimator", estimators(), ids=["classifier", "pipeline"])
def test_html_representation_tells_whether_it_is_fitted(estimator):
    assert "<span>Not fitted</span>" in estimator_html_repr(estimator)
    estimator.fit(pixels((64, 64, 3), n_images=20), np.arange(20) % 2)
    assert "<span>Fitted</span>" in estimator_html_repr(estimator)


def fitted_classifier(**params):
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None), **params)
    return classifier.fit(
        pixels((64, 64, 3), n_images=20), np.array(["a<b", "c"])[np.arange(20) % 2]
    )


def test_html_of_classifier_shows_facts_without_features():
    shown = fitted_classifier()._repr_html_()
    for fact in ("tiny", "64 × 64 × 3", "400", "logistic", "2: a&lt;b, c", "none", "yes"):
        assert f"<td>{fact}</td>" in shown
    assert "<td>20 (20 computed, 0 from the cache)</td>" in shown
    assert "tiny_avg_0" not in shown


def test_html_of_unfitted_classifier_builds_nothing(monkeypatch):
    monkeypatch.setattr("featx.backbones.resolve.build_backbone", None)
    shown = TransferClassifier("tiny", head=make_pipeline(RidgeProbe()))._repr_html_()
    assert "<td>RidgeProbe()</td>" in shown
    assert "<th>fitted</th><td>no</td>" in shown


def test_html_of_faulty_parameters_shows_them():
    assert "FeatureExtractor" in FeatureExtractor("tiny", cache=3)._repr_html_()


def test_html_of_facts_lies_in_the_diagram():
    shown = FeatureExtractor("tiny")._repr_html_()
    assert shown.index("sk-container") < shown.index("<table class") < shown.index("forceTheme(")


def test_report_is_shown_as_lines_and_table():
    report = fitted_classifier().report_
    assert "\nseconds.head " in repr(report)
    assert "<th>seconds.head</th>" in report._repr_html_()
    assert pickle.loads(pickle.dumps(report)) == report
    assert json.loads(json.dumps(report))["n_samples"] == 20


def test_record_shortens_long_lists():
    assert repr(Record(history=np.arange(9))) == "history    [0, 1, 2, 3, 4, 5, ... (9 in all)]"
