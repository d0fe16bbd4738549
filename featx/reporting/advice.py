"""What to do next, derived from the data of a report, the most useful step first."""

from __future__ import annotations

from typing import Any, NamedTuple

_NOTABLE = 0.01  # a point of the score
CALIBRATED = 0.05  # mean gap between probability and accuracy
_FEW_SAMPLES = 20  # of a class
_WIDE = 0.1  # an interval of accuracy
FEW_SUSPECTS, N_LISTED = 10, 96  # that are listed at least, and samples of a list at most


class Advice(NamedTuple):
    """A step, why it is suggested, and the section of the page that shows it."""

    step: str
    reason: str
    section: str


def advice_for(data: dict[str, Any]) -> list[Advice]:
    """Return what to do next, from the data of a report (see :meth:`Report.to_dict`)."""
    rules = (
        _on_unread,
        _on_baseline,
        _on_duplicates,
        _on_labels,
        _on_images,
        _on_comparison,
        _on_weakest_class,
        _on_small_classes,
        _on_more_data,
        _on_probabilities,
        _on_width,
    )
    return [advice for rule in rules for advice in rule(data)]


def percent(fraction: float) -> str:
    """Return a fraction as text.

    Examples
    --------
    >>> percent(0.8315)
    '83.2%'
    """
    return f"{fraction:.1%}"


def probability(value: float) -> str:
    """Return a probability as text, which is 100% only if it is 1.

    Examples
    --------
    >>> probability(0.99999), probability(1.0)
    ('>99.9%', '100.0%')
    """
    return percent(value) if value in (0, 1) or value < 0.9995 else ">" + percent(0.999)


def learning_curve_text(data: dict[str, Any]) -> str:
    """Return what the last doubling of the training samples changed; empty without a curve."""
    curve = data["learning_curve"]
    if not curve:
        return ""
    before, now = curve["n_train"][-2:]
    gain, error = curve["gain"], curve["gain_error"]
    changed = f"the accuracy changed by {100 * gain:+.1f} points"
    varies = f"{100 * error:.1f} points"
    if data["task"] == "values":
        changed, varies = f"R² changed by {gain:+.3f}", f"{error:.3f}"
    clear = "" if abs(gain) > 2 * error or not gain else ", so it may be chance"
    return (
        f"From {before:,} to {now:,} training {data['data']['noun']}, {changed}. The standard "
        f"error of the change is {varies}{clear}."
    )


def _on_unread(data: dict[str, Any]) -> list[Advice]:
    n_unread = len(data["data"]["unread"])
    if not n_unread:
        return []
    reason = f"{n_unread:,} images could not be read, and no number of this report includes them."
    return [Advice("Replace or remove the unreadable images", reason, "images")]


def _on_baseline(data: dict[str, Any]) -> list[Advice]:
    if data["task"] == "values":
        low, high = data["metrics"]["intervals"]["r2"]
        if low > 0:
            return []
        reason = (
            f"R² is not clearly above 0, that of the mean: its interval is {low:.3f} to {high:.3f}."
        )
        return [Advice("Do not use this model yet", reason, "scores")]
    if is_better_than_majority(data):
        return []
    low, high = data["metrics"]["intervals"]["accuracy"]
    majority = data["baselines"]["majority"]
    comparison = "is below that" if high < majority else "is not clearly above that"
    reason = (
        f"Always predicting what is most frequent would be right for {percent(majority)}. The "
        f"accuracy {comparison}: its interval is {percent(low)} to {percent(high)}."
    )
    return [Advice("Do not use this model yet", reason, "scores")]


def is_better_than_majority(data: dict[str, Any]) -> bool:
    """Return True if a classifier is clearly better than predicting the most frequent class."""
    low, _ = data["metrics"]["intervals"]["accuracy"]
    return bool(low > data["baselines"]["majority"])


def _on_labels(data: dict[str, Any]) -> list[Advice]:
    issues = data.get("label_issues") or {}
    if not issues.get("suspects") or issues["n_expected"] < 1 or not is_better_than_majority(data):
        return []
    low, high = issues["n_expected_interval"]
    n_first = n_first_suspects(data)
    reason = (
        f"About {issues['n_expected']:.0f} of {data['data']['n_read']:,} labels are expected to be "
        f"wrong ({low:.0f} to {high:.0f}). Correct those that are, and fit again."
    )
    return [Advice(f"Look at the first {n_first} suspect labels", reason, "labels")]


def n_first_suspects(data: dict[str, Any]) -> int:
    """Return how many suspect labels are worth a look: twice the number expected to be wrong."""
    issues = data["label_issues"] or {}
    n_worthwhile = max(FEW_SUSPECTS, round(2 * issues.get("n_expected", 0)))
    return min(len(issues.get("suspects", [])), n_worthwhile, N_LISTED)


