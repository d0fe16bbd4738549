"""``code_digest``: what a function, class or object computes, the same in every process.

Keras configs name a `Lambda` or a custom layer but do not show what it does, so two that compute
different things can look alike. The digest made here follows the code itself:

- **A function** is its bytecode, constants, names, defaults and closure, and all that it reaches
  through global names: plain data by value, functions and classes by their own code. Its file,
  line numbers, name and annotations do not count; its docstring, a constant, does.
- **A class** is the code and data in its body, and its bases.
- **Any other object** is its class and the state that pickle would keep.
- **A library** (the standard library, NumPy, Keras, ...) is trusted: what it exports is
  identified by its name alone, and the walk stops there. A new release may compute slightly
  other numbers; that does not count as other code.

Objects that cannot be followed raise :class:`UnhashableCodeError`. The digest does not cover names
that are looked up as strings (`getattr(module, name)`, `eval`), nor the contents of files. Each
minor version of Python has its own bytecode, hence other digests: that costs a new pass, never a
wrong row.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import inspect
import itertools
import operator
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from featx.digests.hashing import digest_of, digest_of_array
from featx.exceptions import FeatxError

Known = Callable[[Any], str | None]
CanImport = Callable[[str], bool]

_TRUSTED = frozenset(
    {
        *("keras", "keras_hub", "tensorflow", "jax", "jaxlib", "torch", "ml_dtypes", "optree"),
        *("numpy", "scipy", "sklearn", "PIL"),
    }
)
_IMPLICIT_TYPES = (types.MemberDescriptorType, types.GetSetDescriptorType)
_IMPLICIT_NAMES = frozenset({"_abc_impl", "__annotate__", "__annotate_func__"})
_MODULE_NAMES = frozenset(
    {*vars(types.ModuleType("plain")), "__file__", "__cached__", "__builtins__", "__annotations__"}
)
_LOCATIONS = frozenset(
    {
        *("__module__", "__qualname__", "__dict__", "__weakref__", "__classcell__"),
        *("__firstlineno__", "__static_attributes__", "__annotate__", "__annotate_func__"),
    }
)
_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range}
)
_PLAIN = frozenset({list, tuple, dict, set, frozenset, slice, np.ndarray})


class UnhashableCodeError(FeatxError, TypeError):
    """Code that computes embeddings holds something without identity across processes."""


def code_digest(
    obj: Any, *, known: Known | None = None, can_import: CanImport | None = None
) -> str:
    """Digest what an object computes, as 32 hexadecimal digits.

    `obj` is a function, a class, a callable object, or plain data that may hold such objects.
    `known` returns the digest of an object of a kind that it knows, and None for others. It is
    called first, except for numbers, strings and the like; so Keras layers in closures get their
    digests. `can_import` returns True for the name of a module, outside the trusted libraries, that
    functions may import when they run.

    Raises
    ------
    UnhashableCodeError
        An object that `obj` reaches can be neither followed nor identified by name.
    """
    stream = _CodeStream(known, can_import)
    try:
        stream.write(obj)
        while not (found := stream.left_out & stream.names) <= stream.read:
            stream = _CodeStream(known, can_import, read=stream.read | found)
            stream.write(obj)
    except RecursionError as exc:
        _refuse_to_hash(obj, "what it holds is nested too deeply", exc)
    return digest_of(b"".join(stream.parts)).hex()


def names_in_code(obj: Any, *, known: Known | None = None) -> tuple[set[str], set[str]]:
    """Return the names that code uses, and the attributes that methods in it read of `self`."""
    stream = _CodeStream(known)
    stream.write(obj)
    return stream.names, stream.of_self


class _CodeStream:
    """The bytes that spell out an object; each part carries its kind and length.

    `names` are those that the code uses, and `left_out` those of attributes that count only if they
    are in `read`, because the code reads them.
    """

    def __init__(
        self,
        known: Known | None,
        can_import: CanImport | None = None,
        *,
        read: frozenset[str] = frozenset(),
    ) -> None:
        self.known, self.can_import = known, can_import
        self.read = read
        self.names: set[str] = set()
        self.left_out: set[str] = set()
        self.of_self: set[str] = set()
        self.parts: list[bytes] = []
        # The object is kept beside its number so that no other can get the same id.
        self._seen: dict[int, tuple[int, Any]] = {}

    def put(self, kind: str, content: bytes | str = b"") -> None:
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        self.parts += (f"{kind} {len(data)}:".encode(), data)

    def write(self, value: Any) -> None:
        kind = type(value)
        if kind in _ATOMS:
            self.put(kind.__name__, value if kind in (str, bytes) else repr(value))
        elif kind in _PLAIN or self.known is None or (digest := self.known(value)) is None:
            _write_object(value, self)
        else:
            self.put("known", digest)

    def write_if_read(self, attributes: dict[str, Any]) -> None:
        """Write those attributes that the code reads, and nothing if it reads none."""
        self.left_out.update(attributes)
        if found := sorted(self.read & attributes.keys()):
            _write_sequence([(name, attributes[name]) for name in found], self)

    def unknown_modules(self, modules: tuple[str, ...]) -> list[str]:
        """Return those of the modules that code may not import when it runs."""
        return [name for name in modules if not (self.can_import and self.can_import(name))]

    def is_new(self, value: Any) -> bool:
        """Return True if `value` is new; otherwise write a reference to its first place."""
        if id(value) in self._seen:
            self.put("again", str(self._seen[id(value)][0]))
            return False
        self._seen[id(value)] = (len(self._seen), value)
        return True


@functools.singledispatch
def _write_object(value: Any, out: _CodeStream) -> None:
    """Write an object for which no other writer is registered below."""
    if (name := library_name(value)) is not None:
        out.put("library", name)
    elif out.is_new(value) and not _write_wrapped_or_tensor(value, out):
        _write_as_pickled(value, out)


def _write_wrapped_or_tensor(value: Any, out: _CodeStream) -> bool:
    """Write the content of a library's wrapper or tensor; return False for other objects."""
    if not is_library(type(value).__module__):
        return False
    for attribute in ("__wrapped__", "python_function"):
        if (inner := getattr(value, attribute, None)) is not None:
            out.put("wrapper", _name_of_object(type(value)))
            out.write(inner)
            return True
    if not hasattr(value, "__array__"):
        return False
    try:
        _write_array(np.asarray(value), out)
    except Exception as exc:
        _refuse_to_hash(value, f"its elements cannot be read ({exc})", exc)
    return True


