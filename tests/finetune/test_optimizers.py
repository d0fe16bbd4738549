"""Optimizers: what an optimizer object carries holds in the training, in a copy of it."""

import keras
import numpy as np
import pytest
from digit_tuning import fit_network
from sample_networks import small_network

from featx.finetune.initial_head import InitialHead
from featx.finetune.optimizers import make_schedule, new_optimizer

MOMENTUM = 0.9


class Averaging(keras.callbacks.Callback):
    """Averages the kernel of a layer after each step, as ``use_ema`` promises."""

    def on_train_begin(self, logs=None):
        self.average, self.epochs = None, []

    def on_train_batch_end(self, batch, logs=None):
        self.kernel = np.array(self.model.get_layer("conv_3").kernel)
        before = self.kernel if self.average is None else self.average
        self.average = MOMENTUM * before + (1 - MOMENTUM) * self.kernel

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((self.kernel, self.average))


def test_fit_with_use_ema_keeps_averaged_weights(digits, monkeypatch):
    monkeypatch.setattr(InitialHead, "tuned_model_is_better", lambda *scores: True)
    averaging = Averaging()
    optimizer = keras.optimizers.AdamW(3e-3, use_ema=True, ema_momentum=MOMENTUM)
    fitted = fit_network(digits, optimizer=optimizer, epochs=10, callbacks=[averaging])
    assert fitted.report_.kept == "tuned"
    kernel, average = averaging.epochs[fitted.report_.best_epoch - 1]
    kept = np.array(fitted.extractor_.backbone.get_layer("conv_3").kernel)
    np.testing.assert_allclose(kept, average, atol=1e-6)
    assert np.abs(kept - kernel).max() > 1e-4


def test_fit_with_optimizer_object_leaves_it_unbuilt(digits):
    optimizer = keras.optimizers.AdamW(3e-3, weight_decay=0.1)
    report = fit_network(digits, optimizer=optimizer, layer_decay=0.5, unfreeze=2).report_
    assert not optimizer.built
    assert report.learning_rate == pytest.approx(3e-3)


def test_new_optimizer_copies_options_of_an_object():
    given = keras.optimizers.AdamW(1e-3, weight_decay=0.1, global_clipnorm=1.0)
    schedule = make_schedule("cosine", 1e-2, n_steps=20)
    made = new_optimizer(given, schedule, n_accumulated=2)
    assert made is not given
    assert (made.weight_decay, made.global_clipnorm) == (0.1, 1.0)
    assert made.gradient_accumulation_steps == 2
    made.build(small_network().trainable_variables)
    assert float(made.learning_rate) == 0  # the warm-up starts
    own = keras.optimizers.schedules.CosineDecay(1e-3, 100)
    made = new_optimizer(keras.optimizers.SGD(own), None)
    assert float(made.learning_rate) == pytest.approx(1e-3)


def test_new_optimizer_decays_no_biases():
    made = new_optimizer(keras.optimizers.SGD(0.1, weight_decay=0.5), None)
    dense = keras.layers.Dense(2, bias_initializer="ones")
    dense.build((None, 3))
    kernel = np.array(dense.kernel)
    made.apply([keras.ops.zeros_like(v) for v in dense.weights], dense.weights)
    assert (np.array(dense.bias) == 1).all()
    np.testing.assert_allclose(dense.kernel, 0.95 * kernel, rtol=1e-6)
