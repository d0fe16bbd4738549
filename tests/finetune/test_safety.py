"""What goes wrong elsewhere does not here: nothing of the caller's changes, faults come first."""

import keras
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.multiclass import OneVsRestClassifier

from featx import EmbeddingCache, FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx._training_data import Data
from featx.exceptions import CacheWriteWarning, FineTuneWarning, InputError, ParameterError
from featx.finetune.initial_head import InitialHead
from featx.finetune.objective import is_clearly_positive

N = 80


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(labels < 4)[:N]
    return (images[chosen].reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels[chosen]


@pytest.fixture
def network():
    """Three blocks, with all that behaves differently while training."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for number in range(3):
        y = keras.layers.Conv2D(6, 3, padding="same", name=f"conv_{number}")(x)
        y = keras.layers.BatchNormalization(name=f"norm_{number}")(y)
        y = keras.layers.Dropout(0.3)(keras.layers.ReLU()(y))
        x = keras.layers.Add()([x, y]) if number else y
    return keras.Model(inputs, x)


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "cache")


def tuning(**params):
    return FineTune(**{"epochs": 3, "learning_rate": 1e-3, "patience": None, **params})


def extractor_of(network, cache, **params):
    return FeatureExtractor(network, cache=cache, **{"preprocessing": "unit", **params})


HELD = np.arange(0, N, 4)


@pytest.mark.parametrize(("unfreeze", "rate"), [(1, 1e-2), ("norm", 1e-2), ("all", 2e-3)])
def test_fit_tuned_score_is_that_of_what_is_kept(
    network, cache, digits, unfreeze, rate, monkeypatch
):
    monkeypatch.setattr(InitialHead, "is_beaten_by", lambda start, scores, first: True)
    images, labels = digits
    folds = np.full(N, -1)
    folds[HELD] = 0
    tune = tuning(
        unfreeze=unfreeze, epochs=15, learning_rate=rate, validation=PredefinedSplit(folds)
    )
    classifier = TransferClassifier(extractor_of(network, cache), fine_tune=tune, random_state=0)
    report = classifier.fit(images, labels).report_
    assert report.kept == "tuned"
    assert report.best_epoch < 15 or report.history["val_score"][-1] == report.tuned_score
    assert classifier.score(images[HELD], labels[HELD]) == report.tuned_score


def test_fit_both_scores_are_of_one_kind(network, cache, digits):
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, scoring="neg_mean_squared_error")
    regressor = TransferRegressor(extractor_of(network, cache), search, tuning(), random_state=0)
    report = regressor.fit(digits[0], digits[1] * 100.0).report_
    assert -1 < report.head_score < 1
    assert abs(report.tuned_score - report.head_score) < 0.5


@pytest.mark.parametrize("labels_of", [lambda y: y, lambda y: np.c_[y % 2, y > 1]])
def test_fit_keeps_the_head_where_the_difference_may_be_chance(network, cache, digits, labels_of):
    """One sample more of twenty, and one less elsewhere, is no reason to keep another network."""
    images, labels = digits
    new = np.ones(20)
    old, other = new.copy(), new.copy()
    old[[0, 1]], other[2] = 0, 0
    assert not is_clearly_positive(other - old, np.ones(20))
    assert is_clearly_positive(new - old, np.ones(20))
    head = "ridge"
    tune = tuning(learning_rate=1e-9)
    classifier = TransferClassifier(extractor_of(network, cache), head, tune, random_state=0)
    assert classifier.fit(images, labels_of(labels)).report_.kept == "head"


@pytest.mark.parametrize("labels_of", [lambda y: y, lambda y: y % 2, lambda y: np.c_[y % 2, y > 1]])
def test_head_that_is_only_surer_of_the_same_does_not_beat_itself(labels_of, digits):
    images, labels = digits[0].reshape(N, 64) / 255, labels_of(digits[1])
    data = Data(None, labels, None, None).split(0.25, is_classifier=True, seed=0)
    head = LogisticRegression(C=1e-3)  # right, and hardly sure
    head = head if labels.ndim == 1 else OneVsRestClassifier(head)
    start = InitialHead(lambda: clone(head), tuning(), data, images.astype(np.float32))
    scaling, dense = start.linear.layers()
    first = np.asarray(dense(scaling(start.embeddings[data.held].astype(np.float32))))
    surer = start.objective.calibrated(first, data.held)
    before, after = (start.objective.losses(each, data.held).mean() for each in (first, surer))
    assert after < 0.96 * before
    assert not start.is_beaten_by(surer, first)


def test_fit_leaves_a_preprocessing_layer_alone(network, digits):
    layer = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.BatchNormalization()]).layers[0]
    before = layer.get_weights()
    extractor = extractor_of(network, None, preprocessing=layer)
    TransferClassifier(extractor, fine_tune=tuning(unfreeze="all"), random_state=0).fit(*digits)
    assert layer.trainable
    for value, now in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


def test_fit_below_the_frontier_nothing_is_dropped(network, tmp_path, digits):
    """Dropout under the frontier is still, from pixels as from the cache."""
    losses = []
    for limit in (1000, 10**9):
        extractor = extractor_of(network, EmbeddingCache(tmp_path / str(limit)))
        tune = tuning(unfreeze="conv_2", max_cache_bytes=limit)
        classifier = TransferClassifier(extractor, fine_tune=tune, random_state=0).fit(*digits)
        losses.append(classifier.report_.history["val_loss"])
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=0.05)


def test_fit_head_that_centres_what_it_is_given(network, cache, digits):
    images, labels = digits
    head = PLSRegression(3)
    tune = tuning(unfreeze="all", epochs=8, learning_rate=3e-3)
    regressor = TransferRegressor(extractor_of(network, cache), head, tune, random_state=0)
    report = regressor.fit(images, labels).report_
    assert report.handover_gap <= 1e-5
    assert r2_score(labels, np.ravel(regressor.predict(images))) > min(0.5, report.head_score)


def test_fit_a_label_that_is_rare_stays_in_the_training_part(network, cache, digits):
    images, labels = digits
    y = np.c_[labels % 2, np.arange(N) == 7]
    head = OneVsRestClassifier(LogisticRegression())
    for seed in range(3):
        classifier = TransferClassifier(
            extractor_of(network, cache), head, tuning(epochs=1), random_state=seed
        )
        assert classifier.fit(images, y).report_.handover_gap <= 1e-5


class Breaking(keras.callbacks.Callback):
    """The last step of an epoch takes it too far."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            weight = self.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.nan))


def test_fit_scores_that_are_no_numbers_are_never_best(network, cache, digits):
    tune = tuning(callbacks=[Breaking()])
    classifier = TransferClassifier(extractor_of(network, cache), fine_tune=tune, random_state=0)
    with pytest.warns(FineTuneWarning, match="scores were no finite numbers"):
        classifier.fit(*digits)
    assert classifier.report_.kept == "head"
    assert classifier.report_.tuned_score is None


@pytest.mark.parametrize(
    ("estimator", "params", "expected"),
    [
        (TransferRegressor, {"loss": "cross_entropy"}, "loss='cross_entropy'"),
        (TransferRegressor, {"class_weight": "balanced"}, "class_weight='balanced'"),
        (TransferClassifier, {"loss": "mse"}, "loss='mse'"),
        (TransferClassifier, {"class_weight": {7: 2.0}}, "class_weight="),
        (TransferClassifier, {"augment": lambda pixels: pixels}, "augment="),
        (TransferClassifier, {"validation": PredefinedSplit(np.zeros(N) - 1)}, "validation="),
        (TransferClassifier, {"views": 2}, "views=2"),
        (TransferClassifier, {"views": 2, "augment": "standard", "cutmix": 1.0}, "cutmix=1.0"),
    ],
)
def test_fit_faults_are_named_before_the_pass(network, cache, digits, estimator, params, expected):
    with pytest.raises((ParameterError, InputError), match=expected):
        estimator(extractor_of(network, cache), fine_tune=tuning(**params)).fit(*digits)
    assert cache.info()["n_rows"] == 0


def test_fit_augmenting_vectors_is_refused_before_the_pass(cache):
    inputs = keras.Input((5,))
    network = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    extractor = FeatureExtractor(network, cache=cache, pooling="flatten")
    X = np.random.default_rng(0).standard_normal((20, 5))
    for params in ({"augment": "standard"}, {"cutmix": 1.0}):
        classifier = TransferClassifier(extractor, fine_tune=tuning(**params))
        with pytest.raises(ParameterError, match="change images"):
            classifier.fit(X, np.arange(20) % 2)
    assert cache.info()["n_rows"] == 0


def test_fit_a_student_that_cannot_be_is_refused_before_the_teacher(network, cache, digits):
    no_vectors = FeatureExtractor(network, pooling=None)
    for student in (no_vectors, FeatureExtractor("no_such_network")):
        classifier = TransferClassifier(
            extractor_of(network, cache), fine_tune=tuning(distill_to=student)
        )
        with pytest.raises(ParameterError):
            classifier.fit(*digits)
    assert cache.info()["n_rows"] == 0


def test_fit_embeddings_that_are_no_vectors_are_refused(network, cache, digits):
    extractor = extractor_of(network, cache, pooling=None)
    with pytest.raises(ParameterError, match="a head needs vectors"):
        TransferClassifier(extractor, fine_tune=tuning()).fit(*digits)


@pytest.mark.filterwarnings("ignore::featx.exceptions.CacheDamageWarning")
def test_fit_with_a_cache_that_cannot_be_written_starts_from_pixels(network, tmp_path, digits):
    for part in ("spaces", "damaged"):  # so that the file cannot be quarantined
        (tmp_path / part).write_text("in the way")
    extractor = extractor_of(network, EmbeddingCache(tmp_path))
    classifier = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    with pytest.warns(CacheWriteWarning):
        report = classifier.fit(*digits).report_
    assert (report.frontier, report.frontier_skipped_because) == (
        "pixels",
        "the activations could not be stored",
    )


class RunningOutLater(keras.callbacks.Callback):
    """Memory that holds the batches of the first epoch, and smaller ones then."""

    def __init__(self):
        super().__init__()
        self.n_steps = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1 and self.model.optimizer.gradient_accumulation_steps is None:
            raise MemoryError

    def on_epoch_end(self, epoch, logs=None):
        self.n_steps.append(int(self.model.optimizer.iterations.numpy()))


def test_fit_out_of_memory_later_goes_on_with_the_schedule(network, cache, digits):
    callback = RunningOutLater()
    tune = tuning(callbacks=[callback], batch_size=16)
    classifier = TransferClassifier(extractor_of(network, cache), fine_tune=tune, random_state=0)
    report = classifier.fit(*digits).report_
    assert len(report.history["loss"]) == 3
    assert report.tuning_batch_size == 8
    assert callback.n_steps == [4, 8, 12]


def test_fit_and_to_keras_of_a_network_with_a_layer_called_head(digits):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="head")(inputs)
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="head_scaling")(x))
    extractor = FeatureExtractor(network, cache=None, preprocessing="unit")
    classifier = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    assert classifier.fit(*digits).to_keras().output_shape == (None, 4)


