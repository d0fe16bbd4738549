"""NearestMeanProbe finds the class whose mean is nearest."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx import NearestMeanProbe


@parametrize_with_checks([NearestMeanProbe()])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_fit_means_are_those_of_scikit_learn(digits):
    X, y = digits
    probe = NearestMeanProbe().fit(X, y)
    centroids = NearestCentroid().fit(normalize(X), y).centroids_
    np.testing.assert_allclose(probe.means_, normalize(centroids), atol=1e-12)
    cosines = normalize(X) @ normalize(centroids).T
    np.testing.assert_array_equal(probe.predict(X), probe.classes_[cosines.argmax(1)])


def test_fit_weights_count_as_repeats(digits):
    X, y = digits
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = NearestMeanProbe().fit(X, y, sample_weight=counts)
    repeated = NearestMeanProbe().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.means_, repeated.means_, atol=1e-12)


def test_decision_function_two_classes_tells_the_second(digits):
    X, y = digits
    probe = NearestMeanProbe().fit(X, y == "a")
    np.testing.assert_array_equal(probe.decision_function(X) > 0, probe.predict(X))


def test_fit_zero_rows_do_not_disturb(digits):
    X, y = digits
    X = np.concatenate([X, np.zeros((1, X.shape[1]))])
    probe = NearestMeanProbe().fit(X, np.append(y, "a"))
    assert np.isfinite(probe.decision_function(X)).all()
