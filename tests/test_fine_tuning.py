"""Fine-tuning through the estimators, on real digits: what is promised holds."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from sample_networks import small_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx import EmbeddingCache, FeatureExtractor, FineTune, TransferClassifier, TransferRegressor
from featx.exceptions import BadSampleWarning, FineTuneWarning, ParameterError
from featx.identity.digests import graph_digest
from featx.samples.images import conform
from featx.tuning.start import Start


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(labels < 4)[:160]
    return (images[chosen].reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels[chosen]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


def tuning(**params):
    return FineTune(**{"epochs": 2, "learning_rate": 1e-3, "patience": None, **params})


def classifier(cache, head="logistic", backbone=small_network, **params):
    scaling = "auto" if isinstance(backbone, str) else "unit"
    extractor = FeatureExtractor(backbone, preprocessing=scaling, pooling="avgmax", cache=cache)
    return TransferClassifier(extractor, head=head, fine_tune=tuning(**params), random_state=0)


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


def weights_of(model):
    return {weight.path: np.array(weight.numpy()) for weight in model.weights}


def report_of(digits, **params):
    images, labels = digits
    model = params.pop("model", None) or small_network()
    extractor = FeatureExtractor(model, input_size=16, cache=None, preprocessing="unit")
    estimator = TransferClassifier(extractor, fine_tune=tuning(**params), random_state=0)
    return estimator.fit(images, labels)


@pytest.mark.parametrize(
    ("unfreeze", "changed"),
    [
        (1, {"conv_3"}),
        (2, {"conv_2", "conv_3"}),
        ("conv_2", {"conv_2", "conv_3"}),
        ("conv_[13]", {"conv_1", "conv_3"}),
        ("norm", {"norm_0", "norm_1", "norm_2", "norm_3"}),
        ("bias", {"conv_0", "conv_1", "conv_2", "conv_3"}),
        ("all", {"conv_0", "conv_1", "conv_2", "conv_3"}),
    ],
)
def test_fit_trains_what_was_asked_for_and_nothing_else(digits, unfreeze, changed, monkeypatch):
    # Any better epoch is kept, be it by chance: backends draw other numbers.
    monkeypatch.setattr(Start, "is_beaten_by", lambda start, scores, first: True)
    model = small_network()
    before = weights_of(model)
    fitted = report_of(digits, model=model, unfreeze=unfreeze, learning_rate=3e-3, epochs=10)
    assert set(fitted.report_.unfrozen) == changed
    assert all((before[path] == value).all() for path, value in weights_of(model).items())
    assert fitted.report_.kept == "tuned"
    tuned = fitted.extractor_.backbone
    differing = {
        weight.path.split("/")[0]
        for weight in tuned.weights
        if (before[weight.path] != weight.numpy()).any()
    }
    assert differing == changed
    statistics = [weight for weight in tuned.weights if "moving" in weight.path]
    assert len(statistics) == 8
    assert all((before[weight.path] == weight.numpy()).all() for weight in statistics)


def test_fit_batch_norm_is_trained_where_that_is_asked_for(digits):
    model = small_network()
    fitted = report_of(digits, model=model, unfreeze=1, batch_norm="trained", learning_rate=1e-2)
    assert fitted.report_.unfrozen == ["conv_3", "norm_3"]


def test_fit_leaves_model_head_and_parameters_alone(digits):
    images, labels = digits
    model, head = small_network(), RidgeClassifier()
    model.trainable = False
    digest, config = graph_digest(model), json.dumps(model.get_config(), default=str)
    tune = tuning(epochs=1)
    extractor = FeatureExtractor(model, input_size=16, cache=None)
    params = {name: repr(value) for name, value in tune.get_params().items()}
    extractor.fit(images)
    state = random.getstate()
    TransferClassifier(extractor, head, tune, random_state=0).fit(images, labels)
    assert random.getstate() == state
    assert graph_digest(model) == digest
    assert json.dumps(model.get_config(), default=str) == config
    assert not any(layer.trainable for layer in model.layers if layer.weights)
    assert not hasattr(head, "coef_")
    assert {name: repr(value) for name, value in tune.get_params().items()} == params


def test_fit_computes_frontier_and_embeddings_in_one_pass(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path)
    first = classifier(cache, unfreeze=1).fit(images, labels)
    assert (first.report_.n_forward, first.report_.frontier) == (160, "cache")
    again = classifier(cache, unfreeze=1, learning_rate=1e-4).fit(images, labels)
    deeper = classifier(cache, unfreeze=2, epochs=1).fit(images, labels)
    assert again.report_.n_forward == 0
    assert deeper.report_.n_forward == 160  # another frontier, of which no row was there
    assert again.report_.history["loss"] != first.report_.history["loss"]


def test_tuned_backbone_is_entered_at_the_frontier_for_samples_that_were_there(digits, cache):
    """Scoring a fold that another one trained on runs the frozen part for nobody."""
    images, labels = digits
    extractor = FeatureExtractor(small_network(), input_size=16, cache=cache, preprocessing="unit")
    tune = tuning(unfreeze=2, learning_rate=3e-3, epochs=10)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0).fit(images, labels)
    assert fitted.report_.kept == "tuned"
    rows = fitted.transform(images)
    report = fitted.extractor_.report_
    assert (report.n_forward, report.n_above_frontier, report.n_hits) == (0, 160, 0)
    whole = clone(fitted.extractor_).set_params(cache=None).fit_transform(images)
    gaps = np.linalg.norm(rows - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert gaps.max() < 1e-5
    new = np.roll(images, 1, axis=1)
    fitted.transform(np.concatenate([images[:5], new[:5]]))
    report = fitted.extractor_.report_
    assert (report.n_forward, report.n_above_frontier, report.n_hits) == (5, 0, 5)
    fitted.extractor_.fit(images)  # what lies below might be another network from here on
    assert not hasattr(fitted.extractor_, "frontier_")


def test_fit_one_pass_for_several_depths(digits, tmp_path):
    images, labels = digits
    model = small_network()

    def report_of_depth(depth, folder, **params):
        cache = EmbeddingCache(tmp_path / folder)
        extractor = FeatureExtractor(model, input_size=16, cache=cache, **params)
        tune = tuning(unfreeze=depth, epochs=1)
        return TransferClassifier(extractor, fine_tune=tune).fit(images, labels).report_

    (layer,) = report_of_depth(2, "one").frontier_layers
    reports = [report_of_depth(depth, "all", also_cache=[(layer, None)]) for depth in (1, 2)]
    assert [report.n_forward for report in reports] == [160, 0]


def test_fit_on_more_samples_computes_the_new_ones_only(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path)
    classifier(cache, epochs=1).fit(images[:100], labels[:100])
    more = classifier(cache, epochs=1).fit(images, labels)
    assert (more.report_.n_hits, more.report_.n_forward) == (100, 60)


def test_fit_activations_that_are_too_many_are_not_stored(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path)
    fitted = classifier(cache, epochs=1, max_cache_bytes=1000).fit(images, labels)
    assert fitted.report_.frontier == "pixels"
    assert "max_cache_bytes=1000" in fitted.report_.why_pixels
    assert len(cache.info()["spaces"]) == 1


def test_fit_from_pixels_and_from_the_frontier_train_the_same(digits, tmp_path):
    images, labels = digits
    histories = [
        classifier(EmbeddingCache(tmp_path / str(limit)), max_cache_bytes=limit)
        .fit(images, labels)
        .report_.history["loss"]
        for limit in (1000, 10**9)
    ]
    np.testing.assert_allclose(*histories, rtol=1e-4)


def test_fit_with_a_random_state_repeats_itself(digits, tmp_path):
    images, labels = digits
    runs = []
    for number in range(2):
        cache = EmbeddingCache(tmp_path / str(number))
        estimator = classifier(cache, unfreeze=3, mixup=0.3, epochs=3)
        fitted = estimator.fit(images, labels)
        runs.append((fitted.report_.history, fitted.predict_proba(images[:20]).tolist()))
    assert runs[0] == runs[1]


def test_fit_keeps_the_head_refitted_on_all_where_tuning_does_not_help(digits, cache):
    images, labels = digits
    fitted = classifier(cache, learning_rate=1e-9).fit(images, labels)
    alone = TransferClassifier(fitted.extractor).fit(images, labels)
    assert fitted.report_.kept == "head"
    assert fitted.report_.tuned_score == fitted.report_.head_score
    np.testing.assert_allclose(fitted.predict_proba(images), alone.predict_proba(images), atol=1e-9)


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


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "sgd", "schedule": "one-cycle", "clip_norm": 1.0},
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


def test_fit_transfer_of_structure_trains_random_weights(digits):
    images, labels = digits
    extractor = FeatureExtractor("tiny", weights=None, cache=None)
    tune = tuning(unfreeze="all", epochs=1)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0)
    report = fitted.fit(images[:60], labels[:60]).report_
    assert (report.frontier, report.why_pixels) == ("pixels", "nothing is frozen")
    assert report.n_params_trained > 0.9 * (report.n_params_trained + report.n_params_frozen)


@pytest.mark.slow
def test_fit_on_jax_keeps_what_is_frozen(tmp_path):
    pytest.importorskip("jax", reason="needs JAX")
    test = f"{__file__}::test_fit_trains_what_was_asked_for_and_nothing_else"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_fit_groups_never_part(digits, monkeypatch):
    import featx.tuning.data as data

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


def test_fit_a_loss_that_is_no_number_ends_it_with_the_best_so_far(digits):
    with pytest.warns(FineTuneWarning, match=r"loss was no finite number.*learning_rate"):
        fitted = report_of(digits, optimizer="sgd", learning_rate=1e30, unfreeze="all", epochs=4)
    assert fitted.report_.kept == "head"
    assert np.isfinite(fitted.predict_proba(digits[0])).all()


class Interrupting(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_fit_interrupted_keeps_the_best_so_far_and_goes_on_next_time(digits, tmp_path):
    images, labels = digits
    caches = [EmbeddingCache(tmp_path / name) for name in ("interrupted", "whole")]
    params = {"unfreeze": 2, "epochs": 4}
    with pytest.warns(FineTuneWarning, match="interrupted"):
        first = classifier(caches[0], **params, callbacks=[Interrupting()]).fit(images, labels)
    assert len(first.report_.history["loss"]) == 2
    resumed = classifier(caches[0], **params).fit(images, labels)
    whole = classifier(caches[1], **params).fit(images, labels)
    assert resumed.report_.history == whole.report_.history
    assert not list((tmp_path / "interrupted" / "tuning").iterdir())


class InterruptingRefit(keras.callbacks.Callback):
    """Presses Ctrl-C in the third epoch of the second training."""

    def __init__(self):
        super().__init__()
        self.n_trainings = 0

    def on_train_begin(self, logs=None):
        self.n_trainings += 1

    def on_epoch_begin(self, epoch, logs=None):
        if self.n_trainings == 2 and epoch == 2:
            raise KeyboardInterrupt


def refitting(**params):
    return {"unfreeze": 2, "epochs": 6, "learning_rate": 3e-3, "refit": True, **params}


def test_fit_refit_trains_once_more_on_all_samples(digits, cache):
    images, labels = digits
    once = classifier(cache, **refitting(refit=False)).fit(images, labels)
    clock = InterruptingRefit()
    clock.on_epoch_begin = lambda epoch, logs=None: None
    twice = classifier(cache, **refitting(callbacks=[clock])).fit(images, labels)
    assert once.report_.kept == twice.report_.kept == "tuned"
    assert clock.n_trainings == 2
    assert twice.report_.history == once.report_.history
    assert twice.report_.tuned_score == once.report_.tuned_score
    assert twice.report_.seconds["refit"] > 0
    mean = TransferClassifier(twice.extractor).fit(images, labels).head_[0].mean_
    np.testing.assert_allclose(twice.head_[0].mean_, mean, rtol=1e-5, atol=1e-6)
    assert np.abs(once.head_[0].mean_ - mean).max() > 1e-3
    again = classifier(cache, **refitting()).fit(images, labels)
    np.testing.assert_array_equal(again.predict_proba(images), twice.predict_proba(images))


def test_fit_refit_interrupted_keeps_the_first_training_and_goes_on_next_time(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path / "interrupted")
    estimator = classifier(cache, **refitting(callbacks=[InterruptingRefit()]))
    with pytest.warns(FineTuneWarning, match="interrupted"):
        first = estimator.fit(images, labels)
    assert first.report_.was_interrupted
    once = classifier(cache, **refitting(refit=False)).fit(images, labels)
    np.testing.assert_array_equal(first.predict_proba(images), once.predict_proba(images))
    counter = InterruptingRefit()
    counter.on_epoch_begin = lambda epoch, logs=None: None
    resumed = classifier(cache, **refitting(callbacks=[counter])).fit(images, labels)
    assert counter.n_trainings == 1  # the first one was done
    whole = classifier(EmbeddingCache(tmp_path / "whole"), **refitting()).fit(images, labels)
    np.testing.assert_array_equal(resumed.predict_proba(images), whole.predict_proba(images))
    assert not list((tmp_path / "interrupted" / "tuning").iterdir())


def test_fit_refit_of_a_head_that_is_kept_is_none(digits, cache):
    images, labels = digits
    fitted = classifier(cache, **refitting(learning_rate=1e-9)).fit(images, labels)
    assert fitted.report_.kept == "head"
    assert "refit" not in fitted.report_.seconds


class RunningOut(keras.callbacks.Callback):
    """Memory that holds small batches only."""

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.gradient_accumulation_steps is None:
            raise MemoryError


def test_fit_out_of_memory_halves_the_batch_and_accumulates(digits):
    fitted = report_of(digits, callbacks=[RunningOut()], epochs=3)
    assert fitted.report_.tuning_batch_size == 16
    whole = report_of(digits, epochs=3)
    np.testing.assert_allclose(
        fitted.report_.history["loss"], whole.report_.history["loss"], rtol=0.2
    )


KILLED = """
import os, signal, sys
import keras
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_fine_tuning import classifier
from featx import EmbeddingCache
images, labels = np.load(sys.argv[2]), np.load(sys.argv[3])

