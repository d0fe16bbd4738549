"""Where graphs can be cut, and the blocks of networks of each kind."""

import keras
import numpy as np
import pytest
from keras import layers
from sample_networks import with_statistics

from featx import list_backbones
from featx.backbones.blocks import GraphCut, blocks_of, cuts_of, layers_of
from featx.backbones.keras_models import network_graph
from featx.backbones.layers import find_layer_output
from featx.backbones.registry import find_network
from featx.finetune.unfreeze import choose_unfrozen

# Blocks at the default size of each network.
N_BLOCKS = {
    "mobilenet_v2": 11,
    "resnet50": 16,
    "efficientnet_v2_b0": 16,
    "convnext_tiny": 18,
    "vgg19": 5,
    "nasnet_mobile": 16,
}
IN_GATE = ("tiny", "mobilenet_v2", "vgg16")
EVERY_NETWORK = [
    network.name if network.name in IN_GATE else pytest.param(network.name, marks=pytest.mark.long)
    for network in list_backbones()
]


def conv(name, n_filters=4, **options):
    return layers.Conv2D(n_filters, 3, padding="same", name=name, **options)


def residual_chain(n_blocks=3):
    inputs = keras.Input((8, 8, 3))
    x = conv("stem")(inputs)
    for number in range(n_blocks):
        y = conv(f"low_{number}", activation="relu")(x)
        x = layers.ReLU()(layers.Add()([x, conv(f"high_{number}")(y)]))
    return keras.Model(inputs, x)


def two_tensors_along(n_cells=4):
    """Make a chain of cells, each of which reads the two before it, as in NASNet."""
    inputs = keras.Input((8, 8, 3))
    before = last = conv("stem")(inputs)
    for number in range(n_cells):
        tensors = [conv(f"before_{number}")(before), conv(f"last_{number}")(last)]
        before, last = last, layers.Add()(tensors)
    return keras.Model(inputs, last)


