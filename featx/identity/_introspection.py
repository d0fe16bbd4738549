"""Facts about code: whether it is a library's or the user's, and what it reads.

Trusted libraries are the standard library and the numerical packages that embeddings are computed
with: a function of theirs is the same wherever it has the same name. A new release may compute
slightly other numbers; that is not held to be other code.
"""

from __future__ import annotations

import dis
import functools
import operator
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TRUSTED = frozenset(
    {
        *("keras", "tensorflow", "jax", "jaxlib", "torch", "ml_dtypes", "optree"),
        *("numpy", "scipy", "sklearn", "PIL"),
    }
)
_IMPLIED_KINDS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_IMPLIED_NAMES = frozenset({"_abc_impl", "__annotate__", "__annotate_func__"})


@functools.cache
def is_library(module: str) -> bool:
    """Whether a module belongs to a trusted library.

    Examples
    --------
    >>> is_library("numpy.linalg"), is_library("json"), is_library("__main__")
    (True, True, False)
    """
    top = module.partition(".")[0]
    if top in _TRUSTED:
        return True
    # A user's own code.py or token.py may hide the standard module of that name.
    file = getattr(sys.modules.get(top), "__file__", None)
    return top in sys.stdlib_module_names and (
        file is None or Path(file).is_relative_to(Path(os.__file__).parent)
    )


def is_keras(kind: type) -> bool:
    """Whether Keras itself defines a class.

    Examples
    --------
    >>> is_keras(dict)
    False
    """
    return kind.__module__.partition(".")[0] == "keras"


def library_name(obj: Any) -> str | None:
    """Name under which a trusted library holds a function or class; None if its code counts.

    Examples
    --------
    >>> library_name(len)
    'builtins:len'
    >>> library_name(lambda x: x) is None
    True
    """
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    if "<" in name or not is_library(module):
        return None
    if isinstance(obj, types.FunctionType):
        # `functools.wraps` copies the name of the wrapped function; the globals tell the truth.
        home = obj.__globals__.get("__name__", "")
        return f"{module}:{name}@{home}" if is_library(home) else None
    return f"{module}:{name}" if _resolve(module, name) is obj else None


def _resolve(module: str, name: str) -> Any:
    try:
        return operator.attrgetter(name)(sys.modules.get(module))
    except AttributeError:
        return None


@functools.lru_cache(maxsize=1024)
def global_paths(code: types.CodeType) -> tuple[tuple[str, ...], ...]:
    """Global names that code and the functions within it read, with the attributes that follow.

    Examples
    --------
    >>> import math
    >>> global_paths((lambda x: [math.sin(x) for _ in "ab"]).__code__)
    (('math', 'sin'),)
    """
    paths: dict[tuple[str, ...], None] = {}
    path: tuple[str, ...] = ()
    for step in _instructions(code):
        if path and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            path = (*path, step.argval)
            continue
        paths[path] = None
        path = (step.argval,) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else ()
    # Names with two underscores, such as `__file__`, say where code lies, not what it does.
    return tuple(path for path in paths if path and not path[0].startswith("__"))


@functools.lru_cache(maxsize=1024)
def foreign_imports(code: types.CodeType) -> tuple[str, ...]:
    """Modules outside the trusted libraries that code imports when it runs.

    Examples
    --------
    >>> foreign_imports(compile("import numpy, mine", "", "exec"))
    ('mine',)
    """
    imports = (step.argval for step in _instructions(code) if step.opname == "IMPORT_NAME")
    return tuple(module for module in imports if not is_library(module))


def _instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant)


def written_members(kind: type) -> list[tuple[str, Any]]:
    """Members of a class that somebody wrote, as against Python setting them; ordered by name.

    Examples
    --------
    >>> class Doubling:
    ...     factor = 2
    >>> written_members(Doubling)
    [('factor', 2)]
    """
    return [
        (name, member) for name, member in sorted(vars(kind).items()) if _is_written(name, member)
    ]


def _is_written(name: str, member: Any) -> bool:
    if isinstance(member, _IMPLIED_KINDS) or name in _IMPLIED_NAMES:
        return False
    is_dunder = name.startswith("__") and name.endswith("__")
    return not is_dunder or isinstance(member, types.FunctionType | staticmethod | classmethod)


def describe(obj: Any) -> str:
    """Name an object without its address in memory.

    Examples
    --------
    >>> describe(len), describe({})
    ("builtin_function_or_method 'len'", 'builtins.dict')
    """
    kind = obj if isinstance(obj, type) else type(obj)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if kind is obj or not isinstance(name, str):
        return f"{kind.__module__}.{kind.__qualname__}"
    return f"{kind.__name__} {name!r}"
