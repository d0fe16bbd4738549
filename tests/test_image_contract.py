"""The contract of scikit-learn's checks, on images: arrays and paths."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from featx import FeatureExtractor, TransferClassifier, TransferRegressor

N_SAMPLES = 24


@pytest.fixture(params=["arrays", "paths"])
def X(request, tmp_path):  # noqa: N802
    images = (load_digits(n_class=2).images[:N_SAMPLES] * 15.9375).astype(np.uint8)
    if request.param == "arrays":
        return images
    paths = [str(tmp_path / f"{number}.png") for number in range(N_SAMPLES)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def y():
    return load_digits(n_class=2).target[:N_SAMPLES]


@pytest.fixture(params=[FeatureExtractor, TransferClassifier, TransferRegressor])
def estimator(request):
    return request.param("tiny")


def output(fitted, X):
    """Return what a fitted estimator makes of samples."""
    return fitted.predict(X) if hasattr(fitted, "predict") else fitted.transform(X)


def taken(X, rows):
    return X[rows] if isinstance(X, np.ndarray) else [X[row] for row in rows]


def test_fit_twice_is_the_same_as_once(estimator, X, y):
    once = output(estimator.fit(X, y), X)
    np.testing.assert_array_equal(output(estimator.fit(X, y), X), once)


def test_fit_changes_neither_parameters_nor_inputs(estimator, X, y):
    params, samples, labels = estimator.get_params(deep=False), copy.deepcopy(X), y.copy()
    before = dict(params)
    output(estimator.fit(X, y), X)
    assert all(value is before[name] for name, value in estimator.get_params(deep=False).items())
    np.testing.assert_array_equal(X, samples)
    np.testing.assert_array_equal(y, labels)


def test_predicting_changes_no_attribute(estimator, X, y):
    fitted = estimator.fit(X, y)
    before = vars(fitted).copy()
    output(fitted, X)
    assert vars(fitted) == before


def test_sample_alone_is_predicted_as_among_others(estimator, X, y):
    fitted = estimator.fit(X, y)
    together = output(fitted, X)
    alone = np.concatenate([output(fitted, taken(X, [row])) for row in range(N_SAMPLES)])
    np.testing.assert_allclose(alone, together, rtol=1e-7, atol=1e-12)  # BLAS rounds


def test_order_of_samples_is_that_of_predictions(estimator, X, y):
    fitted = estimator.fit(X, y)
    order = np.random.default_rng(0).permutation(N_SAMPLES)
    expected = output(fitted, X)[order]
    np.testing.assert_allclose(output(fitted, taken(X, order)), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "joblib"])
def test_a_copy_gives_the_same(way, estimator, X, y, tmp_path):
    def through_file(fitted):
        joblib.dump(fitted, tmp_path / "estimator.joblib")
        return joblib.load(tmp_path / "estimator.joblib")

    copies = {
        "pickle": lambda fitted: pickle.loads(pickle.dumps(fitted)),
        "deepcopy": copy.deepcopy,
        "joblib": through_file,
    }
    unfitted = copies[way](estimator)
    fitted = estimator.fit(X, y)
    expected = output(fitted, X)
    np.testing.assert_array_equal(output(copies[way](fitted), X), expected)
    np.testing.assert_array_equal(output(unfitted.fit(X, y), X), expected)


@pytest.mark.parametrize("kind", [TransferClassifier, TransferRegressor])
def test_predict_before_fit_is_an_error(kind, X):
    with pytest.raises(NotFittedError):
        kind("tiny").predict(X)


def test_images_have_no_number_of_features(estimator, X, y):
    assert not hasattr(clone(estimator).fit(X, y), "n_features_in_")


def test_tags_say_what_may_be_passed(estimator):
    tags = get_tags(estimator).input_tags
    assert tags.two_d_array
    assert tags.three_d_array
    assert tags.string
    assert not tags.sparse
    assert not tags.allow_nan


def test_names_of_columns_are_remembered_and_checked(estimator, X, y):
    frame = pd.DataFrame({"image": list(X)})
    fitted = estimator.fit(frame, y)
    assert fitted.feature_names_in_.tolist() == ["image"]
    assert fitted.n_features_in_ == 1
    np.testing.assert_array_equal(output(fitted, frame), output(fitted, X))
    with pytest.raises(ValueError, match="feature names should match"):
        output(fitted, frame.rename(columns={"image": "picture"}))
    assert not hasattr(estimator.fit(X, y), "feature_names_in_")
