"""The sections of a report as plain data, made from held-out predictions and the samples."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import stats
from sklearn.utils import Bunch

from featx._targets import comparable
from featx._text import one_line
from featx._training_data import readable_mask
from featx.backbones.registry import PRETRAINED
from featx.backbones.stored_weights import name_of_weights
from featx.evaluation.comparison import p_values
from featx.evaluation.duplicates import copies_among, near_duplicates
from featx.evaluation.folds import n_possible_folds
from featx.evaluation.image_checks import find_image_issues
from featx.evaluation.label_issues import find_label_issues
from featx.evaluation.outliers import find_outliers
from featx.evaluation.pixel_hashes import ImageHashes
from featx.exceptions import InputError, ParameterError
from featx.inputs.samples import Samples
from featx.reporting.findings import confused_pairs, losses_of, mistakes_of
from featx.reporting.held_out import HeldOut

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
    """The names of samples, without the folder that all files have in common.

    Parameters
    ----------
    samples : Samples
    rows : ndarray of int64
        Rows of the samples that are named.

    Attributes
    ----------
    folder : str
        The common folder; empty if there are no files, or if they have none in common.
    """

    def __init__(self, samples: Samples, rows: np.ndarray) -> None:
        self._samples = samples
        paths = [path for row in rows.tolist() if (path := samples.path(row)) is not None]
        folders = {os.path.dirname(path) for path in paths}
        are_alike = len({os.path.isabs(folder) for folder in folders}) == 1
        self.folder = os.path.commonpath(folders) if are_alike else ""

    def __getitem__(self, row: int) -> str:
        path = self._samples.path(row)
        if path is None:
            return f"row {row}"
        return one_line(os.path.relpath(path, self.folder) if self.folder else path)


class Describer(NamedTuple):
    """Held-out predictions and names, from which the entries of lists are made."""

    held_out: HeldOut
    names: SampleNames
    losses: np.ndarray
    confidences: np.ndarray | None

    @classmethod
    def of(cls, held_out: HeldOut, samples: Samples) -> Self:
        """Prepare the names and losses of all samples."""
        names = SampleNames(samples, held_out.rows)
        return cls(held_out, names, losses_of(held_out), held_out.confidences())

    def sample(self, place: int, **more: Any) -> dict[str, Any]:
        """Return the entry of the sample at a place of the held-out arrays."""
        held_out = self.held_out
        row = int(held_out.rows[place])
        entry = {
            "row": row,
            "name": self.names[row],
            "label": self.text(held_out.y_true[place]),
            "predicted": self.text(held_out.y_pred[place]),
            "loss": float(self.losses[place]),
        }
        if self.confidences is not None:
            entry["confidence"] = float(self.confidences[place])
        return entry | more

    def text(self, label: Any) -> str:
        """Return a label, or a value, or those of several outputs, as text."""
        if isinstance(label, np.ndarray):
            return ", ".join(map(self.text, label))
        return f"{label:.4g}" if self.held_out.task == "values" else str(label)

    def certainty(self, place: int) -> str:
        """Return the probability of the predicted class, or the loss, as text."""
        if self.confidences is not None:
            return f"probability: {self.confidences[place]:.2f}"
        return f"loss: {self.losses[place]:.4g}"

    def samples(self, places: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return the entries of several samples."""
        return [self.sample(int(place)) for place in places]


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


