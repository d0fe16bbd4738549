"""Fine-tuning through the estimators, on real digits: what is promised holds."""

import keras
import numpy as np
import pytest
from digit_tuning import classifier, report_of, tuning
from sample_digits import first_digits
from sample_networks import small_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier, TransferRegressor
from featx.exceptions import BadSampleWarning, ParameterError
from featx.inputs.images import conform


@pytest.fixture(scope="module")
def digits():
    return first_digits(160, n_classes=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    "head",
    [
        "logistic",
        "ridge",
        "svm",
        "lda",
        LogisticRegression(max_iter=1000),
        make_pipeline(StandardScaler(), PCA(10, whiten=True), LogisticRegression(max_iter=1000)),
        GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            {"logisticregression__C": [0.1, 1.0]},
        ),
        "knn",
        CalibratedClassifierCV(LogisticRegression(max_iter=1000)),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_fit_starts_exactly_where_the_head_left_off(digits, cache, head, n_classes):
    images, labels = digits
    few = labels < n_classes
    fitted = classifier(cache, head, epochs=1).fit(images[few], labels[few])
    assert fitted.report_.handover_gap <= 1e-5
    assert fitted.report_.kept in ("head", "tuned")


@pytest.mark.parametrize("y_shape", ["flat", "two outputs"])
def test_fit_regressor_starts_exactly_where_the_head_left_off(digits, cache, y_shape):
    images, labels = digits
    y = labels * 1e5 + 3.0 if y_shape == "flat" else np.c_[labels * 1e-3, -labels]
    extractor = FeatureExtractor("tiny", cache=cache)
    regressor = TransferRegressor(extractor, fine_tune=tuning(), random_state=0).fit(images, y)
    assert regressor.report_.handover_gap <= 1e-5
    assert regressor.predict(images).shape == y.shape
    assert regressor.score(images, y) > 0.9


def test_fit_with_a_random_state_repeats_itself(digits, tmp_path):
    images, labels = digits
    runs = []
    for number in range(2):
        cache = EmbeddingCache(tmp_path / str(number))
        estimator = classifier(cache, unfreeze=3, mixup=0.3, epochs=3)
        fitted = estimator.fit(images, labels)
        runs.append((fitted.report_.history, fitted.predict_proba(images[:20]).tolist()))
    assert runs[0] == runs[1]


def test_fit_tuned_backbone_is_a_backbone(digits, tmp_path):
    """Its embeddings are cached under a digest of their own, and another head takes them."""
    images, labels = digits
    fitted = report_of(digits, unfreeze=2, learning_rate=3e-3, epochs=10)
    assert fitted.report_.kept == "tuned"
    tuned = clone(fitted.extractor_).set_params(cache=EmbeddingCache(tmp_path))
    other = TransferClassifier(tuned, head="lda").fit(images, labels)
    assert other.report_.n_forward == 160
    assert other.extractor_.space_digest_ != fitted.extractor.fit(images).space_digest_
    assert other.score(images, labels) > 0.9


@pytest.mark.parametrize(
    "params",
    [
        {
            "optimizer": "sgd",
            "schedule": "one-cycle",
            "clip_norm": 1.0,
            "learning_rate": 1e-3,
            "unfreeze": 3,
            "epochs": 10,
        },
        {"optimizer": "rmsprop", "schedule": "constant", "weight_decay": 0.01},
        {"optimizer": "adagrad", "label_smoothing": 0.1, "class_weight": "balanced"},
        {"optimizer": "adam", "layer_decay": 0.7, "gradual": True, "unfreeze": 3, "ema": 0.9},
        {"optimizer": keras.optimizers.Nadam(1e-3), "mixup": 0.2},
        {"augment": "standard", "cutmix": 1.0, "unfreeze": 0.5},
        {"precision": "bfloat16", "frontier_dtype": "float16", "loss": "squared_hinge"},
        {"learning_rate": "find", "unfreeze": 3},
    ],
    ids=lambda params: " ".join(params),
)
def test_fit_each_way_of_training_lowers_the_loss(digits, params):
    fitted = report_of(digits, **{"epochs": 6, "learning_rate": 3e-3, **params})
    losses = fitted.report_.history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert fitted.report_.handover_gap <= 1e-5


def test_fit_in_a_grid_search_over_nested_parameters(digits, cache):
    images, labels = digits
    grid = {"fine_tune__learning_rate": [1e-4, 1e-3]}
    before = cache.info()["n_forward"]
    estimator = classifier(cache, epochs=1)
    search = GridSearchCV(estimator, grid, cv=2).fit(images, labels)
    assert set(search.best_params_) == set(grid)
    n_forward = cache.info()["n_forward"] - before
    assert n_forward <= 3 * 160  # what tuned backbones predict is theirs


def test_fit_multilabel_targets(digits):
    images, labels = digits
    y = np.c_[labels % 2, labels > 1]
    extractor = FeatureExtractor(small_network(), input_size=16, cache=None)
    fitted = TransferClassifier(extractor, "ridge", tuning(), random_state=0).fit(images, y)
    assert fitted.predict(images).shape == (160, 2)
    assert fitted.report_.handover_gap <= 1e-5


@pytest.mark.parametrize("head", [OneVsRestClassifier(LogisticRegression()), "forest"], ids=str)
def test_fit_multilabel_probabilities(digits, head):
    images, labels = digits
    y = np.c_[labels % 2, labels > 1, labels == 3]
    extractor = FeatureExtractor(small_network(), input_size=16, cache=None, preprocessing="unit")
    tune = tuning(unfreeze=2, epochs=4)
    fitted = TransferClassifier(extractor, head, tune, random_state=0).fit(images, y)
    assert fitted.report_.handover_gap <= 1e-5
    assert fitted.report_.history["loss"][-1] < fitted.report_.history["loss"][0]
    if head == "forest":
        return
    model = fitted.to_keras()
    assert model.output_shape == (None, 3)
    sized = np.stack([conform(image, (16, 16, 3)) for image in images])
    np.testing.assert_allclose(
        model.predict(sized, verbose=0), fitted.predict_proba(images), atol=1e-4
    )


def test_fit_groups_never_part(digits, monkeypatch):
    import featx._training_data as data

    images, labels = digits
    groups = np.arange(160) // 4
    seen = []

    def spy(*args, **kwargs):
        seen.append(split(*args, **kwargs))
        return seen[-1]

    split = data.hold_out
    monkeypatch.setattr(data, "hold_out", spy)
    extractor = FeatureExtractor(small_network(), input_size=16, cache=None)
    TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0).fit(
        images, labels, groups=groups
    )
    ((train, held),) = seen
    assert not set(groups[train]) & set(groups[held])


def test_fit_faulty_parameters_are_named_all_at_once_before_any_work(digits, cache):
    images, labels = digits
    with pytest.raises(ParameterError) as caught:
        classifier(cache, epochs=0, unfreeze=1.5, optimizer="adamm", warmup=2).fit(images, labels)
    message = str(caught.value)
    for name in ("epochs=0", "unfreeze=1.5", "optimizer='adamm'", "warmup=2"):
        assert f"fine_tune__{name}" in message


def test_fit_samples_that_cannot_be_read_are_left_out(digits, tmp_path):
    images, labels = digits
    items = [*images[:60], b"no image"]
    extractor = FeatureExtractor(small_network(), input_size=16, cache=tmp_path, on_error="nan")
    estimator = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    with pytest.warns(BadSampleWarning, match="Their embeddings are NaN") as caught:
        fitted = estimator.fit(items, [*labels[:60], 0])
    assert [told.category for told in caught].count(BadSampleWarning) == 1
    assert (fitted.report_.n_samples, fitted.report_.n_unread) == (61, 1)
