"""ModelFacts: what a fitted estimator shows of itself, as rows and sentences of its card."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from featx._text import one_line
from featx._transfer import TransferEstimator
from featx._version import __version__
from featx.backbones.registry import find_network
from featx.exceptions import ParameterError, UntrustedTypesError
from featx.export import FORMATS, is_exportable
from featx.extractor import FeatureExtractor
from featx.inputs.kinds import kind_of
from featx.reporting.markdown import Markdown, as_code, escaped, number
from featx.saving.heads import head_bytes

_NAMES_OF_LICENSES = {
    "apache-2.0": "Apache 2.0",
    "bsd-3-clause": "BSD 3-clause",
    "cc-by-4.0": "CC BY 4.0",
    "mit": "MIT",
}
_UNKNOWN = "unknown"
_MAX_NAMES_CHARS = 1_000
_SCALINGS = {
    "tf": "x / 127.5 - 1",
    "torch": "x / 255, standardized with the mean and deviation of ImageNet",
    "caffe": "BGR, minus the mean of ImageNet",
    "unit": "x / 255",
    None: "none, or inside the network",
}


class ModelFacts:
    """Facts that a fitted estimator shows, as parts of its model card."""

    def __init__(self, estimator: TransferEstimator) -> None:
        self._estimator = estimator
        self._extractor: FeatureExtractor = estimator.extractor_
        self._space = self._extractor.space_
        self._kind = kind_of(self._space.input_shape).name
        self.classes = _class_names(estimator)
        self.is_classifier = is_classifier(estimator)
        self._report = getattr(estimator, "report_", {})
        self._label = one_line(self._extractor.label, max_chars=80)

    @property
    def title(self) -> str:
        """Title of the card."""
        what = "classifier" if self.is_classifier else "regressor"
        return f"{self._kind.capitalize()} {what} on {self._label}"

    @property
    def name(self) -> str:
        """Name for the index of models."""
        return f"featx-{self._label}"

    @property
    def license(self) -> str:
        """Identifier of the license of the backbone's weights; "unknown" if it is not known."""
        is_published = self._extractor.has_named_weights() and not self._is_tuned
        found = find_network(self._extractor.backbone).license if is_published else None
        return found or _UNKNOWN

    @property
    def pipeline_tag(self) -> str | None:
        """Task in the words of Hugging Face; None for tasks that it does not have."""
        is_known = self._kind == "image" and self.is_classifier
        return "image-classification" if is_known else None

    @property
    def _is_tuned(self) -> bool:
        return self._report.get("kept") == "tuned"

    @property
    def summary(self) -> str:
        """First sentences of the card."""
        n_features = self._space.n_features
        what = f"one of {len(self.classes)} classes" if self.classes else "values"
        if self.is_classifier and not self.classes:
            what = "several labels"
        return (
            f"The backbone turns each {self._kind} into {n_features} numbers, and a head of "
            f"scikit-learn predicts {what} from these. Made with featx {__version__}."
        )

    def context(self) -> dict[str, Any]:
        """Return what the template needs."""
        types = _untrusted_types(self._estimator)
        return {
            "model": self._rows(),
            "trusted": Markdown(f", trusted={one_line(types)}" if types else ""),
            "trust": _trust_text(types),
            "example": Markdown(self._example()),
            "serving": self._serving(),
            "inputs": self._inputs(),
        }

    def _rows(self) -> list[tuple[str, Any]]:
        extractor, space = self._extractor, self._space
        pooling = space.description.get("pooling")
        rows: list[tuple[str, Any]] = [
            ("estimator", type(self._estimator).__name__),
            ("backbone", self._label),
            ("weights", self._weights()),
            ("license of the backbone's weights", _NAMES_OF_LICENSES.get(self.license, _UNKNOWN)),
            ("layer", extractor.layer or "output"),
            ("pooling", pooling or "none, since the layer gives vectors"),
            ("preprocessing", self._scaling()),
            ("precision", extractor.precision),
            ("length of an embedding", number(space.n_features)),
            ("digest of the space", as_code(space.digest)),
            ("head", _head_text(self._estimator)),
        ]
        if extractor.backbone_params:
            rows.insert(2, ("parameters of the backbone", str(extractor.backbone_params)))
        if extractor.views > 1:
            rows.append(("augmented views", number(extractor.views)))
        return rows

    def _scaling(self) -> str:
        """Return how pixels are scaled before the network."""
        given = self._extractor.preprocessing
        scaling = self._space.description.get("preprocessing")
        is_known = given is None or isinstance(given, str)
        return _SCALINGS.get(scaling, "another scaling") if is_known else "a Keras layer"

    def _weights(self) -> str:
        if self._is_tuned:
            return "fine-tuned, in the saved file"
        return "published" if self._extractor.has_named_weights() else "in the saved file"

    def training(self) -> list[tuple[str, Any]]:
        """Return what is known of the samples that the model was fitted on."""
        rows: list[tuple[str, Any]] = [
            ("samples that the model was fitted on", number(self._report.get("n_samples")))
        ]
        if self.classes:
            names = Markdown(", ".join(map(escaped, self.classes)))
            rows.append(("classes", number(len(self.classes))))
            rows += [("names of classes", names)] if len(names) < _MAX_NAMES_CHARS else []
        if "kept" in self._report:
            tuned = number(self._report.get("tuned_score"))
            scores = f"{number(self._report.get('head_score'))} and {tuned}"
            rows.append(("validation scores of head and fine-tuned model", Markdown(scores)))
            rows.append(("kept", "the fine-tuned model" if self._is_tuned else "the head"))
        return rows

    def _example(self) -> str:
        sample = '["photo.jpg"]' if self._kind == "image" else "X"
        method = "predict_proba" if hasattr(self._estimator, "predict_proba") else "predict"
        return f"model.{method}({sample})"

    def _serving(self) -> Markdown:
        if not is_exportable(self._estimator.head_, self._space.n_features):
            return Markdown(
                "With featx, since the head is not linear: only models with linear heads can be "
                "exported for other runtimes."
            )
        resize = ""
        if self._kind == "image":
            resize = " With `include_resize=True`, it takes images of any size."
        return Markdown(
            '`model.export("model.onnx", format="onnx")` writes one model, from inputs to outputs, '
            f"that runs without featx. Formats: {', '.join(map(as_code, FORMATS))}.{resize}"
        )

    def _inputs(self) -> list[tuple[str, Any]]:
        shape = self._space.input_shape
        rows: list[tuple[str, Any]] = [("shape", Markdown(f"(n, {', '.join(map(str, shape))})"))]
        if self._kind != "image":
            return [*rows, ("dtype", "float32")]
        rows += [("dtype", "uint8"), ("range", "0 to 255; the model scales pixels itself")]
        if self._extractor.reader is not None:
            rows.append(("reader of the files", as_code(self._extractor.reader.label)))
        if not self._space.description.get("channels_first"):
            how = f"{self._extractor.resize}, with the antialiased Lanczos filter"
            rows += [
                ("size", f"{shape[0]} x {shape[1]} pixels"),
                ("channels", {1: "gray", 3: "red, green, blue"}.get(shape[2], str(shape[2]))),
                ("how images of other sizes are resized", how),
            ]
        return rows

    def limits(self) -> list[str]:
        """Return the limits that any such model has."""
        found = []
        if self.classes:
            found.append(
                f"It always answers with one of its {len(self.classes)} classes, whatever the "
                f"{self._kind} shows."
            )
        if self._label == "tiny" and self._extractor.has_named_weights():
            found.append(
                "The backbone sees 64 x 64 pixels and knows small natural images. It is for "
                "demonstrations and simple pictures, not for decisions about people."
            )
        return found

    def tasks(self) -> list[str]:
        """Return what only the author knows."""
        found = ["Describe the intended use, the origin of the data, and whom mistakes may harm."]
        if self.license == _UNKNOWN:
            found.append(
                "Find out the license of the backbone's weights, and set `license` in the front "
                "matter: featx does not know it."
            )
        return [Markdown(task) for task in found]


