"""Fine-tuning through the estimators, on real digits."""

import keras
import numpy as np
import pytest
from digit_tuning import classifier, fit_network, tuning, unit_extractor
from sample_networks import small_network
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.multiclass import OneVsRestClassifier

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier
from featx.exceptions import BadSampleWarning, CacheWriteWarning
from featx.finetune.initial_head import InitialHead
from featx.inputs.images import conform_pixels


def test_fine_tune_with_random_state_is_reproducible(digits, tmp_path):
    images, labels = digits
    runs = []
    for number in range(2):
        cache = EmbeddingCache(tmp_path / str(number))
        estimator = classifier(cache, unfreeze=3, mixup=0.3, epochs=3)
        fitted = estimator.fit(images, labels)
        runs.append((fitted.report_.history, fitted.predict_proba(images[:20]).tolist()))
    assert runs[0] == runs[1]


def test_fine_tune_tuned_backbone_is_a_backbone(digits, tmp_path):
    """Its embeddings are cached under a digest of their own, and another head takes them."""
    images, labels = digits
    fitted = fit_network(digits, unfreeze=2, learning_rate=3e-3, epochs=10)
    assert fitted.report_.kept == "tuned"
    tuned = clone(fitted.extractor_).set_params(cache=EmbeddingCache(tmp_path))
    other = TransferClassifier(tuned, head="lda").fit(images, labels)
    assert other.report_.n_forward == 160
    assert other.extractor_.space_digest_ != fitted.extractor.fit(images).space_digest_
    assert other.score(images, labels) > 0.9


@pytest.mark.long
def test_fine_tune_tuned_score_is_of_estimator(digits):
    images, labels = digits
    validation = np.arange(0, 160, 5)
    train = np.setdiff1d(np.arange(160), validation)

    class Chosen:
        def split(self, X, y, groups=None):
            yield train, validation

    fitted = fit_network(digits, unfreeze=2, learning_rate=3e-3, epochs=10, validation=Chosen())
    assert fitted.report_.kept == "tuned"
    assert fitted.score(images[validation], labels[validation]) == fitted.report_.tuned_score


VALIDATION = np.arange(0, 80, 4)


@pytest.mark.parametrize(
    ("unfreeze", "rate"),
    [
        ("all", 2e-3),
        pytest.param(1, 1e-2, marks=pytest.mark.long),
        pytest.param("norm", 1e-2, marks=pytest.mark.long),
    ],
)
def test_fine_tune_best_epoch_has_reported_score(
    network, empty_cache, few_digits, unfreeze, rate, monkeypatch
):
    monkeypatch.setattr(InitialHead, "tuned_model_is_better", lambda *scores: True)
    images, labels = few_digits
    folds = np.full(80, -1)
    folds[VALIDATION] = 0
    tune = tuning(
        unfreeze=unfreeze, epochs=15, learning_rate=rate, validation=PredefinedSplit(folds)
    )
    classifier = TransferClassifier(
        unit_extractor(network, empty_cache), fine_tune=tune, random_state=0
    )
    report = classifier.fit(images, labels).report_
    assert report.kept == "tuned"
    assert report.best_epoch < 15 or report.history["val_score"][-1] == report.tuned_score
    assert classifier.score(images[VALIDATION], labels[VALIDATION]) == report.tuned_score


def test_fine_tune_without_gain_refits_head(digits, cache):
    images, labels = digits
    fitted = classifier(cache, learning_rate=1e-9).fit(images, labels)
    alone = TransferClassifier(fitted.extractor).fit(images, labels)
    assert fitted.report_.kept == "head"
    assert fitted.report_.tuned_score == fitted.report_.head_score
    np.testing.assert_allclose(fitted.predict_proba(images), alone.predict_proba(images), atol=1e-9)


def test_fine_tune_reports_untrained_linear_head(digits, cache, capsys):
    images, labels = digits
    estimator = classifier(cache, head=DummyClassifier(), learning_rate=1e-12)
    report = estimator.set_params(verbose=1).fit(images, labels).report_
    assert report.tuned_score > report.head_score
    assert (report.best_epoch, report.kept) == (0, "head")
    assert "no epoch improved the linear head" in capsys.readouterr().err


@pytest.mark.long
def test_fine_tune_in_grid_search_reuses_cache(digits, cache):
    images, labels = digits
    grid = {"fine_tune__learning_rate": [1e-4, 1e-3]}
    before = cache.info()["n_forward"]
    estimator = classifier(cache, epochs=1)
    search = GridSearchCV(estimator, grid, cv=2).fit(images, labels)
    assert set(search.best_params_) == set(grid)
    n_forward = cache.info()["n_forward"] - before
    assert n_forward <= 3 * 160  # predictions of tuned backbones are not cached here


