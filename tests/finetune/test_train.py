"""Training: options, callbacks, and runs that are interrupted, killed or short of memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from digit_tuning import classifier, fit_network, tuning, unit_extractor

from featx import EmbeddingCache, TransferClassifier
from featx.exceptions import FineTuneWarning


@pytest.mark.parametrize(
    "params",
    [
        {
            "optimizer": "sgd",
            "schedule": "one-cycle",
            "learning_rate": 1e-3,
            "unfreeze": 3,
            "epochs": 10,
        },
        {"optimizer": keras.optimizers.Nadam(1e-3), "mixup": 0.2},
        {"precision": "bfloat16", "loss": "squared_hinge"},
        *(
            pytest.param(params, marks=pytest.mark.long)
            for params in (
                {"optimizer": "adagrad", "label_smoothing": 0.1, "class_weight": "balanced"},
                {"optimizer": "rmsprop", "schedule": "constant"},
                {"optimizer": "adam", "layer_decay": 0.7, "unfreeze": 3},
                {"augment": "standard", "unfreeze": 0.5},
                {"learning_rate": "find", "unfreeze": 3},
            )
        ),
    ],
    ids=lambda params: " ".join(params),
)
def test_train_each_option_lowers_the_loss(digits, params):
    fitted = fit_network(digits, **{"epochs": 6, "learning_rate": 3e-3, **params})
    losses = fitted.report_.history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert fitted.report_.handover_gap <= 1e-5


def test_train_calls_callbacks_with_validation_scores(network, empty_cache, few_digits):
    history = keras.callbacks.History()
    tune = tuning(epochs=3, callbacks=[history])
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), fine_tune=tune, random_state=0
    )
    report = classifier.fit(*few_digits).report_
    np.testing.assert_allclose(history.history["val_score"], report.history["val_score"])


def test_train_infinite_loss_keeps_best_epoch(digits):
    with pytest.warns(FineTuneWarning, match=r"loss was not finite.*learning_rate"):
        fitted = fit_network(digits, optimizer="sgd", learning_rate=1e30, unfreeze="all", epochs=4)
    assert fitted.report_.kept == "head"
    assert np.isfinite(fitted.predict_proba(digits[0])).all()


class Breaking(keras.callbacks.Callback):
    """The last step of an epoch takes it too far."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            weight = self.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.nan))


def test_train_epoch_with_nan_scores_is_dropped(network, empty_cache, few_digits):
    tune = tuning(epochs=3, callbacks=[Breaking()])
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), fine_tune=tune, random_state=0
    )
    with pytest.warns(FineTuneWarning, match="scores were not finite"):
        classifier.fit(*few_digits)
    assert classifier.report_.kept == "head"
    assert classifier.report_.tuned_score is None


class RunningOut(keras.callbacks.Callback):
    """Memory that holds small batches only."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.gradient_accumulation_steps is None:
            raise MemoryError


def test_train_out_of_memory_halves_the_batch(digits):
    fitted = fit_network(digits, callbacks=[RunningOut()], epochs=3)
    assert fitted.report_.tuning_batch_size == 16
    whole = fit_network(digits, epochs=3)
    np.testing.assert_allclose(
        fitted.report_.history["loss"], whole.report_.history["loss"], rtol=0.2
    )


class RunningOutLater(keras.callbacks.Callback):
    """Memory that holds the batches of the first epoch, and smaller ones then."""

    def __init__(self):
        super().__init__()
        self.n_steps = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and self.model.optimizer.gradient_accumulation_steps is None:
            raise MemoryError

    def on_epoch_end(self, epoch, logs=None):
        self.n_steps.append(int(self.model.optimizer.iterations.numpy()))


def test_train_out_of_memory_later_keeps_schedule(network, empty_cache, few_digits):
    callback = RunningOutLater()
    tune = tuning(epochs=3, callbacks=[callback], batch_size=16)
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), fine_tune=tune, random_state=0
    )
    report = classifier.fit(*few_digits).report_
    assert len(report.history["loss"]) == 3
    assert report.tuning_batch_size == 8
    assert callback.n_steps == [4, 8, 12]


class Interrupting(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.long
def test_train_interrupted_resumes_with_next_fit(digits, tmp_path):
    images, labels = digits
    caches = [EmbeddingCache(tmp_path / name) for name in ("interrupted", "whole")]
    params = {"unfreeze": 2, "epochs": 4}
    with pytest.warns(FineTuneWarning, match="interrupted"):
        first = classifier(caches[0], **params, callbacks=[Interrupting()]).fit(images, labels)
    assert len(first.report_.history["loss"]) == 2
    resumed = classifier(caches[0], **params).fit(images, labels)
    whole = classifier(caches[1], **params).fit(images, labels)
    assert resumed.report_.history == whole.report_.history
    assert not list((tmp_path / "interrupted" / "tuning").iterdir())


def test_cache_clear_removes_unfinished_trainings(network, empty_cache, few_digits):
    tune = tuning(epochs=3, callbacks=[Interrupting()])
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), fine_tune=tune, random_state=0
    )
    (empty_cache.path / "tuning").mkdir(parents=True)
    (empty_cache.path / "tuning" / f"{'0' * 32}.tuning").write_bytes(b"PK")
    with pytest.warns(FineTuneWarning, match="interrupted"):
        classifier.fit(*few_digits)
    empty_cache.clear()
    assert not (empty_cache.path / "tuning").exists()


KILLED = """
import os, signal, sys
import keras
import numpy as np
sys.path.insert(0, sys.argv[1])
from digit_tuning import classifier
from featx import EmbeddingCache
images, labels = np.load(sys.argv[2]), np.load(sys.argv[3])

class Killer(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.params.get("epoch") == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch_begin(self, epoch, logs=None):
        self.params["epoch"] = epoch

cache = EmbeddingCache(sys.argv[4])
estimator = classifier(
    cache, unfreeze=2, epochs=3, callbacks=[Killer()]
)
estimator.fit(images, labels)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_train_killed_resumes_with_equal_bits(digits, tmp_path):
    images, labels = digits
    np.save(tmp_path / "X.npy", images)
    np.save(tmp_path / "y.npy", labels)
    places = [
        Path(__file__).parents[1],
        tmp_path / "X.npy",
        tmp_path / "y.npy",
        tmp_path / "killed",
    ]
    done = subprocess.run([sys.executable, "-c", KILLED, *places], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    params = {"unfreeze": 2, "epochs": 3}
    resumed = classifier(EmbeddingCache(tmp_path / "killed"), **params).fit(images, labels)
    whole = classifier(EmbeddingCache(tmp_path / "whole"), **params).fit(images, labels)
    assert resumed.report_.history == whole.report_.history
    assert (resumed.predict_proba(images) == whole.predict_proba(images)).all()
