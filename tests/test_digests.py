"""Digests of graphs and of the state of layers: what changes them, and what does not."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from featx.exceptions import ParameterError
from featx.identity.code_digests import UnhashableCodeError, code_digest
from featx.identity.digests import graph_digest, object_digest

TABLE = [1.0, 2.0]


@keras.saving.register_keras_serializable("featx_tests")
class Scale(layers.Layer):
    """A custom layer with a weight, a layer within and state that its config shows."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.inner = layers.Dense(3)

    def build(self, input_shape):
        self.offset = self.add_weight(shape=(input_shape[-1],), name="offset")
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs * self.factor + self.offset)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("featx_tests")
def softly(x):
    return ops.maximum(x, 0.1 * x)


def seeded(model):
    """Give a model weights that depend on their shapes alone."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.random(w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def functional(shape, *steps, dtype="float32"):
    """Chain layers or functions into a functional model with seeded weights."""
    tensor = inputs = keras.Input(shape, dtype=dtype)
    for step in steps:
        tensor = step(tensor)
    return seeded(keras.Model(inputs, tensor))


def digest(shape, *steps, **options):
    return graph_digest(functional(shape, *steps, **options))


def convolutional():
    return functional(
        (8, 8, 3),
        layers.Rescaling([1.0, 2.0, 3.0], offset=0.5),
        layers.Conv2D(4, 3, strides=2, kernel_regularizer="l2"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.DepthwiseConv2D(3),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.1, seed=1),
        layers.Dense(2),
    )


def masked_recurrent():
    return functional(
        (5,),
        layers.Embedding(10, 4, mask_zero=True),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]),
        dtype="int32",
    )


def attention():
    inputs = keras.Input((5, 4))
    attended = layers.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    return seeded(keras.Model(inputs, layers.LayerNormalization()(attended + inputs)))


def operations():
    inputs = keras.Input((4, 6))
    picked = ops.concatenate([inputs[:, ::2], inputs[..., 1:3, :], inputs[:, 0, None]], axis=1)
    scaled = picked * np.float32(2) + np.arange(6.0, dtype="float32")
    mean = ops.mean(ops.where(scaled > 0, scaled, -scaled), axis=(1,), keepdims=True)
    return keras.Model(inputs, [ops.pad(mean, ((0, 0), (1, 1), (0, 0))), ops.cast(mean, "int32")])


def time_distributed():
    inner = functional((4,), layers.Dense(3), layers.Dense(2))
    return functional((5, 4), layers.TimeDistributed(inner))


def shared_and_nested():
    one, other = keras.Input((4,)), keras.Input((4,))
    shared = functional((4,), layers.Dense(3), layers.Dense(3))
    twins = [shared(one), shared(other, training=False)]
    outputs = [layers.Subtract()(twins), layers.Concatenate()(twins)]
    return seeded(keras.Model([one, other], outputs))


def with_dicts():
    one, other = keras.Input((4,), name="one"), keras.Input((4,), name="other")
    return keras.Model({"one": one, "other": other}, {"out": layers.Subtract()([one, other])})


def sequential():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    return seeded(model)


def foreign():
    return functional(
        (4,), Scale(3.0), layers.Dense(3, activation=softly), layers.Lambda(lambda x: x * 2 + 1)
    )


def mixed_precision():
    return functional(
        (8, 8, 3),
        layers.Conv2D(3, 3, dtype="mixed_bfloat16"),
        layers.SpectralNormalization(layers.Conv2D(2, 2)),
    )


def augmenting():
    return functional((8, 8, 3), layers.RandomFlip(), layers.RandomRotation(0.1), layers.Flatten())


def normalizing():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).random((10, 4)))
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(inputs))


MAKERS = [
    convolutional,
    masked_recurrent,
    attention,
    operations,
    time_distributed,
    shared_and_nested,
    with_dicts,
    sequential,
    foreign,
    mixed_precision,
    augmenting,
]
each_model = pytest.mark.parametrize("make", MAKERS)


@each_model
def test_graph_digest_after_round_trip_is_equal(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert graph_digest(loaded) == graph_digest(model)


@each_model
def test_graph_digest_after_rebuild_with_same_weights_is_equal(make):
    assert graph_digest(make()) == graph_digest(make())


# Keras refuses to clone a `Lambda`, which would run code from a config.
@pytest.mark.parametrize("make", [make for make in MAKERS if make is not foreign])
def test_graph_digest_of_clone_with_same_weights_is_equal(make):
    model = make()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert graph_digest(clone) == graph_digest(model)


@each_model
def test_graph_digest_after_renaming_is_equal(make):
    model = make()
    before = graph_digest(model)
    model.name = "renamed"
    for number, layer in enumerate(model.layers):
        layer.name = f"renamed_{number}"
    assert graph_digest(model) == before


@each_model
def test_graph_digest_after_changing_last_element_of_any_weight_differs(make):
    model = make()
    before = graph_digest(model)
    for weight in model.weights:
        original = weight.numpy()
        changed = original.copy()
        changed.flat[-1] += 1
        weight.assign(changed)
        assert graph_digest(model) != before, weight.path
        weight.assign(original)
    assert graph_digest(model) == before


@pytest.mark.slow
def test_graph_digest_in_two_processes_is_equal():
    script = f"""