class Killer(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.params.get("epoch") == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch_begin(self, epoch, logs=None):
        self.params["epoch"] = epoch

cache = EmbeddingCache(sys.argv[4])
estimator = classifier(
    cache, unfreeze=2, epochs=5, callbacks=[Killer()]
)
estimator.fit(images, labels)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_fit_killed_goes_on_where_it_was_bit_by_bit(digits, tmp_path):
    images, labels = digits
    np.save(tmp_path / "X.npy", images)
    np.save(tmp_path / "y.npy", labels)
    places = [Path(__file__).parent, tmp_path / "X.npy", tmp_path / "y.npy", tmp_path / "killed"]
    done = subprocess.run([sys.executable, "-c", KILLED, *places], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    params = {"unfreeze": 2, "epochs": 5}
    resumed = classifier(EmbeddingCache(tmp_path / "killed"), **params).fit(images, labels)
    whole = classifier(EmbeddingCache(tmp_path / "whole"), **params).fit(images, labels)
    assert resumed.report_.history == whole.report_.history
    assert (resumed.predict_proba(images) == whole.predict_proba(images)).all()


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


def test_fit_faulty_parameters_are_named_all_at_once_before_any_work(digits, cache):
    images, labels = digits
    with pytest.raises(ParameterError) as caught:
        classifier(cache, epochs=0, unfreeze=1.5, optimizer="adamm", warmup=2).fit(images, labels)
    message = str(caught.value)
    for name in ("epochs=0", "unfreeze=1.5", "optimizer='adamm'", "warmup=2"):
        assert f"fine_tune__{name}" in message


@pytest.mark.parametrize("unfreeze", ["stage9", "norm_of_what", "("])
def test_fit_a_layer_that_is_not_there_is_named(digits, unfreeze):
    with pytest.raises(ParameterError, match="unfreeze="):
        report_of(digits, unfreeze=unfreeze)


def test_fit_samples_that_cannot_be_read_are_left_out(digits, tmp_path):
    images, labels = digits
    items = [*images[:60], b"no image"]
    extractor = FeatureExtractor(small_network(), input_size=16, cache=tmp_path, on_error="nan")
    estimator = TransferClassifier(extractor, fine_tune=tuning(epochs=1), random_state=0)
    with pytest.warns(BadSampleWarning, match="Their embeddings are NaN") as caught:
        fitted = estimator.fit(items, [*labels[:60], 0])
    assert [told.category for told in caught].count(BadSampleWarning) == 1
    assert (fitted.report_.n_samples, fitted.report_.n_unread) == (61, 1)
