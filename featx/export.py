"""``export``: a fitted extractor and its linear head as one model that runs without featx.

The model takes ``inputs`` of shape (n, h, w, c), uint8 pixels of the backbone's size, or float32
for a backbone of vectors or signals, for any n. With ``include_resize=True`` it takes images of any
size, all of one size in a batch, and resizes them as featx does: see ``backbones/resize_graph.py``.
It returns float32: probabilities (n, n_classes) if
the head has them, also for two classes; else the scores of its ``decision_function`` (n, n_scores),
or values (n, n_values). It computes in float32, whatever the extractor's precision.

Each file also holds entries of JSON: ``class_names``, a list in the order of the columns
(classifiers only); ``inputs``, a description of what the model takes and how images get their size
(:func:`describe_inputs`); and ``full_precision``, the settings with which a runtime reproduces the
numbers of the estimator on any hardware:

========== ============================================== ==========================================
format     where the entries are                          ``full_precision``
========== ============================================== ==========================================
keras      files ``NAME.json`` in the zip archive         variables of the environment
SavedModel files ``assets.extra/NAME.json``               variables of the environment
ONNX       properties in the model's metadata             options of ONNX Runtime's providers
OpenVINO   ``rt_info`` of the model                       a configuration for ``compile_model``
LiteRT     associated files ``NAME.json`` of the model    options of the GPU delegate
========== ============================================== ==========================================

The entries of LiteRT are in a zip archive that follows the model, as in TensorFlow Lite's metadata;
interpreters do not read that far.

On CPUs, all runtimes but OpenVINO compute in float32 by default. OpenVINO computes in bfloat16 on
CPUs that support it, unless compiled with ``{"EXECUTION_MODE_HINT": "ACCURACY"}``: probabilities of
``"tiny"`` differ by 1e-2 without it, by 1e-7 with it. No property of the file changes that, and
properties of single nodes are lost when OpenVINO fuses nodes (2026.4). On GPUs, TensorFlow and ONNX
Runtime multiply in TF32 by default, and LiteRT's delegate computes in float16.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import uuid
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from featx._files import PART_SUFFIX, check_replaceable, replaced_atomically
from featx._progress import activity
from featx._validation import ParameterFaults, as_path
from featx._version import __version__
from featx.backbones.backbone import Backbone, embedding_graph
from featx.backbones.copy import flat_copy
from featx.backbones.keras_models import fixed_seed, undisturbed_seed
from featx.backbones.resize_graph import with_resize
from featx.digests.keras_settings import STANDARD, backend_name
from featx.engines.onnx_engine import add_missing_operations, check_onnx_inputs
from featx.engines.registry import missing_packages
from featx.exceptions import BackboneError, EngineError, MissingExtraError, ParameterError
from featx.extractor import FeatureExtractor
from featx.heads.linear_map import LinearMap, linear_map
from featx.inputs.kinds import InputForm
from featx.inputs.resize import RESAMPLING

if TYPE_CHECKING:
    import keras

FORMATS = ("keras", "saved_model", "onnx", "openvino", "litert")
TITLES = {
    "keras": "Keras",
    "saved_model": "a TensorFlow SavedModel",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
}
_SUFFIXES = {"keras": ".keras", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}
_SAVED_MODEL_PARTS = frozenset(
    ("assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables")
)
FULL_PRECISION = {
    "keras": {"NVIDIA_TF32_OVERRIDE": "0"},
    "saved_model": {"NVIDIA_TF32_OVERRIDE": "0"},
    "onnx": {"CUDAExecutionProvider": {"use_tf32": "0"}},
    "openvino": {"EXECUTION_MODE_HINT": "ACCURACY"},
    "litert": {"precision_loss_allowed": False},
}
_PRECISION_HINTS = {
    "keras": "on a GPU, set the environment variables",
    "saved_model": "on a GPU, set the environment variables",
    "onnx": "on a GPU, pass the provider options",
    "openvino": "call compile_model with the config",
    "litert": "on a GPU, pass the delegate options",
}
_N_STAND_INS = 256


def to_keras(
    extractor: FeatureExtractor, head: BaseEstimator, *, input_dtype: str = "auto"
) -> keras.Model:
    """Make one Keras model of a fitted extractor and a linear head: see the module.

    Its layers are copies, which may be trained; a backbone without a graph, such as a subclassed
    model, is not copied. The model of a classifier has ``class_names``, a list of str. With
    ``input_dtype="float32"``, gradients reach the pixels.

    Raises
    ------
    NotFittedError
        Extractor or head is not fitted.
    ParameterError
        The head is not linear, or the model cannot take inputs of the dtype.
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
    check_is_fitted(extractor, "feature_shape_")
    own_dtype = InputForm.of_space(extractor.space_.description).kind.dtype
    _check_input_dtype(input_dtype, own_dtype)
    linear = _checked_linear_map(extractor, head)
    backbone = _backbone_to_export(extractor)
    with backbone.settings.applied(), fixed_seed():
        graph = embedding_graph([backbone], own_dtype if input_dtype == "auto" else input_dtype)
        if backbone.tensor is not None:
            original, label = backbone.original_model, backbone.spec.label
            graph = flat_copy(graph, original=original, name="embeddings", label=label).model
        model = _with_head(graph, linear)
    if is_classifier(head):
        model.class_names = _class_names(head)
    return model