import sys
sys.path.insert(0, {str(__file__).rsplit("/", 1)[0]!r})
import test_digests as t
print([t.graph_digest(make()) for make in t.MAKERS])
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0] == outputs[1] == f"{[graph_digest(make()) for make in MAKERS]}\n"


def test_importing_digests_loads_no_keras():
    script = (
        "import sys, featx.identity.digests\nassert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_object_digest_without_keras_loads_none():
    script = (
        "import sys\n"
        "from featx.identity.digests import object_digest\n"
        "object_digest({'f': lambda x: x})\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


CONV = {"filters": 4, "kernel_size": 3}


@pytest.mark.parametrize(
    ("step", "other"),
    [
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, strides=2)),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, padding="same")),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, activation="relu")),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, dtype="mixed_bfloat16")),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, dtype="bfloat16")),
        (layers.BatchNormalization(), layers.BatchNormalization(epsilon=1e-5)),
        (layers.AveragePooling2D(2), layers.MaxPooling2D(2)),
        (lambda x: layers.Add()([x, x]), lambda x: ops.add(x, x)),
        (lambda x: x[:, ::2], lambda x: x[:, 1::2]),
        (lambda x: ops.mean(x, axis=1), lambda x: ops.mean(x, axis=2)),
        (lambda x: x * 2, lambda x: x * 3),
        (lambda x: x * np.arange(3.0), lambda x: x * np.arange(1.0, 4.0)),
        (lambda x: ops.split(x, 2, axis=1)[0], lambda x: ops.split(x, 2, axis=1)[1]),
        (
            lambda x: layers.MultiHeadAttention(1, 2)(x, x),
            lambda x: layers.MultiHeadAttention(1, 2)(x, x, use_causal_mask=True),
        ),
    ],
)
def test_graph_digest_after_changing_an_operation_differs(step, other):
    assert digest((8, 8, 3), step) != digest((8, 8, 3), other)


@pytest.mark.parametrize("merge", [layers.Subtract, layers.Concatenate])
def test_graph_digest_after_swapping_inputs_differs(merge):
    one, other = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([one, other], merge()([one, other]))
    swapped = keras.Model([one, other], merge()([other, one]))
    assert graph_digest(model) != graph_digest(swapped)


def test_graph_digest_with_other_input_dtype_differs():
    assert digest((4,), lambda x: x) != digest((4,), lambda x: x, dtype="uint8")


