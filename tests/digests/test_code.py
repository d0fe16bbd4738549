"""Tests of featx.digests.code and of the facts about code that it rests on."""

import abc
import collections
import dataclasses
import enum
import functools
import importlib
import logging
import re
import subprocess
import sys
import threading
import types
import typing

import numpy as np
import pytest

from featx.digests.code import UnhashableCodeError, code_digest, is_library, library_name
from featx.exceptions import FeatxError


def from_source(source, name="f", *, file="a.py", lines_above=0, **names):
    """Run source as a module of its own would, and return what it defines under `name`."""
    namespace = {"__name__": "user_code", **names}
    exec(compile("\n" * lines_above + source, file, "exec"), namespace)
    return namespace[name]


def digest_from_source(source, name="f", **options):
    return code_digest(from_source(source, name, **options))


FUNCTION = "def f(x, *, k=1):\n    return [x * k + 2.5 for _ in 'ab']\n"


@pytest.mark.parametrize(
    "same",
    [
        FUNCTION.replace("f(x", "g(x"),
        "# a comment\n\n" + FUNCTION,
        FUNCTION.replace("f(x, *, k=1)", "f(x: 'int', *, k: float = 1) -> 'list[int]'"),
    ],
    ids=["name", "comment", "annotations"],
)
def test_code_digest_same_function_is_equal(same):
    name = "g" if "def g" in same else "f"
    assert digest_from_source(same, name) == digest_from_source(FUNCTION)


def test_code_digest_moved_function_is_equal():
    moved = digest_from_source(FUNCTION, file="b.py", lines_above=7)
    assert moved == digest_from_source(FUNCTION)


def test_code_digest_nested_function_is_equal():
    nested = "def outer():\n    return lambda x: x + 1\nf = outer()"
    assert digest_from_source(nested) == digest_from_source("f = lambda x: x + 1")


@pytest.mark.parametrize(
    "other",
    [
        FUNCTION.replace("x * k", "x / k"),
        FUNCTION.replace("2.5", "2.6"),
        FUNCTION.replace("2.5", "2"),
        FUNCTION.replace("k=1", "k=2"),
        FUNCTION.replace("k=1", "k=1.0"),
        FUNCTION.replace("k=1", "k=True"),
        FUNCTION.replace("(x, *,", "(x,"),
        FUNCTION.replace("x * k", "(lambda y: y * k + 1)(x)"),
        FUNCTION.replace("'ab'", "sorted('ab')"),
        FUNCTION.replace("'ab'", "reversed('ab')"),
    ],
)
def test_code_digest_other_function_differs(other):
    assert digest_from_source(other) != digest_from_source(FUNCTION)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 2),
        ("a", b"a"),
        (0.0, -0.0),
        ([1, 2], (1, 2)),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"a": 2}),
        ({1, 2}, {1, 3}),
        (slice(0, 2), slice(0, 3)),
        (np.arange(3), np.arange(1, 4)),
        (np.arange(3), np.arange(3.0)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.array(["a", None], dtype=object), np.array(["b", None], dtype=object)),
        (np.float32(1), np.float64(1)),
        (np.dtype("f4"), np.dtype("f8")),
        (re.compile("a"), re.compile("b")),
        (len, max),
        (np.exp, np.log),
        (np.mean, np.median),
        (np, re),
    ],
    ids=lambda value: getattr(value, "__name__", None) or repr(value),
)
@pytest.mark.parametrize("place", ["global", "closure", "default", "nested"])
def test_code_digest_function_with_other_value_differs(place, value, other):
    source = {
        "global": "def f(x):\n    return x, held",
        "closure": "def make(v):\n    return lambda x: (x, v)\nf = make(held)",
        "default": "def f(x, v=held):\n    return x, v",
        "nested": "def f(x):\n    return [lambda: held for _ in x]",
    }[place]
    first = digest_from_source(source, held=value)
    assert first == digest_from_source(source, held=value)
    assert first != digest_from_source(source, held=other)


def test_code_digest_function_ignores_unused_global():
    source = "def f(x):\n    return x.held"
    assert digest_from_source(source, held=1) == digest_from_source(source, held=2)


def test_code_digest_function_ignores_file_name():
    source = "def f():\n    return __file__"
    assert digest_from_source(source, __file__="a") == digest_from_source(source, __file__="b")


def test_code_digest_changed_callee_differs():
    source = "def g(x):\n    return h(x)\ndef h(x):\n    return x + 1\ndef f(x):\n    return g(x)"
    assert digest_from_source(source) != digest_from_source(source.replace("+ 1", "+ 2"))


def test_code_digest_recursive_function_ends():
    source = "def f(n):\n    return n and f(n - 1)"
    assert digest_from_source(source) == digest_from_source(source)


def test_code_digest_function_unassigned_closure_is_stable():
    source = "def make():\n    if False:\n        late = 1\n    return lambda: late\nf = make()"
    assert digest_from_source(source) == digest_from_source(source)


def test_code_digest_changed_public_attribute_differs():
    source = "def f():\n    return f.scale\nf.scale = {}\nf._mark = object"
    assert digest_from_source(source.format(1)) != digest_from_source(source.format(2))


