"""cards_of, answers_of: the numbers at the top of a page, and the answers to what readers ask."""

from __future__ import annotations

from typing import Any, NamedTuple

from featx.reporting.advice import CALIBRATED, percent
from featx.reporting.held_out import TEST_SAMPLES


class Answer(NamedTuple):
    """A question that a reader has, its answer, and the section that shows more."""

    question: str
    text: str
    section: str


class Card(NamedTuple):
    """A number at the top of the page."""

    value: str
    name: str
    note: str


def cards_of(data: dict[str, Any]) -> list[Card]:
    """Return the numbers at the top of the page."""
    cards = _cards_of_values(data) if data["task"] == "values" else _cards_of_labels(data)
    issues, copies = data["label_issues"] or {}, data["duplicates"]
    if "n_expected" in issues:
        low, high = issues["n_expected_interval"]
        ends = f"{low:.0f} to {high:.0f}"
        cards.append(Card(f"{issues['n_expected']:.0f}", "wrong labels expected", ends))
    if "n_pairs" in copies:
        is_on_test = data["split"].endswith(TEST_SAMPLES)
        with_training = f"{copies['n_in_training']:,} with a training sample"
        across = with_training if is_on_test else f"{copies['n_across']:,} in different folds"
        cards.append(Card(f"{copies['n_pairs']:,}", "near-duplicate pairs", across))
    return cards


def _cards_of_values(data: dict[str, Any]) -> list[Card]:
    metrics, ends = data["metrics"], data["metrics"]["intervals"]
    low, high = ends["r2"]
    least, most = ends["mean_absolute_error"]
    error, baseline = (part["mean_absolute_error"] for part in (metrics, data["baselines"]))
    return [
        Card(f"{metrics['r2']:.3f}", "R²", f"{low:.3f} to {high:.3f}"),
        Card(f"{error:.4g}", "mean absolute error", f"{least:.4g} to {most:.4g}"),
        Card(f"{baseline:.4g}", "baseline error", "always the mean"),
    ]


def _cards_of_labels(data: dict[str, Any]) -> list[Card]:
    metrics, is_single = data["metrics"], data["task"] == "classes"
    low, high = metrics["intervals"]["accuracy"]
    score = "accuracy" if is_single else "all labels right"
    most_frequent = f"always the most frequent {'class' if is_single else 'labels'}"
    return [
        Card(percent(metrics["accuracy"]), score, f"{percent(low)} to {percent(high)}"),
        Card(f"{data['n_mistakes']:,}", "mistakes", f"of {data['data']['n_read']:,}"),
        Card(percent(data["baselines"]["majority"]), "baseline accuracy", most_frequent),
    ]


def answers_of(data: dict[str, Any]) -> list[Answer]:
    """Return the answers to what readers ask first."""
    answers = [
        Answer("How good is it?", _how_good(data), "scores"),
        Answer("How sure is that?", _how_sure(data), "scores"),
        Answer("Where is it wrong?", _where_wrong(data), "mistakes"),
    ]
    if data["comparison"]:
        answers.append(Answer("Which model?", _which_model(data["comparison"]), "scores"))
    if data["label_issues"] is not None:
        suspects = _which_labels(data["label_issues"])
        answers.append(Answer("Which labels look wrong?", suspects, "labels"))
    return answers


def _how_good(data: dict[str, Any]) -> str:
    metrics, baselines = data["metrics"], data["baselines"]
    if data["task"] == "values":
        explained = f"explains {percent(metrics['r2'])} of the variance"
        if metrics["r2"] <= 0:
            explained = "is no better than always predicting the mean"
        return (
            f"The model {explained}. Its mean "
            f"absolute error is {metrics['mean_absolute_error']:.4g}; that of always predicting "
            f"the mean is {baselines['mean_absolute_error']:.4g}."
        )
    is_single = data["task"] == "classes"
    right = "predictions are right" if is_single else "samples have all labels right"
    return (
        f"{percent(metrics['accuracy'])} of {data['data']['n_read']:,} {right}. Always predicting "
        f"the most frequent {'class' if is_single else 'labels'} would be right for "
        f"{percent(baselines['majority'])}, and guessing by frequency for "
        f"{percent(baselines['chance'])}."
    )


