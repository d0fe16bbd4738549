"""Digests where users wrote code: lambdas, what these refer to, and layers of their own."""

import keras
import numpy as np
import pytest
from digested_models import digest, functional
from keras import layers, ops

from featx.digests.code import UnhashableCodeError, code_digest
from featx.digests.keras_graph import graph_digest

TABLE = [1.0, 2.0]
HALF = np.float32(0.5)


def test_graph_digest_same_code_in_lambdas_equal():
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
def test_graph_digest_other_code_one_name_differs(wrap, how):
    digests = [digest((4, 2), wrap(scaled_by(factor, how))) for factor in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_with_other_global_lambda_differs(monkeypatch):
    model = functional((2,), layers.Lambda(lambda x: x * TABLE))
    before = graph_digest(model)
    monkeypatch.setitem(globals(), "TABLE", [1.0, 3.0])
    assert graph_digest(model) != before


def test_graph_digest_tensor_in_closure_follows_elements():
    digests = [
        digest((2,), layers.Lambda(scaled_by(ops.convert_to_tensor([1.0, last]), "closure")))
        for last in (2.0, 2.0, 3.0)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_model_in_closure_follows_weights():
    hidden = functional((4,), layers.Dense(2))
    model = functional((4,), layers.Lambda(lambda x: hidden(x), output_shape=(2,)))
    before = graph_digest(model)
    assert graph_digest(model) == before
    hidden.layers[1].bias.assign([5.0, 5.0])
    assert graph_digest(model) != before


def test_graph_digest_symbolic_tensor_in_closure_stable():
    stray = keras.Input((4,))
    model = functional((4,), layers.Lambda(lambda x: x if stray is not None else -x))
    assert graph_digest(model) == graph_digest(model)


def test_code_digest_of_symbolic_tensor_raises():
    with pytest.raises(UnhashableCodeError, match=r"KerasTensor.*elements cannot be read"):
        code_digest(keras.Input((4,)))


def test_graph_digest_without_identity_raises():
    lines = iter("ab")
    generator = (line for line in lines)
    with pytest.raises(UnhashableCodeError, match=r"generator.*cannot be identified"):
        digest((4,), layers.Lambda(lambda x: x if generator else -x))


def test_graph_digest_unknown_keras_object_raises():
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


def test_graph_digest_other_layer_code_differs():
    assert digest((4,), custom_layer(2)) == digest((4,), custom_layer(2))
    assert digest((4,), custom_layer(2)) != digest((4,), custom_layer(3))


@pytest.mark.parametrize("hidden", [1, "a", (1, 2), np.arange(3), {"a": [1]}, layers.ReLU()])
def test_graph_digest_attribute_outside_config_differs(hidden):
    assert digest((4,), custom_layer(hidden=hidden)) != digest((4,), custom_layer())


def test_graph_digest_custom_layer_without_config_stable():
    class Unsavable(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, inputs):
            return self.function(inputs)

    digests = [digest((4,), Unsavable(scaled_by(k, "closure"))) for k in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_wrapped_layer_follows_attributes():
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


def test_graph_digest_self_referring_layer_ends():
    layer = custom_layer()
    layer.wrapped_by = [layer.call]
    model = functional((4,), layer)
    assert graph_digest(model) == graph_digest(model)


def test_code_digest_follows_value_of_keras_variable():
    variable = keras.Variable([1.0, 2.0])
    function = scaled_by(variable, "closure")
    before = code_digest(function)
    variable.assign([1.0, 3.0])
    assert code_digest(function) != before


@keras.saving.register_keras_serializable("featx_tests")
class Patches(layers.Layer):
    """A custom layer whose attributes come back from a file as other types."""

    def __init__(self, size=(2, 2), table=((1, (2, 3)),), rate=HALF, **kwargs):
        super().__init__(**kwargs)
        self.size, self.table, self.rate = size, table, rate
        self.options = {"sizes": [size, {"inner": size}]}

    def call(self, inputs):
        return inputs * self.rate * self.size[0] * self.table[0][1][0]

    def get_config(self):
        mine = {"size": self.size, "table": self.table, "rate": self.rate}
        return {**super().get_config(), **mine}


def test_graph_digest_saved_tuples_is_equal(tmp_path):
    model = functional((4,), Patches())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.layers[-1].size, list)
    assert graph_digest(loaded) == graph_digest(model)


def test_graph_digest_numpy_number_in_config_equal():
    assert digest((4, 3), layers.Rescaling(np.float64(0.5))) == digest(
        (4, 3), layers.Rescaling(0.5)
    )


def test_graph_digest_with_other_tuple_differs():
    assert digest((4,), Patches((2, 2))) != digest((4,), Patches((2, 3)))


def test_graph_digest_after_export_is_equal(tmp_path):
    """Keras adds functions to each layer while it lists them for a SavedModel."""
    model = functional((4,), Patches(), layers.Dense(2))
    before = graph_digest(model)
    model.export(str(tmp_path / "exported"), verbose=False)
    assert "train_function" in vars(model.layers[1])
    assert graph_digest(model) == before


@pytest.mark.parametrize("key", ["seed", "name", "trainable", "scale_constraint"])
def test_graph_digest_lambda_arguments_count_whole(key):
    def scaled(x, **factors):
        return x * factors[key]

    digests = [digest((4,), layers.Lambda(scaled, arguments={key: factor})) for factor in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]


class Applied(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.apply_constraint = function
        self.function = [function]

    def call(self, inputs):
        return self.applied(inputs)

    def applied(self, inputs):
        return inputs * self.function[0]((1, 4))


class AppliedConstraint(Applied):
    def applied(self, inputs):
        return self.apply_constraint(inputs)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Applied, keras.initializers.Constant),
        (AppliedConstraint, keras.constraints.MaxNorm),
        (lambda f: layers.Lambda(lambda x: f(x)), keras.constraints.MaxNorm),
        (lambda f: layers.Lambda(lambda x, f: f(x), arguments={"f": f}), keras.constraints.MaxNorm),
    ],
    ids=["initializer", "constraint", "closure", "argument"],
)
def test_graph_digest_called_keras_object_counts(kind, make):
    digests = [digest((4,), kind(make(value))) for value in (2.0, 2.0, 3.0)]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_initializer_of_weights_left_out():
    class Weighted(layers.Dense):
        def build(self, input_shape):
            self.kernel_initializer((1, 1))
            super().build(input_shape)

        def call(self, inputs):
            return super().call(inputs) * 2

    made = [Weighted(2, kernel_initializer=name, name=name) for name in ("ones", "zeros")]
    made[1].trainable = False
    assert digest((4,), made[0]) == digest((4,), made[1])


@pytest.mark.parametrize("name", ["trainable", "name"])
def test_graph_digest_own_name_that_call_reads(name):
    class Reading(layers.Layer):
        def call(self, inputs):
            return inputs * (2 if read(self) in (True, "two") else 3)

    if name == "trainable":
        read, values = (lambda layer: layer.trainable), [True, True, False]
    else:
        read, values = (lambda layer: layer.name), ["two", "two", "three"]
    digests = [digest((4,), Reading(**{name: value})) for value in values]
    assert digests[0] == digests[1] != digests[2]


def test_graph_digest_changed_operation_attribute_differs():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ops.clip(inputs, -0.1, 0.1))
    before = graph_digest(model)
    clip = next(each for each in model.operations if type(each).__name__ == "Clip")
    clip.x_max = 0.5
    assert graph_digest(model) != before
