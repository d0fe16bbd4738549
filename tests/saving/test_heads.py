"""Heads in saved files: named ones need no trust, crafted ones build nothing."""

import io
import json
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import KFold, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM

import featx
from featx.exceptions import ParameterError, SavedFileError, UntrustedTypesError
from featx.heads.named import CLASSIFIER_HEADS, REGRESSOR_HEADS, head_for_outputs, make_head
from featx.probes.knn import KNNProbe
from featx.saving.heads import head_bytes, load_head

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 6))
LABELS = np.array(["a", "b", "c", "d"] * 10)
TAGS = rng.integers(0, 2, (40, 3))
SEVERAL = np.stack([LABELS, LABELS[::-1]], axis=1)
VALUES = rng.normal(size=40)


def load(data, trusted=(), heads=CLASSIFIER_HEADS):
    return load_head(data, trusted, n_features=6, heads=heads)


CASES = [
    *(("classifier", name, y) for name in CLASSIFIER_HEADS for y in (LABELS, TAGS, SEVERAL)),
    *(
        ("regressor", name, y)
        for name in REGRESSOR_HEADS
        for y in (VALUES, rng.normal(size=(40, 2)))
    ),
]


@pytest.mark.parametrize(("kind", "name", "y"), CASES)
def test_named_head_is_saved_and_loaded_untrusted(kind, name, y):
    heads = CLASSIFIER_HEADS if kind == "classifier" else REGRESSOR_HEADS
    head = head_for_outputs(make_head(name, heads), y)
    if name == "forest":
        head.set_params(n_estimators=5)
    head.fit(X, y)
    parts = load(head_bytes(name, head, ()), heads=heads)
    assert parts["head"] == name
    np.testing.assert_array_equal(parts["head_"].predict(X), head.predict(X))


def own_modules(data):
    nodes = nodes_of(schema_of(data), "ObjectNode")
    return {node["__module__"] for node in nodes if node["__module__"].startswith("featx")}


def test_head_bytes_name_own_classes_without_module():
    head = KNNProbe().fit(X, LABELS)
    assert own_modules(head_bytes(head, head, ())) == {"featx"}


@pytest.mark.parametrize("module", ["featx.probes.neighbors", "featx.moved", "featx"])
def test_load_head_finds_moved_classes(module):
    head = KNNProbe().fit(X, LABELS)

    def change(schema):
        for node in nodes_of(schema, "ObjectNode"):
            if node["__class__"] == "KNNProbe":
                node["__module__"] = module

    loaded = load(crafted(head_bytes(head, head, ()), change))["head_"]
    assert type(loaded) is KNNProbe
    np.testing.assert_array_equal(loaded.predict(X), head.predict(X))


def test_load_head_reads_file_of_older_layout():
    """It was written when `KNNProbe` lived in `featx.probes.neighbors`."""
    data = (Path(__file__).parent / "data" / "knn_probe_of_older_layout.skops").read_bytes()
    assert own_modules(data) == {"featx.probes.neighbors"}
    X = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    head = KNNProbe().fit(X, np.array(["a", "b"] * 10))
    np.testing.assert_array_equal(load(data)["head_"].predict(X), head.predict(X))


def test_head_that_cannot_be_copied_raises():
    head = LogisticRegression()
    head.lock = threading.Lock()
    with pytest.raises(ParameterError, match="the head cannot be saved"):
        head_bytes(head, head, ())


def test_load_head_continues_partial_fit():
    head = SGDClassifier(random_state=0).partial_fit(X[:20], LABELS[:20], classes=list("abcd"))
    loaded = load(head_bytes(head, head, ()))["head_"]
    for each in (head, loaded):
        each.partial_fit(X[20:], LABELS[20:])
    np.testing.assert_array_equal(loaded.coef_, head.coef_)


@pytest.mark.parametrize(
    "head", [KNeighborsClassifier(algorithm="kd_tree"), AdaBoostClassifier(n_estimators=2)], ids=str
)
def test_other_heads_need_their_types_trusted(head):
    head.fit(X, LABELS)
    with pytest.raises(UntrustedTypesError) as caught:
        head_bytes(head, head, ())
    trusted = str(caught.value).partition("trusted=")[2].strip("[]'").split("', '")
    data = head_bytes(head, head, trusted)
    with pytest.raises(UntrustedTypesError):
        load(data)
    np.testing.assert_array_equal(load(data, trusted)["head_"].predict(X), head.predict(X))


