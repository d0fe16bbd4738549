"""OpenVINO and ONNX Runtime give what Keras gives, or are not used."""

import warnings

import keras
import numpy as np
import pytest
from sample_networks import FAMILIES, difference, family, pixels, transformer

from featx import FeatureExtractor
from featx.engines import choice
from featx.engines.choice import make_engine
from featx.exceptions import EngineError, ParameterError

pytest.importorskip("openvino", reason="needs featx[openvino]")
pytest.importorskip("onnxruntime", reason="needs featx[onnx]")

QUICK = ("MobileNet", "MobileNetV3Small")


def rows_of(name, model, images, batch_size=4, precision="float32"):
    engine = make_engine(name, model, batch_size, precision=precision, probe=images)
    return engine.run(images)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize(
    ("name", "params", "size"),
    [
        pytest.param(*each, marks=() if each[0] in QUICK else pytest.mark.long, id=each[0])
        for each in FAMILIES
    ],
)
def test_make_engine_families_agree_with_keras(name, params, size, engine):
    model = family(name, params, size)
    images = pixels((size, size, 3))
    assert difference(rows_of(engine, model, images), np.asarray(model(images))) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["keras", "openvino", "onnx"])
def test_make_engine_transformer_agrees_with_keras(engine):
    model = transformer()
    images = pixels((32, 32, 3))
    assert difference(rows_of(engine, model, images), np.asarray(model(images))) < 1e-4


@pytest.mark.parametrize("engine", ["keras", "openvino", "onnx"])
def test_resized_engine_gives_the_same_rows(engine):
    images = pixels((64, 64, 3), n_images=7)
    model = family("MobileNet", {"alpha": 0.25}, 64)
    small = make_engine(engine, model, 3, precision="float32", probe=images)
    large = small.resized(8)
    rows = np.concatenate([small.run(images[:3]), small.run(images[3:6]), small.run(images[6:])])
    assert (small.batch_size, large.batch_size) == (3, 8)
    assert difference(large.run(images), rows) < 1e-5


def test_started_batches_come_back_in_their_order():
    images = pixels((64, 64, 3), n_images=4)
    model = family("MobileNet", {"alpha": 0.25}, 64)
    engine = make_engine("openvino", model, 2, precision="float32", probe=images)
    started = [engine.start(images[:2]), engine.start(images[2:])]
    rows = np.concatenate([engine.finish(each) for each in started])
    assert difference(rows, np.asarray(model(images))) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_make_engine_bfloat16_is_near_float32_and_not_it(engine):
    images = pixels((64, 64, 3))
    model = family("MobileNet", {"alpha": 0.25}, 64)
    expected = np.asarray(model(images))
    rows = rows_of(engine, model, images, precision="bfloat16")
    assert rows.dtype == np.float32
    assert 1e-6 < difference(rows, expected) < 0.05
    np.testing.assert_array_equal(np.asarray(model(images)), expected)


def wrong_engine(monkeypatch, error=None):
    class Wrong(choice.OpenVINOEngine):
        def finish(self, pending):
            if error:
                raise error
            return super().finish(pending) * 1.001

    monkeypatch.setitem(choice.ENGINES, "openvino", Wrong)


@pytest.mark.parametrize(
    ("error", "message"),
    [(None, "differ from Keras' by 0.001"), (RuntimeError("no such operation"), "no such oper")],
)
def test_make_engine_that_is_wrong_or_fails_raises(error, message, monkeypatch):
    wrong_engine(monkeypatch, error)
    images = pixels((64, 64, 3))
    with pytest.raises(EngineError, match=message):
        rows_of("openvino", family("MobileNet", {"alpha": 0.25}, 64), images)


def test_transform_auto_changes_to_openvino_where_it_pays(monkeypatch):
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


def test_transform_auto_goes_on_with_keras_where_conversion_fails(monkeypatch):
    wrong_engine(monkeypatch)
    monkeypatch.setattr("featx.engines.runner._WORTH_CONVERTING_S", 1e-9)
    images = pixels((32, 32, 3), n_images=40)
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(7, 3)(inputs))  # no engine has seen it yet
    extractor = FeatureExtractor(model, cache=None, batch_size=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = extractor.fit_transform(images)
    messages = [str(w.message) for w in caught if "Keras runs it instead" in str(w.message)]
    assert len(messages) == 1
    assert extractor.report_.engine == "keras"
    assert np.isfinite(rows).all()


def test_fit_engine_that_is_not_installed_names_the_cure(monkeypatch):
    monkeypatch.setitem(choice._PACKAGES, "openvino", ("no_such_package",))
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


def test_transform_precisions_are_spaces_of_their_own(tmp_path):
    images = pixels((64, 64, 3))
    rows = FeatureExtractor("tiny", cache=tmp_path).fit_transform(images)
    rough = FeatureExtractor("tiny", cache=tmp_path, precision="bfloat16")
    assert difference(rough.fit_transform(images), rows) > 1e-6
    assert rough.report_.n_forward == 3
    other = FeatureExtractor("tiny", cache=tmp_path, engine="openvino").fit(images)
    other.transform(images)
    assert other.report_.n_hits == 3
