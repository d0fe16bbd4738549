"""Docstrings of all public names, which pass the checks that scikit-learn makes of its own."""

import inspect
import re
from operator import attrgetter

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

import featx
from featx import readers

# All checks of numpydoc.validate but these, as in scikit-learn's sklearn/tests/test_docstrings.py.
NOT_CHECKED = {
    "GL01",  # the summary begins in a line of its own, below the opening quotes
    "GL02",  # the closing quotes are in a line of their own
    "RT02",  # a returned value has no name
}
# Checked for classes; for functions too, which scikit-learn leaves out.
NOT_CHECKED_FOR_METHODS = {
    "ES01",  # there is an extended summary
    "SA01",  # there is a See Also section
    "EX01",  # there is an Examples section
}


def own_members(cls):
    """Yield the names of the public methods and properties of a class that featx defines.

    Methods that scikit-learn defines, and those that it generates, such as ``set_fit_request``, are
    left out: its own tests check them, and their docstrings change with its version.
    """
    for name in dir(cls):
        member = getattr(cls, name)
        code = getattr(member, "fget", None) or getattr(member, "func", member)  # of a property
        if not name.startswith("_") and callable(code) and code.__module__.startswith("featx"):
            yield name


def documented():
    """Yield the names of public classes, of their members, and of functions."""
    for name in featx.__all__:
        public = getattr(featx, name)
        if callable(public):
            yield name
        if inspect.isclass(public):
            yield from (f"{name}.{member}" for member in own_members(public))
    yield from (f"readers.{name}" for name in readers.__all__)


def exists(name, context):
    """Return True for a name of featx, or of a member of the class whose docstring has the name."""
    for start in (featx, getattr(featx, context.partition(".")[0])):
        try:
            attrgetter(name)(start)
        except AttributeError:
            continue
        return True
    return False


@pytest.mark.parametrize("name", documented())
def test_docstring_passes_numpydoc(name):
    not_checked = NOT_CHECKED | (
        NOT_CHECKED_FOR_METHODS if name.count(".") and name[0].isupper() else set()
    )
    faults = validate(f"featx.{name}")["errors"]
    assert [fault for fault in faults if fault[0] not in not_checked] == []


@pytest.mark.parametrize("name", documented())
def test_names_in_docstring_exist(name):
    public = attrgetter(name)(featx)
    see_also = get_doc_object(public)["See Also"]
    named = [each for names, _ in see_also for each, _ in names]
    named += re.findall(r":(?:class|func|meth):`(.*?)`", inspect.getdoc(public))
    assert [each for each in named if not exists(each, name)] == []