def _write_as_pickled(value: Any, out: _CodeStream) -> None:
    if any(map(is_keras, type(value).__mro__)):
        _refuse_to_hash(value, "a Keras object of this kind has no digest")
    try:
        registered = copyreg.dispatch_table.get(type(value))
        reduced = registered(value) if registered else value.__reduce_ex__(2)
    except Exception as exc:
        _refuse_to_hash(value, f"it is no plain data and has no state to pickle ({exc})", exc)
    if isinstance(reduced, str):
        _refuse_to_hash(value, "pickle would keep no more than its name")
    build, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    # Sorted by name, since code may set attributes in any order.
    state = sorted(state.items()) if isinstance(state, dict) else state
    out.put("object")
    _write_sequence((build, arguments, state, [*(items or ())], [*(pairs or ())]), out)


@_write_object.register(list)
@_write_object.register(tuple)
def _write_sequence(value: list | tuple, out: _CodeStream) -> None:
    _write_subclass(value, out)
    out.put("list" if isinstance(value, list) else "tuple", str(len(value)))
    for item in value:
        out.write(item)


@_write_object.register
def _write_dict(value: dict, out: _CodeStream) -> None:
    _write_subclass(value, out)
    out.put("dict")
    _write_sequence(list(value.items()), out)


@_write_object.register(set)
@_write_object.register(frozenset)
def _write_set(value: set | frozenset, out: _CodeStream) -> None:
    _write_subclass(value, out)
    out.put("set")
    # Sorted, since the order of a set differs between processes.
    _write_sequence(sorted(code_digest(item, known=out.known) for item in value), out)


def _write_subclass(value: Any, out: _CodeStream) -> None:
    """Write the class and attributes of an instance of a user's subclass of a common type."""
    if not is_library(type(value).__module__):
        out.write(type(value))
        out.write(sorted(getattr(value, "__dict__", {}).items()))


@_write_object.register(np.ndarray)
@_write_object.register(np.generic)
def _write_array(value: np.ndarray | np.generic, out: _CodeStream) -> None:
    if type(value) not in (np.ndarray, np.memmap) and isinstance(value, np.ndarray):
        _write_array_subclass(value, out)
    array = np.asarray(value)
    # The name too: bfloat16 and the float8 types have no dtype string of their own.
    out.put("array", f"{array.dtype.name}{array.shape}")
    if array.dtype.names:
        out.put("fields", repr(array.dtype))
    if array.dtype.hasobject:
        out.write(array.tolist())
    else:
        out.put("elements", digest_of_array(array))


