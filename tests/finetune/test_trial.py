"""``strategy="auto"``: a trial decides whether to fine-tune."""

import keras
import pytest
from digit_tuning import classifier, tuning, unit_extractor
from sample_networks import small_network

from featx import FeatureExtractor, TransferClassifier
from featx.exceptions import FineTuneWarning


def test_trial_with_perfect_head_keeps_it(digits, cache, capsys):
    images, labels = digits
    estimator = classifier(cache, backbone="tiny", strategy="auto").set_params(verbose=1)
    fitted = estimator.fit(images[labels < 2], labels[labels < 2])
    assert fitted.report_.trial["is_worth_it"] is False
    assert fitted.report_.kept == "head"
    assert "not fine-tuning: the head is right on all" in capsys.readouterr().err


def test_trial_with_gain_is_worth_it(digits, capsys):
    images, labels = digits
    extractor = FeatureExtractor(small_network(), input_size=16, cache=None, preprocessing="unit")
    tune = tuning(strategy="auto", unfreeze=2, learning_rate=3e-3, epochs=10)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0, verbose=1)
    fitted.fit(images, labels)
    trial = fitted.report_.trial
    assert trial["is_worth_it"] is True
    assert trial["losses"][1] < trial["losses"][0]
    assert len(fitted.report_.history["loss"]) == 10
    assert "fine-tuning (at most" in capsys.readouterr().err


class Interrupting(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_trial_interrupted_keeps_the_head(network, empty_cache, few_digits, monkeypatch):
    from featx.finetune import trial

    train = trial.train

    def interrupted(task, params, **options):
        return train(task, params.set_params(callbacks=[Interrupting()]), **options)

    monkeypatch.setattr(trial, "train", interrupted)
    tune = tuning(epochs=3, strategy="auto")
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), fine_tune=tune, random_state=0
    )
    with pytest.warns(FineTuneWarning, match="interrupted"):
        report = classifier.fit(*few_digits).report_
    assert report.trial["reason"] == "the trial was interrupted"
    assert (report.kept, report.tuned_score) == ("head", None)
