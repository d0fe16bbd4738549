"""NamedPackages: installed packages count by their version, other code by what it computes."""

import io
import sys

import numpy as np
import pydicom
import pytest
import xxhash
from pydicom.pixels import apply_modality_lut

from featx.digests.code import UnhashableCodeError, code_digest
from featx.digests.packages import NamedPackages, installed_version


def digest_with_packages(function):
    packages = NamedPackages()
    digest = code_digest(function, known=packages.known, can_import=packages.can_import)
    return digest, packages.versions


def read_with_global(content):
    return pydicom.dcmread(io.BytesIO(content)).pixel_array


def read_with_function(content):
    return apply_modality_lut(content, None)


def read_with_import(content):
    from pydicom import dcmread

    return dcmread(io.BytesIO(content)).pixel_array


@pytest.mark.parametrize("read", [read_with_global, read_with_function, read_with_import])
def test_code_digest_notes_package_of_function(read):
    _, versions = digest_with_packages(read)
    assert versions == {"pydicom": pydicom.__version__}


def test_code_digest_import_of_package_needs_permission():
    with pytest.raises(UnhashableCodeError, match="it imports pydicom"):
        code_digest(read_with_import)


def test_code_digest_tells_functions_of_package_apart():
    functions = (pydicom.dcmread, pydicom.dcmwrite, xxhash.xxh3_64, pydicom.Dataset)
    digests = {digest_with_packages(function)[0] for function in functions}
    assert len(digests) == 4


def test_code_digest_follows_code_outside_site_packages(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for factor in (2, 3):
        (tmp_path / "own_project.py").write_text(f"def double(x):\n    return {factor} * x\n")
        monkeypatch.delitem(sys.modules, "own_project", raising=False)
        from own_project import double

        digest, versions = digest_with_packages(lambda x, double=double: double(x))
        digests.append(digest)
        assert versions == {}
    assert digests[0] != digests[1]


def test_known_is_none_for_libraries_and_aliases():
    packages = NamedPackages()
    alias = type("Alias", (), {"__module__": "pydicom", "__qualname__": "dcmread"})
    assert [packages.known(value) for value in (np, np.sum, 3, alias)] == [None] * 4
    assert packages.known(pydicom.pixels) == "pydicom.pixels:"


def test_can_import_relative_module_is_false():
    assert not NamedPackages().can_import(".sibling")


def test_installed_version_of_other_distribution_name():
    assert installed_version("sklearn").startswith("scikit-learn ")
