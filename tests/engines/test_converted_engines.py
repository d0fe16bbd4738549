"""OpenVINO and ONNX Runtime agree with Keras, or are not used."""

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from sample_networks import FAMILIES, convolutions, difference, family, pixels, transformer

from featx import FeatureExtractor
from featx.engines import registry
from featx.engines.openvino_engine import transpose_late, without_statistics
from featx.engines.registry import make_engine
from featx.exceptions import EngineError, ParameterError

ENGINES = [
    "keras",
    *(
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                bool(registry.missing_packages(name)), reason=f"needs featx[{name}]"
            ),
        )
        for name in ("openvino", "onnx")
    ),
]
needs_openvino = pytest.mark.skipif(
    bool(registry.missing_packages("openvino")), reason="needs featx[openvino]"
)


def knows_bfloat16():
    """Return True if OpenVINO computes in bfloat16 here; elsewhere it takes float32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def rows_of(name, model, images, batch_size=4, precision="float32"):
    engine = make_engine(name, model, batch_size, precision=precision, probe=images)
    return engine.run(images)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES[1:])
@pytest.mark.parametrize(
    ("name", "params", "size"),
    [
        pytest.param(*each, marks=() if each[0] == "MobileNet" else pytest.mark.long, id=each[0])
        for each in FAMILIES
    ],
)
def test_make_engine_families_agree_with_keras(name, params, size, engine):
    model = family(name, params, size)
    images = pixels((size, size, 3))
    assert difference(rows_of(engine, model, images), np.asarray(model(images))) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_make_engine_transformer_agrees_with_keras(engine):
    model = transformer()
    images = pixels((32, 32, 3))
    assert difference(rows_of(engine, model, images), np.asarray(model(images))) < 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_resized_engine_gives_the_same_rows(engine):
    images = pixels((16, 16, 3), n_images=7)
    model = convolutions()
    small = make_engine(engine, model, 3, precision="float32", probe=images)
    large = small.resized(8)
    rows = np.concatenate([small.run(images[:3]), small.run(images[3:6]), small.run(images[6:])])
    assert (small.batch_size, large.batch_size) == (3, 8)
    assert difference(large.run(images), rows) < 1e-5


def openvino_graph(preprocess, folder):
    """Return OpenVINO's graph of a convolution of pixels that were preprocessed."""
    import openvino

    inputs = keras.Input((16, 16, 3), dtype="uint8")
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(preprocess(inputs)))
    model.export(str(folder / "graph.xml"), format="openvino", verbose=False)
    return openvino.Core().read_model(str(folder / "graph.xml"))


def kinds_of(graph):
    """Return the types of the operations from the input to the convolution."""
    node, kinds = graph.inputs[0].node, []
    while not kinds or kinds[-1] != "Convolution":
        kinds.append(node.get_type_name())
        (reader,) = node.output(0).get_target_inputs()
        node = reader.get_node()
    return kinds


@needs_openvino
@pytest.mark.parametrize(
    "scale",
    [
        pytest.param(lambda x: x / 127.5 - 1, marks=pytest.mark.long),
        lambda x: (x - np.float32([1, 2, 3])) * np.float32([4, 5, 6]),
        pytest.param(lambda x: 3 - x, marks=pytest.mark.long),
        lambda x: 2 / (1 + x),
    ],
)
def test_transpose_late_scales_first(scale, tmp_path):
    import openvino

    graph = openvino_graph(lambda inputs: scale(keras.ops.cast(inputs, "float32")), tmp_path)
    changed = graph.clone()
    transpose_late(changed)
    assert sorted(kinds_of(changed)) == sorted(kinds_of(graph))
    assert kinds_of(changed)[-2:] == ["Transpose", "Convolution"] != kinds_of(graph)[-2:]
    images = pixels((16, 16, 3))
    before, after = (
        openvino.compile_model(each, "CPU")({0: images})[0] for each in (graph, changed)
    )
    assert difference(after.reshape(len(images), -1), before.reshape(len(images), -1)) < 1e-6


