"""``refit``: a model that is kept is trained again on all samples."""

import keras
import numpy as np
import pytest
from digit_tuning import classifier

from featx import EmbeddingCache, TransferClassifier
from featx.exceptions import FineTuneWarning


class InterruptingRefit(keras.callbacks.Callback):
    """Presses Ctrl-C in the third epoch of the second training."""

    def __init__(self):
        super().__init__()
        self.n_trainings = 0

    def on_train_begin(self, logs=None):
        self.n_trainings += 1

    def on_epoch_begin(self, epoch, logs=None):
        if self.n_trainings == 2 and epoch == 2:
            raise KeyboardInterrupt


def refitting(**params):
    return {"unfreeze": 3, "epochs": 6, "learning_rate": 3e-3, "refit": True, **params}


def test_refit_trains_again_on_all_samples(digits, cache):
    images, labels = digits
    once = classifier(cache, **refitting(refit=False)).fit(images, labels)
    clock = InterruptingRefit()
    clock.on_epoch_begin = lambda epoch, logs=None: None
    twice = classifier(cache, **refitting(callbacks=[clock])).fit(images, labels)
    assert once.report_.kept == twice.report_.kept == "tuned"
    assert clock.n_trainings == 2
    assert twice.report_.history == once.report_.history
    assert twice.report_.tuned_score == once.report_.tuned_score
    assert twice.report_.seconds["refit"] > 0
    mean = TransferClassifier(twice.extractor).fit(images, labels).head_[0].mean_
    np.testing.assert_allclose(twice.head_[0].mean_, mean, rtol=1e-5, atol=1e-6)
    assert np.abs(once.head_[0].mean_ - mean).max() > 1e-3


@pytest.mark.long
def test_refit_is_reproducible(digits, cache):
    images, labels = digits
    once, again = (classifier(cache, **refitting()).fit(images, labels) for _ in range(2))
    np.testing.assert_array_equal(again.predict_proba(images), once.predict_proba(images))


@pytest.mark.long
def test_refit_interrupted_keeps_first_and_resumes(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path / "interrupted")
    estimator = classifier(cache, **refitting(callbacks=[InterruptingRefit()]))
    with pytest.warns(FineTuneWarning, match="interrupted"):
        first = estimator.fit(images, labels)
    assert first.report_.was_interrupted
    once = classifier(cache, **refitting(refit=False)).fit(images, labels)
    np.testing.assert_array_equal(first.predict_proba(images), once.predict_proba(images))
    counter = InterruptingRefit()
    counter.on_epoch_begin = lambda epoch, logs=None: None
    resumed = classifier(cache, **refitting(callbacks=[counter])).fit(images, labels)
    assert counter.n_trainings == 1  # the first one was done
    whole = classifier(EmbeddingCache(tmp_path / "whole"), **refitting()).fit(images, labels)
    np.testing.assert_array_equal(resumed.predict_proba(images), whole.predict_proba(images))
    assert not list((tmp_path / "interrupted" / "tuning").iterdir())


def test_refit_with_kept_head_is_skipped(digits, cache):
    images, labels = digits
    fitted = classifier(cache, **refitting(learning_rate=1e-9)).fit(images, labels)
    assert fitted.report_.kept == "head"
    assert "refit" not in fitted.report_.seconds