def _on_duplicates(data: dict[str, Any]) -> list[Advice]:
    found = data.get("duplicates") or {}
    advice = []
    if found.get("n_in_training"):
        reason = (
            f"{found['n_in_training']:,} pairs of near-duplicates have one image in the training "
            "samples and one in the test samples, so the scores may be too high."
        )
        advice.append(Advice("Remove the copies from the test samples", reason, "duplicates"))
    elif found.get("n_across"):
        reason = (
            f"{found['n_across']:,} pairs of near-duplicates are in different folds, so the scores "
            "may be too high. Remove the copies, or pass groups=, as near_duplicates(embeddings, "
            "images=images).groups returns it, to report and to cross-validation."
        )
        advice.append(Advice("Keep near-duplicates together", reason, "duplicates"))
    if found.get("n_contradicting"):
        reason = f"{found['n_contradicting']:,} pairs of near-duplicates have different labels."
        advice.append(
            Advice("Decide which label of these near-duplicates is right", reason, "duplicates")
        )
    return advice


def _on_images(data: dict[str, Any]) -> list[Advice]:
    issues = {issue: found["n"] for issue, found in data["image_issues"].items()}
    if data["outliers"]["n"]:
        issues["far from all others"] = data["outliers"]["n"]
    if not issues:
        return []
    counts = ", ".join(f"{n:,} {'is' if n == 1 else 'are'} {issue}" for issue, n in issues.items())
    reason = f"{counts}; an image can be several of these."
    return [Advice("Check whether these images belong to the data", reason, "images")]


def _on_comparison(data: dict[str, Any]) -> list[Advice]:
    first, *others = data.get("comparison") or [None]
    better = [row for row in others if row["mean"] > first["mean"] and row["differs"]]
    if not better:
        return []
    best = max(better, key=lambda row: row["mean"])
    reason = (
        f"Its mean score is {best['mean']:.3f}, and that of {first['name']}, which this page "
        f"describes, is {first['mean']:.3f} (p = {best['p_value']:.2g})."
    )
    return [Advice(f"Prefer {best['name']}", reason, "scores")]


def _on_weakest_class(data: dict[str, Any]) -> list[Advice]:
    if data["task"] != "classes" or not data["confused"]:
        return []
    metrics = data["metrics"]
    supported = {name: each for name, each in metrics["classes"].items() if each["support"]}
    name = min(supported, key=lambda name: supported[name]["recall"])
    recall = supported[name]["recall"]
    if recall > metrics["macro"]["recall"] - 2 * _NOTABLE:
        return []
    pairs = [pair for pair in data["confused"] if pair["true"] == name]
    low, high = metrics["intervals"]["classes"][name]["recall"]
    reason = (
        f"Its recall is the lowest: {percent(recall)} ({percent(low)} to {percent(high)}). The "
        f"most frequent mistake is {pairs[0]['predicted']!r} ({pairs[0]['n']:,} times)."
    )
    step = (
        f"Look at the images of {name!r}"
        if _on_more_data(data)
        else f"Collect more images of {name!r}"
    )
    return [Advice(step, reason, "confusion")]


def _on_small_classes(data: dict[str, Any]) -> list[Advice]:
    if data["task"] != "classes":
        return []
    small = {name: n for name, n in data["data"]["classes"].items() if n < _FEW_SAMPLES}
    if not small:
        return []
    shown = ", ".join(f"{name!r} ({n})" for name, n in list(small.items())[:5])
    more = f", and {len(small) - 5} more" if len(small) > 5 else ""
    reason = f"Fewer than {_FEW_SAMPLES} images each: {shown}{more}. Their scores are uncertain."
    return [Advice("Collect images of the small classes", reason, "data")]


def _on_more_data(data: dict[str, Any]) -> list[Advice]:
    curve = data.get("learning_curve")
    if not curve or len(curve["mean"]) < 2:
        return []
    reason, noun = learning_curve_text(data), data["data"]["noun"]
    gain, error = curve["gain"], curve["gain_error"]
    if gain >= _NOTABLE and gain > 2 * error:
        return [Advice(f"Collect more {noun}: they may raise the score", reason, "curve")]
    if gain + 2 * error < 2 * _NOTABLE:
        return [Advice(f"Do not expect much from more {noun} of the same kind", reason, "curve")]
    return []


def _on_probabilities(data: dict[str, Any]) -> list[Advice]:
    calibration = data["metrics"].get("calibration")
    if not calibration or calibration["error"] < CALIBRATED or not calibration["tendency"]:
        return []
    reason = (
        f"The model is {calibration['tendency']}: probabilities differ from the accuracy by "
        f"{100 * calibration['error']:.1f} points on average. scikit-learn's "
        "CalibratedClassifierCV can correct this."
    )
    return [Advice("Do not take the probabilities at face value", reason, "calibration")]


def _on_width(data: dict[str, Any]) -> list[Advice]:
    if data["task"] != "classes":
        return []
    low, high = data["metrics"]["intervals"]["accuracy"]
    if high - low < _WIDE:
        return []
    reason = (
        f"With {data['metrics']['n_samples']:,} samples, the interval of the accuracy is "
        f"{100 * (high - low):.0f} points wide."
    )
    return [Advice("Evaluate on more images before comparing models", reason, "scores")]
