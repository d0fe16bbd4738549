"""Whether fine-tuning pays, judged before and after it: the better of head and network is kept."""

import numpy as np
import pytest
from digit_tuning import classifier, report_of, tuning
from sample_digits import first_digits
from sample_networks import small_network
from sklearn.dummy import DummyClassifier

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier


@pytest.fixture(scope="module")
def digits():
    return first_digits(160, n_classes=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


def test_fit_keeps_the_head_refitted_on_all_where_tuning_does_not_help(digits, cache):
    images, labels = digits
    fitted = classifier(cache, learning_rate=1e-9).fit(images, labels)
    alone = TransferClassifier(fitted.extractor).fit(images, labels)
    assert fitted.report_.kept == "head"
    assert fitted.report_.tuned_score == fitted.report_.head_score
    np.testing.assert_allclose(fitted.predict_proba(images), alone.predict_proba(images), atol=1e-9)


def test_fit_tuned_score_is_that_of_the_tuned_estimator(digits):
    images, labels = digits
    held = np.arange(0, 160, 5)
    rest = np.setdiff1d(np.arange(160), held)

    class Chosen:
        def split(self, X, y, groups=None):
            yield rest, held

    fitted = report_of(digits, unfreeze=2, learning_rate=3e-3, epochs=10, validation=Chosen())
    assert fitted.report_.kept == "tuned"
    assert fitted.score(images[held], labels[held]) == fitted.report_.tuned_score


def test_fit_auto_leaves_a_perfect_head_alone(digits, cache, capsys):
    images, labels = digits
    estimator = classifier(cache, backbone="tiny", strategy="auto").set_params(verbose=1)
    fitted = estimator.fit(images[labels < 2], labels[labels < 2])
    assert fitted.report_.judgement["is_worth_it"] is False
    assert fitted.report_.kept == "head"
    assert "not fine-tuning: the head is right on all" in capsys.readouterr().err


def test_fit_says_that_a_linear_head_stood_in_untrained(digits, cache, capsys):
    images, labels = digits
    estimator = classifier(cache, head=DummyClassifier(), learning_rate=1e-12)
    report = estimator.set_params(verbose=1).fit(images, labels).report_
    assert report.tuned_score > report.head_score
    assert (report.best_epoch, report.kept) == (0, "head")
    assert "no epoch made the linear head better" in capsys.readouterr().err


def test_fit_auto_tunes_where_a_trial_pays(digits, capsys):
    images, labels = digits
    extractor = FeatureExtractor(small_network(), input_size=16, cache=None, preprocessing="unit")
    tune = tuning(strategy="auto", unfreeze=2, learning_rate=3e-3, epochs=10)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0, verbose=1)
    fitted.fit(images, labels)
    judgement = fitted.report_.judgement
    assert judgement["is_worth_it"] is True
    assert judgement["losses"][1] < judgement["losses"][0]
    assert len(fitted.report_.history["loss"]) == 10
    assert "fine-tuning (at most" in capsys.readouterr().err