def _write_array_subclass(value: np.ndarray, out: _CodeStream) -> None:
    """Write what an instance of a subclass, such as `np.matrix`, holds besides its elements."""
    _write_subclass(value, out)
    if isinstance(value, np.ma.MaskedArray):
        out.write((np.ma.getmaskarray(value), np.asarray(value.fill_value), value.hardmask))
    elif is_library(type(value).__module__):
        out.write(sorted(getattr(value, "__dict__", {}).items()))
    out.put("subclass", _name_of_object(type(value)))


@_write_object.register
def _write_module(value: types.ModuleType, out: _CodeStream) -> None:
    if not is_library(value.__name__):
        _refuse_to_hash(value, "a module has no digest; refer to its functions instead")
    out.put("module", value.__name__)


def _write_attributes(value: Any, out: _CodeStream, *, names: tuple[str, ...]) -> None:
    _write_subclass(value, out)
    out.put(type(value).__name__)
    for name in names:
        out.write(getattr(value, name))


for _kind, _names in {
    slice: ("start", "stop", "step"),
    types.MethodType: ("__func__", "__self__"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.cached_property: ("func",),  # up to Python 3.11 it also holds a lock
    functools.partial: ("func", "args", "keywords"),
    np.vectorize: ("pyfunc", "otypes", "signature", "excluded"),
}.items():
    _write_object.register(_kind, functools.partial(_write_attributes, names=_names))


@_write_object.register
def _write_class(value: type, out: _CodeStream) -> None:
    if (name := library_name(value)) is not None:
        out.put("library", name)
    elif out.is_new(value):
        out.put("class")
        _write_sequence((value.__bases__, _authored_members(value)), out)
        out.write_if_read({k: v for k, v in vars(value).items() if _is_unwritten_data(k, v)})


@_write_object.register
def _write_function(value: types.FunctionType, out: _CodeStream) -> None:
    if (name := library_name(value)) is not None:
        out.put("library", name)
    elif modules := out.unknown_modules(_foreign_imports(value.__code__)):
        _refuse_to_hash(
            value, f"it imports {', '.join(modules)}; move the import to the top of the module"
        )
    elif out.is_new(value):
        # Private attributes are the marks of decorators such as TensorFlow's AutoGraph, unless the
        # code reads them.
        public = {k: v for k, v in sorted(vars(value).items()) if "_" not in (k[0], k[-1])}
        private = {k: v for k, v in vars(value).items() if k not in public}
        out.put("function")
        _write_code(value.__code__, out)
        _write_sequence((value.__defaults__, value.__kwdefaults__, public), out)
        documented = {"__doc__": value.__doc__, "__annotations__": value.__annotations__}
        out.write_if_read({**private, **documented})
        for cell in value.__closure__ or ():
            _write_cell(cell, out)
        for path in _dotted_globals(value.__code__):
            if not _is_implicit_global(path[0], value):
                _write_global(path, value, out)


@_write_object.register
def _write_code(value: types.CodeType, out: _CodeStream) -> None:
    # Without this flag, since a definition inside another function computes the same.
    flags = value.co_flags & ~inspect.CO_NESTED
    counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, flags)
    names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
    out.names.update(value.co_names)
    out.of_self.update(_read_of_self(value))
    out.put("code", value.co_code)
    _write_sequence((value.co_exceptiontable, counts, names, value.co_consts), out)


def _write_cell(cell: types.CellType, out: _CodeStream) -> None:
    try:
        content = cell.cell_contents
    except ValueError:  # not assigned yet
        out.put("empty")
    else:
        out.write(content)


def _is_implicit_global(name: str, function: types.FunctionType) -> bool:
    """Return True for a global such as `__file__`, which locates code and does not change it."""
    if not _is_dunder(name):
        return False
    return name in _MODULE_NAMES or name not in function.__globals__


def _write_global(path: tuple[str, ...], function: types.FunctionType, out: _CodeStream) -> None:
    """Write the value of a global `name.attribute...` of a function, followed through modules."""
    missing = object()
    value = function.__globals__.get(path[0], missing)
    for attribute in path[1:]:
        if not isinstance(value, types.ModuleType) or is_library(value.__name__):
            break
        value = getattr(value, attribute, missing)
    if value is missing:
        out.put("builtin or undefined", ".".join(path))
    else:
        out.write(value)


