"""A fitted extractor and its linear head as one model that runs without featx and scikit-learn.

It takes ``inputs`` of shape (n, h, w, c), uint8 pixels of the backbone's size, or float32 for a
backbone of vectors or signals; n may be any number. It gives float32: probabilities (n, n_classes)
where the head has them, also for two classes; else the scores of its ``decision_function``
(n, n_scores), or values (n, n_values). It computes in float32, whatever the extractor's precision.

The names of the classes, in the order of the columns, go along as a JSON list:

- ``.keras``: the entry ``class_names.json`` of the zip archive;
- SavedModel: the file ``assets.extra/class_names.json``;
- ONNX: ``class_names`` in the model's metadata;
- OpenVINO: ``class_names`` in the model's ``rt_info``;
- LiteRT: the associated file ``class_names.json``, in a zip archive that follows the model, as
  TensorFlow Lite's metadata have it; interpreters do not read on to it.

OpenVINO computes in bfloat16 on CPUs that can, which no file can forbid: compile with
``{"INFERENCE_PRECISION_HINT": "f32"}`` to get the numbers of the estimator (probabilities of
``"tiny"`` differ by 6e-3 without it, by 1e-7 with it; OpenVINO 2026.4).
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from featx._files import PART_SUFFIX, replaced_atomically
from featx._validation import ParameterFaults
from featx.engines.choice import missing_packages
from featx.exceptions import BackboneError, EngineError, MissingExtraError, ParameterError
from featx.extractor import FeatureExtractor
from featx.networks.backbones import Backbone, embedding_graph
from featx.networks.copying import flat_copy
from featx.networks.models import fixed_seed, undisturbed_seed
from featx.tuning.handover import linear_map

if TYPE_CHECKING:
    import keras

FORMATS = ("keras", "saved_model", "onnx", "openvino", "litert")
_SUFFIXES = {"keras": ".keras", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}
_NAMES_FILE = "class_names.json"
_N_STAND_INS = 256


def to_keras(extractor: FeatureExtractor, head: BaseEstimator) -> keras.Model:
    """Make one Keras model of an extractor and a head.

    Parameters
    ----------
    extractor : FeatureExtractor
        Fitted.
    head : estimator
        Linear classifier or regressor, fitted on embeddings of the extractor.

    Returns
    -------
    keras.Model
        From pixels to what the head predicts, see the module. Its layers are copies, which may be
        trained; but a backbone without a graph, such as a subclassed model, is in it as it is.
        With a classifier it has ``class_names``, a list of str.

    Raises
    ------
    NotFittedError
        Extractor or head were not fitted.
    ParameterError
        The head is not linear.
    BackboneError
        The backbone cannot be copied, or was changed after the extractor was fitted.

    Examples
    --------
    >>> from featx import TransferClassifier
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    >>> classifier = TransferClassifier("tiny").fit(images, ["cat", "dog"] * 3)
    >>> model = to_keras(classifier.extractor_, classifier.head_)
    >>> model.class_names
    ['cat', 'dog']
    >>> bool(np.allclose(model(images), classifier.predict_proba(images), atol=1e-4))
    True
    """
    backbone = _backbone_of(extractor)
    with backbone.settings.applied(), fixed_seed():
        graph = _embedding_graph(backbone)
        if backbone.tensor is not None:
            graph = flat_copy(graph, name="embeddings", label=backbone.spec.label).model
        model = _with_head(graph, head)
    if is_classifier(head):
        model.class_names = _class_names(head)
    return model


def export(
    extractor: FeatureExtractor, head: BaseEstimator, path: str | os.PathLike[str], *, format: str
) -> None:
    """Write an extractor and a head as one model, for a runtime that knows nothing of featx.

    Parameters
    ----------
    extractor, head
        See :func:`to_keras`.
    path : str or Path
        The folder of a SavedModel; else a file ``.keras``, ``.onnx``, ``.xml`` (OpenVINO, which
        gets a second file ``.bin``) or ``.tflite``. Replaced, whole, if it is there.
    format : {"keras", "saved_model", "onnx", "openvino", "litert"}
        All but "keras" need Keras to run on TensorFlow, and can hold layers that cannot be copied.

    Raises
    ------
    ParameterError
        The format is not known, the path does not suit it, or the head is not linear.
    MissingExtraError
        Packages that write the format are not installed.
    NotFittedError, BackboneError
        See :func:`to_keras`.
    EngineError
        The format cannot hold the network.
    OSError
        The disk is full, the folder cannot be written, and so on; what was there is unharmed.
    """
    path = Path(path)
    _check_target(path, format)
    backbone = _backbone_of(extractor)
    if format == "keras":
        model = to_keras(extractor, head)
    else:
        with backbone.settings.applied(), fixed_seed():
            model = _with_head(_embedding_graph(backbone), head)
    folder = path.absolute().parent
    with tempfile.TemporaryDirectory(PART_SUFFIX, f".{path.name}.", folder) as beside:
        written = Path(beside) / path.name
        try:
            # Keras and converters warn of each other.
            with (
                warnings.catch_warnings(action="ignore"),
                backbone.settings.applied(),
                undisturbed_seed(),
            ):
                _write(model, written, format)
        except OSError:
            raise
        except Exception as exc:
            raise EngineError(f"{format} cannot hold this network: {exc}") from exc
        if is_classifier(head):
            _NAMERS[format](written, json.dumps(_class_names(head)))
        _move_into_place(written, path)


def _check_target(path: Path, format: str) -> None:
    faults = ParameterFaults("export")
    faults.check_option("format", format, FORMATS)
    if not path.absolute().parent.is_dir():
        faults.add("path", str(path), "a name in a folder that is there.")
    if format in _SUFFIXES and path.suffix != _SUFFIXES[format]:
        faults.add("path", str(path), f"a name that ends with {_SUFFIXES[format]!r}.")
    if format == "saved_model" and path.exists() and not (path / "saved_model.pb").is_file():
        faults.add("path", str(path), "a new name, or that of a SavedModel to replace.")
    if format in FORMATS[1:]:
        import keras

        if keras.backend.backend() != "tensorflow":
            faults.add("format", format, "'keras' on this backend, or KERAS_BACKEND=tensorflow.")
    faults.raise_any()
    missing = missing_packages(format)
    if missing:
        raise MissingExtraError(
            f"format={format!r} needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )


def _backbone_of(extractor: FeatureExtractor) -> Backbone:
    check_is_fitted(extractor, "feature_shape_")
    now = extractor.current_resolution()
    if now.is_cacheable and not now.space.is_equal_but_for_storage(extractor.space_):
        raise BackboneError(
            f"{extractor.label} gives other embeddings now than those that the head was fitted on: "
            "its weights or a parameter changed. Call fit again."
        )
    return now.build()


def _embedding_graph(backbone: Backbone) -> keras.Model:
    return embedding_graph([backbone], "uint8" if len(backbone.input_shape) == 3 else "float32")


def _with_head(graph: keras.Model, head: BaseEstimator) -> keras.Model:
    """Put a head on a graph that gives embeddings."""
    import keras

    check_is_fitted(head)
    embeddings = graph.outputs[0]
    linear = linear_map(head, _stand_ins(head, embeddings.shape[-1]))
    if linear is None:
        raise ParameterError(
            f"the head {type([*_steps(head)][-1]).__name__} is not linear, or its probabilities "
            "are neither softmax nor sigmoid, so it cannot become Keras layers: take a linear one "
            "such as head='logistic', or fine-tune"
        )
    scaling, dense = linear.layers(layer.name for layer in graph._flatten_layers())
    outputs = _linked(dense(scaling(embeddings)), linear.link)
    return keras.Model(graph.inputs[0], outputs, name="featx")


def _linked(scores: keras.KerasTensor, link: str | None) -> keras.KerasTensor:
    """Turn scores into probabilities, if there is a link."""
    from keras import ops

    if link == "softmax":
        return ops.softmax(scores)
    if link == "sigmoid" and scores.shape[-1] == 1:
        return ops.sigmoid(ops.concatenate([-scores, scores], axis=-1))
    if link == "sigmoid":
        return ops.sigmoid(scores)
    if link == "normalized sigmoid":
        return ops.softmax(ops.log_sigmoid(scores))  # the quotient of shares may be 0 / 0
    return scores


def _stand_ins(head: BaseEstimator, n_features: int) -> np.ndarray:
    """Draw rows like the embeddings that a head was fitted on, which are not there any more."""
    rng = np.random.default_rng(0)
    # Many are near the mean: far from it all links give 0 and 1, and cannot be told apart.
    lengths = 10 ** rng.uniform(-4, 0, (_N_STAND_INS, 1))
    rows = lengths * rng.standard_normal((_N_STAND_INS, n_features))
    scaler = next((step for step in _steps(head) if isinstance(step, StandardScaler)), None)
    if scaler is None or scaler.n_features_in_ != n_features:
        return rows
    scale = 1 if scaler.scale_ is None else scaler.scale_
    return rows * scale + (0 if scaler.mean_ is None else scaler.mean_)


def _steps(head: BaseEstimator) -> Iterator[BaseEstimator]:
    """Yield what a head is made of, in the order in which it runs."""
    if hasattr(head, "best_estimator_"):
        yield from _steps(head.best_estimator_)
    elif isinstance(head, Pipeline):
        for _, step in head.steps:
            yield from _steps(step)
    else:
        yield head


def _class_names(head: BaseEstimator) -> list[str]:
    return [str(name) for name in head.classes_]


def _write(model: keras.Model, path: Path, format: str) -> None:
    import keras

    from featx.engines.rewriting import rewritten

    if format == "keras":
        model.save(path)
        return
    given = model.inputs[0]
    signature = [keras.InputSpec(dtype=given.dtype, shape=given.shape, name="inputs")]
    if format in ("onnx", "openvino"):  # TensorFlow's own formats need none of it
        model = rewritten(model)
    name = "tf_saved_model" if format == "saved_model" else format
    model.export(str(path), format=name, verbose=False, input_signature=signature)


def _name_in_archive(path: Path, names: str) -> None:
    with zipfile.ZipFile(path, "a") as archive:  # which follows the file, if that is none
        archive.writestr(_NAMES_FILE, names)


def _name_in_folder(path: Path, names: str) -> None:
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / _NAMES_FILE).write_text(names)


def _name_in_onnx(path: Path, names: str) -> None:
    import onnx

    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, {"class_names": names})
    onnx.save(graph, path)


def _name_in_openvino(path: Path, names: str) -> None:
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the files are written over
    graph = core.read_model(path)
    graph.set_rt_info(names, "class_names")
    openvino.serialize(graph, path)


_NAMERS = {
    "keras": _name_in_archive,
    "saved_model": _name_in_folder,
    "onnx": _name_in_onnx,
    "openvino": _name_in_openvino,
    "litert": _name_in_archive,
}


def _move_into_place(written: Path, path: Path) -> None:
    if written.is_dir():
        if path.exists():  # no rename replaces a folder; the old one goes with the temporary one
            os.replace(path, written.with_name("replaced"))
        os.replace(written, path)
        return
    for suffix in (".bin", written.suffix):  # OpenVINO's weights first: the graph needs them
        if written.with_suffix(suffix).exists():
            with replaced_atomically(path.with_suffix(suffix)) as beside:
                os.replace(written.with_suffix(suffix), beside)
