"""FineTuneRun: from samples, labels and a head to the better of head and fine-tuned model.

embeddings, and activations at the frontier, in one pass through the cache
-> head fitted on the training part -> the same head in Keras -> layers above the frontier
trained -> evaluation on the validation part -> the tuned backbone with its head, or the head
fitted on all samples
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier

from featx._progress import print_message
from featx._training_data import Data, check_vectors, rows_that_were_read
from featx.backbones.augment import Augmentation
from featx.backbones.keras_models import fixed_seed, undisturbed_seed
from featx.cache.cache import EmbeddingCache
from featx.digests.hashing import digest_of_array, digest_of_json
from featx.engines.devices import check_can_run
from featx.exceptions import BackboneError, InputError
from featx.extractor import FeatureExtractor
from featx.finetune.batches import mixup
from featx.finetune.checkpoint import (
    Checkpoint,
    assign_values,
    described_param,
    values_of_variables,
)
from featx.finetune.initial_head import InitialHead
from featx.finetune.model import TrainedModel, TrainingTask, predict
from featx.finetune.objective import check_objective
from featx.finetune.params import FineTune
from featx.finetune.plan import TrainingPlan
from featx.finetune.readers import PixelReader, Reader
from featx.finetune.train import TrainingResult, train
from featx.finetune.trial import TrialResult, run_trial
from featx.heads.fit import as_head_input
from featx.heads.linear_map import head_from_linear_map
from featx.inputs.augmented import augmented_views
from featx.inputs.samples import Samples


@dataclass(frozen=True, eq=False)
class FineTuneOutcome:
    """The better of head and fine-tuned model, which is kept."""

    extractor: FeatureExtractor  # that of the tuned backbone, or the one that was passed in
    head: BaseEstimator
    head_on_training_part: BaseEstimator  # the same, unless the head alone is kept
    report: dict[str, Any]  # see `TransferClassifier`


def fine_tune(
    params: FineTune,
    extractor: FeatureExtractor,
    new_head: Callable[[], BaseEstimator],
    data: Data,
    *,
    seed: int,
    is_seeded: bool,
    verbose: Any,
) -> FineTuneOutcome:
    """Fit a head, fine-tune the top of the backbone from it, and keep the better of both.

    The extractor is unfitted, and `new_head` makes an unfitted head. Samples are split here if they
    are not yet. A training can be resumed if the caller chose the seed: `is_seeded`. Unsuitable
    parameters, inputs or backbones raise before anything is computed where possible.
    """
    check_can_run()
    classifies = is_classifier(new_head())
    check_objective(params, data.y, is_classifier=classifies)
    if not len(data.validation):
        data = data.split(params.validation, is_classifier=classifies, seed=seed)
    given_cache = extractor.cache
    can_resume = is_seeded and given_cache is not None
    with undisturbed_seed():  # Keras draws from Python's own generator
        with _with_cache(extractor.fit(data.X)) as (extractor, cache):
            check_vectors(extractor)
            plan = TrainingPlan(params, extractor)
            samples = data.X.read_by(extractor.reader).for_inputs(plan.backbone.input_shape)
            plan.choose_start(cache, len(samples))
            print_message(plan.describe(len(samples)), verbose=verbose)
            others = () if plan.frontier_skipped_because else plan.frontier.activations
            embeddings = np.asarray(
                extractor.extract_also(samples, others, source=plan.frontier.embedding)
            )
            rows = np.flatnonzero(rows_that_were_read(embeddings))
            readable = data.take(rows)
            if not (len(readable.train) and len(readable.validation)):
                raise InputError("no training sample, or no validation sample, could be read")
            inputs = _make_inputs(plan, samples, rows, cache)
            folder = cache.path / "tuning" if can_resume else None
            with plan.backbone.settings.applied():
                run = FineTuneRun(plan, new_head, readable, inputs, seed=seed)
                outcome = run.run(as_head_input(embeddings[rows]), folder, verbose)
        if outcome.extractor is not extractor:
            outcome.extractor.set_params(cache=given_cache).fit(data.X)
            outcome.extractor.frontier_ = plan.stored_frontier()
    return outcome


class FineTuneRun:
    """One fine-tuning, on the readable samples, which are split and without `X`."""

    def __init__(
        self,
        plan: TrainingPlan,
        new_head: Callable[[], BaseEstimator],
        data: Data,
        inputs: TrainingInputs,
        *,
        seed: int,
    ) -> None:
        self._plan, self._data, self._inputs, self._seed = plan, data, inputs, seed
        start_s = time.perf_counter()
        with fixed_seed():  # layers without a seed draw one from Python's own generator
            self._model = TrainedModel(plan)
        rows, batch_size = np.arange(len(data.y)), plan.params.batch_size
        features = predict(self._model.features, inputs.read, rows, batch_size)
        if not np.isfinite(features).all():
            raise BackboneError(
                f"{plan.backbone.spec.label} gives NaN or infinite values in the precision "
                f"{plan.params.precision!r} of the training: pass fine_tune__precision='float32'"
            )
        self._untrained = (
            values_of_variables(self._model.features.weights) if plan.params.refit else []
        )
        self._seconds = {"features": time.perf_counter() - start_s}
        start_s = time.perf_counter()
        self._new_initial = partial(InitialHead, new_head, plan.params, features=features)
        self._initial = self._new_initial(data)
        self._seconds["head"] = time.perf_counter() - start_s

    def run(self, embeddings: np.ndarray, folder: Path | None, verbose: Any) -> FineTuneOutcome:
        """Train, evaluate, and return the estimator that is kept.

        The embeddings are those that the extractor computes. A training saved in a folder can be
        resumed.
        """
        plan, params, initial = self._plan, self._plan.params, self._initial
        task = self._task(initial)
        first = task.scores(task.validation_rows, params.batch_size)
        gap = initial.handover_gap(first)
        start_s = time.perf_counter()
        folder = folder if plan.frontier.embedding.is_cacheable else None
        checkpoint = Checkpoint(folder, self._checkpoint_key(initial))
        trial = self._trial(task, verbose) if params.strategy == "auto" else None
        if trial and not trial.is_worth_it:
            params = clone(params).set_params(epochs=0)
        trained = train(task, params, seed=self._seed, checkpoint=checkpoint, verbose=verbose)
        self._seconds["fine_tune"] = time.perf_counter() - start_s
        is_tuned = trained.best_epoch > 0 and initial.tuned_model_is_better(
            task.scores(task.validation_rows, trained.batch_size), first
        )
        report = self._report(trained, gap, is_tuned)
        report["trial"] = asdict(trial) if trial else None
        has_stand_in = initial.head is not initial.requested
        print_message(_selection_message(report, has_stand_in=has_stand_in), verbose=verbose)
        if is_tuned:
            outcome = self._tuned_outcome(trained, report, folder, verbose)
        else:
            start_s = time.perf_counter()
            head = initial.fit_on_all(embeddings)
            report["seconds"]["head"] += time.perf_counter() - start_s
            outcome = FineTuneOutcome(plan.extractor, head, initial.requested, report)
        if not report["was_interrupted"]:
            checkpoint.remove()
        return outcome

    def _tuned_outcome(
        self, trained: TrainingResult, report: dict[str, Any], folder: Path | None, verbose: Any
    ) -> FineTuneOutcome:
        head = self._trained_head(self._initial)
        if self._plan.params.refit and not trained.was_interrupted:
            start_s = time.perf_counter()
            again, refitted = self._refit(trained, folder, verbose)
            head = refitted or head
            report["was_interrupted"] = again.was_interrupted
            report["seconds"]["refit"] = time.perf_counter() - start_s
        return FineTuneOutcome(self._plan.tuned_extractor(), head, head, report)

    def _refit(
        self, trained: TrainingResult, folder: Path | None, verbose: Any
    ) -> tuple[TrainingResult, BaseEstimator | None]:
        """Train again on all samples; if that fails, the head is None and no weight changes."""
        print_message(f"training again, on all {len(self._inputs.keys)} samples", verbose=verbose)
        initial = self._new_initial(self._data.without_validation())
        params = clone(self._plan.params).set_params(epochs=trained.best_epoch, patience=None)
        if isinstance(params.optimizer, str):
            params.set_params(learning_rate=trained.learning_rate)
        weights = self._model.features.weights
        tuned = values_of_variables(weights)
        assign_values(weights, self._untrained)
        task = self._task(initial)
        key = {**self._checkpoint_key(initial), "epochs": trained.best_epoch}
        checkpoint = Checkpoint(folder, key)
        again = train(task, params, seed=self._seed, checkpoint=checkpoint, verbose=verbose)
        if again.best_epoch < params.epochs:  # it ended early, with a warning
            assign_values(weights, tuned)
            return again, None
        checkpoint.remove()
        return again, self._trained_head(initial)

    def _trial(self, task: TrainingTask, verbose: Any) -> TrialResult:
        """Estimate whether fine-tuning is worth its time, and report it."""
        rows = task.train_rows
        half = np.sort(np.random.default_rng(self._seed).permutation(rows)[: len(rows) // 2])
        scores = {len(rows): self._initial.score}
        with contextlib.suppress(ValueError):  # too few samples of a class
            scores = {len(half): self._initial.score_with(half), **scores}
        trial = run_trial(task, self._plan.params, head_scores=scores, seed=self._seed)
        print_message(trial.describe(), verbose=verbose)
        return trial

    def _task(self, initial: InitialHead) -> TrainingTask:
        params = self._plan.params
        return TrainingTask(
            model=self._model.with_head(initial.linear, initial.objective),
            depths=self._plan.unfrozen.layers,
            read=self._inputs.read,
            objective=initial.objective,
            train_rows=initial.data.train,
            validation_rows=initial.data.validation,
            mixing=mixup(params.mixup) if params.mixup else None,
            n_augmented=max(0, self._plan.n_stored - 1),
        )

    def _trained_head(self, initial: InitialHead) -> BaseEstimator:
        return head_from_linear_map(
            self._model.finish(initial.linear, initial.objective), initial.head
        )

    def _checkpoint_key(self, initial: InitialHead) -> dict[str, Any]:
        """Return everything that decides the training, as plain data."""
        plan = self._plan
        params = {
            name: described_param(value)
            for name, value in plan.params.get_params(deep=False).items()
            if name not in ("callbacks", "max_cache_bytes", "distill_to")
        }
        arrays = {
            "keys": self._inputs.keys,
            "targets": initial.objective.training_targets,
            "weights": initial.objective.weights,
            "train": initial.data.train,
            "validation": initial.data.validation,
            "kernel": initial.linear.kernel,
            "bias": initial.linear.bias,
        }
        return {
            "space": plan.frontier.embedding.space.digest,
            "params": digest_of_json(params),
            "from": "pixels" if plan.frontier_skipped_because else "frontier",
            "seed": self._seed,
            **{name: digest_of_array(array).hex() for name, array in arrays.items()},
        }

    def _report(self, trained: TrainingResult, gap: float, is_tuned: bool) -> dict[str, Any]:
        plan, model = self._plan, self._model
        extraction = plan.extractor.report_
        return {
            **extraction,
            "seconds": {**extraction.seconds, **self._seconds},
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "epoch_s": trained.epoch_s,
            "handover_gap": gap,
            "head_score": self._initial.score,
            "tuned_score": trained.tuned_score,
            "was_interrupted": trained.was_interrupted,
            "kept": "tuned" if is_tuned else "head",
            "unfrozen": list(plan.unfrozen.layers),
            "n_params_trained": model.n_trained,
            "n_params_frozen": model.n_frozen,
            "frontier": "pixels" if plan.frontier_skipped_because else "cache",
            "frontier_layers": plan.frontier_layers,
            "frontier_skipped_because": plan.frontier_skipped_because,
            "frontier_bytes": plan.n_bytes(len(self._inputs.keys)),
            "learning_rate": trained.learning_rate,
            "tuning_batch_size": trained.batch_size,
        }


def _selection_message(report: dict[str, Any], *, has_stand_in: bool) -> str:
    kept = (
        "the fine-tuned model" if report["kept"] == "tuned" else "the head, fitted on all samples,"
    )
    tuned = report["tuned_score"]
    scores = f"head {report['head_score']:.3f}"
    reason = ""
    if tuned is not None:
        scores += f", fine-tuned {tuned:.3f}"
        if report["kept"] == "head" and tuned > report["head_score"]:
            reason = ", since the difference may be chance"
            if has_stand_in and report["best_epoch"] == 0:
                reason = (
                    ", since no epoch improved the linear head from which training starts; that "
                    "linear head has the higher score: pass it as the head"
                )
    return f"held-out score: {scores}; {kept} is kept{reason}"


class TrainingInputs(NamedTuple):
    """The keys of the readable samples, (n_samples,) dtype S16, and the reader of their inputs."""

    keys: np.ndarray
    read: Reader


def _make_inputs(
    plan: TrainingPlan, samples: Samples, rows: np.ndarray, cache: EmbeddingCache
) -> TrainingInputs:
    """Return the inputs of readable samples, after storing their augmented views."""
    keys = samples.keys(cache.files)[0][rows]
    if not plan.frontier_skipped_because:
        all_keys = keys[np.newaxis]
        if plan.params.views:
            all_keys = np.concatenate([all_keys, _store_views(plan, samples, rows, keys, cache)])
        if all(plan.frontier.are_stored(cache, each) for each in all_keys):
            return TrainingInputs(keys, plan.frontier.reader(cache, all_keys))
        # A warning gave the reason.
        plan.frontier_skipped_because = "the activations could not be stored"
    return TrainingInputs(keys, PixelReader(samples, rows, plan.backbone.input_form))


def _store_views(
    plan: TrainingPlan, samples: Samples, rows: np.ndarray, keys: np.ndarray, cache: EmbeddingCache
) -> np.ndarray:
    """Store the activations of augmented views; return their keys, (n_augmented, n_samples)."""
    extractor, frontier, n_augmented = plan.extractor, plan.frontier, plan.n_stored - 1
    augmentation = Augmentation(plan.params.augment, plan.backbone.input_shape, cache)
    report, view_keys = extractor.report_, []
    for _, views in augmented_views(samples, rows, keys, augmentation, n_augmented):
        extractor.extract_also(views, frontier.activations, source=frontier.embedding)
        view_keys.append(views.keys(cache.files)[0].reshape(-1, n_augmented).T)
        report.n_forward += extractor.report_.n_forward
    extractor.report_ = report
    return np.concatenate(view_keys, axis=1)


@contextlib.contextmanager
def _with_cache(extractor: FeatureExtractor) -> Iterator[tuple[FeatureExtractor, EmbeddingCache]]:
    """Lend a temporary cache to an extractor that has none."""
    cache = extractor.resolved_cache()
    if cache is not None:
        yield extractor, cache
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        lent = EmbeddingCache(Path(folder))
        extractor.set_params(cache=lent)
        try:
            yield extractor, lent
        finally:
            extractor.set_params(cache=None)
