"""The page of a report: one HTML file from its data, its pictures and its map."""

from __future__ import annotations

import html
from importlib.util import find_spec
from typing import Any

import numpy as np

from featx.exceptions import MissingExtraError
from featx.reporting import figures
from featx.reporting.advice import (
    FEW_SUSPECTS,
    N_LISTED,
    is_better_than_majority,
    learning_curve_text,
    n_first_suspects,
    percent,
    probability,
)
from featx.reporting.answers import answers_of, calibration_text, cards_of
from featx.reporting.held_out import HeldOut
from featx.reporting.map import MapParts, MapPoints, embedding_map
from featx.reporting.pictures import Pictures, rows_listed
from featx.reporting.projection import Projection, project
from featx.reporting.rendering import html_template, text_of
from featx.reporting.sections import Describer

_MOST_POINTS = 10_000  # of the map
_NO_FINDING = "none"

_HEADINGS = {
    "short": "In short",
    "data": "Data and model",
    "scores": "Scores",
    "confusion": "Confused classes",
    "mistakes": "Mistakes",
    "labels": "Suspect labels",
    "duplicates": "Near-duplicates",
    "images": "Unusual images",
    "map": "Map",
    "curve": "Training and cost",
}
_HEADINGS_OF_VALUES = {"confusion": "Residuals", "mistakes": "Largest errors"}


def html_page(
    data: dict[str, Any], describer: Describer, pictures: Pictures, projection: str
) -> str:
    """Return the page as text; the map has a projection of :func:`project`."""
    template = html_template("report.html")
    pictures.take(rows_listed(data, N_LISTED))
    headings = _HEADINGS | (_HEADINGS_OF_VALUES if data["task"] == "values" else {})
    held_out = describer.held_out
    places = _places_on_map(len(held_out.rows))
    placed = project(held_out.embeddings[places], projection)
    rows = held_out.rows[places]
    points = MapPoints(
        placed.xy,
        [describer.names[int(row)] for row in rows],
        _colorings(describer, places, data),
        details=[[describer.certainty(int(place))] for place in places],
        tiles=pictures.atlas(rows),
        muted={"outcome": "right", "finding": _NO_FINDING},
    )
    map_parts = embedding_map(points)
    shown = [name for name in headings if _is_shown(name, data, map_parts)]
    return template.render(
        data=data,
        title=_title(data),
        headings=[(name, headings[name]) for name in shown],
        names=headings,
        cards=cards_of(data),
        answers=answers_of(data),
        facts=_facts(data),
        scores=_scores(data),
        score_name=_score_name(data),
        by_class=_by_class(data),
        output_names=[f"Output {n}" for n in range(1, len(data["metrics"].get("outputs", [])) + 1)],
        figures=_figures(data, held_out),
        calibration_text=calibration_text(data),
        curve_text=learning_curve_text(data),
        training_text=_training_text(data),
        costs=_costs(data),
        mistakes=data["mistakes"][:N_LISTED],
        n_listed=N_LISTED,
        n_first=n_first_suspects(data),
        labels_can_be_checked=data["task"] != "classes" or is_better_than_majority(data),
        n_least=FEW_SUSPECTS,
        suspects=_first_suspects(data),
        probability=probability,
        pictures=pictures,
        map=map_parts,
        map_text=_map_text(placed, projection, (len(places), len(held_out.rows))),
        css=text_of("report.css"),
        script=text_of("report.js"),
        percent=percent,
    )


