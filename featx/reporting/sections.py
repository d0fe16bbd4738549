"""The sections of a report as plain data, made from held-out predictions and the samples."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import stats
from sklearn.utils import Bunch

from featx._text import one_line
from featx._training_data import readable_mask
from featx.evaluation.comparison import p_values
from featx.evaluation.duplicates import copies_among, near_duplicates
from featx.evaluation.image_checks import find_image_issues
from featx.evaluation.label_issues import find_label_issues
from featx.evaluation.outliers import find_outliers
from featx.evaluation.pixel_hashes import ImageHashes
from featx.exceptions import InputError, ParameterError
from featx.inputs.samples import Samples
from featx.reporting.findings import confused_pairs, losses_of, mistakes_of
from featx.reporting.held_out import HeldOut

N_LISTED = 120  # samples of a list that have pictures
_N_PAIRS = 8  # of confused classes
_N_EXAMPLES = 6  # pictures of a pair
_N_PAIRS_LISTED = 60
_N_OF_ISSUE = 12  # samples
_ABOUT_ISSUES = {
    "dark": "Nearly all pixels are dark.",
    "bright": "Nearly all pixels are bright.",
    "low contrast": "Nearly all pixels are of similar brightness.",
    "blurred": "Edges are not sharp.",
    "tiny": "Far smaller than usual.",
    "odd shape": "Far more elongated than usual.",
}
_MOST_COMPARED = 100_000  # rows; the time for near-duplicates grows with their square


class SampleNames:
    """The names of samples, without the folder that all paths have in common.

    Parameters
    ----------
    samples : Samples
    rows : ndarray of int64
        Rows of the samples that are named.

    Attributes
    ----------
    folder : str
        The common folder; empty if the samples are not files.
    """

    def __init__(self, samples: Samples, rows: np.ndarray) -> None:
        self._samples = samples
        names = [samples.name(int(row)) for row in rows]
        are_paths = all(os.sep in name for name in names)
        folder = os.path.commonpath([os.path.dirname(name) for name in names]) if are_paths else ""
        self.folder = folder

    def __getitem__(self, row: int) -> str:
        name = self._samples.name(row)
        return one_line(os.path.relpath(name, self.folder)) if self.folder else f"row {row}"


class Describer(NamedTuple):
    """Held-out predictions and names, from which the entries of lists are made."""

    held_out: HeldOut
    names: SampleNames
    losses: np.ndarray

    @classmethod
    def of(cls, held_out: HeldOut, samples: Samples) -> Self:
        """Prepare the names and losses of all samples."""
        return cls(held_out, SampleNames(samples, held_out.rows), losses_of(held_out))

    def sample(self, place: int, **more: Any) -> dict[str, Any]:
        """Return the entry of the sample at a place of the held-out arrays."""
        held_out = self.held_out
        row = int(held_out.rows[place])
        entry = {
            "row": row,
            "name": self.names[row],
            "label": label_text(held_out.y_true[place]),
            "predicted": label_text(held_out.y_pred[place]),
            "loss": float(self.losses[place]),
        }
        if held_out.proba is not None:
            entry["confidence"] = float(held_out.proba[place].max())
        return entry | more

    def certainty(self, place: int) -> str:
        """Return the probability of the predicted class, or the loss, as text."""
        if self.held_out.proba is not None:
            return f"probability: {self.held_out.proba[place].max():.2f}"
        return f"loss: {self.losses[place]:.4g}"

    def samples(self, places: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return the entries of several samples."""
        return [self.sample(int(place)) for place in places]


def label_text(label: Any) -> str:
    """Return a label, or a value, or those of several outputs, as text."""
    if isinstance(label, np.ndarray):
        return ", ".join(map(label_text, label))
    return f"{label:.4g}" if isinstance(label, (float, np.floating)) else str(label)


def mistakes_section(describer: Describer) -> dict[str, Any]:
    """Return the mistakes, the worst first, and the pairs of classes that are confused."""
    held_out = describer.held_out
    mistakes = mistakes_of(held_out)
    section: dict[str, Any] = {
        "n_mistakes": len(mistakes),
        "mistakes": describer.samples(mistakes[:1000]),
        "confused": [],
    }
    if held_out.task == "classes":
        section["confused"] = [
            {**pair, "examples": describer.samples(places[:_N_EXAMPLES] if rank < _N_PAIRS else [])}
            for rank, (pair, places) in enumerate(confused_pairs(held_out, mistakes))
        ]
    return section


