"""What `import featx` gives, and what it does not load."""

import importlib
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