def summary_html(data: dict[str, Any]) -> str:
    """Return the numbers at the top of the page as a small table, for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(card.name)}</th>"
        f"<td>{html.escape(card.value)}</td><td>{html.escape(card.note)}</td></tr>"
        for card in cards_of(data)
    )
    title = html.escape(f"{_title(data)}, {data['split']}")
    return f"<table><caption style='text-align:left'>{title}</caption>{rows}</table>"


def check_report_packages() -> None:
    """Raise MissingExtraError if packages that write a page are not installed."""
    missing = [name for name in ("bokeh", "jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"a page needs {', '.join(missing)}: install them with pip install 'featx[report]'"
        )


def _is_shown(section: str, data: dict[str, Any], map_parts: MapParts) -> bool:
    match section:
        case "confusion":
            return data["task"] != "labels"
        case "labels":
            return data["label_issues"] is not None
        case "images":
            return bool(data["outliers"]["n"] or data["image_issues"])
        case "map":
            return bool(map_parts.body_html)
    return True


def _title(data: dict[str, Any]) -> str:
    n_samples, classes = data["data"]["n_read"], data["data"]["classes"]
    of = f" of {len(classes):,} classes" if classes else ""
    return f"Report on {n_samples:,} {data['data']['noun']}{of}"


def _score_name(data: dict[str, Any]) -> str:
    return "R²" if data["task"] == "values" else "Accuracy"


def _facts(data: dict[str, Any]) -> list[tuple[str, str]]:
    about, model, cost = data["data"], data["model"], data["cost"]
    facts = [
        (
            "Data",
            f"{about['n_samples']:,} {about['noun']}"
            + (f" in {about['folder']}" if about["folder"] else ""),
        ),
        ("Could not be read", f"{len(about['unread']):,}"),
    ]
    if data["sizes"]:
        sizes = (f"{name} {w} × {h}" for name, (w, h) in data["sizes"].items())
        facts.append(("Sizes in pixels", ", ".join(sizes)))
    if about["n_groups"]:
        facts.append(("Groups", f"{about['n_groups']:,}; those of a group are in one fold"))
    if "values" in about:
        values = about["values"]
        facts.append(
            ("Values", f"{values['min']:.4g} to {values['max']:.4g}, median {values['median']:.4g}")
        )
    return [
        *facts,
        ("Backbone", _backbone_text(model)),
        ("Input", _input_text(data)),
        ("Embedding", f"{model['n_features']:,} features, {model['layer']}, {model['precision']}"),
        (
            "Head",
            model["head"]
            + (f", fine-tuned with {model['fine_tune']}" if model["fine_tune"] else ""),
        ),
        ("Evaluation", data["split"]),
        (
            "Embeddings",
            f"{cost['n_forward']:,} computed, {cost['n_hits']:,} read from the cache",
        ),
        (
            "Created",
            f"{data['made']}, " + ", ".join(f"{n} {v}" for n, v in data["versions"].items()),
        ),
        ("Space", model["space"]),
    ]


def _backbone_text(model: dict[str, Any]) -> str:
    params = ", ".join(f"{name}={value}" for name, value in model["params"].items())
    weights = f", {model['weights']}" if model["weights"] else ""
    return f"{model['backbone']}{f' ({params})' if params else ''}{weights}"


def _input_text(data: dict[str, Any]) -> str:
    sides = " × ".join(map(str, data["model"]["input_shape"]))
    if data["data"]["noun"] != "images":
        return sides
    return f"{sides}, images resized by {data['model']['resize']!r}"


def _scores(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and interval of each score."""
    return _scores_of_values(data) if data["task"] == "values" else _scores_of_labels(data)


