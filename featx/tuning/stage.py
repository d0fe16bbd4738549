"""The fine-tuning stage: from samples, labels and a head to what is kept.

embeddings and activations at the frontier, in one pass, through the cache
-> head on the training part -> the same head in Keras -> trained above the frontier
-> judged on the held-out part: the tuned backbone with its head, or the head on all samples
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from featx.extractor import FeatureExtractor
from featx.heads import as_head_input
from featx.identity._hashing import digest_of_array, digest_of_json
from featx.networks.models import fixed_seed
from featx.progress import say
from featx.samples.base import Samples
from featx.samples.inputs import as_samples
from featx.storage.cache import EmbeddingCache
from featx.storage.cache_choice import resolve_cache
from featx.tuning.data import Data
from featx.tuning.handover import head_with
from featx.tuning.params import FineTune
from featx.tuning.plan import Plan
from featx.tuning.readers import PixelReader, Reader
from featx.tuning.start import Start

if TYPE_CHECKING:
    from featx.tuning.judging import Judgement
    from featx.tuning.training import Trained, Trainee


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is kept.

    Attributes
    ----------
    extractor : FeatureExtractor
        Fitted; of the tuned backbone, or the one that was passed in.
    head : estimator
        Fitted.
    report : dict
        Plain data: see :class:`TransferClassifier`.
    """

    extractor: FeatureExtractor
    head: BaseEstimator
    report: dict[str, Any]


def fine_tune(
    params: FineTune,
    extractor: FeatureExtractor,
    new_head: Callable[[], BaseEstimator],
    data: Data,
    *,
    rows_that_were_read: Callable[[np.ndarray], np.ndarray],
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
    rows_that_were_read : callable
        From embeddings to which of them a head can use.
    random_state : int, RandomState or None
    verbose : int or callable

    Raises
    ------
    ParameterError, InputError, BackboneError
        Before anything is computed, as far as that can be known.
    """
    kept_in = extractor.cache
    with fixed_seed():  # Keras draws from Python's own generator
        with _with_cache(extractor.fit(data.X)) as (extractor, cache):
            plan = Plan(params, extractor)
            samples = as_samples(data.X).for_inputs(plan.backbone.input_shape)
            plan.look_at(cache, len(samples))
            say(plan.describe(len(samples)), verbose=verbose)
            others = () if plan.why_pixels else plan.frontier.activations
            embeddings = np.asarray(
                extractor.transform_storing(samples, others, embedding=plan.frontier.embedding)
            )
            rows = np.flatnonzero(rows_that_were_read(embeddings))
            keys, read = _inputs(plan, samples, rows, cache)
            stage = _Stage(plan, new_head, keys, read, data.take(rows), random_state=random_state)
            outcome = stage.run(as_head_input(embeddings[rows]), cache, verbose)
        if outcome.extractor is not extractor:
            outcome.extractor.set_params(cache=kept_in).fit(data.X)
    return outcome


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
        Without `X`.
    random_state : int, RandomState or None
    """

    def __init__(
        self,
        plan: Plan,
        new_head: Callable[[], BaseEstimator],
        keys: np.ndarray,
        read: Reader,
        data: Data,
        *,
        random_state: Any,
    ) -> None:
        # Keras is needed from here on.
        from featx.tuning.assembly import TrainedModel
        from featx.tuning.training import predict

        self.plan, self.keys, self.read = plan, keys, read
        self.is_repeatable = random_state is not None
        self.seed = int(check_random_state(random_state).randint(2**31 - 1))
        start_s = time.perf_counter()
        self.model = TrainedModel(plan)
        rows = np.arange(len(data.y))
        features = predict(self.model.features, read, rows, plan.params.batch_size)
        self.seconds = {"features": time.perf_counter() - start_s}
        start_s = time.perf_counter()
        self.start = Start(new_head, plan.params, data, features, self.seed)
        self.seconds["head"] = time.perf_counter() - start_s

    def run(self, embeddings: np.ndarray, cache: EmbeddingCache, verbose: Any) -> Outcome:
        """Train, judge, and return what is kept.

        Parameters
        ----------
        embeddings : ndarray of shape (n_samples, n_features)
            As the extractor gives them.
        cache : EmbeddingCache
        verbose : int or callable
        """
        from featx.tuning.checkpoints import Checkpoint
        from featx.tuning.training import train

        plan, params, start = self.plan, self.plan.params, self.start
        trainee = self._trainee()
        gap = start.handover_gap(trainee.scores(start.held, params.batch_size))
        start_s = time.perf_counter()
        can_resume = cache.path is not None and plan.frontier.embedding.is_cacheable
        checkpoint = Checkpoint(cache.path / "tuning" if can_resume else None, self._subject())
        judgement = self._judgement(trainee, verbose)
        if judgement and not judgement.is_worth_it:
            params = clone(params).set_params(epochs=0)
        trained = train(trainee, params, seed=self.seed, checkpoint=checkpoint, verbose=verbose)
        self.seconds["fine_tune"] = time.perf_counter() - start_s
        is_tuned = trained.best_epoch > 0 and trained.best_score > start.head_score
        report = self._report(trained, gap, is_tuned)
        report["judgement"] = judgement.to_plain() if judgement else None
        say(_verdict(report), verbose=verbose)
        if is_tuned:
            tuned = self.model.finish(start.linear, start.objective)
            return Outcome(plan.tuned_extractor(), head_with(tuned, start.head), report)
        start_s = time.perf_counter()
        head = start.head_on_all(embeddings)
        self.seconds["head"] += time.perf_counter() - start_s
        return Outcome(plan.extractor, head, report)

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
        from featx.tuning.training import Trainee

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
        plan, start = self.plan, self.start
        params = {
            name: value if isinstance(value, (str, int, float, type(None))) else repr(value)
            for name, value in plan.params.get_params(deep=False).items()
            if name not in ("callbacks", "max_cache_bytes")
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
            "from": plan.why_pixels or "frontier",
            "seed": self.seed if self.is_repeatable else None,
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
            "tuned_score": trained.best_score if trained.history else math.nan,
            "kept": "tuned" if is_tuned else "head",
            "unfrozen": list(plan.unfrozen.layers),
            "n_params_trained": model.n_trained,
            "n_params_frozen": model.n_frozen,
            "frontier": "pixels" if plan.why_pixels else "cache",
            "why_pixels": plan.why_pixels,
            "frontier_bytes": plan.n_bytes(len(self.keys)),
            "learning_rate": trained.learning_rate,
            "tuning_batch_size": trained.batch_size,
        }


def _verdict(report: dict[str, Any]) -> str:
    kept = "the fine-tuned model" if report["kept"] == "tuned" else "the head, on all samples,"
    return (
        f"held-out score: head {report['head_score']:.3f}, fine-tuned {report['tuned_score']:.3f}; "
        f"{kept} is kept"
    )


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