def export(
    extractor: FeatureExtractor,
    head: BaseEstimator,
    path: str | os.PathLike[str],
    *,
    format: str,
    include_resize: bool = False,
) -> None:
    """Write an extractor and a head as one model: see :meth:`TransferClassifier.export`.

    All formats but "keras" can hold layers that cannot be copied.
    """
    path = as_path(path)
    check_model_export(path, format)
    linear = _checked_linear_map(extractor, head)
    backbone = _backbone_to_export(extractor)
    inputs = describe_inputs(backbone)
    if include_resize and "resize" not in inputs:
        raise ParameterError.of(
            "include_resize",
            True,
            f"False, since {extractor.label} takes inputs of shape {backbone.input_shape}, which "
            "are not resized",
        )
    if format == "keras":
        model = to_keras(extractor, head)
    else:
        with backbone.settings.applied(), fixed_seed():
            model = _with_head(embedding_graph([backbone], backbone.kind.dtype), linear)
    if include_resize:
        with STANDARD.applied():
            model = with_resize(model, backbone.input_form)
        inputs["shape"] = [None, None, backbone.input_shape[2]]
    folder = path.absolute().parent
    with tempfile.TemporaryDirectory(PART_SUFFIX, ".featx-", folder) as beside:
        written = Path(beside) / path.name
        try:
            # Keras and the converters warn about each other.
            with (
                activity(f"converting to {TITLES[format]}"),
                warnings.catch_warnings(action="ignore"),
                backbone.settings.applied(),
                undisturbed_seed(),
            ):
                _write_model(model, written, format)
        except OSError:
            raise
        except Exception as exc:
            raise EngineError(f"{format} cannot hold this network: {exc}") from exc
        entries: dict[str, Any] = {"full_precision": FULL_PRECISION[format], "inputs": inputs}
        if is_classifier(head):
            entries["class_names"] = _class_names(head)
        _ANNOTATORS[format](written, {name: json.dumps(entries[name]) for name in entries})
        _move_into_place(written, path, format)


def describe_inputs(backbone: Backbone) -> dict[str, Any]:
    """Return what a model takes, as plain data: the entry ``inputs`` of an exported file.

    It has the version of ``featx``, the ``dtype`` and the ``shape`` of one input, where None is any
    length. Images also have the ``range`` of their values, from black to white, the ``size``
    (height, width) that they get, the way to ``resize`` them, "stretch", "crop" or "pad", and the
    ``resampling`` filter, which is antialiased. A file is resized already if its ``shape`` is of
    that size.

    Examples
    --------
    >>> source = FeatureExtractor("tiny", resize="crop")._source(None)
    >>> describe_inputs(source.load_backbone())["resize"]
    'crop'
    """
    inputs = {
        "featx": __version__,
        "dtype": backbone.kind.dtype,
        "shape": list(backbone.input_shape),
    }
    if not backbone.kind.is_resized:
        return inputs
    inputs["range"] = [0, 255]
    if backbone.takes_channels_first:
        return inputs
    size = list(backbone.input_shape[:2])
    return {**inputs, "size": size, "resize": backbone.spec.resize, "resampling": RESAMPLING}