def _scores_of_values(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    metrics, ends = data["metrics"], data["metrics"]["intervals"]
    names = {
        "r2": "R²",
        "mean_absolute_error": "mean absolute error",
        "root_mean_squared_error": "root mean squared error",
    }
    rows = [
        (text, f"{metrics[name]:.4g}", f"{ends[name][0]:.4g} to {ends[name][1]:.4g}")
        for name, text in names.items()
    ]
    baseline = f"{data['baselines']['mean_absolute_error']:.4g}"
    return [*rows, ("mean absolute error of always predicting the mean", baseline, "")]


def _scores_of_labels(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    metrics, baselines = data["metrics"], data["baselines"]
    ends = metrics["intervals"]
    low, high = map(percent, ends["accuracy"])
    rows = [("accuracy", percent(metrics["accuracy"]), f"{low} to {high}")]
    for name in ("precision", "recall", "f1-score") if data["task"] == "classes" else ():
        low, high = (f"{end:.3f}" for end in ends["macro"][name])
        text = f"{name.replace('f1-score', 'F1')}, mean over classes"
        rows.append((text, f"{metrics['macro'][name]:.3f}", f"{low} to {high}"))
    what = "class" if data["task"] == "classes" else "labels"
    always = f"accuracy of always predicting the most frequent {what}"
    return [
        *rows,
        (always, percent(baselines["majority"]), ""),
        ("accuracy of guessing by frequency", percent(baselines["chance"]), ""),
    ]


def _by_class(data: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the metrics of the classes, the least recall first."""
    if data["task"] != "classes":
        return []
    return sorted(data["metrics"]["classes"].items(), key=lambda item: item[1]["recall"])


def _figures(data: dict[str, Any], held_out: HeldOut) -> dict[str, str]:
    metrics, found = data["metrics"], {}
    if data["task"] == "classes":
        confusion = metrics["confusion"]
        found["confusion"] = figures.confusion_svg(
            confusion["labels"], np.array(confusion["counts"])
        )
    if data["task"] == "values":
        found["residuals"] = figures.residuals_svg(held_out.y_true, held_out.y_pred)
    if "together" in metrics:
        names = [f"output {n}" for n in range(1, len(metrics["together"]) + 1)]
        found["together"] = figures.together_svg(names, np.array(metrics["together"]))
    if "calibration" in metrics:
        found["calibration"] = figures.calibration_svg(metrics["calibration"]["bins"])
    if data["learning_curve"]:
        found["curve"] = figures.learning_curve_svg(
            data["learning_curve"], _score_name(data).lower()
        )
    tuning = data["fine_tuning"]
    if tuning and tuning["history"]:
        found["training"] = figures.training_svg(tuning["history"], tuning)
    return found


def _training_text(data: dict[str, Any]) -> str:
    tuning = data["fine_tuning"]
    if not tuning:
        return ""
    kept = "the fine-tuned model" if tuning["kept"] == "tuned" else "the head on the frozen network"
    tuned = tuning["tuned_score"]
    scores = f"the head scored {tuning['head_score']:.3f}"
    if tuned is not None:
        scores += f" and the fine-tuned model {tuned:.3f}"
    return f"On the validation split, {scores}: {kept} was kept."


def _costs(data: dict[str, Any]) -> list[tuple[str, str]]:
    cost = data["cost"]
    speed = cost["images_per_s"]
    return [
        ("Forward pass", f"{cost['seconds']:.1f} s" + (f", {speed:.0f} images/s" if speed else "")),
        ("Engine", cost["engine"] or "none: all embeddings were read from the cache"),
        ("Size of embeddings", f"{cost['embedding_bytes'] / 2**20:.1f} MiB"),
    ]


def _places_on_map(n_samples: int) -> np.ndarray:
    """Return the places of the samples that the map shows, at most 10,000."""
    if n_samples <= _MOST_POINTS:
        return np.arange(n_samples)
    return np.sort(np.random.default_rng(0).choice(n_samples, _MOST_POINTS, replace=False))


def _colorings(describer: Describer, places: np.ndarray, data: dict[str, Any]) -> dict[str, Any]:
    """Return the ways to color the points of the map, by name."""
    held_out = describer.held_out
    true, predicted = held_out.y_true[places], held_out.y_pred[places]
    colorings: dict[str, Any] = {
        "label": _as_colors(describer, true),
        "prediction": _as_colors(describer, predicted),
    }
    if held_out.task != "values":
        is_right = held_out.is_right()[places]
        colorings["outcome"] = np.where(is_right, "right", "wrong").tolist()
    elif true.ndim == 1:
        colorings["error"] = np.abs(true - predicted)
    findings = _findings_by_row(data)
    rows = held_out.rows[places].tolist()
    colorings["finding"] = [findings.get(row, _NO_FINDING) for row in rows]
    if held_out.folds is not None:
        colorings["fold"] = [str(number + 1) for number in held_out.fold[places]]
    return colorings


def _findings_by_row(data: dict[str, Any]) -> dict[int, str]:
    """Return the finding on each listed row; a suspect label precedes all others."""
    pairs = data["duplicates"].get("pairs", [])
    found = {sample["row"]: "outlier" for sample in data["outliers"]["samples"]}
    for issue, about in data["image_issues"].items():
        found |= {sample["row"]: issue for sample in about["samples"]}
    found |= {pair[part]["row"]: "near-duplicate" for pair in pairs for part in ("first", "second")}
    return found | dict.fromkeys(_first_suspects(data), "suspect label")


def _first_suspects(data: dict[str, Any]) -> set[int]:
    """Return the rows of the suspect labels that are worth a look."""
    suspects = (data["label_issues"] or {}).get("suspects", [])
    return {sample["row"] for sample in suspects[: n_first_suspects(data)]}


def _map_text(placed: Projection, method: str, counts: tuple[int, int]) -> str:
    """Return what the places of points mean, and how many of all samples are shown."""
    n_shown, n_samples = counts
    if method == "pca":
        kept = "" if placed.explained is None else f", {percent(placed.explained)} of the variance"
        meaning = (
            f"the two main directions of its embedding (PCA{kept}); "
            "neighbors here need not be neighbors in all directions"
        )
    else:
        name = {"umap": "UMAP", "tsne": "t-SNE"}[method]
        meaning = f"{name}: near points are alike, distances between groups mean little"
    sampled = f" A random {n_shown:,} of {n_samples:,} are shown." if n_shown < n_samples else ""
    text = f"Each point is a sample, placed by {meaning}."
    return f"{text}{sampled}"


def _as_colors(describer: Describer, y: np.ndarray) -> Any:
    """Return values of one output as they are, and others as text."""
    if describer.held_out.task == "values" and y.ndim == 1:
        return y
    return list(map(describer.text, y))