def _how_sure(data: dict[str, Any]) -> str:
    metrics = data["metrics"]
    if data["task"] == "values":
        low, high = metrics["intervals"]["r2"]
        return f"R² is between {low:.3f} and {high:.3f} (95% interval). {_held_out_text(data)}"
    low, high = metrics["intervals"]["accuracy"]
    text = (
        f"The accuracy on such {data['data']['noun']} is between {percent(low)} and "
        f"{percent(high)} (95% interval). {_held_out_text(data)}"
    )
    return f"{text} {calibration_text(data)}".strip()


def _held_out_text(data: dict[str, Any]) -> str:
    if data["caveat"]:
        return data["caveat"]
    text = f"All predictions are for samples that the model was not trained on: {data['split']}."
    return f"{text} {_copies_text(data['duplicates'])}".strip()


def _copies_text(duplicates: dict[str, Any]) -> str:
    """Return what copies in other folds do to the score; empty if there are none."""
    if not duplicates.get("n_across") or duplicates["score_without"] is None:
        return ""
    return (
        "But some have a near-duplicate among the training samples: without them, the score is "
        f"{duplicates['score_without']:.3f}."
    )


def calibration_text(data: dict[str, Any]) -> str:
    """Return how far probabilities can be trusted; empty if there are none."""
    calibration = data["metrics"].get("calibration")
    if calibration is None:
        return ""
    gap = f"{100 * calibration['error']:.1f} points"
    differ = f"Probabilities differ from the accuracy by {gap} on average"
    if calibration["error"] < CALIBRATED:
        return f"{differ}, which is little."
    if not calibration["tendency"]:
        return f"{differ}, which may be chance."
    found = f"{differ}: the model is {calibration['tendency']}."
    if calibration["temperature"] is None:
        return f"{found} No temperature from 0.01 to 100 corrects that."
    return (
        f"{found} Logits divided by a temperature of {calibration['temperature']:.2f} would fit "
        "best."
    )


def _where_wrong(data: dict[str, Any]) -> str:
    if data["task"] == "values":
        return "The samples with the largest errors are listed with their pictures."
    if not data["n_mistakes"]:
        return "Nowhere: all predictions are right."
    if data["task"] == "labels":
        return f"{data['n_mistakes']:,} samples have a wrong label."
    worst = data["confused"][:3]
    pairs = ", ".join(f"{p['true']!r} predicted as {p['predicted']!r} ({p['n']:,})" for p in worst)
    classes = {n: each for n, each in data["metrics"]["classes"].items() if each["support"]}
    weakest = min(classes, key=lambda name: classes[name]["recall"])
    return (
        f"The most frequent mistakes are {pairs}. The recall of {weakest!r} is the lowest: "
        f"{round(classes[weakest]['recall'] * classes[weakest]['support']):,} of "
        f"{classes[weakest]['support']:,} are found."
    )


def _which_model(comparison: list[dict[str, Any]]) -> str:
    """Return how the first model compares with the others."""
    first, *others = comparison
    texts = []
    for row in others:
        direction = "better" if row["mean"] > first["mean"] else "worse"
        clear = direction if row["differs"] else "no clear difference"
        texts.append(f"{row['name']}: {row['mean']:.3f} ({clear})")
    return f"This page describes {first['name']}: {first['mean']:.3f}. {'; '.join(texts)}."


def _which_labels(issues: dict[str, Any]) -> str:
    if issues.get("skipped"):
        return f"Not computed: {issues['skipped']}"
    if not issues["suspects"]:
        return "No label is suspect."
    low, high = issues["n_expected_interval"]
    first = ", ".join(sample["name"] for sample in issues["suspects"][:3])
    return (
        f"About {issues['n_expected']:.0f} labels are expected to be wrong ({low:.0f} to "
        f"{high:.0f}). The most suspect are {first}."
    )