def test_graph_digest_with_other_input_shape_is_equal():
    assert digest((8, 8, 3), layers.Conv2D(2, 3)) == digest((None, 9, 3), layers.Conv2D(2, 3))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_initializer": "zeros"},
        {"kernel_initializer": keras.initializers.HeNormal(seed=3)},
        {"kernel_regularizer": "l2"},
        {"kernel_constraint": "max_norm"},
        {"activity_regularizer": "l1"},
        {"trainable": False},
        {"name": "other"},
    ],
)
def test_graph_digest_ignores_what_only_training_needs(options):
    assert digest((4,), layers.Dense(2)) == digest((4,), layers.Dense(2, **options))


def test_graph_digest_ignores_seeds():
    assert digest((4,), layers.Dropout(0.5, seed=1)) == digest((4,), layers.Dropout(0.5, seed=2))


def test_graph_digest_after_compiling_and_freezing_is_equal():
    model = convolutional()
    before = graph_digest(model)
    model.compile("adam", "mse")
    model.trainable = False
    assert graph_digest(model) == before


def test_graph_digest_after_changing_attribute_in_place_differs():
    model = functional((4,), layers.Dense(2, activation="relu"))
    before = graph_digest(model)
    model.layers[1].activation = keras.activations.tanh
    assert graph_digest(model) != before


def test_graph_digest_after_replacing_call_of_a_layer_differs():
    model = functional((4,), layers.Dense(2))
    before = graph_digest(model)
    model.layers[1].call = lambda x: x[:, :2]
    assert graph_digest(model) != before


def test_graph_digest_ignores_count_of_normalization():
    model = normalizing()
    before = graph_digest(model)
    model.layers[1].count.assign(7)
    assert graph_digest(model) == before


def test_graph_digest_after_other_adaptation_differs():
    model = normalizing()
    before = graph_digest(model)
    model.layers[1].adapt(np.ones((3, 4)))
    assert graph_digest(model) != before


def test_graph_digest_of_normalization_survives_round_trip(tmp_path):
    model = normalizing()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert graph_digest(loaded) == graph_digest(model)


def vectorizing(texts, **options):
    layer = layers.TextVectorization(**options)
    layer.adapt(texts)
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, layer(inputs))


def test_graph_digest_of_text_layer_survives_round_trip(tmp_path):
    model = vectorizing(["a b", "b c d"], output_mode="tf_idf")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert graph_digest(loaded) == graph_digest(model)


def test_graph_digest_of_text_layer_with_other_terms_differs():
    assert graph_digest(vectorizing(["a b"])) != graph_digest(vectorizing(["a c"]))


def test_graph_digest_of_text_layer_with_other_term_weights_differs():
    one = vectorizing(["a b", "a b"], output_mode="tf_idf")
    other = vectorizing(["a b", "a"], output_mode="tf_idf")
    assert graph_digest(one) != graph_digest(other)


def test_graph_digest_of_tap_ignores_what_lies_downstream():
    model = convolutional()
    tap = model.layers[4].output
    before = graph_digest(model, [tap])
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 2)
    assert graph_digest(model, [tap]) == before


def test_graph_digest_of_tap_equals_that_of_model_cut_there():
    model = convolutional()
    tap = model.layers[4].output
    assert graph_digest(model, [tap]) == graph_digest(keras.Model(model.inputs, tap))


def test_graph_digest_of_each_tap_differs():
    model = convolutional()
    taps = [layer.output for layer in model.layers]
    assert len({graph_digest(model, [tap]) for tap in taps}) == len(taps)


def test_graph_digest_of_shared_lower_blocks_is_equal():
    model = convolutional()
    lower = model.layers[5].output
    other = keras.Model(model.inputs, layers.Dense(7)(layers.Flatten()(lower)))
    again = keras.models.clone_model(other)
    again.set_weights(other.get_weights())
    for position in range(6):
        taps = [m.layers[position].output for m in (model, other, again)]
        digests = {
            graph_digest(m, [tap]) for m, tap in zip((model, other, again), taps, strict=True)
        }
        assert len(digests) == 1
    assert graph_digest(model) != graph_digest(other)


def test_graph_digest_of_several_outputs_depends_on_their_order():
    model = convolutional()
    taps = [model.layers[2].output, model.layers[3].output]
    assert graph_digest(model, taps) != graph_digest(model, taps[::-1])