def labels_section(describer: Describer, copies: np.ndarray | None) -> dict[str, Any] | None:
    """Return the suspect labels; the reason where they cannot be found; None without classes.

    Samples of a group stay in one fold; without groups, near-duplicates do, whose groups are
    `copies`.
    """
    held_out = describer.held_out
    if held_out.task != "classes":
        return None
    groups = copies if held_out.groups is None else held_out.groups
    n_folds = n_possible_folds(held_out.y_true, groups)
    try:
        found = find_label_issues(held_out.embeddings, held_out.y_true, groups=groups, cv=n_folds)
    except (InputError, ParameterError) as exc:
        return {"skipped": str(exc)}
    return {
        "n_expected": found.n_expected,
        "n_expected_interval": list(found.n_expected_interval),
        "suspects": [
            describer.sample(
                int(place),
                suggested=describer.text(found.suggested[place]),
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
        "params": {
            str(name): str(value) for name, value in (extractor.backbone_params or {}).items()
        },
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
    """Return the name of the file of weights without its folder; empty for the published ones."""
    if weights is None:
        return "random weights"
    name = one_line(os.path.basename(name_of_weights(weights)))
    return "" if name in (PRETRAINED, "imagenet") else f"weights of {name}"


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
    if first.folds is not None:
        return min(p_values([first.fold_scores(), other.fold_scores()]))
    if first.task == "values":
        errors = [np.abs(each.y_true - each.y_pred).ravel() for each in (first, other)]
        is_same = np.array_equal(*errors)
        return 1.0 if is_same else float(stats.wilcoxon(*errors).pvalue)
    right = [each.is_right() for each in (first, other)]
    n_first, n_other = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    n_apart = n_first + n_other
    return 1.0 if not n_apart else float(stats.binomtest(n_first, n_apart).pvalue)


class TrainingSamples(NamedTuple):
    """Training samples beside test samples; `is_of_model` if the report fitted them."""

    samples: Samples
    y: np.ndarray
    is_of_model: bool


def duplicates_section(
    describer: Describer, images: Bunch | None, training: TrainingSamples | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return near-duplicates, those with different labels or in different parts first.

    Parts are folds; with test and training samples, the two sets. The second result has the groups
    that pairs connect, (n,), None if samples are too many to be compared.
    """
    held_out = describer.held_out
    embeddings, labels = held_out.embeddings, held_out.y_true
    hashes = None if images is None else ImageHashes.of_issues(images, held_out.rows)
    known_rows = np.empty(0, np.int64)
    if training is not None:
        known = np.asarray(held_out.extractor.transform(training.samples))
        known_rows = np.flatnonzero(readable_mask(known))
        embeddings = np.concatenate([embeddings, known[known_rows]])
        labels = np.concatenate(comparable(y_test=labels, y=training.y[known_rows]))
        if hashes is not None:
            issues = find_image_issues(training.samples.read_by(held_out.extractor.reader))
            hashes = hashes.joined(ImageHashes.of_issues(issues, known_rows))
    if len(embeddings) > _MOST_COMPARED:
        return {"skipped": f"more than {_MOST_COMPARED:,} samples are not compared"}, None
    found = near_duplicates(embeddings) if hashes is None else copies_among(embeddings, hashes)
    n_test = len(held_out.rows)
    is_of_test = found.pairs[:, 0] < n_test
    first, second = found.pairs[is_of_test].T
    pairs = _Pairs(first, second, found.similarity[is_of_test], labels)
    return pairs.section(describer, training, known_rows), found.groups[:n_test]


class _Pairs(NamedTuple):
    """Pairs of near-duplicates: places among the test samples, then the training samples."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    labels: np.ndarray  # of all of these samples

    def section(
        self, describer: Describer, training: TrainingSamples | None, known_rows: np.ndarray
    ) -> dict[str, Any]:
        """Return the numbers of pairs, and the entries of the first ones."""
        held_out = describer.held_out
        n_test = len(held_out.rows)
        is_known = self.second >= n_test
        inside = np.where(is_known, self.first, self.second)
        is_across = is_known | (held_out.fold[self.first] != held_out.fold[inside])
        is_contradicting = np.zeros(len(self.first), bool)
        if held_out.task != "values":
            labels = self.labels.reshape(len(self.labels), -1)
            is_contradicting = (labels[self.first] != labels[self.second]).any(axis=1)
        order = np.argsort(-(2 * is_contradicting + is_across), kind="stable")
        copied = np.concatenate([self.first[is_across], inside[is_across]])
        others = np.setdiff1d(np.arange(n_test), copied)
        without = held_out.score(held_out.y_true[others], held_out.y_pred[others])
        names = None if training is None else SampleNames(training.samples, known_rows)

        def entry(place: int) -> dict[str, Any]:
            if names is None or place < n_test:
                return describer.sample(place)
            name = f"training sample {names[int(known_rows[place - n_test])]}"
            return {"row": -1, "name": name, "label": describer.text(self.labels[place])}

        return {
            "n_pairs": len(self.first),
            "n_across": int(is_across.sum()),
            "n_in_training": int(is_known.sum()),
            "n_contradicting": int(is_contradicting.sum()),
            "score_without": without if len(others) else None,  # samples with a copy elsewhere
            "pairs": [
                {
                    "first": entry(int(self.first[pair])),
                    "second": entry(int(self.second[pair])),
                    "similarity": float(self.similarity[pair]),
                    "is_across": bool(is_across[pair]),
                    "is_contradicting": bool(is_contradicting[pair]),
                }
                for pair in order[:_N_PAIRS_LISTED]
            ],
        }


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