class Interrupting(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_fit_interrupted_in_the_trial_keeps_the_head(network, cache, digits, monkeypatch):
    from featx.finetune import trial

    train = trial.train

    def interrupted(trainee, params, **how):
        return train(trainee, params.set_params(callbacks=[Interrupting()]), **how)

    monkeypatch.setattr(trial, "train", interrupted)
    tune = tuning(strategy="auto")
    classifier = TransferClassifier(extractor_of(network, cache), fine_tune=tune, random_state=0)
    with pytest.warns(FineTuneWarning, match="interrupted"):
        report = classifier.fit(*digits).report_
    assert report.judgement["why"] == "the trial was interrupted"
    assert (report.kept, report.tuned_score) == ("head", None)


def test_fit_tells_the_callbacks_of_the_caller(network, cache, digits):
    history = keras.callbacks.History()
    tune = tuning(callbacks=[history])
    classifier = TransferClassifier(extractor_of(network, cache), fine_tune=tune, random_state=0)
    report = classifier.fit(*digits).report_
    np.testing.assert_allclose(history.history["val_score"], report.history["val_score"])


def test_clear_removes_unfinished_trainings(network, cache, digits):
    tune = tuning(callbacks=[Interrupting()])
    classifier = TransferClassifier(extractor_of(network, cache), fine_tune=tune, random_state=0)
    (cache.path / "tuning").mkdir(parents=True)
    (cache.path / "tuning" / "run.tuning").write_bytes(b"state")
    with pytest.warns(FineTuneWarning, match="interrupted"):
        classifier.fit(*digits)
    cache.clear()
    assert not (cache.path / "tuning").exists()
