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

import joblib
import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from featx.exceptions import BadSampleError
from featx.extractor import FeatureExtractor
from featx.heads import as_head_input, fit_head, takes_sample_weight
from featx.identity._hashing import digest_of_array, digest_of_json
from featx.networks.backbones import Backbone
from featx.networks.copying import FlatCopy, flat_copy
from featx.networks.models import fixed_seed
from featx.progress import say
from featx.samples.base import Samples
from featx.samples.inputs import as_samples
from featx.storage.cache import EmbeddingCache
from featx.storage.cache_choice import resolve_cache
from featx.tuning.frontier import Frontier, find_frontier
from featx.tuning.handover import (
    LinearMap,
    can_take_back,
    handover_gap,
    head_with,
    linear_map,
)
from featx.tuning.objectives import Objective, make_objective
from featx.tuning.params import FineTune
from featx.tuning.splitting import hold_out
from featx.tuning.unfreezing import Unfrozen, choose_unfrozen

if TYPE_CHECKING:
    from featx.tuning.judging import Judgement
    from featx.tuning.training import Trained, Trainee

_LARGEST_GAP = 1e-5


@dataclass(frozen=True, eq=False)
class Data:
    """What an estimator is fitted on.

    Attributes
    ----------
    X : samples
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : ndarray of shape (n_samples,) or None
    groups : ndarray of shape (n_samples,) or None
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None
    groups: np.ndarray | None

    def take(self, rows: np.ndarray) -> Data:
        """Return some of the samples, without `X`."""
        parts = (None if part is None else part[rows] for part in (self.sample_weight, self.groups))
        return Data(None, self.y[rows], *parts)


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


class Plan:
    """What is going to be trained, found out before anything is computed.

    Parameters
    ----------
    params : FineTune
    extractor : FeatureExtractor
        Fitted.

    Attributes
    ----------
    backbone : Backbone
    copy : FlatCopy
        Of its tap.
    unfrozen : Unfrozen
    frontier : Frontier
    why_pixels : str or None
        Why each epoch starts from pixels; None if it starts from the frontier.

    Raises
    ------
    ParameterError, BackboneError
        The backbone has no such part, or cannot be copied.
    """

    def __init__(self, params: FineTune, extractor: FeatureExtractor) -> None:
        resolved = extractor.current_resolution()
        self.params, self.extractor = params, extractor
        self.backbone: Backbone = resolved.build()
        label = self.backbone.spec.label
        name = "".join(c if c.isalnum() or c in "_-." else "_" for c in f"{label}_tuned")
        self.copy: FlatCopy = flat_copy(
            self.backbone.tap, input_shape=self.backbone.input_shape, name=name, label=label
        )
        self.unfrozen: Unfrozen = choose_unfrozen(
            self.copy.model, params.unfreeze, batch_norm=params.batch_norm, label=label
        )
        self.frontier: Frontier = find_frontier(
            self.unfrozen.frontier, self.backbone, self.copy, resolved, dtype=params.frontier_dtype
        )
        self.why_pixels = self._why_pixels()

    def describe(self, n_samples: int) -> str:
        """Say in a sentence what is trained, from where, and what that takes on disk."""
        layers = list(self.unfrozen.layers)
        where = (
            f"from pixels in each epoch, since {self.why_pixels}"
            if self.why_pixels
            else f"from the frontier ({n_samples * self.frontier.row_bytes / 1e6:.1f} MB stored)"
        )
        return f"training {len(layers)} layers, {layers[0]} to {layers[-1]}, {where}"

    def _why_pixels(self) -> str | None:
        if self.params.augment is not None:
            return "pixels are augmented anew in each epoch"
        if self.params.cutmix:
            return "cutmix mixes pixels"
        if not self.unfrozen.frontier.position:
            return "nothing is frozen"
        return None

    def look_at(self, cache: EmbeddingCache, n_samples: int) -> None:
        """Start from pixels if the activations of so many samples cannot be stored."""
        if self.why_pixels is None:
            limit = self.params.max_cache_bytes
            self.why_pixels = self.frontier.why_not_stored(cache, n_samples, limit)


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
    with fixed_seed(), _with_cache(extractor.fit(data.X)) as (extractor, cache):
        plan = Plan(params, extractor)
        samples = as_samples(data.X).for_inputs(plan.backbone.input_shape)
        plan.look_at(cache, len(samples))
        say(plan.describe(len(samples)), verbose=verbose)
        others = () if plan.why_pixels else plan.frontier.activations
        embeddings = np.asarray(
            extractor.transform_storing(data.X, others, embedding=plan.frontier.embedding)
        )
        rows = np.flatnonzero(rows_that_were_read(embeddings))
        sources = _Sources(plan, samples, rows, cache)
        stage = _Stage(plan, new_head, sources, data.take(rows), random_state=random_state)
        outcome = stage.run(as_head_input(embeddings[rows]), cache, verbose)
    if outcome.extractor is not extractor:
        outcome.extractor.set_params(cache=kept_in).fit(data.X)
    return outcome


class _Sources:
    """The model that is trained, and where its inputs come from.

    Attributes
    ----------
    keys : ndarray of shape (n_samples,), dtype S16
        Of the samples that could be read, which from here on are the only ones.
    """

    def __init__(
        self, plan: Plan, samples: Samples, rows: np.ndarray, cache: EmbeddingCache
    ) -> None:
        # Keras is needed from here on.
        from featx.tuning.assembly import TrainedModel

        from_pixels = plan.why_pixels is not None
        self.keys = samples.keys(cache.files)[0][rows]
        self.n_threads = joblib.cpu_count() if from_pixels else 1
        self.read: Callable[[np.ndarray], list[np.ndarray]] = (
            _PixelReader(samples, rows, plan.backbone.input_shape)
            if from_pixels
            else plan.frontier.reader(cache, self.keys)
        )
        self.model = TrainedModel(
            plan.copy.model,
            plan.backbone,
            plan.unfrozen,
            precision=plan.params.precision,
            augment=plan.params.augment,
            from_pixels=from_pixels,
        )


class _Stage:
    """The heads and the objective, on the samples that could be read.

    The head that is handed over is fitted on the embeddings as the model to be trained computes
    them, so that not even the rounding of another engine, or of stored activations, is between
    the two.
    """

    def __init__(
        self,
        plan: Plan,
        new_head: Callable[[], BaseEstimator],
        sources: _Sources,
        data: Data,
        *,
        random_state: Any,
    ) -> None:
        from featx.tuning.training import predict

        self.plan, self.new_head, self.sources, self.data = plan, new_head, sources, data
        self.is_repeatable = random_state is not None
        self.seed = int(check_random_state(random_state).randint(2**31 - 1))
        head = new_head()
        self.train, self.held = hold_out(
            data.y,
            validation=plan.params.validation,
            groups=data.groups,
            is_classifier=is_classifier(head),
            seed=self.seed,
        )
        start_s = time.perf_counter()
        features = predict(
            sources.model.features,
            sources.read,
            np.arange(len(data.y)),
            plan.params.batch_size,
            n_threads=sources.n_threads,
        )
        self.embeddings = as_head_input(features)
        self.seconds = {"features": time.perf_counter() - start_s}
        start_s = time.perf_counter()
        self.head = self._fitted(head, self.embeddings, self.train)
        self.head_score = self._score(self.head)
        self.start, self.linear = self._starting_head()
        self.objective = self._objective()
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

        plan = self.plan
        trainee = self._trainee()
        gap = self._handover_gap(trainee)
        start_s = time.perf_counter()
        can_resume = cache.path is not None and plan.frontier.embedding.is_cacheable
        checkpoint = Checkpoint(cache.path / "tuning" if can_resume else None, self._subject())
        judgement = self._judgement(trainee, verbose)
        params = plan.params
        if judgement and not judgement.is_worth_it:
            params = clone(params).set_params(epochs=0)
        trained = train(trainee, params, seed=self.seed, checkpoint=checkpoint, verbose=verbose)
        self.seconds["fine_tune"] = time.perf_counter() - start_s
        is_tuned = trained.best_epoch > 0 and trained.best_score > self.head_score
        report = self._report(trained, gap, is_tuned)
        report["judgement"] = judgement.to_plain() if judgement else None
        say(_verdict(report), verbose=verbose)
        if is_tuned:
            tuned = self.sources.model.finish(self.linear, self.objective)
            return Outcome(self._tuned_extractor(), head_with(tuned, self.start), report)
        start_s = time.perf_counter()
        head = self._fitted(self.new_head(), embeddings, np.arange(len(embeddings)))
        self.seconds["head"] += time.perf_counter() - start_s
        return Outcome(plan.extractor, head, report)

    def _judgement(self, trainee: Trainee, verbose: Any) -> Judgement | None:
        """Judge whether to go on, if that was asked for, and say so."""
        from featx.tuning.judging import judge

        params = self.plan.params
        if params.strategy != "auto":
            return None
        rng = np.random.default_rng(self.seed)
        half = np.sort(rng.permutation(self.train)[: len(self.train) // 2])
        scores = {len(self.train): self.head_score}
        with contextlib.suppress(ValueError):  # too few of a class
            half_head = self._fitted(self.new_head(), self.embeddings, half)
            scores = {len(half): self._score(half_head), **scores}
        judgement = judge(trainee, params, head_scores=scores, seed=self.seed)
        curve = ", ".join(f"{score:.3f} with {n} samples" for n, score in scores.items())
        decision = "fine-tuning" if judgement.is_worth_it else "not fine-tuning"
        minutes = "" if math.isnan(judgement.minutes) else f" (at most {judgement.minutes:.1f} min)"
        say(f"{decision}{minutes}: {judgement.why}; the head has {curve}", verbose=verbose)
        return judgement

    def _fitted(
        self, head: BaseEstimator, embeddings: np.ndarray, rows: np.ndarray
    ) -> BaseEstimator:
        weights = self.data.sample_weight
        if weights is not None:
            weights = weights[rows] if takes_sample_weight(head) else None
        fit_head(head, embeddings[rows], self.data.y[rows], sample_weight=weights)
        return head

    def _score(self, head: BaseEstimator) -> float:
        weights, held = self.data.sample_weight, self.held
        given = {} if weights is None else {"sample_weight": weights[held]}
        return float(head.score(self.embeddings[held], self.data.y[held], **given))

    def _starting_head(self) -> tuple[BaseEstimator, LinearMap]:
        """Return the head if Keras can compute it, or a linear one that is trained first."""
        train = self.embeddings[self.train]
        if can_take_back(self.head):
            linear = linear_map(self.head, train)
            if linear and self._is_exact(self.head, linear, train):
                return self.head, linear
        probe = LogisticRegression(max_iter=1000) if is_classifier(self.head) else Ridge()
        start = make_pipeline(StandardScaler(), probe)
        self._fitted(start, self.embeddings, self.train)
        linear = linear_map(start, train)
        if linear is None:
            raise RuntimeError(f"{start} is not linear")
        return start, linear

    def _is_exact(self, head: BaseEstimator, linear: LinearMap, embeddings: np.ndarray) -> bool:
        import keras

        scaling, dense = linear.layers()
        scores = dense(scaling(embeddings.astype(np.float32)))
        computed = keras.ops.convert_to_numpy(scores)
        return handover_gap(computed, head, embeddings, linear) <= _LARGEST_GAP

    def _objective(self) -> Objective:
        params = self.plan.params
        return make_objective(
            self.data.y,
            classes=getattr(self.start, "classes_", None),
            link=self.linear.link,
            n_scores=self.linear.n_scores,
            sample_weight=self.data.sample_weight,
            class_weight=params.class_weight,
            loss=params.loss,
        )

    def _trainee(self) -> Trainee:
        from featx.tuning.batches import cutmix, mixup
        from featx.tuning.training import Trainee

        params = self.plan.params
        mixing = mixup(params.mixup) if params.mixup else None
        if params.cutmix:
            mixing = cutmix(params.cutmix)
        return Trainee(
            model=self.sources.model.with_head(self.linear, self.objective),
            depths=self.plan.unfrozen.layers,
            read=self.sources.read,
            n_threads=self.sources.n_threads,
            objective=self.objective,
            train_rows=self.train,
            held_rows=self.held,
            mixing=mixing,
        )

    def _handover_gap(self, trainee: Trainee) -> float:
        """Measure how far the scores are from the head's before the first step."""
        objective = self.objective
        scores = trainee.scores(self.held, self.plan.params.batch_size)
        scores = scores * objective.spread + objective.center
        return handover_gap(scores, self.start, self.embeddings[self.held], self.linear)

    def _subject(self) -> dict[str, Any]:
        """Say in plain data what decides the training."""
        plan = self.plan
        params = {
            name: value if isinstance(value, (str, int, float, type(None))) else repr(value)
            for name, value in plan.params.get_params(deep=False).items()
            if name not in ("callbacks", "max_cache_bytes")
        }
        arrays = {
            "keys": self.sources.keys,
            "targets": self.objective.targets,
            "weights": self.objective.weights,
            "train": self.train,
            "held": self.held,
            "kernel": self.linear.kernel,
            "bias": self.linear.bias,
        }
        return {
            "space": plan.frontier.embedding.space.digest,
            "params": digest_of_json(params),
            "from": plan.why_pixels or "frontier",
            "seed": self.seed if self.is_repeatable else None,
            **{name: digest_of_array(array).hex() for name, array in arrays.items()},
        }

    def _tuned_extractor(self) -> FeatureExtractor:
        """Make the extractor of the tuned backbone, whose embeddings have a space of their own."""
        plan = self.plan
        params = plan.extractor.get_params(deep=False) | {
            "backbone": plan.copy.model,
            "preprocessing": plan.backbone.preprocessing,
            "weights": "imagenet",
            "backbone_params": None,
            "layer": None,
            "also_cache": (),
        }
        return FeatureExtractor(**params)

    def _report(self, trained: Trained, gap: float, is_tuned: bool) -> dict[str, Any]:
        plan, model = self.plan, self.sources.model
        extraction = plan.extractor.report_
        stored = 0 if plan.why_pixels else plan.frontier.row_bytes * len(self.data.y)
        return {
            **extraction,
            "seconds": {**extraction.seconds, **self.seconds},
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "epoch_s": trained.epoch_s,
            "handover_gap": gap,
            "head_score": self.head_score,
            "tuned_score": trained.best_score if trained.history else math.nan,
            "kept": "tuned" if is_tuned else "head",
            "unfrozen": list(plan.unfrozen.layers),
            "n_params_trained": model.n_trained,
            "n_params_frozen": model.n_frozen,
            "frontier": "pixels" if plan.why_pixels else "cache",
            "why_pixels": plan.why_pixels,
            "frontier_bytes": stored,
            "learning_rate": trained.learning_rate,
            "tuning_batch_size": trained.batch_size,
        }


def _verdict(report: dict[str, Any]) -> str:
    kept = "the fine-tuned model" if report["kept"] == "tuned" else "the head, on all samples,"
    return (
        f"held-out score: head {report['head_score']:.3f}, fine-tuned {report['tuned_score']:.3f}; "
        f"{kept} is kept"
    )


class _PixelReader:
    """Reads samples as the backbone takes them, in any order.

    Parameters
    ----------
    samples : Samples
    rows : ndarray of int64
        Of the samples that may be asked for.
    shape : tuple of int
        Of one input.
    """

    def __init__(self, samples: Samples, rows: np.ndarray, shape: tuple[int, ...]) -> None:
        self._samples, self._rows, self._shape = samples, rows, shape

    def __call__(self, rows: np.ndarray) -> list[np.ndarray]:
        wanted = self._rows[rows]
        order = np.argsort(wanted, kind="stable")
        _, inputs, faults = self._samples.batch(wanted[order], self._shape)
        if faults:
            raise BadSampleError(faults, len(self._samples))
        read = np.empty((len(rows), *self._shape), np.float32)
        read[order] = inputs
        return [read]


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