@pytest.mark.long
def test_fine_tune_multilabel_targets(digits):
    images, labels = digits
    y = np.c_[labels % 2, labels > 1]
    extractor = FeatureExtractor(small_network(), input_size=16, cache=None)
    fitted = TransferClassifier(extractor, "ridge", tuning(), random_state=0).fit(images, y)
    assert fitted.predict(images).shape == (160, 2)
    assert fitted.report_.handover_gap <= 1e-5


@pytest.mark.parametrize(
    "head",
    [OneVsRestClassifier(LogisticRegression()), pytest.param("forest", marks=pytest.mark.long)],
    ids=str,
)
def test_fine_tune_multilabel_probabilities(digits, head):
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
    sized = np.stack([conform_pixels(image, (16, 16, 3)) for image in images])
    np.testing.assert_allclose(
        model.predict(sized, verbose=0), fitted.predict_proba(images), atol=1e-4
    )


@pytest.mark.parametrize(
    ("resize", "unfreeze"),
    [
        ("pad", 1),
        pytest.param("crop", "all", marks=pytest.mark.long),
        pytest.param("crop", 1, marks=pytest.mark.long),
        pytest.param("pad", "all", marks=pytest.mark.long),
    ],
)
def test_fine_tune_trains_on_resized_images(resize, unfreeze, few_digits):
    """From stored activations, and from the pixels of each epoch."""
    images, labels = few_digits
    wide = np.pad(images, ((0, 0), (0, 0), (0, 4)))
    ready = np.stack([conform_pixels(image, (16, 16, 3), resize) for image in wide])
    runs = []
    for X, how in ((wide, resize), (ready, "stretch")):
        extractor = FeatureExtractor(small_network(), input_size=16, resize=how, cache=None)
        tune = tuning(unfreeze=unfreeze, epochs=2)
        fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0).fit(X, labels)
        runs.append((fitted.report_.history["loss"], fitted.predict_proba(X)))
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_fine_tune_split_keeps_groups_together(digits, monkeypatch):
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
    ((train, validation),) = seen
    assert not set(groups[train]) & set(groups[validation])


def test_fine_tune_rare_label_stays_in_training(network, empty_cache, few_digits):
    images, labels = few_digits
    y = np.c_[labels % 2, np.arange(80) == 7]
    head = OneVsRestClassifier(LogisticRegression())
    for seed in range(3):
        classifier = TransferClassifier(
            unit_extractor(network, empty_cache), head, tuning(epochs=1), random_state=seed
        )
        assert classifier.fit(images, y).report_.handover_gap <= 1e-5


def test_fine_tune_leaves_unreadable_samples_out(digits, tmp_path):
    images, labels = digits
    items = [*images[:60], b"no image"]
    extractor = FeatureExtractor(small_network(), input_size=16, cache=tmp_path, on_error="nan")
    estimator = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    with pytest.warns(BadSampleWarning, match="Their embeddings are NaN") as caught:
        fitted = estimator.fit(items, [*labels[:60], 0])
    assert [warning.category for warning in caught].count(BadSampleWarning) == 1
    assert (fitted.report_.n_samples, fitted.report_.n_unread) == (61, 1)


def test_fine_tune_leaves_preprocessing_layer_unchanged(network, few_digits):
    layer = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.BatchNormalization()]).layers[0]
    before = layer.get_weights()
    extractor = unit_extractor(network, None, preprocessing=layer)
    TransferClassifier(extractor, fine_tune=tuning(epochs=3, unfreeze="all"), random_state=0).fit(
        *few_digits
    )
    assert layer.trainable
    for value, now in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


def test_dropout_below_frontier_is_inactive(network, tmp_path, few_digits):
    """Dropout below the frontier does nothing, from pixels as from the cache."""
    losses = []
    for limit in (1000, 10**9):
        extractor = unit_extractor(network, EmbeddingCache(tmp_path / str(limit)))
        tune = tuning(epochs=3, unfreeze="conv_2", max_cache_bytes=limit)
        classifier = TransferClassifier(extractor, fine_tune=tune, random_state=0).fit(*few_digits)
        losses.append(classifier.report_.history["val_loss"])
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=0.05)


@pytest.mark.filterwarnings("ignore::featx.exceptions.CacheDamageWarning")
def test_fine_tune_unwritable_cache_uses_pixels(network, tmp_path, few_digits):
    for part in ("spaces", "damaged"):  # so that the file cannot be quarantined
        (tmp_path / part).write_text("in the way")
    extractor = unit_extractor(network, EmbeddingCache(tmp_path))
    classifier = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    with pytest.warns(CacheWriteWarning):
        report = classifier.fit(*few_digits).report_
    assert (report.frontier, report.frontier_skipped_because) == (
        "pixels",
        "the activations could not be stored",
    )


def test_fine_tune_network_with_layer_called_head(few_digits):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="head")(inputs)
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="head_scaling")(x))
    extractor = FeatureExtractor(network, cache=None, preprocessing="unit")
    classifier = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    assert classifier.fit(*few_digits).to_keras().output_shape == (None, 4)