def test_graph_digest_of_tensor_from_another_graph_raises():
    with pytest.raises(ParameterError, match=r"'input_layer.*no input of the model.*Take them"):
        graph_digest(convolutional(), convolutional().outputs)


def test_graph_digest_of_deep_graph_needs_no_recursion():
    steps = [layers.Identity()] * 800
    assert digest((2,), *steps) == digest((2,), *steps)


def nested_and_flat():
    """Build one graph twice: with a nested model, and without."""
    inner = functional((4,), layers.Dense(3, activation="relu"), layers.BatchNormalization())
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, layers.Dense(2)(inner(inputs * 2.0, training=False)))
    tensor = inputs = keras.Input((4,))
    for step in (lambda x: x * 2.0, *inner.layers[1:], nested.layers[-1]):
        tensor = step(tensor)
    return nested, keras.Model(inputs, tensor)


def test_graph_digest_of_nested_model_equals_that_of_flat_one():
    nested, flat = nested_and_flat()
    assert graph_digest(nested) == graph_digest(flat)


def test_graph_digest_of_nested_sequential_equals_that_of_nested_functional():
    steps = [layers.Dense(3), layers.ReLU()]
    in_functional = functional((4,), functional((4,), *steps))
    in_sequential = functional((4,), keras.Sequential([keras.Input((4,)), *steps]))
    assert graph_digest(in_functional) == graph_digest(in_sequential)


def test_graph_digest_of_nested_model_that_trains_within_differs():
    inner = functional((4,), layers.BatchNormalization())
    still, training = (digest((4,), lambda x, on=on: inner(x, training=on)) for on in (False, True))
    assert still != training


def test_graph_digest_of_nested_model_that_casts_its_input_differs():
    inner = functional((4,), lambda x: x, dtype="int32")
    assert digest((4,), inner) != digest((4,), lambda x: x)


def test_graph_digest_of_nested_model_ignores_outputs_not_upstream():
    inputs = keras.Input((4,))
    low, high = layers.Dense(3), layers.Dense(2)
    inner = seeded(keras.Model(inputs, [low(inputs), high(low(inputs))]))
    outer = functional((4,), lambda x: inner(x)[0])
    before = graph_digest(outer)
    high.kernel.assign(high.kernel * 2)
    assert graph_digest(outer) == before


def test_graph_digest_of_nested_model_called_on_a_dict_follows_names():
    names = ("one", "other")
    one, other = (keras.Input((4,), name=name) for name in names)
    inner = keras.Model([one, other], layers.Subtract()([one, other]))

    def outer(by_name):
        inputs = dict(zip(names, (keras.Input((4,)), keras.Input((4,))), strict=True))
        called = inner(inputs if by_name else list(inputs.values()))
        return keras.Model(list(inputs.values()), called)

    assert graph_digest(outer(by_name=True)) == graph_digest(outer(by_name=False))


def test_graph_digest_of_nested_model_with_several_inputs_equals_that_of_flat_one():
    one, other = keras.Input((4,)), keras.Input((4,))
    inner = keras.Model([one, other], layers.Subtract()([one, other]))
    nested = keras.Model([one, other], inner([one, other]))
    assert graph_digest(nested) == graph_digest(inner)


def test_graph_digest_of_shared_model_around_a_model_tells_its_calls_apart():
    innermost = functional((4,), layers.Dense(4))
    inner = functional((4,), innermost)
    one, other = keras.Input((4,)), keras.Input((4,))
    both = [inner(one), inner(other)]
    model = keras.Model([one, other], layers.Subtract()(both))
    swapped = keras.Model([one, other], layers.Subtract()(both[::-1]))
    same = keras.Model([one, other], layers.Subtract()([both[0], both[0]]))
    assert len({graph_digest(m) for m in (model, swapped, same)}) == 3


def test_graph_digest_with_same_code_in_lambdas_is_equal():
    assert digest((4,), layers.Lambda(lambda x: x * 2)) == digest(
        (4,), layers.Lambda(lambda x: x * 2, name="other")
    )


