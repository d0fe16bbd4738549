"""Fine-tuning that is interrupted, killed or short of memory, or whose loss is no number."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from digit_tuning import classifier, report_of
from sample_digits import first_digits

from featx import EmbeddingCache
from featx.exceptions import FineTuneWarning


@pytest.fixture(scope="module")
def digits():
    return first_digits(160, n_classes=4)


def test_fit_a_loss_that_is_no_number_ends_it_with_the_best_so_far(digits):
    with pytest.warns(FineTuneWarning, match=r"loss was no finite number.*learning_rate"):
        fitted = report_of(digits, optimizer="sgd", learning_rate=1e30, unfreeze="all", epochs=4)
    assert fitted.report_.kept == "head"
    assert np.isfinite(fitted.predict_proba(digits[0])).all()


class Interrupting(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_fit_interrupted_keeps_the_best_so_far_and_goes_on_next_time(digits, tmp_path):
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


class RunningOut(keras.callbacks.Callback):
    """Memory that holds small batches only."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.gradient_accumulation_steps is None:
            raise MemoryError


def test_fit_out_of_memory_halves_the_batch_and_accumulates(digits):
    fitted = report_of(digits, callbacks=[RunningOut()], epochs=3)
    assert fitted.report_.tuning_batch_size == 16
    whole = report_of(digits, epochs=3)
    np.testing.assert_allclose(
        fitted.report_.history["loss"], whole.report_.history["loss"], rtol=0.2
    )


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
        if self.params.get("epoch") == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch_begin(self, epoch, logs=None):
        self.params["epoch"] = epoch

cache = EmbeddingCache(sys.argv[4])
estimator = classifier(
    cache, unfreeze=2, epochs=5, callbacks=[Killer()]
)
estimator.fit(images, labels)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_fit_killed_goes_on_where_it_was_bit_by_bit(digits, tmp_path):
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
    params = {"unfreeze": 2, "epochs": 5}
    resumed = classifier(EmbeddingCache(tmp_path / "killed"), **params).fit(images, labels)
    whole = classifier(EmbeddingCache(tmp_path / "whole"), **params).fit(images, labels)
    assert resumed.report_.history == whole.report_.history
    assert (resumed.predict_proba(images) == whole.predict_proba(images)).all()