def built_graph(shape, order, constant, *, n_readers=1, operation="add"):
    """Return a graph of one input, transposed, and arithmetic with a constant."""
    import openvino
    from openvino import opset13

    inputs = opset13.parameter(shape, np.float32)
    transposed = opset13.transpose(inputs, np.array(order, np.int64))
    results = [getattr(opset13, operation)(transposed, constant) for _ in range(n_readers)]
    return openvino.Model(results, [inputs])


@needs_openvino
@pytest.mark.parametrize(
    ("shape", "order", "constant"),
    [
        ((2, 5, 4, 3), (0, 3, 1, 2), np.float32(3)),
        ((2, 5, 4, 3), (0, 3, 1, 2), np.arange(12, dtype=np.float32).reshape(3, 1, 4)),
        ((2, 5, 3), (0, 2, 1), np.arange(15, dtype=np.float32).reshape(3, 5)),
    ],
)
def test_transpose_late_transposes_smaller_constants(shape, order, constant):
    import openvino

    graph = built_graph(shape, order, constant)
    changed = graph.clone()
    transpose_late(changed)
    assert [each.get_type_name() for each in changed.get_ordered_ops()][-2] == "Transpose"
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    before, after = (
        openvino.compile_model(each, "CPU")({0: inputs})[0] for each in (graph, changed)
    )
    np.testing.assert_allclose(after, before, rtol=1e-6)


@needs_openvino
@pytest.mark.parametrize(
    ("shape", "order", "constant", "n_readers"),
    [
        ((2, 5, 4, 3), (0, 3, 1, 2), np.float32(3), 2),
        ((2, 5, 3), (0, 2, 1), np.ones((1, 1, 1, 1), np.float32), 1),
        ((2, 5, 3), (), np.float32(3), 1),  # which reverses
    ],
)
def test_transpose_late_skips_unknown_operations(shape, order, constant, n_readers):
    graph = built_graph(shape, order, constant, n_readers=n_readers)
    before = [node.get_type_name() for node in graph.get_ordered_ops()]
    transpose_late(graph)
    assert [node.get_type_name() for node in graph.get_ordered_ops()] == before


@needs_openvino
def test_transpose_late_skips_other_graphs(tmp_path):
    def noisy(inputs):
        x = keras.ops.cast(inputs, "float32")
        return x * keras.ops.mean(x, axis=-1, keepdims=True)  # no constant

    graph = openvino_graph(noisy, tmp_path)
    before = [node.get_type_name() for node in graph.get_ordered_ops()]
    transpose_late(graph)
    assert [node.get_type_name() for node in graph.get_ordered_ops()] == before


@needs_openvino
def test_started_batches_come_back_in_their_order():
    images = pixels((16, 16, 3), n_images=4)
    model = convolutions()
    engine = make_engine("openvino", model, 2, precision="float32", probe=images)
    started = [engine.start(images[:2]), engine.start(images[2:])]
    rows = np.concatenate([engine.finish(each) for each in started])
    assert difference(rows, np.asarray(model(images))) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES[:2])
def test_make_engine_bfloat16_is_near_float32(engine):
    if engine == "openvino" and not knows_bfloat16():
        pytest.skip("needs a CPU that computes in bfloat16")
    images = pixels((16, 16, 3))
    model = convolutions()
    expected = np.asarray(model(images))
    rows = rows_of(engine, model, images, precision="bfloat16")
    assert rows.dtype == np.float32
    assert 1e-6 < difference(rows, expected) < 0.05
    np.testing.assert_array_equal(np.asarray(model(images)), expected)


def wrong_engine(monkeypatch, error=None):
    class Wrong(registry.OpenVINOEngine):
        def finish(self, pending):
            if error:
                raise error
            return super().finish(pending) * 1.001

    monkeypatch.setitem(registry.ENGINES, "openvino", Wrong)


