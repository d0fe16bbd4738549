"""``head_bytes``, ``load_head``: heads in saved files, by skops, which builds no untrusted types.

Trusted types are not enough. An array may declare more than it holds, a node of a tree may point
outside its arrays (scikit-learn follows it, and the process crashes), and a path in a parameter may
lead to files of this machine. So the file is checked before skops builds anything, and the result
before it is used.

skops names each class with its module. In saved files, featx' own classes have the name of the
package, as in ``featx.KNNProbe``, so that modules may move; files with an older module are read
too.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import skops.io
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from featx._archives import read_members
from featx.exceptions import ParameterError, SavedFileError, UntrustedTypesError
from featx.heads.folds import SampleFolds
from featx.heads.named import find_head
from featx.probes.knn import KNNProbe
from featx.probes.linear import LinearProbe
from featx.probes.nearest_mean import NearestMeanProbe
from featx.probes.pca import MomentPCA
from featx.probes.ridge import RidgeProbe, RidgeProbeRegressor

# Classes of featx in heads, which skops does not know.
_OWN_CLASSES = {
    kind.__name__: kind
    for kind in (
        KNNProbe,
        LinearProbe,
        MomentPCA,
        NearestMeanProbe,
        RidgeProbe,
        RidgeProbeRegressor,
        SampleFolds,
    )
}
_OWN_ROOT = "featx"
# Parts of a CalibratedClassifierCV: numbers, and estimators that are checked themselves.
_CALIBRATION_TYPES = [
    f"sklearn.calibration.{name}"
    for name in ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
]
# How a head splits samples: names and numbers only.
_SPLITTERS = [
    f"sklearn.model_selection._split.{name}"
    for name in (
        *("GroupKFold", "GroupShuffleSplit", "KFold", "LeaveOneGroupOut", "LeaveOneOut"),
        *("RepeatedKFold", "RepeatedStratifiedKFold", "ShuffleSplit", "StratifiedGroupKFold"),
        *("StratifiedKFold", "StratifiedShuffleSplit", "TimeSeriesSplit"),
    )
]
# Types that heads may consist of, beside those that skops knows.
HEAD_TYPES = [f"{kind.__module__}.{name}" for name, kind in _OWN_CLASSES.items()]
HEAD_TYPES += [*_CALIBRATION_TYPES, *_SPLITTERS]
# Estimators whose trees are allowed, after a check of their arrays; other estimators pass a tree to
# code that checks less.
_TREE = "sklearn.tree._tree.Tree"
_TREE_OWNERS = frozenset(
    {
        "DecisionTreeClassifier",
        "DecisionTreeRegressor",
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "RandomForestClassifier",
        "RandomForestRegressor",
    }
)
_TREE_MODULES = ("sklearn.ensemble.", "sklearn.tree.")
_LIBSVM_CLASSIFIERS = (SVC, NuSVC)
_LIBSVM = (*_LIBSVM_CLASSIFIERS, SVR, NuSVR, OneClassSVM)
_SCHEMA = "schema.json"
_PROTOCOL = 2  # of skops 0.16, the oldest that featx has used
_MAX_SCHEMA_BYTES = 2**28
_MAX_PART_BYTES = 2**34
_MAX_PARTS = 1_000_000
_MAX_DEPTH = 200
_PARTS = re.compile(r"\d+\.np[yz]|[0-9a-f-]{36}\.bin")


def head_bytes(head: Any, fitted: Any, trusted: Sequence[str]) -> bytes:
    """Return a head, as it was passed and as it was fitted, as the bytes of a skops file.

    Raise UntrustedTypesError if the head holds types that neither skops nor featx nor the caller
    trusts; ParameterError if it holds objects that skops cannot write.
    """
    try:  # skops and copies call methods of the types, which may raise anything
        parts = copy.deepcopy({"head": head, "head_": fitted})
        for part in _objects_in_head(parts, set()):
            # Requests of metadata routing matter to `fit` only, and refer to the part itself, which
            # skops would follow endlessly.
            for name in _request_attributes():
                vars(part).pop(name, None)
        data = skops.io.dumps(parts)
    except Exception as exc:
        raise ParameterError(f"the head cannot be saved: {exc}") from exc
    members = _members_of_skops_file(data)
    schema = _schema_of(members)
    _trusted_types(data, schema, trusted)
    return _with_modules(data, members, schema, lambda kind: _OWN_ROOT)


def load_head(
    data: bytes, trusted: Sequence[str], *, n_features: int, heads: Mapping[str, Any]
) -> dict[str, Any]:
    """Read a head from the bytes of an untrusted file.

    `trusted` types are those of :func:`featx.load`, `n_features` is the length of an embedding, and
    `heads` are those by name. Return ``"head"``, a name or an estimator, and ``"head_"``, the
    fitted estimator.

    Raise UntrustedTypesError, before anything is built, if the file holds types that are not
    trusted; SavedFileError if it is damaged, or its head does not predict from such embeddings.
    """
    try:
        members = _members_of_skops_file(data)
        schema = _schema_of(members)
        _check_arrays(members)
        data = _with_modules(data, members, schema, lambda kind: kind.__module__)
        types = _trusted_types(data, schema, trusted)
        _check_trees(schema, members)
        parts = skops.io.loads(data, trusted=types)
        _check_head_parts(parts, heads, n_features)
    except UntrustedTypesError:
        raise
    except Exception as exc:  # whatever skops, or a class that it builds, raises on damaged data
        reason = exc if isinstance(exc, ValueError) else repr(exc)
        raise SavedFileError(f"the head in it is damaged: {reason}") from exc
    for part in _objects_in_head(parts, set()):
        if isinstance(getattr(part, "memory", None), str):
            part.memory = None  # a folder of pickles on the machine where the head was saved
    return parts


def _members_of_skops_file(data: bytes) -> dict[str, bytes]:
    return read_members(io.BytesIO(data), _max_member_bytes, max_members=_MAX_PARTS)


def _max_member_bytes(name: str) -> int | None:
    if name == _SCHEMA:
        return _MAX_SCHEMA_BYTES
    return _MAX_PART_BYTES if _PARTS.fullmatch(name) else None


def _schema_of(members: dict[str, bytes]) -> dict[str, Any]:
    """Return the schema of a skops file; raise if two objects have the same id."""
    schema = json.loads(members[_SCHEMA])
    if not isinstance(schema, dict) or type(schema.get("protocol")) is not int:
        raise ValueError(f"{_SCHEMA} holds {reprlib.repr(schema)}, expected a schema of skops")
    if schema["protocol"] < _PROTOCOL:
        raise ValueError(
            f"it has protocol {schema['protocol']} of skops, expected {_PROTOCOL} or later"
        )
    known: dict[Any, Any] = {}
    for node in _nodes_in_schema(schema):
        # skops takes the first object with an id, whatever a later node holds.
        meaning = _meaning_of_node(node)
        if known.setdefault(node.get("__id__"), meaning) != meaning and "__id__" in node:
            raise ValueError(f"two objects have the same id {node['__id__']!r}")
    return schema


def _with_modules(
    data: bytes, members: dict[str, bytes], schema: dict[str, Any], module_of: Callable[[type], str]
) -> bytes:
    """Change the modules of featx' own classes in a schema, and return a skops file with it."""
    own = [
        node
        for node in _nodes_in_schema(schema)
        if node["__module__"].partition(".")[0] == _OWN_ROOT and node["__class__"] in _OWN_CLASSES
    ]
    if not own:
        return data
    for node in own:
        node["__module__"] = module_of(_OWN_CLASSES[node["__class__"]])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**members, _SCHEMA: json.dumps(schema).encode()}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _nodes_in_schema(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a schema; raise if it is nested too deeply."""
    waiting = [(schema, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(
                f"{_SCHEMA} is nested too deeply, expected {_MAX_DEPTH} levels at most"
            )
        if isinstance(value, dict):
            if "__loader__" in value or "__id__" in value:
                yield value
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _meaning_of_node(node: dict[str, Any]) -> tuple[Any, ...]:
    kind = tuple(node.get(name) for name in ("__loader__", "__module__", "__class__"))
    if not all(isinstance(name, str) for name in kind) or kind[0] == "CachedNode":
        raise ValueError(
            f"an object has the loader, module and class {kind}, expected three names, and a "
            "loader other than CachedNode"
        )
    if kind[0] == "NdArrayNode":
        return (*kind, node.get("file"))
    return (*kind, node.get("content")) if kind[0] == "JsonNode" else kind


def _check_arrays(members: dict[str, bytes]) -> None:
    """Check that arrays hold as much data as they declare, before memory is allocated."""
    for name, data in members.items():
        if name.endswith(".npz"):
            inner = read_members(
                io.BytesIO(data),
                lambda name: _MAX_PART_BYTES if name.endswith(".npy") else None,
                max_members=16,
            )
            _check_arrays(inner)
            sparse = scipy.sparse.load_npz(io.BytesIO(data))
            if hasattr(sparse, "check_format"):
                sparse.check_format(full_check=True)  # its indices may point outside it
        elif name.endswith(".npy"):
            _check_array(data)


def _check_array(data: bytes) -> None:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array has version {version} of the .npy format, expected 1.0 or 2.0")
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[version[0]](file)
    n_bytes = functools.reduce(lambda a, b: a * b, shape, 1) * dtype.itemsize
    n_held = len(data) - file.tell()
    if dtype.hasobject or n_bytes != n_held:
        raise ValueError(
            f"an array holds {n_held:,} bytes, expected numbers of {dtype} in the shape {shape}"
        )


def _trusted_types(data: bytes, schema: dict[str, Any], trusted: Sequence[str]) -> list[str]:
    """Return the types that may be built; raise if the file holds others."""
    types = [*trusted, *HEAD_TYPES]
    classes = {
        node["__class__"]
        for node in _nodes_in_schema(schema)
        if node["__module__"].startswith(_TREE_MODULES)
    }
    if classes - {"Tree"} <= _TREE_OWNERS:
        types.append(_TREE)
    untrusted = sorted(set(skops.io.get_untrusted_types(data=data)) - set(types))
    if untrusted:
        raise UntrustedTypesError(
            f"the head holds types that are not known to be safe: {', '.join(untrusted)}.",
            untrusted,
        )
    return types


def _check_trees(schema: dict[str, Any], members: dict[str, bytes]) -> None:
    """Check the arrays of decision trees, which scikit-learn follows without checks."""
    seen: dict[Any, int] = {}
    trees = []
    for node in _nodes_in_schema(schema):
        seen[node.get("__id__")] = seen.get(node.get("__id__"), 0) + 1
        is_tree = f"{node['__module__']}.{node['__class__']}" == _TREE
        if is_tree != (node["__loader__"] == "TreeNode"):
            raise ValueError(
                f"a {node['__class__']} has the loader {node['__loader__']}, expected TreeNode for "
                "trees and nothing else"
            )
        if is_tree:
            trees.append(node)
    for tree in trees:
        args, state = tree["__reduce__"]["args"], tree["content"]
        for node, loader in ((args, "TupleNode"), (state, "DictNode")):
            if node["__loader__"] != loader or seen[node.get("__id__")] > 1:
                raise ValueError(
                    f"a tree has a {node['__loader__']}, expected a {loader} of its own"
                )
        _check_tree(
            [_value_of_node(node, members) for node in args["content"]],
            {name: _value_of_node(node, members) for name, node in state["content"].items()},
        )


def _value_of_node(node: dict[str, Any], members: dict[str, bytes]) -> Any:
    if node["__loader__"] == "JsonNode":
        return json.loads(node["content"])
    if node["__loader__"] != "NdArrayNode" or node.get("type") != "numpy":
        raise ValueError(f"a tree holds a {node['__loader__']}, expected an array of NumPy")
    return np.load(io.BytesIO(members[node["file"]]), allow_pickle=False)


def _check_tree(args: list[Any], state: dict[str, Any]) -> None:
    """Check the arrays of one tree: their sizes, and the targets of its nodes."""
    n_features, n_classes, n_outputs = args
    nodes, values, n_nodes = state["nodes"], state["values"], state["node_count"]
    max_depth = state["max_depth"]
    is_sound = (
        all(type(n) is int and n > 0 for n in (n_features, n_outputs, n_nodes))
        and type(max_depth) is int
        and state.keys() == {"nodes", "values", "node_count", "max_depth"}
        and n_classes.dtype.kind in "iu"
        and n_classes.shape == (n_outputs,)
        and n_classes.min() > 0
        and nodes.shape == (n_nodes,)
        and values.shape == (n_nodes, n_outputs, n_classes.max())
        and values.dtype == np.float64
    )
    if not is_sound:
        raise ValueError(
            f"the parts of a tree do not fit together: nodes of shape {nodes.shape}, values of "
            f"{values.shape}, for {n_nodes} nodes, {n_outputs} outputs and classes {n_classes}"
        )
    _check_tree_nodes(nodes, n_features=n_features, max_depth=max_depth)


def _check_tree_nodes(nodes: np.ndarray, *, n_features: int, max_depth: int) -> None:
    n_nodes = len(nodes)
    left, right = (nodes[name].astype(np.int64) for name in ("left_child", "right_child"))
    inner = np.flatnonzero(left != -1)
    children = np.concatenate([left[inner], right[inner]])
    features = nodes["feature"][inner]
    is_sound = (
        np.array_equal(inner, np.flatnonzero(right != -1))
        and (children > np.tile(inner, 2)).all()  # so there is no cycle
        and np.array_equal(np.sort(children), np.arange(1, n_nodes))  # each has one parent
        and ((features >= 0) & (features < n_features)).all()
        and _depth_of_tree(left, right) <= max_depth <= n_nodes
    )
    if not is_sound:
        raise ValueError(
            f"the nodes of a tree do not form one of {n_nodes} nodes, {n_features} features and "
            f"depth {max_depth}"
        )


def _depth_of_tree(left: np.ndarray, right: np.ndarray) -> int:
    depth, level = -1, np.zeros(1, np.int64)
    while len(level):
        below = np.concatenate([left[level], right[level]])
        depth, level = depth + 1, below[below != -1]
    return depth


def _check_head_parts(parts: Any, heads: Mapping[str, Any], n_features: int) -> None:
    """Check that a file holds a head, and a fitted one that predicts from an embedding."""
    if not isinstance(parts, dict) or parts.keys() != {"head", "head_"}:
        held = list(parts) if isinstance(parts, dict) else type(parts).__name__
        raise ValueError(f"it holds {held}, expected 'head' and 'head_'")
    find_head(parts["head"], dict(heads))
    head = parts["head_"]
    for part in _objects_in_head(head, set()):
        trees = [part] if hasattr(part, "tree_") else getattr(part, "estimators_", [])
        for tree in trees if type(part).__name__ in _TREE_OWNERS else []:
            counts = {part.n_features_in_, tree.n_features_in_, tree.tree_.n_features}
            if len(counts) > 1:
                raise ValueError(f"its trees take {sorted(counts)} features, expected one number")
        if isinstance(part, _LIBSVM) and hasattr(part, "support_"):
            _check_support_vectors(part)
    predicted = np.asarray(head.predict(np.zeros((1, n_features))))
    if len(predicted) != 1:
        raise ValueError(f"it predicts {len(predicted)} values for one sample, expected 1")


def _check_support_vectors(svm: Any) -> None:
    """Check the arrays of a support vector machine, which libsvm follows without checks."""
    n_support, support, dual = svm._n_support, svm.support_, svm._dual_coef_
    n_classes, n_vectors = len(n_support), len(support)
    n_pairs = n_classes * (n_classes - 1) // 2
    is_of_vectors = svm.kernel != "precomputed" and not callable(svm.kernel)
    is_sound = (
        "_impl" not in vars(svm)
        and n_classes >= 2
        and ((support >= 0) & (support < svm.shape_fit_[0])).all()
        and (not is_of_vectors or svm.support_vectors_.shape == (n_vectors, svm.n_features_in_))
        and dual.shape == (n_classes - 1, n_vectors)
        and dual.size == math.prod(dual.shape)  # the latter may be sparse
        and svm._intercept_.shape == (n_pairs,)
        and len(svm._probA) == len(svm._probB)
        and len(svm._probA) in (0, n_pairs)
    )
    if isinstance(svm, _LIBSVM_CLASSIFIERS):
        is_sound = is_sound and (n_support >= 0).all() and n_support.sum() == n_vectors
    if not is_sound:
        raise ValueError(
            f"the parts of a {type(svm).__name__} do not fit together: {n_vectors} support "
            f"vectors, coefficients of shape {dual.shape}, for {n_classes} classes"
        )


@functools.cache
def _request_attributes() -> set[str]:
    """Return the attributes that hold the requests of metadata routing in scikit-learn."""
    with config_context(enable_metadata_routing=True):
        asking = StandardScaler().set_fit_request(sample_weight=True)
    return set(vars(asking)) - set(vars(StandardScaler()))


def _objects_in_head(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the estimators in a head, and the objects of scikit-learn that hold them."""
    if id(value) in seen:
        return
    seen.add(id(value))
    is_of_sklearn = type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__")
    if isinstance(value, BaseEstimator) or is_of_sklearn:
        yield value
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, list | tuple):
        for each in value:
            yield from _objects_in_head(each, seen)