def test_code_digest_follows_function_in_module():
    def digest_with(helper):
        module = types.ModuleType("user_module")
        module.helper = from_source(helper, "helper")
        return digest_from_source("def f(x):\n    return user_module.helper(x)", user_module=module)

    plus_one = digest_with("def helper(x):\n    return x + 1")
    assert plus_one == digest_with("def helper(x):\n    return x + 1")
    assert plus_one != digest_with("def helper(x):\n    return x + 2")


def test_code_digest_function_passing_module_raises():
    module = types.ModuleType("user_module")
    with pytest.raises(UnhashableCodeError, match=r"module 'user_module'.*a module has no digest"):
        digest_from_source("def f(x):\n    return x(user_module)", user_module=module)


def test_code_digest_missing_module_attribute_is_stable():
    module = types.ModuleType("user_module")
    source = "def f(x):\n    return user_module.missing"
    first = digest_from_source(source, user_module=module)
    assert first == digest_from_source(source, user_module=module)


def test_code_digest_importing_user_module_raises():
    with pytest.raises(UnhashableCodeError, match=r"'f'.*imports mine; move the import"):
        digest_from_source("def f(x):\n    import mine\n    return mine.g(x)")


def test_code_digest_importing_library_is_stable():
    source = "def f(x):\n    import numpy as np\n    return np.mean(x)"
    assert digest_from_source(source) == digest_from_source(source)


@pytest.mark.parametrize(
    "source",
    [
        "import functools\ndef g(x, k):\n    return x * k\nf = functools.partial(g, k={})",
        "import functools\ndef g(x, k):\n    return x * k\n"
        "f = functools.update_wrapper(functools.partial(g, k={}), g)",
        "import functools\nclass P(functools.partial):\n    k = {}\nf = P(len)",
        "class A:\n    def __init__(self, k):\n        self.k = k\n"
        "    def m(self, x):\n        return x * self.k\nf = A({}).m",
        "class A:\n    def __call__(self, x):\n        return x * {}\nf = A()",
        "class A:\n    @classmethod\n    def m(cls, x):\n        return x * {}\nf = A.m",
        "class A:\n    @staticmethod\n    def m(x):\n        return x * {}\nf = A",
        "class A:\n    @property\n    def m(self):\n        return {}\nf = A",
        "import functools\nclass A:\n    @functools.cached_property\n    def m(self):\n"
        "        return {}\nf = A()",
        "class A:\n    k = {}\nf = A",
        "class A:\n    def m(self):\n        return {}\nclass B(A):\n    pass\nf = B()",
        "class A:\n    def m(self):\n        return super().m() + {}\nf = A",
        "import functools\n@functools.lru_cache\ndef f(x):\n    return x * {}",
        "import functools\n@functools.wraps(sorted)\ndef f(x):\n    return x * {}",
        "import numpy as np\nf = np.vectorize(lambda x: x * {})",
        "import numpy as np\nf = np.vectorize(lambda x: x, otypes='{}'.replace('2', 'f').replace("
        "'3', 'd'))",
        "class L(list):\n    k = {}\nf = L([1])",
        "class L(list):\n    pass\nf = L()\nf.k = {}",
        "class S(set):\n    k = {}\nf = S('ab')",
        "class D(dict):\n    k = {}\nf = D(a=1)",
        "import enum\nclass E(enum.Enum):\n    A = {}\nf = E.A",
        "import dataclasses\n@dataclasses.dataclass\nclass D:\n    k: int = {}\nf = D()",
        "import typing\nclass N(typing.NamedTuple):\n    k: int\nf = N({})",
        "class A:\n    __slots__ = ('k',)\nf = A()\nf.k = {}",
        "import collections\nf = collections.Counter('a' * {})",
    ],
)
def test_code_digest_object_follows_code_and_state(source):
    two = digest_from_source(source.format(2))
    assert two == digest_from_source(source.format(2), file="b.py", lines_above=3)
    assert two != digest_from_source(source.format(3))


def test_code_digest_object_ignores_attribute_order():
    source = "class A:\n    pass\nf = A()\nf.{} = f.{} = 1"
    assert digest_from_source(source.format("a", "b")) == digest_from_source(
        source.format("b", "a")
    )


def test_code_digest_self_referring_object_ends():
    source = "class A:\n    pass\nf = A()\nf.me = f"
    assert digest_from_source(source) == digest_from_source(source)


def test_code_digest_abstract_class_ignores_registry():
    class Base(abc.ABC):
        @abc.abstractmethod
        def m(self): ...

    before = code_digest(Base)
    isinstance(3, Base)  # fills a cache of the class
    assert code_digest(Base) == before


def test_code_digest_of_logger_is_stable():
    assert code_digest(logging.getLogger("a")) == code_digest(logging.getLogger("a"))


def test_code_digest_data_ignores_shared_objects():
    part = [1, "a"]
    assert code_digest([part, part]) == code_digest([[1, "a"], [1, "a"]])


