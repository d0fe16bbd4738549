"""Measurements: what a report says of a model, as rows and sentences of its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from featx.exceptions import InputError, ParameterError
from featx.reporting.markdown import NOT_MEASURED, Markdown, escaped, interval, number

_MAX_CLASSES = 200  # with a row in the tables
_MAX_CONFUSIONS = 3
_FEW_SAMPLES = 20
_VALUE_METRICS = {  # names in reports: names for people, names of Hugging Face
    "r2": ("R²", "r_squared"),
    "mean_absolute_error": ("mean absolute error", "mae"),
    "root_mean_squared_error": ("root mean squared error", "rmse"),
}
_BASELINES = {
    "majority": "accuracy of always predicting the most frequent class",
    "chance": "accuracy of guessing by frequency",
    "mean_absolute_error": "mean absolute error of always predicting the mean",
}


class Measurements:
    """Measurements in a report, as parts of a model card; any of them may be missing."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    @classmethod
    def of(cls, report: Any) -> Measurements:
        """Return the data of a report, which may be None."""
        data = report.to_dict() if hasattr(report, "to_dict") else report
        if data is not None and not isinstance(data, Mapping):
            raise ParameterError.of("report", report, "expected a Report, a dict or None")
        if data and not data.keys() & {"metrics", "data", "split"}:
            shown = ", ".join(map(repr, list(data)[:5]))
            raise InputError(
                f"report has {shown}: expected what Report.to_dict() or featx report --json returns"
            )
        return cls(data or {})

    def part(self, *names: str) -> Any:
        """Return a part of the report; None if it is missing."""
        found: Any = self._data
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def table(self, *names: str) -> Mapping[str, Any]:
        """Return a part that has names; empty if it is missing."""
        found = self.part(*names)
        return found if isinstance(found, Mapping) else {}

    def context(self) -> dict[str, Any]:
        """Return what the template needs."""
        by_class = self._by_class()
        counts = list((self.table("data", "classes") or self.table("data", "class_counts")).items())
        confidence = self.part("metrics", "intervals", "confidence")
        return {
            "scores": self._scores(),
            "split": self.part("split"),
            "confidence": Markdown(f"{confidence if is_number(confidence) else 0.95:.0%}"),
            "by_class": by_class[:_MAX_CLASSES],
            "n_classes_left_out": max(0, len(by_class) - _MAX_CLASSES),
            "calibration": self._calibration(),
            "counts": [(name, number(value)) for name, value in counts[:_MAX_CLASSES]],
        }

    def _scores(self) -> list[dict[str, Any]]:
        intervals = self.table("metrics", "intervals")
        rows = []
        if is_number(accuracy := self.part("metrics", "accuracy")):
            name = "accuracy, all outputs right" if self._outputs() else "accuracy"
            rows.append(_score(name, accuracy, intervals.get("accuracy")))
        for name, value in self.table("metrics", "macro").items():
            if name != "support":
                ends = self.part("metrics", "intervals", "macro", name)
                rows.append(_score(f"macro {name.replace('f1-score', 'F1')}", value, ends))
        for count, output in enumerate(self._outputs(), start=1):
            measured = Measurements({"metrics": output})
            ends = measured.part("metrics", "intervals", "accuracy")
            name = f"accuracy of output {count}"
            rows.append(_score(name, measured.part("metrics", "accuracy"), ends))
        for name, (title, _) in _VALUE_METRICS.items():
            if is_number(value := self.part("metrics", name)):
                rows.append(_score(title, value, intervals.get(name)))
        for name, value in self.table("baselines").items():
            rows.append(
                {
                    "name": _BASELINES.get(name, name),
                    "value": number(value),
                    "interval": Markdown(""),
                }
            )
        return rows

    def _outputs(self) -> list[Any]:
        outputs = self.part("metrics", "outputs")
        return outputs if isinstance(outputs, list) else []

    def _by_class(self) -> list[dict[str, Any]]:
        rows = []
        for name, values in self.table("metrics", "classes").items():
            values = values if isinstance(values, Mapping) else {}
            ends = self.table("metrics", "intervals", "classes", name)
            row = {
                key.replace("-score", ""): _with_interval(values.get(key), ends.get(key))
                for key in ("precision", "recall", "f1-score")
            }
            rows.append({"name": name, "support": number(values.get("support")), **row})
        return rows

    def _calibration(self) -> Markdown:
        found = self.table("metrics", "calibration")
        if not found:
            is_of_labels = self.part("metrics", "classes") is not None
            return Markdown("Calibration: not measured." if is_of_labels else "")
        error, loss = number(found.get("error")), number(found.get("log_loss"))
        text = f"Expected calibration error: {error}; log loss: {loss} nats."
        temperature, tendency = found.get("temperature"), self._tendency()
        if temperature is None and tendency:
            text += f" The model is {tendency}, and no temperature from 0.01 to 100 corrects that."
        elif is_number(temperature):
            meaning = f"the model is {tendency}" if tendency else "not clearly different from 1"
            text += f" The best temperature is {number(temperature, 2)}: {meaning}."
        return Markdown(text)

    def _tendency(self) -> str | None:
        """Return "overconfident" or "underconfident"; None if the report has neither."""
        found = self.part("metrics", "calibration", "tendency")
        return found if found in ("overconfident", "underconfident") else None

    def data(self) -> list[tuple[str, Any]]:
        """Return what is known of the samples that were measured."""
        unread = self.part("data", "unread")
        n_unread = len(unread) if isinstance(unread, list) else None
        n_samples = self.part("data", "n_samples")
        if n_samples is None:  # of `evaluate` alone
            n_samples = self.part("metrics", "n_samples")
        rows = [("samples of the report", number(n_samples))]
        rows += [("of these, could not be read", number(n_unread))] if n_unread else []
        if is_number(n_groups := self.part("data", "n_groups")):
            rows.append(("groups, each on one side of a split", number(n_groups)))
        for name, value in self.table("data", "values").items():
            rows.append((f"{name} of the values", number(value)))
        return rows

    def limits(self) -> list[str]:
        """Return the limits that the measurements show."""
        if not self._scores():
            return ["How good the model is on new samples was not measured."]
        found: list[str] = self._confusions()
        supports = [row["support"] for row in self._by_class()]
        n_few = sum(s.isdigit() and int(s) < _FEW_SAMPLES for s in supports)
        if n_few:
            found.append(
                f"{n_few} classes were measured on fewer than {_FEW_SAMPLES} samples: their "
                "intervals are wide."
            )
        if self._tendency():
            found.append("Probabilities are not calibrated: see the temperature above.")
        n_suspect = self.part("label_issues", "n_expected")
        if is_number(n_suspect) and n_suspect >= 1:
            found.append(f"About {n_suspect:.0f} labels of the data are probably wrong.")
        if self.part("duplicates", "n_across"):
            found.append(
                "Some samples have near-duplicates on the other side of the split, so the metrics "
                "may be too good."
            )
        return found

    def _confusions(self) -> list[str]:
        """Return the classes that are confused most often."""
        labels, counts = (self.part("metrics", "confusion", name) for name in ("labels", "counts"))
        try:
            table = np.array(counts, np.int64)
            n_true = table.sum(axis=1)
            np.fill_diagonal(table, 0)
            worst = np.argsort(-table, axis=None, kind="stable")[:_MAX_CONFUSIONS]
            pairs = [divmod(int(place), len(table)) for place in worst if table.flat[place]]
            return [
                Markdown(
                    f"It takes {escaped(labels[true])} for {escaped(labels[predicted])} in "
                    f"{table[true, predicted]} of {n_true[true]} samples."
                )
                for true, predicted in pairs
            ]
        except (ValueError, TypeError, IndexError, OverflowError):  # not from featx.evaluate
            return []

    def tasks(self) -> list[str]:
        """Return what has to be measured or written yet."""
        return [] if self._scores() else ["Measure the model on samples that it was not fitted on."]

    def versions(self) -> dict[str, str]:
        """Return the versions with which the report was made."""
        return {name: str(value) for name, value in self.table("versions").items()}

    def for_hugging_face(self) -> list[dict[str, Any]]:
        """Return the metrics as in the front matter of Hugging Face."""
        metrics = [("accuracy", "accuracy", self.part("metrics", "accuracy"))]
        metrics.append(("f1", "macro F1", self.part("metrics", "macro", "f1-score")))
        for name, (title, kind) in _VALUE_METRICS.items():
            metrics.append((kind, title, self.part("metrics", name)))
        return [
            {"type": kind, "name": title, "value": round(float(value), 6)}
            for kind, title, value in metrics
            if is_number(value)
        ]


def is_number(value: Any) -> bool:
    """Return True for a number that is finite."""
    return number(value) != NOT_MEASURED


def _score(name: str, value: Any, ends: Any) -> dict[str, Any]:
    return {"name": name, "value": number(value), "interval": interval(ends)}


def _with_interval(value: Any, ends: Any) -> Markdown:
    """Return a number, and its interval in parentheses if there is one."""
    shown = interval(ends)
    return Markdown(number(value) if shown == NOT_MEASURED else f"{number(value)} ({shown})")
