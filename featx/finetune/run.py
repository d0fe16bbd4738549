"""The head against the model that is trained from it: the better of both is kept.

The fine-tuning stage: from samples, labels and a head to what is kept.

embeddings and activations at the frontier, in one pass, through the cache
-> head on the training part -> the same head in Keras -> trained above the frontier
-> judged on the held-out part: the tuned backbone with its head, or the head on all samples
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import check_random_state

from featx._progress import say
from featx._training_data import Data, check_vectors, rows_that_were_read
from featx.backbones.augment import Augmentation
from featx.backbones.load import fixed_seed, undisturbed_seed
from featx.cache.cache import EmbeddingCache
from featx.digests.hashing import digest_of_array, digest_of_json
from featx.engines.devices import check_can_run
from featx.exceptions import BackboneError, InputError
from featx.extractor import FeatureExtractor
from featx.finetune.initial_head import InitialHead
from featx.finetune.objective import check_task
from featx.finetune.params import FineTune
from featx.finetune.plan import Plan
from featx.finetune.readers import PixelReader, Reader
from featx.heads.fit import as_head_input
from featx.heads.linear_map import head_with
from featx.inputs.augmented import versions_of
from featx.inputs.samples import Samples

if TYPE_CHECKING:
    from featx.finetune.model import TrainingTask
    from featx.finetune.train import Trained
    from featx.finetune.trial import TrialResult


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is kept.

    Attributes
    ----------
    extractor : FeatureExtractor
        Fitted; of the tuned backbone, or the one that was passed in.
    head : estimator
        Fitted.
    head_on_training_part : estimator
        The same, if the backbone was tuned; else fitted without what was held out.
    report : dict
        Plain data: see :class:`TransferClassifier`.
    """

    extractor: FeatureExtractor
    head: BaseEstimator
    head_on_training_part: BaseEstimator
    report: dict[str, Any]


