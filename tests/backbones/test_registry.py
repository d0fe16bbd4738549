"""The table of networks is that of keras.applications."""

import inspect

import keras
import pytest

from featx import list_backbones
from featx.backbones.keras_models import network_graph
from featx.backbones.registry import NETWORKS, TINY_FILE, find_network
from featx.exceptions import ParameterError

# One of each family, the smallest.
FAMILIES = (
    *("tiny", "vgg16", "resnet50", "resnet50_v2", "inception_v3", "inception_resnet_v2"),
    *("xception", "mobilenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("densenet121", "nasnet_mobile", "efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny"),
)
EVERY_NETWORK = [
    network.name if network.name in FAMILIES else pytest.param(network.name, marks=pytest.mark.long)
    for network in NETWORKS
]


def test_networks_include_all_keras_applications():
    constructors = {
        name
        for name, value in vars(keras.applications).items()
        if inspect.isfunction(value) and name[0].isupper()
    }
    assert constructors == {network.constructor for network in NETWORKS} - {""}


def test_networks_have_distinct_names():
    assert len({network.name for network in NETWORKS}) == len(NETWORKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_network_is_as_the_table_says(name):
    network = find_network(name)
    model = network_graph(network)
    assert model.count_params() == network.n_parameters
    assert model.output_shape[-1] == network.n_features


def test_network_graph_weights_never_get_values():
    """Keras would allocate them, of any size, when the same thread builds its next model."""
    model = network_graph(find_network("mobilenet_v2"), input_shape=(32, 32, 3))
    keras.layers.Lambda(lambda x: x)(keras.Input((3,)))
    assert all(variable._value is None for variable in model.variables)


@pytest.mark.parametrize("spelling", ["MobileNetV2", "mobilenet_v2", "mobilenet-v2", "MOBILENETV2"])
def test_find_network_takes_any_spelling(spelling):
    assert find_network(spelling).name == "mobilenet_v2"


@pytest.mark.parametrize(("name", "near"), [("mobilnet", "mobilenet"), ("ResNet-5O", "resnet50")])
def test_find_network_unknown_name_suggests_near_ones(name, near):
    with pytest.raises(ParameterError, match=f"Did you mean .*'{near}'.*list_backbones"):
        find_network(name)


def test_list_backbones_returns_a_new_list():
    list_backbones().clear()
    assert len(list_backbones()) == len(NETWORKS)


def test_networks_have_published_accuracies_but_tiny():
    accuracies = {network.name: network.imagenet_top1 for network in NETWORKS}
    assert accuracies.pop("tiny") is None
    assert all(0.68 < accuracy < 0.87 for accuracy in accuracies.values())


def test_networks_have_licenses_that_keras_documents():
    licenses = {network.name: network.license for network in NETWORKS}
    assert {name for name, license in licenses.items() if license == "cc-by-4.0"} == {
        "vgg16",
        "vgg19",
    }
    assert (licenses["resnet50"], licenses["mobilenet_v2"]) == ("mit", "apache-2.0")
    assert (licenses["densenet121"], licenses["convnext_tiny"]) == ("bsd-3-clause", None)


def test_tiny_is_small_enough():
    assert TINY_FILE.stat().st_size <= 1.5e6
