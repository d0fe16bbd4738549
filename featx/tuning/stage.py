"""The fine-tuning stage: from samples, labels and a head to what is kept.

embeddings and activations at the frontier, in one pass, through the cache
-> head on the training part -> the same head in Keras -> trained above the frontier
-> judged on the held-out part: the tuned backbone with its head, or the head on all samples
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import check_random_state

from featx.engines.forking import check_can_run
from featx.exceptions import InputError
from featx.extractor import FeatureExtractor
from featx.heads.fitting import as_head_input
from featx.networks.augmentation import Augmentation
from featx.networks.models import undisturbed_seed
from featx.progress import say
from featx.samples.base import Samples
from featx.samples.versions import versions_of
from featx.storage.cache import EmbeddingCache
from featx.training_data import check_vectors, rows_that_were_read
from featx.tuning.contest import Contest, Outcome
from featx.tuning.data import Data
from featx.tuning.objectives import check_task
from featx.tuning.params import FineTune
from featx.tuning.plan import Plan
from featx.tuning.readers import PixelReader, Reader


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
            others = () if plan.why_pixels else plan.frontier.activations
            embeddings = np.asarray(
                extractor.transform_storing(samples, others, embedding=plan.frontier.embedding)
            )
            rows = np.flatnonzero(rows_that_were_read(embeddings))
            data_read = data.take(rows)
            if not (len(data_read.train) and len(data_read.held)):
                raise InputError("no sample could be read of those to train on, or to judge by")
            keys, read = _inputs(plan, samples, rows, cache)
            can_resume = random_state is not None and kept_in is not None
            folder = cache.path / "tuning" if can_resume else None
            with plan.backbone.settings.applied():
                contest = Contest(plan, new_head, keys, read, data_read, seed=seed)
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
    if plan.why_pixels:
        return keys, PixelReader(samples, rows, shape)
    all_keys = keys[np.newaxis]
    if plan.params.views:
        all_keys = np.concatenate([all_keys, _stored_versions(plan, samples, rows, keys, cache)])
    if not all(plan.frontier.are_stored(cache, each) for each in all_keys):
        plan.why_pixels = "the activations could not be stored"  # of which a warning said why
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
        extractor.transform_storing(changed, frontier.activations, embedding=frontier.embedding)
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
