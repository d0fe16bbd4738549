"""What `import featx` gives, and what it does not load."""

import importlib
import inspect
import subprocess
import sys

import pytest

import featx


def _run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_featx_loads_no_heavy_library():
    heavy = "{'tensorflow', 'keras', 'h5py', 'sklearn', 'jax', 'torch'}"
    assert _run(f"import sys, featx; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("name", featx.__all__)
def test_public_name_exists_and_is_documented(name):
    public = getattr(featx, name)
    if not isinstance(public, str):
        assert inspect.getdoc(public)
        assert "Examples" in inspect.getdoc(public), f"{name} has no example"


@pytest.mark.parametrize("name", [name for name in featx.__all__ if name[0].isupper()])
def test_public_method_is_documented(name):
    cls = getattr(featx, name)
    for method, member in inspect.getmembers(cls, inspect.isfunction):
        if not method.startswith("_") and member.__module__.startswith("featx"):
            assert inspect.getdoc(member), f"{name}.{method}"


def test_getattr_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        featx.nothing  # noqa: B018


def test_dir_lists_public_names():
    assert set(featx.__all__) <= set(dir(featx))


def test_modules_are_short_and_open_with_a_docstring():
    from pathlib import Path

    root = Path(featx.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        assert text.startswith(('"""', 'r"""')), path.name
        assert text.count("\n") <= 600, path.name
        if path.name != "__main__.py":
            places = path.relative_to(root).with_suffix("").parts
            importlib.import_module(".".join(("featx", *places)))