def labels_section(describer: Describer, cv: Any) -> dict[str, Any] | None:
    """Return the suspect labels; the reason where they cannot be found; None without classes."""
    held_out = describer.held_out
    if held_out.task != "classes":
        return None
    largest = Counter(held_out.y_true.tolist()).most_common(1)[0][1]
    n_folds = max(2, min(cv if isinstance(cv, int) else 5, largest))
    try:
        found = find_label_issues(
            held_out.embeddings, held_out.y_true, groups=held_out.groups, cv=n_folds
        )
    except (InputError, ParameterError) as exc:
        return {"skipped": str(exc)}
    return {
        "n_expected": found.n_expected,
        "n_expected_interval": list(found.n_expected_interval),
        "suspects": [
            describer.sample(
                int(place),
                suggested=label_text(found.suggested[place]),
                score=float(found.scores[place]),
            )
            for place in found.indices
        ],
    }


def data_section(describer: Describer, samples: Samples, *, are_images: bool) -> dict[str, Any]:
    """Return how many samples there are, of which classes, and which could not be read."""
    held_out = describer.held_out
    unread = np.setdiff1d(np.arange(len(samples)), held_out.rows)
    section: dict[str, Any] = {
        "n_samples": len(samples),
        "n_read": len(held_out.rows),
        "noun": "images" if are_images else "samples",
        "folder": one_line(describer.names.folder),
        "unread": [one_line(samples.name(int(row))) for row in unread],
        "n_groups": None if held_out.groups is None else len(np.unique(held_out.groups)),
        "classes": {},
    }
    if held_out.task == "classes":
        section["classes"] = dict(Counter(map(str, held_out.y_true)).most_common())
    elif held_out.task == "values":
        low, middle, high = np.quantile(held_out.y_true, [0, 0.5, 1])
        section["values"] = {"min": float(low), "median": float(middle), "max": float(high)}
    return section