class FineTuneRun:
    """One fine-tuning, on the samples that could be read, and what is kept after it.

    Parameters
    ----------
    plan : Plan
    new_head : callable
    keys : ndarray of shape (n_samples,), dtype S16
    read : Reader
    data : Data
        Split, without `X`.
    seed : int
    """

    def __init__(
        self,
        plan: Plan,
        new_head: Callable[[], BaseEstimator],
        keys: np.ndarray,
        read: Reader,
        data: Data,
        *,
        seed: int,
    ) -> None:
        # Keras is needed from here on.
        from featx.finetune.model import TrainedModel, predict

        self.plan, self.keys, self.read, self.seed = plan, keys, read, seed
        start_s = time.perf_counter()
        with fixed_seed():  # layers without a seed draw one from Python's own generator
            self.model = TrainedModel(plan)
        rows = np.arange(len(data.y))
        features = predict(self.model.features, read, rows, plan.params.batch_size)
        if not np.isfinite(features).all():
            raise BackboneError(
                f"{plan.backbone.spec.label} gives NaN or infinite values in the precision "
                f"{plan.params.precision!r} of the training: pass fine_tune__precision='float32'"
            )
        self.seconds = {"features": time.perf_counter() - start_s}
        start_s = time.perf_counter()
        self._new_start = partial(InitialHead, new_head, plan.params, features=features)
        self._data = data
        self.start = self._new_start(data)
        self.seconds["head"] = time.perf_counter() - start_s

    def run(self, embeddings: np.ndarray, folder: Path | None, verbose: Any) -> Outcome:
        """Train, judge, and return what is kept.

        Parameters
        ----------
        embeddings : ndarray of shape (n_samples, n_features)
            As the extractor gives them.
        folder : Path or None
            Where the training is saved, so that it can be resumed.
        verbose : int or callable
        """
        from featx.finetune.checkpoint import Checkpoint, values_of
        from featx.finetune.train import train

        plan, params, start = self.plan, self.plan.params, self.start
        untrained = values_of(self.model.features.weights) if params.refit else []
        trainee = self._trainee(start)
        first = trainee.scores(start.held, params.batch_size)
        gap = start.handover_gap(first)
        start_s = time.perf_counter()
        can_resume = plan.frontier.embedding.is_cacheable
        folder = folder if can_resume else None
        checkpoint = Checkpoint(folder, self._subject(start))
        judgement = self._judgement(trainee, verbose)
        if judgement and not judgement.is_worth_it:
            params = clone(params).set_params(epochs=0)
        trained = train(trainee, params, seed=self.seed, checkpoint=checkpoint, verbose=verbose)
        self.seconds["fine_tune"] = time.perf_counter() - start_s
        is_tuned = trained.best_epoch > 0 and start.is_beaten_by(
            trainee.scores(start.held, trained.batch_size), first
        )
        report = self._report(trained, gap, is_tuned)
        report["judgement"] = judgement.to_plain() if judgement else None
        say(_verdict(report, has_stand_in=start.head is not start.asked_for), verbose=verbose)
        if is_tuned:
            head = head_with(self.model.finish(start.linear, start.objective), start.head)
            if params.refit and not trained.was_interrupted:
                start_s = time.perf_counter()
                again, refitted = self._refit(trained, untrained, folder, verbose)
                head = refitted or head
                report["was_interrupted"] = again.was_interrupted
                report["seconds"]["refit"] = time.perf_counter() - start_s
            outcome = Outcome(plan.tuned_extractor(), head, head, report)
        else:
            start_s = time.perf_counter()
            head = start.head_on_all(embeddings)
            report["seconds"]["head"] += time.perf_counter() - start_s
            outcome = Outcome(plan.extractor, head, start.asked_for, report)
        if not report["was_interrupted"]:
            checkpoint.remove()
        return outcome

    def _refit(
        self, trained: Trained, untrained: list[np.ndarray], folder: Path | None, verbose: Any
    ) -> tuple[Trained, BaseEstimator | None]:
        """Train the same again on all samples; the head is None, and nothing changed, if it failed.

        Parameters
        ----------
        trained : Trained
            The first training.
        untrained : list of ndarray
            The weights with which it began.
        folder : Path or None
        verbose : int or callable
        """
        from featx.finetune.checkpoint import Checkpoint, assign, values_of
        from featx.finetune.train import train

        say(f"training again, on all {len(self.keys)} samples", verbose=verbose)
        start = self._new_start(self._data.without_validation())
        params = clone(self.plan.params).set_params(epochs=trained.best_epoch, patience=None)
        if trained.learning_rate is not None:
            params.set_params(learning_rate=trained.learning_rate)
        weights = self.model.features.weights
        tuned = values_of(weights)
        assign(weights, untrained)
        trainee = self._trainee(start)
        checkpoint = Checkpoint(folder, {**self._subject(start), "epochs": trained.best_epoch})
        again = train(trainee, params, seed=self.seed, checkpoint=checkpoint, verbose=verbose)
        if again.best_epoch < params.epochs:  # it ended early, of which a warning said why
            assign(weights, tuned)
            return again, None
        checkpoint.remove()
        return again, head_with(self.model.finish(start.linear, start.objective), start.head)

    def _judgement(self, trainee: TrainingTask, verbose: Any) -> TrialResult | None:
        """Judge whether to go on, if that was asked for, and say so."""
        from featx.finetune.trial import judge

        params, start = self.plan.params, self.start
        if params.strategy != "auto":
            return None
        rng = np.random.default_rng(self.seed)
        half = np.sort(rng.permutation(start.train)[: len(start.train) // 2])
        scores = {len(start.train): start.head_score}
        with contextlib.suppress(ValueError):  # too few of a class
            scores = {len(half): start.score_with(half), **scores}
        judgement = judge(trainee, params, head_scores=scores, seed=self.seed)
        say(judgement.describe(), verbose=verbose)
        return judgement

    def _trainee(self, start: InitialHead) -> TrainingTask:
        from featx.finetune.batches import cutmix, mixup
        from featx.finetune.model import TrainingTask

        params = self.plan.params
        mixing = mixup(params.mixup) if params.mixup else None
        if params.cutmix:
            mixing = cutmix(params.cutmix)
        return TrainingTask(
            model=self.model.with_head(start.linear, start.objective),
            depths=self.plan.unfrozen.layers,
            read=self.read,
            objective=start.objective,
            train_rows=start.train,
            held_rows=start.held,
            mixing=mixing,
            n_versions=max(0, self.plan.n_kept - 1),
        )

    def _subject(self, start: InitialHead) -> dict[str, Any]:
        """Say in plain data what decides the training."""
        from featx.finetune.checkpoint import described

        plan = self.plan
        params = {
            name: described(value)
            for name, value in plan.params.get_params(deep=False).items()
            if name not in ("callbacks", "max_cache_bytes", "distill_to")
        }
        arrays = {
            "keys": self.keys,
            "targets": start.objective.training_targets,
            "weights": start.objective.weights,
            "train": start.train,
            "held": start.held,
            "kernel": start.linear.kernel,
            "bias": start.linear.bias,
        }
        return {
            "space": plan.frontier.embedding.space.digest,
            "params": digest_of_json(params),
            "from": "pixels" if plan.frontier_skipped_because else "frontier",
            "seed": self.seed,
            **{name: digest_of_array(array).hex() for name, array in arrays.items()},
        }

    def _report(self, trained: Trained, gap: float, is_tuned: bool) -> dict[str, Any]:
        plan, model = self.plan, self.model
        extraction = plan.extractor.report_
        return {
            **extraction,
            "seconds": {**extraction.seconds, **self.seconds},
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "epoch_s": trained.epoch_s,
            "handover_gap": gap,
            "head_score": self.start.head_score,
            "tuned_score": trained.tuned_score,
            "was_interrupted": trained.was_interrupted,
            "kept": "tuned" if is_tuned else "head",
            "unfrozen": list(plan.unfrozen.layers),
            "n_params_trained": model.n_trained,
            "n_params_frozen": model.n_frozen,
            "frontier": "pixels" if plan.frontier_skipped_because else "cache",
            "frontier_layers": plan.frontier_layers,
            "frontier_skipped_because": plan.frontier_skipped_because,
            "frontier_bytes": plan.n_bytes(len(self.keys)),
            "learning_rate": trained.learning_rate,
            "tuning_batch_size": trained.batch_size,
        }


def _verdict(report: dict[str, Any], *, has_stand_in: bool) -> str:
    kept = "the fine-tuned model" if report["kept"] == "tuned" else "the head, on all samples"
    tuned = report["tuned_score"]
    scores = f"head {report['head_score']:.3f}"
    why = ""
    if tuned is not None:
        scores += f", fine-tuned {tuned:.3f}"
        if report["kept"] == "head" and tuned > report["head_score"]:
            why = ", since the difference may be chance"
            if has_stand_in and report["best_epoch"] == 0:
                why = (
                    ", since no epoch made the linear head better that is trained in its place: "
                    "what scored so is that one, untrained. Ask for it as the head"
                )
    return f"held-out score: {scores}; {kept} is kept{why}"


def fine_tune(
    params: FineTune,
    extractor: FeatureExtractor,
    new_head: Callable[[], BaseEstimator],
    data: Data,
    *,
    random_state: Any,
    verbose: Any,
) -> Outcome:
    """Fit a head, fine-tune the top of the backbone from it, and keep the better of both.

    Parameters
    ----------
    params : FineTune
    extractor : FeatureExtractor
        Not fitted.
    new_head : callable
        Makes an unfitted head.
    data : Data
        Split here if it is not yet.
    random_state : int, RandomState or None
    verbose : int or callable

    Raises
    ------
    ParameterError, InputError, BackboneError
        Before anything is computed, as far as that can be known.
    """
    check_can_run()
    classifies, seed = is_classifier(new_head()), seed_of(random_state)
    check_task(params, data.y, is_classifier=classifies)
    if not len(data.held):
        data = data.split(params.validation, is_classifier=classifies, seed=seed)
    kept_in = extractor.cache
    with undisturbed_seed():  # Keras draws from Python's own generator
        with _with_cache(extractor.fit(data.X)) as (extractor, cache):
            check_vectors(extractor)
            plan = Plan(params, extractor)
            samples = data.X.for_inputs(plan.backbone.input_shape)
            plan.look_at(cache, len(samples))
            say(plan.describe(len(samples)), verbose=verbose)
            others = () if plan.frontier_skipped_because else plan.frontier.activations
            embeddings = np.asarray(
                extractor.extract_also(samples, others, source=plan.frontier.embedding)
            )
            rows = np.flatnonzero(rows_that_were_read(embeddings))
            data_read = data.take(rows)
            if not (len(data_read.train) and len(data_read.held)):
                raise InputError("no sample could be read of those to train on, or to judge by")
            keys, read = _inputs(plan, samples, rows, cache)
            can_resume = random_state is not None and kept_in is not None
            folder = cache.path / "tuning" if can_resume else None
            with plan.backbone.settings.applied():
                contest = FineTuneRun(plan, new_head, keys, read, data_read, seed=seed)
                outcome = contest.run(as_head_input(embeddings[rows]), folder, verbose)
        if outcome.extractor is not extractor:
            outcome.extractor.set_params(cache=kept_in).fit(data.X)
            outcome.extractor.frontier_ = plan.stored_frontier()
    return outcome


def seed_of(random_state: Any) -> int:
    """Draw a seed."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _inputs(
    plan: Plan, samples: Samples, rows: np.ndarray, cache: EmbeddingCache
) -> tuple[np.ndarray, Reader]:
    """Return keys and reader of the samples that could be read; their versions are made."""
    keys = samples.keys(cache.files)[0][rows]
    shape = plan.backbone.input_shape
    if plan.frontier_skipped_because:
        return keys, PixelReader(samples, rows, shape)
    all_keys = keys[np.newaxis]
    if plan.params.views:
        all_keys = np.concatenate([all_keys, _stored_versions(plan, samples, rows, keys, cache)])
    if not all(plan.frontier.are_stored(cache, each) for each in all_keys):
        plan.frontier_skipped_because = (
            "the activations could not be stored"  # of which a warning said why
        )
        return keys, PixelReader(samples, rows, shape)
    return keys, plan.frontier.reader(cache, all_keys)


def _stored_versions(
    plan: Plan, samples: Samples, rows: np.ndarray, keys: np.ndarray, cache: EmbeddingCache
) -> np.ndarray:
    """Store the activations of versions; return their keys, (n_versions, n_samples)."""
    extractor, frontier, n_versions = plan.extractor, plan.frontier, plan.n_kept - 1
    augmentation = Augmentation(plan.params.augment, plan.backbone.input_shape, cache)
    report, of_versions = extractor.report_, []
    for _, changed in versions_of(samples, rows, keys, augmentation, n_versions):
        extractor.extract_also(changed, frontier.activations, source=frontier.embedding)
        of_versions.append(changed.keys(cache.files)[0].reshape(-1, n_versions).T)
        report.n_forward += extractor.report_.n_forward
    extractor.report_ = report
    return np.concatenate(of_versions, axis=1)


@contextlib.contextmanager
def _with_cache(extractor: FeatureExtractor) -> Iterator[tuple[FeatureExtractor, EmbeddingCache]]:
    """Lend an extractor that keeps nothing a cache for as long as this takes."""
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
