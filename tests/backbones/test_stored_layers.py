"""Configurations of Keras models from strangers, one test for each public advisory on .keras files.

Nothing here imports Keras: what is refused is refused before Keras sees it. Written from the
descriptions of the advisories.
"""

import json
import subprocess
import sys

import pytest

from featx.backbones.untrusted_model import ConfigurationError, check_configuration


def layer(kind, *, module="keras.layers", **config):
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def function(name, *, module="builtins"):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def check(*layers, **more):
    inputs = layer("InputLayer", batch_shape=[None, 4], dtype="float32", name="in")
    model = layer("Sequential", module="keras", name="model", layers=[inputs, *layers])
    return check_configuration(json.dumps({**model, **more}).encode())


LAMBDA_CODE = {"class_name": "__lambda__", "config": {"code": "", "defaults": None}}
ADVISORIES = {
    "CVE-2024-3660: bytecode in a Lambda": layer("Lambda", function=LAMBDA_CODE),
    "CVE-2024-3660: bytecode as an activation": layer("Dense", units=1, activation=LAMBDA_CODE),
    "CVE-2024-55459: get_file writes a file": layer(
        "Lambda", function=function("get_file", module="keras.utils")
    ),
    "CVE-2025-1550: a function of any module": layer(
        "Dense", units=1, activation=function("system", module="os")
    ),
    "CVE-2025-1550: a builtin": layer("Dense", units=1, activation=function("eval")),
    "CVE-2025-1550: a class of any module": layer("Popen", module="subprocess", args=["true"]),
    "CVE-2025-8747: a function of Keras that downloads": layer(
        "Dense", units=1, activation=function("get_file", module="keras.utils")
    ),
    "CVE-2025-9906: a function that switches safe mode off": layer(
        "Dense",
        units=1,
        activation=function("enable_unsafe_deserialization", module="keras.config"),
    ),
    "CVE-2025-9906: a function that loads a model": layer(
        "Lambda", function=function("load_model", module="keras.models"), arguments={}
    ),
    "CVE-2025-12058: a vocabulary that is a path": layer("StringLookup", vocabulary="/etc/passwd"),
    "CVE-2025-12058: a vocabulary that is a URL": layer(
        "TextVectorization", vocabulary="http://localhost/"
    ),
    "CVE-2025-12058: a vocabulary of numbers": layer("IntegerLookup", vocabulary="/etc/passwd"),
    "CVE-2025-12060: get_file unpacks an archive": layer(
        "Dense",
        units=1,
        kernel_initializer=function("get_file", module="keras.src.utils.file_utils"),
    ),
    "CVE-2025-49655: a module of PyTorch": layer("TorchModuleWrapper", module_=""),
    "CVE-2026-1462: a SavedModel from a path": layer("TFSMLayer", filepath="/tmp/model"),
    "code of JAX": layer("JaxLayer", call_fn=LAMBDA_CODE),
    "code of Flax": layer("FlaxLayer", module_=layer("Module", module="flax.linen")),
    "CVE-2026-12481: a Lambda without a module, read as a legacy format": {
        "class_name": "Lambda",
        "config": {"name": "code", "function": "", "function_type": "lambda"},
    },
}


@pytest.mark.parametrize("part", ADVISORIES.values(), ids=ADVISORIES)
def test_check_configuration_refuses_parts_of_advisories(part):
    with pytest.raises(ConfigurationError, match=f"{part['class_name']}|function|__lambda__"):
        check(part)


def test_check_configuration_looks_at_every_depth():
    inner = layer("Sequential", module="keras", name="inner", layers=[layer("Lambda")])
    with pytest.raises(ConfigurationError, match=r"Lambda of keras\.layers"):
        check(layer("TimeDistributed", layer=inner))
    with pytest.raises(ConfigurationError, match=r"Lambda of keras\.layers"):
        check(build_config={"shapes": [{"deep": layer("Lambda")}]})


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (layer("Dense", module="keras.src.layers.core.dense"), "Dense of keras.src.layers"),
        (layer("deserialize", module="keras.losses"), "deserialize of keras.losses"),
        (layer("Map", module="keras.src.ops.core"), "Map of keras.src.ops.core"),
        (layer("Dense.__init__"), "Dense.__init__ of keras.layers"),
        (layer("Dense", module=None), "Dense of an unknown module"),
        (layer("Dense", module=5), "module 5"),
        ({**layer("Dense"), "class_name": ["Dense"]}, r"class \['Dense'\]"),
        ({**layer("Dense"), "registered_name": "mine>Evil"}, "under the name 'mine>Evil'"),
        ({"class_name": "__typespec__", "config": {}}, "__typespec__"),
        ({"class_name": "__numpy__", "config": {"value": [1], "dtype": "O"}}, "dtype 'O'"),
        ({"class_name": "__tensor__", "config": [1]}, "dtype None"),
        ({"class_name": "__numpy__", "config": {"dtype": ["O"]}}, r"dtype \['O'\]"),
        (function("relu", module="os"), "function 'relu' of os"),
        (function(["relu"]), r"function \['relu'\]"),
        (layer("MyLayer", module="mine"), "MyLayer of mine"),
    ],
)
def test_check_configuration_names_what_is_not_known(part, fault):
    with pytest.raises(ConfigurationError, match=fault):
        check(part)


@pytest.mark.parametrize(
    "part",
    [
        layer("Dense", units=3, activation="relu", kernel_regularizer=layer(
            "L2", module="keras.regularizers", l2=0.1)),
        layer("Dense", units=3, activation=function("relu")),
        layer("Dense", dtype=layer("DTypePolicy", module="keras", name="float32")),
        layer("LayerScale", module="keras.src.applications.convnext"),
        {**layer("Add", module="keras.src.ops.numpy"), "registered_name": "Add"},
        {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32"}},
        {"class_name": "__numpy__", "config": {"value": [1], "dtype": "float32"}},
    ],
)  # fmt: skip
def test_check_configuration_takes_layers_of_keras(part):
    assert check(part)["config"]["layers"][-1] == part


def test_check_configuration_endless_step_raises():
    check(layer("RandAugment", num_ops=2), layer("AugMix", num_chains=3, chain_depth=3))
    with pytest.raises(ConfigurationError, match="RandAugment with num_ops=1000000000"):
        check(layer("RandAugment", num_ops=10**9))


def test_check_configuration_id_for_two_objects_raises():
    same = layer("Dense", units=1) | {"shared_object_id": 1}
    check(same, same)
    with pytest.raises(ConfigurationError, match="one id to two objects"):
        check(same, same | {"config": {}})


def test_check_configuration_leaves_out_compilation():
    compiled = layer("Dense", units=1) | {"compile_config": {"loss": layer("Lambda")}}
    assert "compile_config" not in json.dumps(check(compiled, compile_config={"a": 1}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"class_name": 5}',
        b"[" * 100_000,
        b'{"class_name": "Sequential", "module": "keras", "config": {"n": 1' + b"0" * 30 + b"}}",
    ],
)
def test_check_configuration_of_damaged_json_raises(data):
    with pytest.raises(ConfigurationError):
        check_configuration(data)


def test_check_configuration_needs_no_keras():
    code = "import sys, featx.backbones.untrusted_model; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