def images_section(describer: Describer, images: Bunch | None) -> dict[str, Any]:
    """Return outliers, and images that are dark, blurred, tiny, ..., by issue, and their sizes."""
    held_out = describer.held_out
    _, far = find_outliers(held_out.embeddings)
    outliers = {"n": len(far), "samples": describer.samples(far[:_N_OF_ISSUE])}
    if images is None:
        return {"outliers": outliers, "image_issues": {}, "sizes": None}
    places = {int(row): place for place, row in enumerate(held_out.rows)}
    issues = {}
    for issue, about in _ABOUT_ISSUES.items():
        found = [places[row] for row in images.issues[issue].tolist() if row in places]
        if found:
            listed = describer.samples(found[:_N_OF_ISSUE])
            issues[issue] = {"n": len(found), "about": about, "samples": listed}
    sizes = np.column_stack([images.width, images.height])[held_out.rows]
    sizes = sizes[np.argsort(sizes.prod(axis=1))]
    named = dict(zip(("smallest", "median", "largest"), (0, len(sizes) // 2, -1), strict=True))
    return {
        "outliers": outliers,
        "image_issues": issues,
        "sizes": {name: sizes[place].tolist() for name, place in named.items()},
    }


def model_section(held_out: HeldOut) -> dict[str, Any]:
    """Return what was evaluated: backbone, layer, pooling, head, and the space of the rows."""
    extractor, estimator = held_out.extractor, held_out.estimator
    return {
        "estimator": type(estimator).__name__,
        "backbone": one_line(extractor.label),
        "head": name_of_head(estimator.head),
        "fine_tune": None if estimator.fine_tune is None else str(estimator.fine_tune),
        "n_features": int(held_out.embeddings.shape[1]),
        "space": extractor.space_digest_,
        "weights": _weights_text(extractor.weights),
        "layer": f"layer {extractor.layer!r}" if extractor.layer else "output of the network",
        "input_shape": list(extractor.space_.description["input_shape"]),
        "resize": extractor.resize,
        "precision": extractor.precision,
    }


def _weights_text(weights: Any) -> str:
    """Return the kind of weights, or the name of their file without its folder."""
    return "random" if weights is None else one_line(os.path.basename(os.fspath(weights)))


def name_of_head(head: Any) -> str:
    """Return the name of a head, or the classes of its steps."""
    if isinstance(head, str):
        return head
    steps = [step for _, step in head.steps] if hasattr(head, "steps") else [head]
    return " + ".join(type(step).__name__ for step in steps)


def comparison_section(held_outs: Sequence[HeldOut]) -> list[dict[str, Any]]:
    """Return the scores of several estimators; the first is the one that is described.

    Over folds, the p-value is that of :func:`featx.evaluation.comparison.p_values` against the
    first estimator. On test samples, it is McNemar's exact test for labels, and Wilcoxon's
    signed-rank test of absolute errors for values.
    """
    if len(held_outs) < 2:
        return []
    first = held_outs[0]
    rows = []
    for held_out in held_outs:
        scores = held_out.fold_scores()
        p_value = 1.0 if held_out is first else _p_value(first, held_out)
        rows.append(
            {
                "name": f"{held_out.extractor.label}, {name_of_head(held_out.estimator.head)}",
                "mean": float(np.mean(scores)),
                "spread": float(np.std(scores)),
                "scores": scores,
                "p_value": p_value,
                "differs": p_value < 0.05,
            }
        )
    return rows


def _p_value(first: HeldOut, other: HeldOut) -> float:
    if first.fold.max() > 0:
        return min(p_values([first.fold_scores(), other.fold_scores()]))
    if first.task == "values":
        errors = [np.abs(each.y_true - each.y_pred).ravel() for each in (first, other)]
        is_same = np.array_equal(*errors)
        return 1.0 if is_same else float(stats.wilcoxon(*errors).pvalue)
    right = [each.is_right() for each in (first, other)]
    n_first, n_other = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    n_apart = n_first + n_other
    return 1.0 if not n_apart else float(stats.binomtest(n_first, n_apart).pvalue)


def duplicates_section(
    describer: Describer, images: Bunch | None, training: Samples | None
) -> dict[str, Any]:
    """Return near-duplicates, those with different labels or in different parts first.

    Parts are folds; with test samples and the `training` samples of their model, the two sets.
    """
    held_out = describer.held_out
    n_test, embeddings = len(held_out.rows), held_out.embeddings
    hashes = None if images is None else ImageHashes.of_issues(images, held_out.rows)
    if training is not None:
        known = np.asarray(held_out.extractor.transform(training))
        rows = np.flatnonzero(readable_mask(known))
        embeddings = np.concatenate([embeddings, known[rows]])
        if hashes is not None:
            hashes = hashes.joined(ImageHashes.of_issues(find_image_issues(training), rows))
    if len(embeddings) > _MOST_COMPARED:
        return {"skipped": f"more than {_MOST_COMPARED:,} samples are not compared"}
    found = near_duplicates(embeddings) if hashes is None else copies_among(embeddings, hashes)
    is_of_test = found.pairs[:, 0] < n_test
    first, second = found.pairs[is_of_test].T
    return _Pairs(first, second, found.similarity[is_of_test], n_test).section(describer)


class _Pairs(NamedTuple):
    """Pairs of near-duplicates; places from `n_test` on are training samples."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    n_test: int

    def section(self, describer: Describer) -> dict[str, Any]:
        """Return the numbers of pairs, and the entries of the first ones."""
        held_out = describer.held_out
        is_known = self.second >= self.n_test
        inside = np.where(is_known, self.first, self.second)
        is_across = is_known | (held_out.fold[self.first] != held_out.fold[inside])
        is_contradicting = np.zeros(len(self.first), bool)
        if held_out.task != "values":
            labels = held_out.y_true.reshape(self.n_test, -1)
            is_contradicting = (labels[self.first] != labels[inside]).any(axis=1)
        order = np.argsort(-(2 * is_contradicting + is_across), kind="stable")
        copied = np.concatenate([self.first[is_across], inside[is_across]])
        others = np.setdiff1d(np.arange(self.n_test), copied)
        without = held_out.score(held_out.y_true[others], held_out.y_pred[others])
        return {
            "n_pairs": len(self.first),
            "n_across": int(is_across.sum()),
            "n_in_training": int(is_known.sum()),
            "n_contradicting": int(is_contradicting.sum()),
            "score_without": without if len(others) else None,  # samples with a copy elsewhere
            "pairs": [
                {
                    "first": self._entry(describer, self.first[pair]),
                    "second": self._entry(describer, self.second[pair]),
                    "similarity": float(self.similarity[pair]),
                    "is_across": bool(is_across[pair]),
                    "is_contradicting": bool(is_contradicting[pair]),
                }
                for pair in order[:_N_PAIRS_LISTED]
            ],
        }

    def _entry(self, describer: Describer, place: int) -> dict[str, Any]:
        if place < self.n_test:
            return describer.sample(int(place))
        return {"row": -1, "name": "a training sample", "label": "", "predicted": ""}


def fine_tuning_section(held_out: HeldOut) -> dict[str, Any] | None:
    """Return what the report of a fitted estimator says of its fine-tuning; None without one."""
    report = getattr(held_out.estimator, "report_", {})
    names = ("kept", "head_score", "tuned_score", "best_epoch", "epoch_s", "unfrozen", "history")
    return {name: report.get(name) for name in names} if "history" in report else None


def cost_section(held_out: HeldOut) -> dict[str, Any]:
    """Return what the pass took: forward passes, seconds, images per second and bytes."""
    report = held_out.extractor.report_
    seconds = float(sum(report.seconds.values()))
    return {
        "n_forward": int(report.n_forward),
        "n_hits": int(report.n_hits),
        "seconds": seconds,
        "images_per_s": report.n_forward / seconds if report.n_forward and seconds else None,
        "engine": report.engine,
        "embedding_bytes": int(held_out.embeddings.nbytes),
    }
