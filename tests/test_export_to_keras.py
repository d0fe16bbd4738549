"""``to_keras``: one Keras model of network and head agrees with the estimator."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported_samples import N_IMAGES, images_of, small
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from featx import FeatureExtractor
from featx.backbones.keras_models import file_model
from featx.backbones.registry import TINY_FILE
from featx.exceptions import BackboneError, ParameterError
from featx.export import to_keras
from featx.heads.named import CLASSIFIER_HEADS, REGRESSOR_HEADS, make_head


@pytest.fixture(scope="module")
def tiny():
    """Fit the extractor only, and return embeddings for heads to be fitted on."""
    images = images_of(64)
    extractor = FeatureExtractor("tiny", cache=None)
    return extractor, images, extractor.fit_transform(images).astype(np.float64)


def one_vs_rest():
    return make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression()))


def searched():
    grid = {"logisticregression__C": [0.1, 1.0]}
    return GridSearchCV(make_head("logistic", CLASSIFIER_HEADS), grid, cv=2)


CLASSIFIERS = {
    **{name: CLASSIFIER_HEADS[name] for name in ("logistic", "ridge", "svm", "lda")},
    "one-vs-rest": one_vs_rest,
    "searched": searched,
    "bare": lambda: LogisticRegression(C=0.1, max_iter=5000),
    "after PCA": lambda: make_pipeline(PCA(5), StandardScaler(), LogisticRegression()),
    "not centered": lambda: make_pipeline(
        StandardScaler(with_mean=False, with_std=False), LinearRegression()
    ),
}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_to_keras_agrees_with_linear_classifier(tiny, name, n_classes):
    extractor, images, embeddings = tiny
    y = np.arange(N_IMAGES) % n_classes
    head = CLASSIFIERS[name]().fit(embeddings, y)
    expected = next(
        getattr(head, method)(embeddings).reshape(N_IMAGES, -1)
        for method in ("predict_proba", "decision_function", "predict")
        if hasattr(head, method)
    )
    model = to_keras(extractor, head)
    rows = np.asarray(model(images))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    if hasattr(head, "classes_"):
        assert model.class_names == [str(number) for number in range(n_classes)]


@pytest.mark.parametrize(
    "head",
    [
        *(REGRESSOR_HEADS[name]() for name in ("ridge", "svm")),
        TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
    ],
)
def test_to_keras_agrees_with_linear_regressor(tiny, head):
    extractor, images, embeddings = tiny
    head.fit(embeddings, np.linspace(-1, 1, N_IMAGES))
    model = to_keras(extractor, head)
    expected = head.predict(embeddings)[:, np.newaxis]
    np.testing.assert_allclose(np.asarray(model(images)), expected, atol=1e-4)
    assert not hasattr(model, "class_names")


def test_to_keras_all_classes_unlikely_agrees(tiny):
    extractor, images, embeddings = tiny
    head = one_vs_rest().fit(embeddings, np.arange(N_IMAGES) % 3)
    for each in head[-1].estimators_:
        each.intercept_ -= 200.0  # float32 has no probability that small
    expected = head.predict_proba(embeddings)
    rows = np.asarray(to_keras(extractor, head)(images))
    np.testing.assert_allclose(rows, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (make_head("forest", CLASSIFIER_HEADS), "RandomForestClassifier"),
        (make_head("knn", REGRESSOR_HEADS), "KNeighborsRegressor"),
        (SGDClassifier(loss="modified_huber", random_state=0), "SGDClassifier"),
        (make_pipeline(FunctionTransformer(np.tanh), LinearRegression()), "LinearRegression"),
    ],
)
def test_to_keras_nonlinear_head_raises(tiny, head, name):
    extractor, _, embeddings = tiny
    head.fit(embeddings, np.arange(N_IMAGES) % 2)
    with pytest.raises(ParameterError, match=rf"{name} is not linear.*head='logistic'.*fine-tune"):
        to_keras(extractor, head)


def test_to_keras_copies_the_model():
    model = file_model(TINY_FILE)
    before = model.get_weights()
    extractor = FeatureExtractor(model, cache=None)
    images = images_of(64)
    embeddings = extractor.fit_transform(images)
    y = np.arange(N_IMAGES) % 2
    head = make_head("logistic", CLASSIFIER_HEADS).fit(embeddings, y)
    exported = to_keras(extractor, head)
    exported.compile("sgd", "sparse_categorical_crossentropy")
    exported.fit(images, y, verbose=0)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert not {id(own) for own in model.variables} & {id(own) for own in exported.variables}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = keras.layers.Conv2D(5, 3)

    def call(self, x):
        return self.conv(x)


def test_to_keras_subclassed_backbone_is_not_copied():
    backbone, images = Subclassed(), images_of(16)
    backbone(images[:1].astype(np.float32))
    extractor = FeatureExtractor(backbone, cache=None)
    embeddings = extractor.fit_transform(images)
    head = make_head("logistic", CLASSIFIER_HEADS).fit(embeddings, np.arange(N_IMAGES) % 3)
    model = to_keras(extractor, head)
    np.testing.assert_allclose(np.asarray(model(images)), head.predict_proba(embeddings), atol=1e-4)


def test_to_keras_unfitted_raises(tiny):
    with pytest.raises(NotFittedError, match="FeatureExtractor"):
        to_keras(FeatureExtractor("tiny", cache=None), LogisticRegression())
    with pytest.raises(NotFittedError, match="LogisticRegression"):
        to_keras(tiny[0], LogisticRegression())


def test_to_keras_changed_backbone_raises():
    extractor, head = small()
    extractor.backbone.layers[-1].kernel.assign(2 * extractor.backbone.layers[-1].kernel)
    with pytest.raises(BackboneError, match="other embeddings"):
        to_keras(extractor, head)


def test_to_keras_float_pixels_agree_and_have_gradients(tiny):
    extractor, images, embeddings = tiny
    head = make_head("logistic", CLASSIFIER_HEADS).fit(embeddings, np.arange(N_IMAGES) % 3)
    model = to_keras(extractor, head, input_dtype="float32")
    rows = np.asarray(model(images.astype(np.float32)))
    np.testing.assert_allclose(rows, np.asarray(to_keras(extractor, head)(images)), atol=1e-5)
    pixels = tf.Variable(images[:2], dtype=tf.float32)
    with tf.GradientTape() as tape:
        probability = model(pixels)[:, 0]
    assert (np.abs(tape.gradient(probability, pixels)).max(axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("dtype", ["float16", "int32", None, np.float32])
def test_to_keras_other_dtype_raises(tiny, dtype):
    with pytest.raises(ParameterError, match=r"input_dtype=.*'auto', 'uint8', 'float32'"):
        to_keras(tiny[0], LogisticRegression(), input_dtype=dtype)


def test_to_keras_vectors_as_integers_raise():
    inputs = keras.Input((5,))
    extractor = FeatureExtractor(keras.Model(inputs, keras.layers.Dense(3)(inputs)), cache=None)
    extractor.fit(np.ones((4, 5), np.float32))
    with pytest.raises(ParameterError, match="'uint8': expected one of 'auto', 'float32'"):
        to_keras(extractor, LogisticRegression(), input_dtype="uint8")