@needs_openvino
@pytest.mark.parametrize(
    ("error", "message"),
    [(None, "differ from Keras' by 0.001"), (RuntimeError("no such operation"), "no such oper")],
)
def test_make_engine_wrong_or_failing_raises(error, message, monkeypatch):
    wrong_engine(monkeypatch, error)
    images = pixels((16, 16, 3))
    with pytest.raises(EngineError, match=message):
        rows_of("openvino", convolutions(), images)


@needs_openvino
def test_transform_auto_long_pass_uses_openvino(monkeypatch):
    images = pixels((64, 64, 3), n_images=64)
    expected = FeatureExtractor("tiny", cache=None, engine="keras").fit_transform(images)
    extractor = FeatureExtractor("tiny", cache=None, batch_size=4)
    assert extractor.fit(images).transform(images[:40]).shape == (40, 400)
    assert extractor.report_.engine == "keras"
    monkeypatch.setattr("featx.engines.runner._WORTH_CONVERTING_S", 1e-9)
    rows = extractor.transform(images)
    assert extractor.report_.engine == "keras + openvino"
    assert extractor.report_.n_forward == 64
    assert difference(rows, expected) < 1e-4


@needs_openvino
def test_transform_auto_failed_conversion_uses_keras(monkeypatch):
    wrong_engine(monkeypatch)
    monkeypatch.setattr("featx.engines.runner._WORTH_CONVERTING_S", 1e-9)
    images = pixels((32, 32, 3), n_images=40)
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(7, 3)(inputs))  # no engine has seen it yet
    extractor = FeatureExtractor(model, cache=None, batch_size=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = extractor.fit_transform(images)
        again = extractor.transform(images)
    messages = [str(w.message) for w in caught if "Keras runs it instead" in str(w.message)]
    assert len(messages) == 1  # and it is not tried again
    np.testing.assert_array_equal(again, rows)
    assert extractor.report_.engine == "keras"
    assert np.isfinite(rows).all()


def test_fit_missing_engine_names_the_cure(monkeypatch):
    monkeypatch.setitem(registry._PACKAGES, "openvino", ("no_such_package",))
    with pytest.raises(ParameterError, match=r"pip install 'featx\[openvino\]'"):
        FeatureExtractor("tiny", engine="openvino").fit(pixels((64, 64, 3)))


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"engine": "onnx", "precision": "bfloat16"}, ParameterError),
        ({"engine": "openvino", "precision": "float16"}, ParameterError),
        ({"precision": "tf32"}, EngineError),
    ],
)
def test_transform_precision_that_cannot_be_had_raises(params, error):
    with pytest.raises(error, match=r"float32|GPU"):
        FeatureExtractor("tiny", cache=None, **params).fit_transform(pixels((64, 64, 3)))


@needs_openvino
def test_transform_precisions_are_spaces_of_their_own(tmp_path):
    images = pixels((64, 64, 3))
    rows = FeatureExtractor("tiny", cache=tmp_path).fit_transform(images)
    rough = FeatureExtractor("tiny", cache=tmp_path, precision="bfloat16")
    rough_rows = rough.fit_transform(images)
    assert difference(rough_rows, rows) > 1e-6 or not knows_bfloat16()
    assert rough.report_.n_forward == 3
    other = FeatureExtractor("tiny", cache=tmp_path, engine="openvino").fit(images)
    other.transform(images)
    assert other.report_.n_hits == 3


@needs_openvino
def test_make_engine_checks_small_layers_too(monkeypatch):
    class Wrong(registry.OpenVINOEngine):
        def finish(self, pending):
            return super().finish(pending) * np.float32([2, 1])

    monkeypatch.setitem(registry.ENGINES, "openvino", Wrong)
    inputs = keras.Input((2,))
    scaled = keras.layers.Rescaling([1e-6, 1e6])(inputs)
    model = keras.Model(inputs, scaled)
    options = {"precision": "float32", "probe": np.ones((2, 2), np.float32)}
    assert make_engine("openvino", model, 2, **options).run(options["probe"]).shape == (2, 2)
    with pytest.raises(EngineError, match="differ"):
        make_engine("openvino", model, 2, widths=[1, 1], **options)


