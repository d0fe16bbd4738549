"""Unfreezing trains the requested layers, in a copy, and nothing else."""

import json
import random
from functools import partial

import keras
import pytest
from digit_tuning import UNFROZEN, changed_by_tuning, fit_network, tuning
from sample_networks import small_network
from sklearn.linear_model import RidgeClassifier

from featx import FeatureExtractor, TransferClassifier
from featx.digests.keras_graph import graph_digest
from featx.exceptions import ParameterError
from featx.finetune.unfreeze import choose_unfrozen


@pytest.mark.parametrize(
    ("unfreeze", "changed"),
    [
        pytest.param(*each, marks=() if each[0] in (2, "norm") else pytest.mark.long)
        for each in UNFROZEN
    ],
    ids=str,
)
def test_unfreeze_trains_requested_layers_only(digits, unfreeze, changed):
    report, in_network, in_copy = changed_by_tuning(digits, unfreeze)
    assert set(report.unfrozen) == set(changed)
    assert report.kept == "tuned"
    assert not in_network
    assert {path.split("/")[0] for path in in_copy} == set(changed)
    assert not any("moving" in path for path in in_copy)
    assert sum("moving" in weight.path for weight in small_network().weights) == 8


def test_unfreeze_batch_norm_trained_on_request(digits):
    model = small_network()
    fitted = fit_network(digits, model=model, unfreeze=1, batch_norm="trained", learning_rate=1e-2)
    assert fitted.report_.unfrozen == ["conv_3", "norm_3"]


def test_fine_tune_leaves_objects_of_caller_unchanged(digits):
    images, labels = digits
    model, head = small_network(), RidgeClassifier()
    model.trainable = False
    digest, config = graph_digest(model), json.dumps(model.get_config(), default=str)
    tune = tuning(epochs=1)
    extractor = FeatureExtractor(model, input_size=16, cache=None)
    params = {name: repr(value) for name, value in tune.get_params().items()}
    extractor.fit(images)
    state = random.getstate()
    TransferClassifier(extractor, head, tune, random_state=0).fit(images, labels)
    assert random.getstate() == state
    assert graph_digest(model) == digest
    assert json.dumps(model.get_config(), default=str) == config
    assert not any(layer.trainable for layer in model.layers if layer.weights)
    assert not hasattr(head, "coef_")
    assert {name: repr(value) for name, value in tune.get_params().items()} == params


@pytest.mark.long
def test_unfreeze_all_trains_random_weights(digits):
    images, labels = digits
    extractor = FeatureExtractor("tiny", weights=None, cache=None)
    tune = tuning(unfreeze="all", epochs=1)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0)
    report = fitted.fit(images[:60], labels[:60]).report_
    assert (report.frontier, report.frontier_skipped_because) == ("pixels", "nothing is frozen")
    assert report.n_params_trained > 0.9 * (report.n_params_trained + report.n_params_frozen)


@pytest.mark.parametrize("unfreeze", ["stage9", "norm_of_what", "("])
def test_unfreeze_unknown_layer_raises(digits, unfreeze):
    with pytest.raises(ParameterError, match="unfreeze="):
        fit_network(digits, unfreeze=unfreeze)


@pytest.mark.parametrize(
    ("unfreeze", "changed"),
    [
        ("inner", ["conv_1_1", "conv_3"]),  # the copy of the inner conv_1
        ("inner/conv_1", ["conv_1_1", "conv_3"]),
        ("conv_3", ["conv_3"]),
    ],
)
def test_unfreeze_names_layers_of_nested_models(digits, unfreeze, changed):
    convolution = partial(keras.layers.Conv2D, 4, 3, padding="same")
    inside = keras.Input((16, 16, 4))
    inner = keras.Model(inside, convolution(name="conv_1")(inside), name="inner")
    inputs = keras.Input((16, 16, 3))
    outputs = convolution(name="conv_3")(inner(convolution(name="conv_1")(inputs)))
    report = fit_network(digits, model=keras.Model(inputs, outputs), unfreeze=unfreeze).report_
    assert report.unfrozen == changed


def test_fit_more_blocks_than_there_are_raises(digits):
    with pytest.raises(
        ParameterError, match=r"unfreeze=99: .* has 4 blocks: expected 1 to 4, or 'all'"
    ):
        fit_network(digits, unfreeze=99)


@pytest.mark.parametrize("unfreeze", [1, 0.5])
def test_choose_unfrozen_network_without_weights_raises(unfreeze):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ParameterError, match="this selects no trainable weights of it"):
        choose_unfrozen(model, unfreeze, batch_norm="frozen", label="it")
