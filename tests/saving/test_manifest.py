"""The manifest of a saved file: all of it is checked before anything is built."""

import inspect
import json

import pytest

from featx import FeatureExtractor
from featx.exceptions import ParameterError
from featx.saving.manifest import check_manifest, parse_manifest

CLASSES = ("FeatureExtractor", "TransferClassifier", "TransferRegressor")


def manifest(changes):
    """Return a valid manifest, with fields set or (...) left out: ``{"params.views": 2}``."""
    space = {"dtype": "float32", "input_shape": [64, 64, 3], "feature_shape": [400], "graph": "a"}
    params = inspect.signature(FeatureExtractor).parameters
    sound = {
        "format": 2,
        "featx": "1.0",
        "class": "TransferClassifier",
        "backbone": {"name": "tiny"},
        "preprocessing": "auto",
        "params": {
            name: param.default
            for name, param in params.items()
            if name not in ("backbone", "preprocessing", "read", "cache", "also_cache")
        },
        "fitted": {"feature_shape_": [400], "array_shape_": [64, 64, 3]},
        "space": {"label": "tiny", "identity": space},
        "estimator": {"random_state": None, "verbose": 0, "fitted": {}, "report": {}},
    }
    for path, value in changes.items():
        *parents, name = path.split(".")
        part = sound
        for parent in parents:
            part = part[parent]
        if value is ...:
            del part[name]
        else:
            part[name] = value
    return sound


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class": "TransferRegressor", "estimator.random_state": 3},
        {"class": "FeatureExtractor", "estimator": ...},
        {"params.weights": "imagenet"},
        {"backbone": {"file": "backbone.keras"}, "preprocessing": {"file": "preprocessing.keras"}},
        {"backbone": {"name": "vgg16", "weights": {"file": "weights.h5", "name": "mine.h5"}}},
        {"params.views": 3, "params.augment": {"file": "augment.keras"}},
        {"params.input_size": [32, 48], "params.n_jobs": -1, "params.layer": "stage3"},
        {"params.backbone_params": {"alpha": 0.35}, "params.verbose": True},
        {"params.resize": "crop", "params.in_channels": 13},
        {"reader": {"digest": "ab", "label": "read"}},
        {"fitted.n_features_in_": 2, "fitted.feature_names_in_": ["a", "b"]},
        {"fitted.float_range_": [0.0, 255.0]},
        {"fitted.array_shape_": None, "report": {"n_samples": 3}},
        {"output": "pandas", "requests": {"transform": {"out": False}}},
        {"estimator.output": "polars", "estimator.requests": {"fit": {"sample_weight": "w"}}},
        {"estimator.requests": {"partial_fit": {"classes": True}}},
    ],
)
def test_check_manifest_takes_what_save_writes(changes):
    check_manifest(parse_manifest(json.dumps(manifest(changes)).encode()), CLASSES)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 1),
        ("format", True),
        ("format", 2.0),
        ("featx", None),
        ("class", "os.system"),
        ("class", ["TransferClassifier"]),
        ("class", None),
        ("evil", 1),
        ("space", ...),
        ("space", []),
        ("space.label", ...),
        ("space.label", 5),
        ("space.more", 5),
        ("space.identity", [1]),
        ("space.identity.dtype", "object"),
        ("space.identity.feature_shape", [10**12]),
        ("space.identity.feature_shape", [401]),
        ("space.identity.feature_shape", [2**16, 2**16]),
        ("space.identity.input_shape", "abc"),
        ("space.identity.input_shape", [0, 4]),
        ("space.identity.input_shape", [True]),
        ("estimator", ...),
        ("estimator", [1]),
        ("estimator.os", 1),
        ("estimator.fine_tune", {}),
        ("estimator.random_state", -1),
        ("estimator.random_state", 2**40),
        ("estimator.fitted", {"head_": 1}),
        ("estimator.fitted", {"feature_names_in_": ["a"]}),
        ("estimator.report", [1]),
        ("output", "numpy"),
        ("output", None),
        ("requests", {"fit": {"sample_weight": True}}),
        ("requests", {"transform": {"out": 1}}),
        ("estimator.output", ["pandas"]),
        ("estimator.requests", ["fit"]),
        ("estimator.requests", {"fit": ["groups"]}),
        ("estimator.requests", {"fit": {"groups": "not a name"}}),
        ("estimator.requests", {"fit": {"y": True}}),
        ("estimator.requests", {"os": {"groups": True}}),
        ("fitted", [1]),
        ("fitted.transform", 5),
        ("fitted.__class__", 5),
        ("fitted.__dict__", {}),
        ("fitted.backbone", "/etc/passwd.keras"),
        ("fitted.cache", "/tmp"),
        ("fitted.n_features_in_", 0),
        ("fitted.feature_names_in_", ["a"]),
        ("fitted.float_range_", [255.0, 0.0]),
        ("fitted.float_range_", [0, 1, 2]),
        ("fitted.array_shape_", [-1]),
        ("fitted.array_shape_", ...),
        ("backbone", None),
        ("backbone", "file"),
        ("backbone", {}),
        ("backbone", {"name": 5}),
        ("backbone", {"name": "/etc/hostname"}),
        ("backbone", {"name": "model.keras"}),
        ("backbone", {"name": "/dev/zero"}),
        ("backbone", {"name": "hf://someone/model"}),
        ("backbone", {"name": "tiny", "file": "backbone.keras"}),
        ("backbone", {"name": "tiny", "label": "tiny"}),
        ("backbone", {"file": "backbone.keras", "label": 5}),
        ("backbone", {"file": "../x.keras"}),
        ("backbone", {"name": "vgg16", "weights": "weights.h5"}),
        ("backbone", {"name": "vgg16", "weights": {"file": "weights.h5"}}),
        ("backbone", {"name": "vgg16", "weights": {"file": "/etc/passwd", "name": "w.h5"}}),
        ("backbone", {"name": "vgg16", "weights": {"file": "weights.h5", "name": "w.keras"}}),
        ("backbone", {"name": "vgg16", "weights": {"file": "weights.h5", "name": 5}}),
        ("backbone", {"name": "tiny", "weights": {"file": "weights.h5", "name": "w.h5"}}),
        ("preprocessing", 5),
        ("preprocessing", "os"),
        ("preprocessing", {"file": "x"}),
        ("params", [1]),
        ("params.evil", 1),
        ("params.cache", "/tmp"),
        ("params.also_cache", ["a"]),
        ("params.weights", "/etc/passwd"),
        ("params.weights", "/dev/zero"),
        ("params.weights", "https://localhost/x.h5"),
        ("params.weights", None),
        ("params.backbone_params", {"weights": "/dev/zero"}),
        ("params.backbone_params", {"input_tensor": 1}),
        ("params.backbone_params", {"alpha": [1]}),
        ("params.backbone_params", "x"),
        ("params.layer", ["a"]),
        ("params.pooling", "x"),
        ("params.pooling", []),
        ("params.input_size", [10**6, 10**6]),
        ("params.input_size", [64]),
        ("params.input_size", 0),
        ("params.resize", "fill"),
        ("params.resize", None),
        ("params.in_channels", 0),
        ("params.in_channels", 10**9),
        ("params.batch_size", 10**9),
        ("params.batch_size", None),
        ("params.precision", "float64"),
        ("params.engine", "os"),
        ("params.views", 10**9),
        ("params.views", 2),
        ("params.augment", "zz"),
        ("params.on_error", 1),
        ("params.n_jobs", 10**9),
        ("params.n_jobs", 0),
        ("params.verbose", "x"),
        ("params.verbose", 10**9),
    ],
)
def test_check_manifest_names_the_faulty_field(path, value):
    with pytest.raises(ParameterError) as caught:
        check_manifest(manifest({path: value}), CLASSES)
    assert path.split(".")[-1] in str(caught.value)


@pytest.mark.parametrize("value", [None, 1, "abc", [1], [], {}])
def test_check_manifest_of_another_form_raises(value):
    with pytest.raises(ParameterError):
        check_manifest(value, CLASSES)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\xff\xfe{}", "can't decode"),
        (b"", "Expecting value"),
        (b'{"format": NaN}', "holds NaN"),
        (b'{"format": -Infinity}', "holds -Infinity"),
        (b'{"a": 1, "a": 2}', "holds 'a' twice"),
        (b'{"format": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b"[" * 100_000 + b"]" * 100_000, "recursion"),
        (b"[" * 900 + b"]" * 900, "nested too deeply"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply"),
    ],
)
def test_parse_manifest_of_damaged_json_raises(data, fault):
    with pytest.raises(ParameterError, match=fault):
        parse_manifest(data)