def gated_chain():
    """Make inverted residual blocks with squeeze-excite, every other one without a shortcut."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for number in range(3):
        for half in ("a", "b"):
            y = conv(f"expand_{number}{half}", 8)(x)
            gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
            gate = layers.Conv2D(8, 1, activation="sigmoid", name=f"gate_{number}{half}")(gate)
            y = conv(f"project_{number}{half}")(layers.Multiply()([y, gate]))
            x = layers.Add()([x, y]) if half == "b" else y
    return keras.Model(inputs, x)


def application(name, size, **params):
    keras.utils.set_random_seed(0)
    constructor = getattr(keras.applications, name)
    return constructor(weights=None, include_top=False, input_shape=(size, size, 3), **params)


def names(model):
    return [block.layers for block in blocks_of(model)]


def assert_recomposes(model, *, every=1):
    """Cut a model in two at every so many cuts: both halves together must give the same bits."""
    cuts = cuts_of(model)
    assert cuts[-1].tensors == tuple(model.outputs)
    lower = {id(tensor): tensor for cut in cuts for tensor in cut.tensors}
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    values = dict(
        zip(lower, keras.Model(model.inputs[0], list(lower.values()))(images), strict=True)
    )
    expected = np.asarray(model(images))
    assert expected.std() > 0
    for cut in cuts[:-1:every]:
        upper = keras.Model(list(cut.tensors), model.outputs[0])
        found = upper([values[id(tensor)] for tensor in cut.tensors])
        np.testing.assert_array_equal(np.asarray(found), expected, err_msg=f"{cut.position}")


def test_cuts_of_chain_surround_each_layer():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.ReLU()])
    hidden = model.layers[0].output
    assert cuts_of(model) == [
        GraphCut(0, tuple(model.inputs)),
        GraphCut(1, (hidden,)),
        GraphCut(2, tuple(model.outputs)),
    ]


def test_cuts_of_a_shortcut_carry_it_along():
    assert [len(cut.tensors) for cut in cuts_of(residual_chain(1))] == [1, 1, 2, 2, 1, 1]


def test_cuts_keep_outputs_that_are_read_again():
    inputs = keras.Input((6,))
    hidden = layers.Dense(4)(inputs)
    model = keras.Model(inputs, [hidden, layers.Dense(2)(hidden)])
    assert cuts_of(model)[-1].tensors == tuple(model.outputs)


def test_cut_n_numbers_counts_unknown_sizes_once():
    tensors = (keras.Input((4, 5, 2)), keras.Input((None, None, 3)))
    assert GraphCut(0, tensors).n_numbers == 4 * 5 * 2 + 3


@pytest.mark.parametrize(
    "make", [residual_chain, two_tensors_along, gated_chain], ids=lambda make: make.__name__
)
def test_cuts_of_small_graphs_recompose_exactly(make):
    keras.utils.set_random_seed(0)
    assert_recomposes(make())


@pytest.mark.parametrize(
    ("name", "params", "every"),
    [
        ("VGG16", {}, 1),
        pytest.param("MobileNet", {"alpha": 0.25}, 1, marks=pytest.mark.long),
        pytest.param(
            "MobileNetV3Small", {"minimalistic": True, "alpha": 0.75}, 1, marks=pytest.mark.long
        ),
        pytest.param("MobileNetV2", {"alpha": 0.35}, 1, marks=pytest.mark.long),
        pytest.param("NASNetMobile", {}, 1, marks=pytest.mark.long),
    ],
)
def test_cuts_of_networks_recompose_exactly(name, params, every):
    assert_recomposes(with_statistics(application(name, 32, **params)), every=every)


def test_blocks_of_residual_chain_end_at_shortcuts():
    assert names(residual_chain()) == [
        ("stem", "low_0", "high_0"),
        ("low_1", "high_1"),
        ("low_2", "high_2"),
    ]


def test_blocks_of_dense_chain_have_weights():
    chain = [
        keras.Input((4, 4)),
        layers.Flatten(),
        layers.Dense(8, name="low"),
        layers.ReLU(),
        layers.Dense(8, name="middle"),
        layers.Dropout(0.5),
        layers.Dense(2, name="high"),
        layers.Softmax(),
    ]
    assert names(keras.Sequential(chain)) == [("low",), ("middle",), ("high",)]


def test_blocks_of_pooling_chain_end_before_pooling():
    inputs = x = keras.Input((32, 32, 3))
    for number in range(3):
        x = conv(f"conv_{number}b")(conv(f"conv_{number}a")(x))
        x = layers.MaxPooling2D()(x)
    blocks = blocks_of(keras.Model(inputs, x))
    assert [block.layers for block in blocks] == [
        ("conv_0a", "conv_0b"),
        ("conv_1a", "conv_1b"),
        ("conv_2a", "conv_2b"),
    ]
    # The pooling is the first call of the block above it.
    assert [block.start.tensors[0].shape[1] for block in blocks] == [32, 32, 16]


def test_blocks_of_strided_chain_start_with_strides():
    inputs = x = keras.Input((32, 32, 3))
    for number in range(3):
        x = conv(f"even_{number}")(conv(f"stride_{number}", strides=2)(x))
    assert names(keras.Model(inputs, x)) == [
        (f"stride_{number}", f"even_{number}") for number in range(3)
    ]


def test_blocks_of_two_tensors_start_with_two():
    blocks = blocks_of(two_tensors_along())
    assert [set(block.layers) for block in blocks] == [
        {"stem", "before_0", "last_0"},
        {"before_1", "last_1"},
        {"before_2", "last_2"},
        {"before_3", "last_3"},
    ]
    assert [len(block.start.tensors) for block in blocks] == [1, 2, 2, 2]


def test_blocks_do_not_end_at_gates():
    found = names(gated_chain())
    assert [(block[0], block[-1]) for block in found] == [
        (f"expand_{number}a", f"project_{number}b") for number in range(3)
    ]


def test_blocks_of_two_layers_are_two():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="low"), layers.Dense(2, name="high")]
    )
    assert names(model) == [("low",), ("high",)]


def test_blocks_of_model_without_weights_are_none():
    assert blocks_of(keras.Sequential([keras.Input((4,)), layers.ReLU()])) == []


def test_blocks_top_normalization_joins_last_block():
    whole = residual_chain()
    normed = keras.Model(whole.inputs, layers.BatchNormalization(name="norm")(whole.outputs[0]))
    *lower, top = blocks_of(normed)
    assert [block.layers for block in lower] == names(whole)[:-1]
    assert top.layers == ("low_2", "high_2", "norm")
    assert top.n_params == blocks_of(whole)[-1].n_params + 4 * 4


def test_blocks_input_scaling_joins_first_block():
    chain = [
        keras.Input((4,)),
        layers.Normalization(name="scaling"),
        layers.BatchNormalization(name="norm"),
        *(layers.Dense(4, name=f"dense_{number}") for number in range(3)),
    ]
    first, *_ = blocks_of(keras.Sequential(chain))
    assert first.layers == ("scaling", "norm", "dense_0")
    assert first.start.position == 0


def test_blocks_count_repeated_layer_once():
    inputs, twice = keras.Input((4,)), layers.Dense(4, name="twice")
    x = layers.Add()([twice(inputs), twice(layers.ReLU()(inputs))])
    (block,) = blocks_of(keras.Model(inputs, x))
    assert (block.layers, block.n_params) == (("twice",), 4 * 4 + 4)


@pytest.mark.parametrize(
    "make", [residual_chain, two_tensors_along, gated_chain], ids=lambda make: make.__name__
)
def test_blocks_cover_a_graph_without_gaps(make):
    model = make()
    blocks = blocks_of(model)
    assert blocks[0].start == cuts_of(model)[0]
    found = [name for block in blocks for name in block.layers]
    assert found == [layer.name for layer in layers_of(model) if layer.n_params]
    assert sum(block.n_params for block in blocks) == model.count_params()


@pytest.mark.parametrize(("name", "n_blocks"), N_BLOCKS.items())
def test_blocks_of_networks_are_those_of_papers(name, n_blocks):
    network = find_network(name)
    blocks = blocks_of(network_graph(network))
    assert len(blocks) == n_blocks
    assert sum(block.n_params for block in blocks) == network.n_parameters


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_blocks_of_networks_can_be_unfrozen(name):
    model = network_graph(find_network(name))
    n_params = {layer.name: layer.n_params for layer in layers_of(model)}
    blocks = blocks_of(model)[::-1]
    for number, block in enumerate(blocks, start=1):
        by_name = choose_unfrozen(model, block.layers[0], batch_norm="trained", label=name)
        by_number = choose_unfrozen(model, number, batch_norm="trained", label=name)
        assert by_name.layers == by_number.layers
        assert set(block.layers) & set(by_number.layers)
        assert sum(n_params[layer] for layer in block.layers) == block.n_params
        _ = find_layer_output(model, block.layers[-1], label=name)


def test_layers_of_count_blocks_from_top():
    found = layers_of(residual_chain())
    assert [(layer.name, layer.kind, layer.block) for layer in found if layer.n_params] == [
        *((name, "Conv2D", 3) for name in ("stem", "low_0", "high_0")),
        *((name, "Conv2D", 2) for name in ("low_1", "high_1")),
        *((name, "Conv2D", 1) for name in ("low_2", "high_2")),
    ]
    assert {layer.shape for layer in found} == {(8, 8, 4)}
