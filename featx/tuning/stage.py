"""The fine-tuning stage: from samples, labels and a head to what is kept.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import check_random_state

from featx.engines.forking import check_can_run
from featx.exceptions import InputError
from featx.extractor import FeatureExtractor
from featx.heads import as_head_input
from featx.identity._hashing import digest_of_array, digest_of_json
from featx.networks.models import fixed_seed
from featx.progress import say
from featx.samples.base import Samples
from featx.samples.inputs import as_samples
from featx.storage.cache import EmbeddingCache
from featx.storage.cache_choice import resolve_cache
from featx.training_data import check_vectors, rows_that_were_read
from featx.tuning.data import Data
from featx.tuning.handover import head_with
from featx.tuning.objectives import check_task
from featx.tuning.params import FineTune
from featx.tuning.plan import Plan
from featx.tuning.readers import PixelReader, Reader
from featx.tuning.start import Start

if TYPE_CHECKING:
    from featx.tuning.judging import Judgement
    from featx.tuning.trainee import Trainee
    from featx.tuning.training import Trained


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
    with fixed_seed():  # Keras draws from Python's own generator
        with _with_cache(extractor.fit(data.X)) as (extractor, cache):
            check_vectors(extractor)
            plan = Plan(params, extractor)
            samples = as_samples(data.X).for_inputs(plan.backbone.input_shape)
            plan.look_at(cache, len(samples))
            say(plan.describe(len(samples)), verbose=verbose)
            others = () if plan.why_pixels else plan.frontier.activations
            embeddings = np.asarray(
                extractor.transform_storing(samples, others, embedding=plan.frontier.embedding)
            )
            rows = np.flatnonzero(rows_that_were_read(embeddings, job="fit"))
            data_read = data.take(rows)
            if not (len(data_read.train) and len(data_read.held)):
                raise InputError("no sample could be read of those to train on, or to judge by")
            keys, read = _inputs(plan, samples, rows, cache)
            stage = _Stage(plan, new_head, keys, read, data_read, seed=seed)
            can_resume = random_state is not None and kept_in is not None
            folder = cache.path / "tuning" if can_resume else None
            outcome = stage.run(as_head_input(embeddings[rows]), folder, verbose)
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
    if plan.why_pixels:
        return keys, PixelReader(samples, rows, shape)
    all_keys = [keys]
    if plan.params.views:
        from featx.tuning.augmentation import Augmentation, AugmentedSamples

        extractor, frontier = plan.extractor, plan.frontier
        augmentation = Augmentation(plan.params.augment, shape)
        report = extractor.report_
        for version in range(1, plan.n_kept):
            changed = AugmentedSamples(samples, rows, keys, augmentation, version)
            extractor.transform_storing(changed, frontier.activations, embedding=frontier.embedding)
            all_keys.append(changed.keys(cache.files)[0])
            report.n_forward += extractor.report_.n_forward
        extractor.report_ = report
    if not all(plan.frontier.are_stored(cache, each) for each in all_keys):
        plan.why_pixels = "the activations could not be stored"  # of which a warning said why
        return keys, PixelReader(samples, rows, shape)
    return keys, plan.frontier.reader(cache, np.stack(all_keys))


class _Stage:
    """One fine-tuning, on the samples that could be read.

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
        from featx.tuning.assembly import TrainedModel
        from featx.tuning.trainee import predict

        self.plan, self.keys, self.read, self.seed = plan, keys, read, seed
        start_s = time.perf_counter()
        self.model = TrainedModel(plan)
        rows = np.arange(len(data.y))
        features = predict(self.model.features, read, rows, plan.params.batch_size)
        self.seconds = {"features": time.perf_counter() - start_s}
        start_s = time.perf_counter()
        self.start = Start(new_head, plan.params, data, features)
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
        from featx.tuning.checkpoints import Checkpoint
        from featx.tuning.training import train

        plan, params, start = self.plan, self.plan.params, self.start
        trainee = self._trainee()
        first = trainee.scores(start.held, params.batch_size)
        gap = start.handover_gap(first)
        start_s = time.perf_counter()
        can_resume = plan.frontier.embedding.is_cacheable
        checkpoint = Checkpoint(folder if can_resume else None, self._subject())
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
        say(_verdict(report), verbose=verbose)
        if is_tuned:
            tuned = self.model.finish(start.linear, start.objective)
            head = head_with(tuned, start.head)
            return Outcome(plan.tuned_extractor(), head, head, report)
        start_s = time.perf_counter()
        head = start.head_on_all(embeddings)
        self.seconds["head"] += time.perf_counter() - start_s
        return Outcome(plan.extractor, head, start.asked_for, report)

    def _judgement(self, trainee: Trainee, verbose: Any) -> Judgement | None:
        """Judge whether to go on, if that was asked for, and say so."""
        from featx.tuning.judging import judge

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

    def _trainee(self) -> Trainee:
        from featx.tuning.batches import cutmix, mixup
        from featx.tuning.trainee import Trainee

        params, start = self.plan.params, self.start
        mixing = mixup(params.mixup) if params.mixup else None
        if params.cutmix:
            mixing = cutmix(params.cutmix)
        return Trainee(
            model=self.model.with_head(start.linear, start.objective),
            depths=self.plan.unfrozen.layers,
            read=self.read,
            objective=start.objective,
            train_rows=start.train,
            held_rows=start.held,
            mixing=mixing,
            n_versions=max(0, self.plan.n_kept - 1),
        )

    def _subject(self) -> dict[str, Any]:
        """Say in plain data what decides the training."""
        from featx.tuning.checkpoints import described

        plan, start = self.plan, self.start
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
            "from": "pixels" if plan.why_pixels else "frontier",
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
            "frontier": "pixels" if plan.why_pixels else "cache",
            "frontier_layers": plan.frontier_layers,
            "why_pixels": plan.why_pixels,
            "frontier_bytes": plan.n_bytes(len(self.keys)),
            "learning_rate": trained.learning_rate,
            "tuning_batch_size": trained.batch_size,
        }


def _verdict(report: dict[str, Any]) -> str:
    kept = "the fine-tuned model" if report["kept"] == "tuned" else "the head, on all samples"
    tuned = report["tuned_score"]
    scores = f"head {report['head_score']:.3f}"
    why = ""
    if tuned is not None:
        scores += f", fine-tuned {tuned:.3f}"
        if report["kept"] == "head" and tuned > report["head_score"]:
            why = ", since the difference may be chance"
    return f"held-out score: {scores}; {kept} is kept{why}"


@contextlib.contextmanager
def _with_cache(extractor: FeatureExtractor) -> Iterator[tuple[FeatureExtractor, EmbeddingCache]]:
    """Lend an extractor that keeps nothing a cache for as long as this takes."""
    cache = resolve_cache(extractor.cache)
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