def test_load_head_forgets_folders_of_this_machine(tmp_path):
    head = make_pipeline(StandardScaler(), LogisticRegression(), memory=str(tmp_path))
    head.fit(X, LABELS)
    assert load(head_bytes(head, head, ()))["head_"].memory is None


# What strangers make of it.


@pytest.fixture(scope="module")
def forest():
    return head_bytes(
        "forest", RandomForestClassifier(2, random_state=0, max_depth=2).fit(X, LABELS), ()
    )


@pytest.fixture(scope="module")
def linear():
    return head_bytes("ridge", LogisticRegression().fit(X, LABELS), ())


def crafted(data, change=None, **more):
    """Return a skops file whose schema was changed, or with other members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if change:
        schema = json.loads(members["schema.json"])
        change(schema)
        members["schema.json"] = json.dumps(schema).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, **more}.items():
            archive.writestr(name, content)
    return file.getvalue()


def nodes_of(value, loader):
    parts = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, dict) and value.get("__loader__") == loader:
        yield value
    for part in parts if isinstance(parts, list) else []:
        yield from nodes_of(part, loader)


def text(value):
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
        "is_json": True,
    }


def node(loader, module, kind, **more):
    return {"__loader__": loader, "__module__": module, "__class__": kind, **more}


def args(*values):
    return node("TupleNode", "builtins", "tuple", content=[text(value) for value in values])


def attack(part):
    def change(schema):
        schema["content"]["head"] = part

    return change


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(
            node("OperatorFuncNode", "operator", "methodcaller", attrs=args("touch")),
            id="CVE-2025-54412: a function of operator",
        ),
        pytest.param(
            node("OperatorFuncNode", "builtins", "eval", attrs=args("1")),
            id="CVE-2025-54412: a function of another module",
        ),
        pytest.param(
            node(
                "MethodNode",
                "builtins",
                "str",
                content={"func": "format", "obj": text("{0.__class__}")},
            ),
            id="CVE-2025-54413: a method",
        ),
        pytest.param(
            node(
                "MethodNode",
                "builtins",
                "str",
                content={"func": "touch", "obj": node("ObjectNode", "pathlib", "Path")},
            ),
            id="CVE-2025-54413: a method of another type than it says",
        ),
        pytest.param(
            node("ObjectNode", "builtins", "eval"), id="CVE-2024-37065: a type nobody trusts"
        ),
        pytest.param(node("FunctionNode", "os", "system"), id="CVE-2024-37065: a function"),
        pytest.param(
            node(
                "PartialNode",
                "functools",
                "partial",
                content={
                    "func": node("FunctionNode", "os", "system"),
                    "args": args("true"),
                    "kwds": node("DictNode", "builtins", "dict", content={}, key_types=args()),
                    "namespace": text(None),
                },
            ),
            id="a partial",
        ),
        pytest.param(
            node("ConstructorFromReduceNode", "pathlib", "Path", content=args("/")),
            id="a constructor",
        ),
        pytest.param(node("CachedNode", "builtins", "str", __id__=1), id="a node met before"),
        pytest.param(node("TreeNode", "builtins", "list"), id="a tree that is none"),
        pytest.param(
            node(
                "ConstructorFromReduceNode",
                "sklearn.tree._tree",
                "Tree",
                content=args(4, [2], 1),
            ),
            id="a tree without nodes",
        ),
        pytest.param(node("NoSuchNode", "builtins", "str"), id="an unknown loader"),
        pytest.param({"__loader__": 5, "__module__": "a", "__class__": "b"}, id="no loader"),
    ],
)  # fmt: skip
def test_load_head_builds_nothing_of_other_kinds(part, linear):
    with pytest.raises((UntrustedTypesError, SavedFileError)):
        load(crafted(linear, attack(part)))


class Touch:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_load_head_pickle_is_not_read(tmp_path):
    """CVE-2025-54886: what is no archive was read by joblib."""
    with pytest.raises(SavedFileError):
        load(pickle.dumps(Touch(tmp_path / "mark")))
    assert not (tmp_path / "mark").exists()


def pickled_array(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([Touch(tmp_path / "mark")], dtype=object), allow_pickle=True)
    return file.getvalue()


def array_of(shape):
    file = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(8)


def test_load_head_object_array_stays_pickled(linear, tmp_path):
    name = next(nodes_of(schema_of(linear), "NdArrayNode"))["file"]
    with pytest.raises(SavedFileError):
        load(crafted(linear, **{name: pickled_array(tmp_path)}))
    assert not (tmp_path / "mark").exists()


def schema_of(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read("schema.json"))


@pytest.mark.parametrize("content", [array_of((10**12,)), array_of((10**9, 10**9)), b"", b"junk"])
def test_load_head_oversized_array_raises(content, linear):
    name = next(nodes_of(schema_of(linear), "NdArrayNode"))["file"]
    with pytest.raises(SavedFileError, match="the head in it is damaged"):
        load(crafted(linear, **{name: content}))


@pytest.mark.parametrize("protocol", [0, 1, -1, True, None, "2", 10**6])
def test_load_head_of_another_protocol_raises(protocol, linear):
    """A lower number selected parts of skops that checked less."""

    def change(schema):
        schema["protocol"] = protocol

    with pytest.raises(SavedFileError):
        load(crafted(linear, change))


def test_load_head_id_for_two_objects_raises(linear):
    def change(schema):
        first, second = list(nodes_of(schema, "NdArrayNode"))[:2]
        second["__id__"] = first["__id__"]
        assert first["file"] != second["file"]

    with pytest.raises(SavedFileError, match="two objects have the same id"):
        load(crafted(linear, change))


def test_load_head_deep_schema_raises(linear):
    part = text(1)
    for _ in range(300):
        part = node("ListNode", "builtins", "list", content=[part])
    with pytest.raises(SavedFileError, match="nested too deeply"):
        load(crafted(linear, attack(part)))


@pytest.mark.parametrize("name", ["x.txt", "../a.npy", "1.pkl"])
def test_load_head_unknown_member_raises(name, linear):
    with pytest.raises(SavedFileError, match="is unknown"):
        load(crafted(linear, **{name: b""}))


def test_load_head_of_another_width_raises(linear):
    with pytest.raises(SavedFileError, match="features"):
        load_head(linear, (), n_features=7, heads=CLASSIFIER_HEADS)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        [1, 2],
        {"head": "logistic"},
        {"head": "logistic", "head_": "x"},
        {"head": "logistic", "head_": LogisticRegression()},
        {"head": "os.system", "head_": LogisticRegression().fit(X, LABELS)},
        {"head": 5, "head_": LogisticRegression().fit(X, LABELS)},
        {"head": "knn", "head_": LogisticRegression().fit(X, LABELS), "more": 1},
    ],
)
def test_load_head_other_parts_raise(parts):
    with pytest.raises(SavedFileError, match="the head in it is damaged"):
        load(skops.io.dumps(parts))


def changed_array(data, tree_part, change):
    """Change an array of the first tree of a forest."""
    tree = next(nodes_of(schema_of(data), "TreeNode"))
    name = (
        tree["content"]["content"][tree_part]["file"]
        if isinstance(tree_part, str)
        else tree["__reduce__"]["args"]["content"][tree_part]["file"]
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        array = np.load(io.BytesIO(archive.read(name)))
    file = io.BytesIO()
    np.save(file, change(array))
    return crafted(data, **{name: file.getvalue()})


def with_node(field, value, place=0):
    def change(nodes):
        nodes[field][place] = value
        return nodes

    return change


def with_leaf_features(nodes):
    nodes["feature"][nodes["left_child"] != -1] = 6
    return nodes


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("nodes", with_node("left_child", 10**9)),
        ("nodes", with_node("left_child", -5)),
        ("nodes", with_node("left_child", 0)),
        ("nodes", with_node("right_child", 1)),
        ("nodes", with_node("right_child", -1)),
        ("nodes", with_node("feature", 10**9)),
        ("nodes", with_node("feature", -7)),
        ("nodes", with_leaf_features),
        ("nodes", lambda nodes: nodes[:-1]),
        ("nodes", lambda nodes: np.zeros(len(nodes))),
        ("values", lambda values: values[:-1]),
        ("values", lambda values: values[:, :, :2]),
        ("values", lambda values: values.astype("f4")),
        (1, lambda n_classes: n_classes * 1000),
        (1, lambda n_classes: np.repeat(n_classes, 2)),
        (1, lambda n_classes: n_classes.astype(float)),
    ],
)
def test_load_head_tree_pointing_outside_raises(part, change, forest):
    with pytest.raises(SavedFileError, match=r"a tree|damaged"):
        load(changed_array(forest, part, change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("node_count", 10**6),
        ("node_count", 1),
        ("max_depth", 0),
        ("max_depth", 10**9),
        ("max_depth", "x"),
        ("more", 1),
    ],
)
def test_load_head_tree_of_false_size_raises(name, value, forest):
    def change(schema):
        tree = next(nodes_of(schema, "TreeNode"))
        tree["content"]["content"][name] = text(value)

    with pytest.raises(SavedFileError):
        load(crafted(forest, change))


@pytest.mark.parametrize("count", [5, 7, 10**6])
def test_load_head_tree_of_other_width_raises(count, forest):
    def change(schema):
        tree = next(nodes_of(schema, "TreeNode"))
        tree["__reduce__"]["args"]["content"][0] = text(count)

    with pytest.raises(SavedFileError):
        load(crafted(forest, change))


def test_load_head_hidden_width_raises(forest):
    """Without it scikit-learn hands samples of any width to the tree."""

    def change(schema):
        for part in nodes_of(schema, "ObjectNode"):
            part["content"]["content"].pop("n_features_in_", None)

    with pytest.raises(SavedFileError, match="n_features_in_"):
        load(crafted(forest, change))


@pytest.mark.parametrize(
    "head",
    [
        NuSVC(),
        SVC(kernel="linear", probability=True),
        SVR(),
        OneClassSVM(),
        make_pipeline(StandardScaler(), SVC()),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:The `probability` parameter:FutureWarning")
def test_load_head_support_vector_machine_predicts_equally(head):
    head.fit(X, np.arange(40) % 3)
    loaded = load(head_bytes(head, head, ()))["head_"]
    np.testing.assert_array_equal(loaded.predict(X), head.predict(X))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("_n_support", lambda n: np.array([n[0] + 2**28, n[1] - 2**28, *n[2:]], np.int32)),
        ("_dual_coef_", lambda coef: coef[:1, :1].copy()),
        ("_intercept_", lambda intercept: intercept[:0]),
        ("support_", lambda support: np.full(len(support), 2**30, np.int32)),
        ("support_vectors_", lambda vectors: vectors[:, :2].copy()),
        ("_probA", lambda _: np.zeros(100)),
        ("_impl", lambda _: "epsilon_svr"),
    ],
)
def test_load_head_support_vectors_outside_raise(name, change):
    head = SVC().fit(X, LABELS)
    setattr(head, name, change(getattr(head, name)))
    with pytest.raises(SavedFileError, match="parts of a SVC do not fit together"):
        load(head_bytes(head, head, ()))


@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_load_head_sparse_indices_outside_raise(kind):
    head = LogisticRegression().fit(X, LABELS)
    head.coef_ = kind(head.coef_)
    trusted = [f"{kind.__module__}.{kind.__name__}"]
    load(head_bytes(head, head, trusted), trusted)
    head.coef_.indices[:] = 2**27
    with pytest.raises(SavedFileError, match="the head in it is damaged"):
        load(head_bytes(head, head, trusted), trusted)


@pytest.mark.parametrize("cv", [StratifiedGroupKFold(2), KFold(3, shuffle=True, random_state=1)])
def test_calibrated_head_with_splitter_needs_no_trust(cv, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    head = CalibratedClassifierCV(LogisticRegression(), cv=cv)
    groups = np.arange(12) // 2 if isinstance(cv, StratifiedGroupKFold) else None
    classifier = featx.TransferClassifier("tiny", head).fit(images, [0, 1] * 6, groups=groups)
    featx.save(classifier, tmp_path / "model.featx")
    loaded = featx.load(tmp_path / "model.featx")
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))
