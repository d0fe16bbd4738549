"""The engine gives what the model gives, in batches of one shape."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from featx.engines.compile import _ForOneThreadEach
from featx.engines.keras_engine import KerasEngine


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    )


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.mark.parametrize("n_samples", [1, 6, 7])
def test_run_short_batches_are_padded_and_cut(n_samples, inputs):
    plain = model()
    outputs = KerasEngine(model(), batch_size=7).run(inputs[:n_samples])
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, plain(inputs[:n_samples]), rtol=1e-5, atol=1e-6)


def test_run_ignores_position_in_batch(inputs):
    engine = KerasEngine(model(), batch_size=7)
    rows = engine.run(inputs)
    again = engine.run(inputs[::-1].copy())[::-1]
    differences = np.linalg.norm(again - rows, axis=1)
    assert (differences <= 1e-5 * np.linalg.norm(rows, axis=1)).all()


@pytest.mark.parametrize("n_samples", [1, 50, 200])
def test_run_batches_in_parts_keep_order(n_samples):
    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()]
    )
    images = np.random.default_rng(0).random((n_samples, 64, 64, 3), np.float32)
    outputs = KerasEngine(plain, batch_size=200).run(images)
    np.testing.assert_allclose(outputs, plain(images), rtol=1e-5, atol=1e-6)


def test_run_engine_keeps_variables_alive(inputs):
    engine = KerasEngine(model(), batch_size=7)
    expected = engine.run(inputs)
    engine._function._idle.clear()  # so that another is made
    gc.collect()
    np.testing.assert_array_equal(engine.run(inputs), expected)


def test_run_gives_each_thread_its_own_function():
    """TensorFlow's fused convolutions keep what they add in themselves while they compute."""
    n_made, busy, overlaps = [], set(), []

    def make():
        me = len(n_made)
        n_made.append(me)

        def function(inputs):
            if me in busy:
                overlaps.append(me)
            busy.add(me)
            time.sleep(0.002)
            busy.remove(me)
            return inputs

        return function

    function = _ForOneThreadEach(make)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(function, range(100))) == list(range(100))
    assert not overlaps
    assert 2 <= len(n_made) <= 4


def test_run_error_in_one_part_is_raised():
    @keras.saving.register_keras_serializable("tests")
    class Fragile(keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            with tf.control_dependencies([tf.debugging.assert_less(x, 2.0)]):
                return tf.identity(x)

    fragile = keras.Sequential([keras.Input((64, 64, 3)), Fragile()])
    images = np.ones((200, 64, 64, 3), np.float32)
    images[190] = 3
    engine = KerasEngine(fragile, batch_size=200)
    with pytest.raises(Exception, match="assertion failed"):
        engine.run(images)
    images[190] = 1
    assert engine.run(images).max() == 1


def test_run_traces_once(inputs):
    traced = []

    class Traced(keras.layers.Layer):
        def call(self, x):
            traced.append(x.shape)
            return x

    counted = keras.Sequential([keras.Input((5,)), Traced()])
    engine = KerasEngine(counted, batch_size=7)
    engine.run(inputs)
    n_traced = len(traced)
    for n_samples in (1, 3, 7, 2):
        engine.run(inputs[:n_samples])
    assert len(traced) == n_traced


def test_run_restores_tensor_float_32(inputs):
    from tensorflow import config

    engine = KerasEngine(model(), batch_size=7)
    for allowed in (True, False):
        config.experimental.enable_tensor_float_32_execution(allowed)
        engine.run(inputs)
        assert config.experimental.tensor_float_32_execution_enabled() is allowed
    config.experimental.enable_tensor_float_32_execution(True)