def describe_precision(format: str) -> str:
    """Return a hint at the settings with which a file reproduces the estimator's numbers.

    Examples
    --------
    >>> print(describe_precision("openvino"))
    for full precision, call compile_model with the config {"EXECUTION_MODE_HINT": "ACCURACY"}
    """
    return f"for full precision, {_PRECISION_HINTS[format]} {json.dumps(FULL_PRECISION[format])}"


def check_model_export(path: Path, format: str) -> None:
    """Check, before any work, that a model can be exported to a path in a format."""
    faults = ParameterFaults("export")
    faults.check_option("format", format, FORMATS)
    if not path.absolute().parent.is_dir():
        faults.add("path", str(path), "a name in an existing folder.")
    if format in _SUFFIXES and path.suffix != _SUFFIXES[format]:
        others = [f"format={other!r}" for other, end in _SUFFIXES.items() if end == path.suffix]
        cure = "".join(f", or {other}" for other in others)
        faults.add("path", str(path), f"a name that ends with {_SUFFIXES[format]!r}{cure}.")
    if format == "saved_model" and os.path.lexists(path) and not _is_saved_model(path):
        expected = "a new name, or a folder that holds only a SavedModel, which is replaced."
        faults.add("path", str(path), expected)
    if format in FORMATS[1:] and backend_name() != "tensorflow":
        faults.add("format", format, "'keras' on this backend, or KERAS_BACKEND=tensorflow.")
    faults.raise_any()
    for file in exported_files(path, format):
        check_replaceable(file)
    missing = missing_packages(format)
    if missing:
        raise MissingExtraError(
            f"the format {format!r} needs {' and '.join(missing)}: pip install 'featx[{format}]'"
        )


def exported_files(path: Path, format: str) -> list[Path]:
    """Return the files that an export writes; empty for a SavedModel, which is a folder."""
    if format == "saved_model":
        return []
    return [path.with_suffix(".bin"), path] if format == "openvino" else [path]


def _is_saved_model(path: Path) -> bool:
    """Return True for a folder that holds only a SavedModel; False for a link to one."""
    if path.is_symlink() or not (path / "saved_model.pb").is_file():
        return False
    return {entry.name for entry in path.iterdir()} <= _SAVED_MODEL_PARTS


def _backbone_to_export(extractor: FeatureExtractor) -> Backbone:
    check_is_fitted(extractor, "feature_shape_")
    now = extractor.current_source()
    if now.is_cacheable and not now.space.is_equal_but_for_storage(extractor.space_):
        raise BackboneError(
            f"{extractor.label} computes other embeddings than those on which the head was fitted: "
            "its weights or a parameter changed. Call fit again."
        )
    return now.load_backbone()


def _check_input_dtype(input_dtype: str, own_dtype: str) -> None:
    """Check that a model whose inputs are of `own_dtype` can take those of another dtype."""
    faults = ParameterFaults("to_keras")
    faults.check_option(
        "input_dtype", input_dtype, ("auto", *dict.fromkeys((own_dtype, "float32")))
    )
    faults.raise_any()


def _checked_linear_map(extractor: FeatureExtractor, head: BaseEstimator) -> LinearMap:
    """Return the linear map of a head; raise before the network is built if there is none."""
    check_is_fitted(extractor, "feature_shape_")
    check_is_fitted(head)
    linear = linear_map(head, _stand_in_embeddings(head, extractor.space_.n_features))
    if linear is None:
        kind = type([*_steps_of_head(head)][-1]).__name__
        if kind == "CalibratedClassifierCV":
            raise ParameterError(
                "calibrated probabilities cannot become Keras layers: export a model that was "
                "fitted without calibration (featx fit without --calibrate)"
            )
        raise ParameterError(
            f"the head {kind} is not linear, or its probabilities are neither softmax nor "
            "sigmoid, so it cannot become Keras layers: pass a linear one such as "
            "head='logistic', or fine-tune"
        )
    return linear


def _with_head(graph: keras.Model, linear: LinearMap) -> keras.Model:
    """Append the layers of a head to a graph of embeddings."""
    import keras

    scaling, dense = linear.layers(layer.name for layer in graph._flatten_layers())
    outputs = _link_scores(dense(scaling(graph.outputs[0])), linear.link)
    return keras.Model(graph.inputs[0], outputs, name="featx")


def is_exportable(head: BaseEstimator, n_features: int) -> bool:
    """Return True if a fitted head is linear, so that a model with it can be exported."""
    return linear_map(head, _stand_in_embeddings(head, n_features)) is not None