def _refuse_to_hash(obj: Any, reason: str, cause: Exception | None = None) -> NoReturn:
    raise UnhashableCodeError(
        f"{_name_of_object(obj)} cannot be identified: {reason}. Code is identified by its "
        "functions, classes, plain data and arrays; keep other objects out of it."
    ) from cause


@functools.cache
def is_library(module: str) -> bool:
    """Return True if a module belongs to a trusted library."""
    top = module.partition(".")[0]
    if top in _TRUSTED:
        return True
    # A user's own code.py or token.py may hide the standard module of that name.
    file = getattr(sys.modules.get(top), "__file__", None)
    return top in sys.stdlib_module_names and (
        file is None or Path(file).is_relative_to(Path(os.__file__).parent)
    )


def is_keras(kind: type) -> bool:
    """Return True if Keras itself defines a class."""
    return kind.__module__.partition(".")[0] == "keras"


def library_name(obj: Any) -> str | None:
    """Return the name of a function or class in a trusted library; None if its code counts.

    Examples
    --------
    >>> library_name(len), library_name(lambda x: x)
    ('builtins:len', None)
    """
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if "<" in name or not is_library(module):
        return None
    if isinstance(obj, types.FunctionType):
        # `functools.wraps` copies the name of the wrapped function, but not its globals.
        home = obj.__globals__.get("__name__", "")
        return f"{module}:{name}@{home}" if is_library(home) else None
    return f"{module}:{name}" if object_named(module, name) is obj else None


def object_named(module: str, name: str) -> Any:
    """Return what a loaded module holds under a dotted name; None if there is nothing."""
    try:
        return operator.attrgetter(name)(sys.modules.get(module))
    except AttributeError:
        return None


@functools.lru_cache(maxsize=1024)
def _dotted_globals(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    """Return the global names that code reads, each with the attributes that follow.

    Examples
    --------
    >>> import math
    >>> _dotted_globals((lambda x: [math.sin(x) for _ in "ab"]).__code__)
    (('math', 'sin'),)
    """
    paths: dict[tuple[str, ...], None] = {}
    path: tuple[str, ...] = ()
    for step in _code_instructions(code):
        if path and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            path = (*path, step.argval)
            continue
        paths[path] = None
        path = (step.argval,) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else ()
    return tuple(path for path in paths if path)


@functools.lru_cache(maxsize=1024)
def _read_of_self(code: types.CodeType) -> frozenset[str]:
    """Return the attributes that code reads of its first argument, or of one around it."""
    selves = {*code.co_varnames[:1], *code.co_freevars}
    steps = [*dis.get_instructions(code)]
    return frozenset(
        step.argval
        for before, step in itertools.pairwise(steps)
        if step.opname == "LOAD_ATTR"
        and before.opname.startswith(("LOAD_FAST", "LOAD_DEREF"))
        and before.argval in selves
    )


@functools.lru_cache(maxsize=1024)
def _foreign_imports(code: types.CodeType) -> tuple[str, ...]:
    """Return the modules outside the trusted libraries that code imports when it runs."""
    imports = (step.argval for step in _code_instructions(code) if step.opname == "IMPORT_NAME")
    return tuple(module for module in imports if not is_library(module))


def _code_instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_instructions(constant)


def members_named(kind: type, names: set[str]) -> list[Any]:
    """Return the members of some names of those classes under `kind` that no library defines."""
    classes = [base for base in kind.__mro__ if library_name(base) is None]
    return [member for base in classes for name, member in _authored_members(base) if name in names]


def _authored_members(kind: type) -> list[tuple[str, Any]]:
    """Return the members of a class that somebody wrote and Python did not set, by name."""
    return [each for each in sorted(vars(kind).items()) if _is_authored_member(*each)]


def _is_authored_member(name: str, member: Any) -> bool:
    if isinstance(member, _IMPLICIT_TYPES) or name in _IMPLICIT_NAMES:
        return False
    return not _is_dunder(name) or isinstance(
        member, types.FunctionType | staticmethod | classmethod
    )


def _is_unwritten_data(name: str, member: Any) -> bool:
    """Return True if a member of a class, such as `__doc__`, counts only where code reads it."""
    return _is_dunder(name) and name not in _LOCATIONS and not _is_authored_member(name, member)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _name_of_object(obj: Any) -> str:
    """Return a name for an object, without its address in memory."""
    kind = obj if isinstance(obj, type) else type(obj)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if kind is obj or not isinstance(name, str):
        return f"{kind.__module__}.{kind.__qualname__}"
    return f"{kind.__name__} {name!r}"
