"""What notebooks show of an estimator."""

import numpy as np
import pytest
from sample_networks import pixels
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from featx import FeatureExtractor, RidgeProbe, TransferClassifier


def estimators():
    return [
        TransferClassifier(FeatureExtractor("tiny"), head=RidgeProbe()),
        make_pipeline(FeatureExtractor("tiny"), RidgeProbe()),
    ]


@pytest.mark.parametrize("estimator", estimators(), ids=["classifier", "pipeline"])
def test_html_representation_tells_whether_it_is_fitted(estimator):
    assert "<span>Not fitted</span>" in estimator_html_repr(estimator)
    estimator.fit(pixels((64, 64, 3), n_images=20), np.arange(20) % 2)
    assert "<span>Fitted</span>" in estimator_html_repr(estimator)