def _link_scores(scores: keras.KerasTensor, link: str | None) -> keras.KerasTensor:
    """Return the probabilities of scores, if there is a link."""
    from keras import ops

    if link == "softmax":
        return ops.softmax(scores)
    if link == "sigmoid" and scores.shape[-1] == 1:
        return ops.sigmoid(ops.concatenate([-scores, scores], axis=-1))
    if link == "sigmoid":
        return ops.sigmoid(scores)
    if link == "normalized sigmoid":
        return ops.softmax(ops.log_sigmoid(scores))  # the sum of sigmoids may be 0
    return scores


def _stand_in_embeddings(head: BaseEstimator, n_features: int) -> np.ndarray:
    """Draw rows like the embeddings on which a head was fitted."""
    rng = np.random.default_rng(0)
    # Many are near the mean, since far from it all links give 0 and 1.
    lengths = 10 ** rng.uniform(-4, 0, (_N_STAND_INS, 1))
    rows = lengths * rng.standard_normal((_N_STAND_INS, n_features))
    scaler = next((step for step in _steps_of_head(head) if isinstance(step, StandardScaler)), None)
    if scaler is None or scaler.n_features_in_ != n_features:
        return rows
    scale = 1 if scaler.scale_ is None else scaler.scale_
    return rows * scale + (0 if scaler.mean_ is None else scaler.mean_)


def _steps_of_head(head: BaseEstimator) -> Iterator[BaseEstimator]:
    """Yield the steps of a head in the order in which they run."""
    if hasattr(head, "best_estimator_"):
        yield from _steps_of_head(head.best_estimator_)
    elif isinstance(head, Pipeline):
        for _, step in head.steps:
            yield from _steps_of_head(step)
    else:
        yield head


def _class_names(head: BaseEstimator) -> list[str]:
    return [str(name) for name in head.classes_]


def _write_model(model: keras.Model, path: Path, format: str) -> None:
    import keras

    from featx.engines.fold import rewritten_for_inference
    from featx.engines.openvino_engine import without_statistics

    if format == "keras":
        model.save(path)
        return
    given = model.inputs[0]
    signature = [keras.InputSpec(dtype=given.dtype, shape=given.shape, name="inputs")]
    if format in ("onnx", "openvino"):  # TensorFlow's own formats need no rewriting
        model = rewritten_for_inference(model)
    if format == "onnx":
        add_missing_operations()
    name = "tf_saved_model" if format == "saved_model" else format
    with without_statistics():
        model.export(str(path), format=name, verbose=False, input_signature=signature)
    if format == "onnx":
        import onnx

        check_onnx_inputs([each.name for each in onnx.load(path).graph.input])


def _annotate_archive(path: Path, entries: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "a") as archive:  # appended to a model that is not an archive
        for name, text in entries.items():
            archive.writestr(f"{name}.json", text)


def _annotate_folder(path: Path, entries: dict[str, str]) -> None:
    extra = path / "assets.extra"
    extra.mkdir()
    for name, text in entries.items():
        (extra / f"{name}.json").write_text(text)


def _annotate_onnx(path: Path, entries: dict[str, str]) -> None:
    import onnx

    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, entries)
    onnx.save(graph, path)


def _annotate_openvino(path: Path, entries: dict[str, str]) -> None:
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the files are overwritten
    graph = core.read_model(path)
    for name, text in entries.items():
        graph.set_rt_info(text, name)
    openvino.serialize(graph, path)


_ANNOTATORS = {
    "keras": _annotate_archive,
    "saved_model": _annotate_folder,
    "onnx": _annotate_onnx,
    "openvino": _annotate_openvino,
    "litert": _annotate_archive,
}


def _move_into_place(written: Path, path: Path, format: str) -> None:
    if format == "saved_model":
        _move_folder(written, path)
    for file in exported_files(path, format):  # OpenVINO's weights first: the graph needs them
        with replaced_atomically(file) as beside:
            os.replace(written.with_name(file.name), beside)


def _move_folder(written: Path, path: Path) -> None:
    if not path.exists():
        os.replace(written, path)
        return
    old = written.with_name(uuid.uuid4().hex)  # os.replace does not replace a folder with files
    written.chmod(stat.S_IMODE(path.stat().st_mode))
    os.replace(path, old)
    try:
        os.replace(written, path)
    except BaseException:
        os.replace(old, path)
        raise
