"""Estimators that are fine-tuned on digits within seconds."""

from sample_networks import small_network

from featx import FeatureExtractor, FineTune, TransferClassifier


def tuning(**params):
    return FineTune(**{"epochs": 2, "learning_rate": 1e-3, "patience": None, **params})


def classifier(cache, head="logistic", backbone=small_network, **params):
    scaling = "auto" if isinstance(backbone, str) else "unit"
    extractor = FeatureExtractor(backbone, preprocessing=scaling, pooling="avgmax", cache=cache)
    return TransferClassifier(extractor, head=head, fine_tune=tuning(**params), random_state=0)


def report_of(digits, **params):
    images, labels = digits
    model = params.pop("model", None) or small_network()
    extractor = FeatureExtractor(model, input_size=16, cache=None, preprocessing="unit")
    estimator = TransferClassifier(extractor, fine_tune=tuning(**params), random_state=0)
    return estimator.fit(images, labels)