@pytest.mark.parametrize(
    ("obj", "name"),
    [
        (threading.Lock(), "_thread.lock"),
        ((x for x in ()), "generator"),
        (np.frompyfunc(lambda x: x, 1, 1), "ufunc"),
        (lambda lock=threading.Lock(): lock, "_thread.lock"),  # noqa: B008
    ],
)
def test_code_digest_without_identity_raises(obj, name):
    with pytest.raises(UnhashableCodeError, match=f"^{name}.*cannot be identified"):
        code_digest(obj)


def test_code_digest_object_pickled_by_name_raises():
    class ByName:
        def __reduce__(self):
            return "somewhere"

    with pytest.raises(UnhashableCodeError, match="no more than its name"):
        code_digest(ByName())


def test_code_digest_deeply_nested_data_raises():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(UnhashableCodeError, match="nested too deeply"):
        code_digest(nested)


def test_unhashable_code_error_is_type_error():
    assert issubclass(UnhashableCodeError, FeatxError)
    assert issubclass(UnhashableCodeError, TypeError)


def test_code_digest_asks_known_first():
    held = object()
    source = "def f():\n    return held"
    function = from_source(source, held=held)
    digests = {
        known: code_digest(function, known=lambda x, known=known: known if x is held else None)
        for known in ("one", "two")
    }
    assert digests["one"] != digests["two"]


def test_code_digest_in_two_processes_is_equal():
    script = """
import enum, functools, numpy as np
from featx.digests.code import code_digest
class E(enum.Enum):
    A = "a"
class C:
    names = {"x", "y", "z"}
    def m(self, x):
        return x in {"p", "q", "r"} and E.A
print(code_digest([C(), C().m, functools.partial(np.mean, axis=0), {"a", "b", E.A}, object()]))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != ""


@pytest.mark.parametrize(
    ("obj", "name"),
    [
        (len, "builtins:len"),
        (np.exp, "numpy:exp"),
        (dict, "builtins:dict"),
        (collections.Counter, "collections:Counter"),
        (functools.wraps(len)(lambda x: x), None),
        (dataclasses.make_dataclass("User", "a"), None),
        (enum.Enum("User", "a", module="enum"), None),
        (typing.NamedTuple("User", []), None),
        (3, None),
    ],
)
def test_library_name_tells_libraries_from_users(obj, name):
    assert library_name(obj) == name


def test_is_library_shadowed_standard_module_is_false(tmp_path, monkeypatch):
    (tmp_path / "this.py").write_text("k = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "this", raising=False)
    is_library.cache_clear()
    importlib.import_module("this")
    try:
        assert not is_library("this")
    finally:
        del sys.modules["this"]
        is_library.cache_clear()


@pytest.mark.parametrize("name", ["__SCALE", "__scale__", "_scale"])
def test_code_digest_global_with_underscores_counts(name):
    source = f"def f(x):\n    return x * {name}"
    digests = [digest_from_source(source, **{name: value}) for value in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]


def masked(mask):
    return np.ma.array([2.0, 3.0], mask=mask)


class Tagged(np.ndarray):
    """An array with an attribute."""


def tagged(tag):
    array = np.ones(2).view(Tagged)
    array.tag = tag
    return array


@pytest.mark.parametrize(
    ("value", "same", "other"),
    [
        *[
            tuple(np.array([(2, 3)], [(a, "f4"), (b, "f4")]) for a, b in names)
            for names in [("ab", "ab", "ba")]
        ],
        (masked([1, 0]), masked([True, False]), masked([0, 1])),
        (*(np.eye(2).view(np.matrix) for _ in range(2)), np.eye(2)),
        (tagged(1), tagged(1), tagged(2)),
        (tagged(1), tagged(1), np.ones(2)),
    ],
    ids=["fields", "mask", "matrix", "attribute", "class"],
)
def test_code_digest_kind_of_array_counts(value, same, other):
    assert code_digest(value) == code_digest(same) != code_digest(other)


@pytest.mark.parametrize("name", ["_scale", "__doc__", "__annotations__"])
@pytest.mark.parametrize("reader", ["f", "other"])
def test_code_digest_attribute_that_code_reads_counts(name, reader):
    def made(value, read):
        source = "def f(x):\n    return x, f.ATTR\ndef other(x):\n    return x, f.ATTR"
        namespace = {"__name__": "user_code"}
        exec(source.replace("ATTR", read), namespace)
        setattr(namespace["f"], name, value)
        return code_digest(namespace[reader])

    value, other = ({"a": 2}, {"a": 3}) if name == "__annotations__" else ("2", "3")
    assert made(value, name) == made(value, name) != made(other, name)
    assert made(value, "public") == made(other, "public")


@pytest.mark.parametrize("name", ["__scale__", "__doc__"])
def test_code_digest_class_data_read_counts(name):
    source = f"class f:\n    {name} = VALUE\n    def g(self):\n        return self.{name}"
    digests = [digest_from_source(source.replace("VALUE", value)) for value in ("'2'", "'3'")]
    assert digests[0] != digests[1]
    unread = [each.replace(f"self.{name}", "1") for each in (source,) * 2]
    first, second = (
        digest_from_source(each.replace("VALUE", value))
        for each, value in zip(unread, ("'2'", "'3'"), strict=True)
    )
    assert first == second
