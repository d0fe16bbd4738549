"""Scores by layer: one pass for all, and layers in the order of the backbone."""

import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from featx import FeatureExtractor, LayerDisplay, TransferClassifier
from featx.exceptions import ParameterError

LAYERS = [None, "stage3", "stage1"]


@pytest.mark.parametrize("cache", ["auto", None])
def test_layers_take_one_pass_for_all(cache, images, labels):
    passes = []
    extractor = FeatureExtractor("tiny", cache=cache, verbose=lambda done, n: passes.append(done))
    classifier = TransferClassifier(extractor, head="nearest_mean")
    display = LayerDisplay.from_estimator(classifier, images, labels, layers=LAYERS, cv=2)
    assert passes.count(len(images)) == 1
    assert display.layers == ["stage1", "stage3", None]
    assert classifier.extractor is extractor
    assert extractor.get_params()["also_cache"] == ()
    other = TransferClassifier(FeatureExtractor("tiny", layer="stage3"), "nearest_mean")
    assert display.scores[1].tolist() == cross_val_score(other, images, labels, cv=2).tolist()
    names = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert names == ["stage1", "stage3", "output"]


def test_layers_of_search_have_best_candidate(images, labels):
    grid = {"extractor__layer": ["stage3", "stage1"], "head": ["nearest_mean", "ridge"]}
    search = GridSearchCV(TransferClassifier("tiny"), grid, cv=2).fit(images[:12], labels[:12])
    display = LayerDisplay.from_search(search)
    assert display.layers == ["stage1", "stage3"]
    assert display.scores.mean(axis=1).max() == search.best_score_


def test_layers_of_search_with_several_metrics(images, labels):
    model = make_pipeline(FeatureExtractor("tiny"), KNeighborsClassifier(1))
    metrics = ["accuracy", "f1_macro"]
    grid = {"featureextractor__layer": ["stage2", "stage1"]}
    search = GridSearchCV(model, grid, cv=2, scoring=metrics, refit="f1_macro")
    display = LayerDisplay.from_search(search.fit(images[:12], labels[:12]))
    assert display.layers == ["stage1", "stage2"]
    assert display.scores.mean(axis=1).max() == search.best_score_


def test_layers_of_other_search_raises(images, labels):
    grid = {"head": ["nearest_mean"]}
    search = GridSearchCV(TransferClassifier("tiny"), grid, cv=2).fit(images[:12], labels[:12])
    with pytest.raises(ParameterError, match="search over the layers of one extractor"):
        LayerDisplay.from_search(search)


def test_layers_faulty_parameters_are_all_named(images, labels):
    with pytest.raises(ParameterError, match="2 faulty parameters") as caught:
        LayerDisplay.from_estimator(KNeighborsClassifier(), images, labels, layers="stage1")
    assert [fault.name for fault in caught.value.faults] == ["estimator", "layers"]


def test_layers_unknown_name_raises_before_pass(images, labels):
    with pytest.raises(ParameterError, match="has no layer of this name"):
        LayerDisplay.from_estimator(TransferClassifier("tiny"), images, labels, layers=["stage9"])
