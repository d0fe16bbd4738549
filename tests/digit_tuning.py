"""Estimators that are fine-tuned on digits within seconds."""

import math
from unittest import mock

import numpy as np
from sample_networks import small_network

from featx import FeatureExtractor, FineTune, TransferClassifier
from featx.finetune.initial_head import InitialHead
from featx.finetune.train import _BestEpochCallback

# What is unfrozen in small_network, and the layers that training then changes.
UNFROZEN = [
    (1, ["conv_3"]),
    (2, ["conv_2", "conv_3"]),
    ("conv_2", ["conv_2", "conv_3"]),
    ("conv_[13]", ["conv_1", "conv_3"]),
    ("norm", ["norm_0", "norm_1", "norm_2", "norm_3"]),
    ("bias", ["conv_0", "conv_1", "conv_2", "conv_3"]),
    ("all", ["conv_0", "conv_1", "conv_2", "conv_3"]),
]


def tuning(**params):
    return FineTune(**{"epochs": 2, "learning_rate": 1e-3, "patience": None, **params})


def classifier(cache, head="logistic", backbone=small_network, **params):
    scaling = "auto" if isinstance(backbone, str) else "unit"
    extractor = FeatureExtractor(backbone, preprocessing=scaling, pooling="avgmax", cache=cache)
    return TransferClassifier(extractor, head=head, fine_tune=tuning(**params), random_state=0)


def unit_extractor(network, cache, **params):
    return FeatureExtractor(network, cache=cache, **{"preprocessing": "unit", **params})


def fit_network(digits, *, model=None, **params):
    images, labels = digits
    model = model or small_network()
    extractor = FeatureExtractor(model, input_size=16, cache=None, preprocessing="unit")
    estimator = TransferClassifier(extractor, fine_tune=tuning(**params), random_state=0)
    return estimator.fit(images, labels)


def changed_by_tuning(digits, unfreeze):
    """Fine-tune a network; return the report and what changed in the network and in the copy."""
    model = small_network()
    before = {weight.path: np.array(weight) for weight in model.weights}

    def changed(other):
        return [w.path for w in other.weights if (before[w.path] != np.array(w)).any()]

    def keep_last(self, epoch, logs):
        self.progress.best_score = -math.inf
        keep(self, epoch, logs)

    # The last epoch is kept, better or not: backends draw different numbers, and torch others each
    # time.
    keep = _BestEpochCallback._keep
    with (
        mock.patch.object(_BestEpochCallback, "_keep", keep_last),
        mock.patch.object(InitialHead, "tuned_model_is_better", return_value=True),
    ):
        fitted = fit_network(digits, model=model, unfreeze=unfreeze)
    return fitted.report_, changed(model), changed(fitted.extractor_.backbone)