def _class_names(estimator: TransferEstimator) -> list[str]:
    """Return the names of classes; empty for a regressor, and for several labels or outputs."""
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray):
        return []
    head_input = np.zeros((1, estimator.extractor_.space_.n_features), np.float32)
    is_single = np.ndim(estimator.head_.predict(head_input)) == 1
    return [str(name) for name in classes] if is_single else []


def _head_text(estimator: TransferEstimator) -> str:
    """Return the classes of a head, and its name if it has one."""
    head = estimator.head_
    steps = [step for _, step in head.steps] if isinstance(head, Pipeline) else [head]
    classes = ", ".join(type(step).__name__ for step in steps)
    return f"{estimator.head}: {classes}" if isinstance(estimator.head, str) else classes


def _untrusted_types(estimator: TransferEstimator) -> list[str] | None:
    """Return the types that ``load`` has to trust; None if the head cannot be saved."""
    try:
        head_bytes(estimator.head, estimator.head_, ())
    except UntrustedTypesError as exc:
        return exc.types
    except ParameterError:
        return None
    return []


def _trust_text(types: list[str] | None) -> str:
    if types is None:
        return "The head cannot be saved with featx.save."
    if types:
        return (
            "The head holds types that neither featx nor skops knows to be safe. Name them as "
            "above only if you trust the author of the file."
        )
    return "Loading builds only types that are known to be safe, and runs no code from the file."