@needs_openvino
def test_run_threads_share_one_engine():
    images = pixels((16, 16, 3), n_images=8)
    model = convolutions()
    engine = make_engine("openvino", model, 8, precision="float32", probe=images)
    expected = engine.run(images)

    def run(size):
        mine = engine.resized(size)
        return np.concatenate(
            [mine.run(images[start : start + size]) for start in range(0, 8, size)]
        )

    with ThreadPoolExecutor(3) as threads:
        for rows in threads.map(run, [1, 2, 4, 8, 1, 2, 4]):
            assert difference(rows, expected) < 1e-5


def test_bfloat16_statistics_of_a_normalization_are_kept():
    inputs = keras.Input((6,))
    norm = keras.layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(1, 1, (200, 6)).astype(np.float32))
    model = keras.Model(inputs, keras.layers.Dense(4)(norm(inputs)))
    values = np.random.default_rng(1).normal(1, 1, (5, 6)).astype(np.float32)
    rows = make_engine("keras", model, 5, precision="bfloat16", probe=values).run(values)
    assert difference(rows, np.asarray(model(values))) < 0.05


def test_bfloat16_network_with_one_rounded_image_passes():
    inputs = keras.Input((2,))
    subtract = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, subtract(inputs))
    subtract.set_weights([np.float32([[1], [-1]])])
    values = np.float32([[1 + 2**-9, 1], [3, 1]])  # bfloat16 keeps seven bits after the point
    rows = make_engine("keras", model, 2, precision="bfloat16", probe=values).run(values)
    np.testing.assert_array_equal(rows, [[0], [2]])


@pytest.mark.parametrize("first", [[1, 1, 1, 1], [0, 0, 0, 0], [3e38, 1, 1, 1]])
def test_bfloat16_copy_of_other_network_raises(first):
    class Scale(keras.layers.Layer):
        factor = 1.0

        def call(self, x):
            return x * self.factor

    inputs = keras.Input((4,))
    scale = Scale()
    model = keras.Model(inputs, scale(inputs))
    scale.factor = 3.0  # which the copy, made from its config, does not know
    values = np.float32([first, [1, 1, 1, 1]])
    with pytest.raises(EngineError, match=r"differ|cannot"):
        make_engine("keras", model, 2, precision="bfloat16", probe=values)


def test_transform_changed_copy_of_model_stays_apart():
    def same_model():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
        return keras.Model(inputs, x)

    images = pixels((8, 8, 3), n_images=5)
    first, second = same_model(), same_model()
    expected = FeatureExtractor(second, cache=None, engine="keras").fit_transform(images[:2])
    FeatureExtractor(first, cache=None, engine="keras").fit_transform(images[:2])
    first.layers[1].kernel.assign(5 * first.layers[1].kernel)
    third = same_model()
    for model in (second, third):
        rows = FeatureExtractor(model, cache=None, engine="keras").fit_transform(images[:2])
        np.testing.assert_allclose(rows, expected, rtol=1e-5)


@pytest.mark.parametrize("before", [None, "false"])
def test_without_statistics_openvino_may_not_send(monkeypatch, before):
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv("CI", before)
    monkeypatch.delitem(sys.modules, "openvino_telemetry")  # which conftest.py keeps from loading
    opt_in_checker = pytest.importorskip("openvino_telemetry.utils.opt_in_checker")
    with without_statistics():
        found = opt_in_checker.OptInChecker().check(enable_opt_in_dialog=False, disable_in_ci=True)
    assert found == opt_in_checker.ConsentCheckResult.DECLINED
    assert os.environ.get("CI") == before