def scaled_by(factor, how):
    def by_closure(x):
        return x * factor

    def by_default(x, k=factor):
        return x * k

    return {"closure": by_closure, "default": by_default}[how]


@pytest.mark.parametrize("how", ["closure", "default"])
@pytest.mark.parametrize(
    "wrap",
    [layers.Lambda, layers.Activation, lambda f: layers.TimeDistributed(layers.Lambda(f))],
    ids=["Lambda", "Activation", "TimeDistributed"],
)
def test_graph_digest_with_other_code_of_one_name_differs(wrap, how):
    digests = [digest((4, 2), wrap(scaled_by(factor, how))) for factor in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_with_other_global_of_a_lambda_differs(monkeypatch):
    model = functional((2,), layers.Lambda(lambda x: x * TABLE))
    before = graph_digest(model)
    monkeypatch.setitem(globals(), "TABLE", [1.0, 3.0])
    assert graph_digest(model) != before


def test_graph_digest_with_tensor_in_closure_follows_its_elements():
    digests = [
        digest((2,), layers.Lambda(scaled_by(ops.convert_to_tensor([1.0, last]), "closure")))
        for last in (2.0, 2.0, 3.0)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_with_model_in_closure_follows_its_weights():
    hidden = functional((4,), layers.Dense(2))
    model = functional((4,), layers.Lambda(lambda x: hidden(x), output_shape=(2,)))
    before = graph_digest(model)
    assert graph_digest(model) == before
    hidden.layers[1].bias.assign([5.0, 5.0])
    assert graph_digest(model) != before


def test_graph_digest_with_symbolic_tensor_in_closure_is_stable():
    stray = keras.Input((4,))
    model = functional((4,), layers.Lambda(lambda x: x if stray is not None else -x))
    assert graph_digest(model) == graph_digest(model)


def test_code_digest_of_symbolic_tensor_raises():
    with pytest.raises(UnhashableCodeError, match=r"KerasTensor.*elements cannot be read"):
        code_digest(keras.Input((4,)))


def test_graph_digest_with_what_has_no_identity_raises():
    lines = iter("ab")
    generator = (line for line in lines)
    with pytest.raises(UnhashableCodeError, match=r"generator.*cannot be identified"):
        digest((4,), layers.Lambda(lambda x: x if generator else -x))


def test_graph_digest_with_keras_object_of_unknown_kind_raises():
    callback = keras.callbacks.Callback()
    with pytest.raises(UnhashableCodeError, match=r"Callback cannot be identified: a Keras object"):
        digest((4,), layers.Lambda(lambda x: x if callback else -x))


def custom_layer(factor=2, *, hidden=0, get_config=None):
    class Custom(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self._hidden = hidden
            self.policy = keras.DTypePolicy("float32")
            self.loss = keras.losses.MeanSquaredError()
            self.start = keras.initializers.Zeros()

        def call(self, inputs):
            return inputs * factor

    if get_config:
        Custom.get_config = get_config
    return Custom()


def test_graph_digest_with_other_code_of_a_custom_layer_differs():
    assert digest((4,), custom_layer(2)) == digest((4,), custom_layer(2))
    assert digest((4,), custom_layer(2)) != digest((4,), custom_layer(3))


@pytest.mark.parametrize("hidden", [1, "a", (1, 2), np.arange(3), {"a": [1]}, layers.ReLU()])
def test_graph_digest_with_attribute_that_no_config_shows_differs(hidden):
    assert digest((4,), custom_layer(hidden=hidden)) != digest((4,), custom_layer())


def test_graph_digest_of_custom_layer_without_config_is_stable():
    class Unsavable(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    digests = [digest((4,), Unsavable(scaled_by(k, "closure"))) for k in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_of_wrapped_layer_without_config_follows_its_attributes():
    class Unsavable(layers.Layer):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def call(self, inputs):
            return inputs * self.table

        def compute_output_shape(self, input_shape):
            return input_shape

    digests = [
        digest((3, 2), layers.TimeDistributed(Unsavable(np.float32([1, k])))) for k in (2, 2, 3)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_with_failing_get_config_raises():
    def get_config(self):
        raise KeyError("lost")

    with pytest.raises(
        UnhashableCodeError, match=r"'custom.*get_config\(\) raised KeyError: 'lost'"
    ):
        digest((4,), custom_layer(get_config=get_config))


def test_graph_digest_of_layer_that_refers_to_itself_ends():
    layer = custom_layer()
    layer.wrapped_by = [layer.call]
    model = functional((4,), layer)
    assert graph_digest(model) == graph_digest(model)


@keras.saving.register_keras_serializable("featx_tests")
class Subclassed(keras.Model):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(3, activation=softly), layers.Dense(2)]
        self.factor = factor

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs * self.factor


def subclassed(factor=2.0):
    model = Subclassed(factor)
    model(np.ones((1, 4)))
    return seeded(model)


def test_graph_digest_of_subclassed_model_survives_round_trip(tmp_path):
    model = subclassed()
    model.save(tmp_path / "model.keras")
    assert graph_digest(keras.models.load_model(tmp_path / "model.keras")) == graph_digest(model)


def test_graph_digest_of_subclassed_model_with_other_attribute_differs():
    assert graph_digest(subclassed(2.0)) != graph_digest(subclassed(3.0))


def test_graph_digest_of_subclassed_model_with_other_weights_differs():
    model = subclassed()
    before = graph_digest(model)
    model.blocks[1].bias.assign([1.0, 2.0])
    assert graph_digest(model) != before


def test_graph_digest_of_subclassed_model_ignores_traces_of_training():
    model = subclassed()
    before, weights = graph_digest(model), model.get_weights()
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((2, 4)), np.ones((2, 2))
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    model.set_weights(weights)
    assert graph_digest(model) == before


def test_graph_digest_of_tap_of_subclassed_model_raises():
    with pytest.raises(ParameterError, match=r"a subclassed model.*Pass None"):
        graph_digest(subclassed(), convolutional().outputs)


@pytest.mark.parametrize("make", [Subclassed, keras.Sequential])
def test_graph_digest_of_unbuilt_model_raises(make):
    with pytest.raises(UnhashableCodeError, match=r"not built\. Call it on a batch"):
        graph_digest(make())


def test_graph_digest_of_functional_model_with_call_of_its_own_follows_code_and_graph():
    class Doubling(keras.Model):
        def __init__(self, factor, units):
            inputs = keras.Input((4,))
            super().__init__(inputs, layers.Dense(units)(inputs))
            self.factor = factor

        def call(self, inputs, training=None, mask=None):
            return super().call(inputs) * self.factor

    models = [seeded(Doubling(*args)) for args in ((2, 3), (2, 3), (3, 3), (2, 4))]
    digests = [graph_digest(model) for model in models]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert graph_digest(models[0], models[0].outputs) == graph_digest(models[2], models[2].outputs)


def test_graph_digest_of_sequential_without_graph_follows_its_layers():
    class AddParts(layers.Layer):
        def call(self, inputs):
            return inputs["a"] + inputs["b"]

    def make():
        model = keras.Sequential([AddParts(), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
        model({"a": np.ones((1, 3)), "b": np.ones((1, 3))})
        return seeded(model)

    model = make()
    before = graph_digest(model)
    assert graph_digest(make()) == before
    model.layers[1].function = lambda x: x * 3
    assert graph_digest(model) != before


def test_object_digest_of_layer_follows_its_config():
    assert object_digest(layers.Rescaling(2)) == object_digest(layers.Rescaling(2))
    assert object_digest(layers.Rescaling(2)) != object_digest(layers.Rescaling(3))


def test_object_digest_of_function_with_keras_variable_follows_its_value():
    variable = keras.Variable([1.0, 2.0])
    function = scaled_by(variable, "closure")
    before = object_digest(function)
    variable.assign([1.0, 3.0])
    assert object_digest(function) != before
