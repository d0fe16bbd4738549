"""Networks that give NaN or infinite values for samples that can be read."""

import keras
import numpy as np
import pytest
from keras import layers

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier
from featx.engines.base import Engine
from featx.engines.registry import ENGINES, make_engine
from featx.exceptions import BackboneError, BadSampleWarning, EngineError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def model_with(value, *, place=(0, 0, 0, 2), n_after=1):
    """Make a network one of whose weights is broken."""
    inputs = x = keras.Input((8, 8, 3))
    for number in range(2 + n_after):
        x = layers.Conv2D(4, 1, name=f"conv_{number}")(x)
    model = keras.Model(inputs, x, name="broken")
    kernel = np.array(model.get_layer("conv_1").kernel)
    kernel[place] = value
    model.get_layer("conv_1").kernel.assign(kernel)
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_transform_broken_network_names_layer(value, on_error, images, tmp_path):
    cache = EmbeddingCache(tmp_path)
    extractor = FeatureExtractor(model_with(value), cache=cache, on_error=on_error)
    expected = r"broken gives NaN or infinite values for 6 of 6 samples.*\[0\] array.*'conv_2'.*"
    with pytest.raises(BackboneError, match=expected + "not finite is 'conv_1', whose weights"):
        extractor.fit(images).transform(images)
    assert not any(cache.store(extractor.space_).shards())


def test_transform_nan_in_last_column_raises(images):
    model = model_with(np.nan, place=(0, 0, 0, 3), n_after=0)
    with pytest.raises(BackboneError, match="'conv_1'"):
        FeatureExtractor(model, cache=None).fit_transform(images)


def test_transform_overflow_is_not_an_unreadable_sample(images):
    inputs = keras.Input((8, 8, 3))
    powers = layers.Lambda(lambda x: keras.ops.exp(x))(inputs)
    with pytest.raises(BackboneError, match="scaling of the inputs"):
        FeatureExtractor(keras.Model(inputs, powers), cache=None).fit_transform(images)


def test_transform_unreadable_sample_stays_nan(images):
    model = model_with(0.0)
    extractor = FeatureExtractor(model, cache=None, on_error="nan")
    with pytest.warns(BadSampleWarning, match="1 of 7 samples cannot be read"):
        rows = extractor.fit_transform([*images, None])
    assert np.isnan(rows[6]).all()
    assert np.isfinite(rows[:6]).all()


def test_transform_broken_also_cached_layer_raises(images, tmp_path):
    model = model_with(np.nan)
    extractor = FeatureExtractor(model, layer="conv_0", also_cache=["conv_1"], cache=tmp_path)
    with pytest.raises(BackboneError, match="The layer that is read is 'conv_1'"):
        extractor.fit_transform(images)


def test_fit_head_on_broken_network_fails(images):
    extractor = FeatureExtractor(model_with(np.nan), cache=None, on_error="nan")
    with pytest.raises(BackboneError, match="6 of 6 samples"):
        TransferClassifier(extractor).fit(images, [0, 1] * 3)


class Overflowing(Engine):
    """An engine whose numbers overflow where Keras' do not."""

    name, precisions = "overflowing", ("float32",)

    def _load(self, model):
        pass

    def start(self, inputs):
        return np.full((len(inputs), 3), np.inf, np.float32)

    def finish(self, pending):
        return pending


def test_make_engine_that_overflows_says_so(monkeypatch):
    inputs = keras.Input((3,))
    monkeypatch.setitem(ENGINES, "overflowing", Overflowing)
    probe = np.ones((2, 3), np.float32)
    with pytest.raises(EngineError, match="gives NaN or infinite values in float32"):
        make_engine(
            "overflowing", keras.Model(inputs, inputs * 2), 2, precision="float32", probe=probe
        )
