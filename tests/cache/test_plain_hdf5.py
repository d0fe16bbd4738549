"""Weights from strangers: HDF5 that points elsewhere, or declares more than it holds."""

import h5py
import numpy as np
import pytest

from featx.cache.inspect_hdf5 import inspect_weights
from featx.cache.plain_hdf5 import HDF5StructureError, check_plain


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        variables = file.create_group("layers/dense/vars")
        variables.attrs["name"] = "dense"
        variables["0"] = np.ones((3, 2), np.float32)
        variables["1"] = np.zeros(2, np.float16)
        variables["2"] = np.uint32(5)
        variables["3"] = np.zeros((0, 4), np.float32)
    return path


def test_check_plain_takes_arrays_of_numbers(path):
    check_plain(path)
    assert inspect_weights(path) is None


def soft_link(file):
    file["layers/dense/link"] = h5py.SoftLink("/layers/dense/vars/0")


def external_link(file):
    """CVE-2026-1669: a link that leads into another file."""
    file["layers/dense/link"] = h5py.ExternalLink("/etc/passwd", "/")


def external_storage(file):
    """CVE-2026-1669: an array whose bytes lie in another file."""
    file.create_dataset("secret", (10,), np.uint8, external=[("/etc/passwd", 0, 10)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "rows", (4,))
    file.create_virtual_dataset("rows", layout)


def shape_bomb(file):
    """CVE-2026-0897: a shape of terabytes that stores nothing."""
    file.create_dataset("kernel", (2**40,), np.float32, chunks=(2**20,))


def compressed_bomb(file):
    file.create_dataset("kernel", data=np.zeros(2**16), compression="gzip")


def sparse(file):
    file.create_dataset("kernel", (1000, 1000), np.float32)  # nothing written: no storage


def texts(file):
    file["names"] = ["a", "b"]


def references(file):
    file.create_dataset("refs", data=[file["layers"].ref], dtype=h5py.ref_dtype)


def committed_type(file):
    file["kind"] = np.dtype("float32")


def cycle(file):
    file["layers/dense/up"] = file["layers"]


def twice(file):
    file["again"] = file["layers/dense/vars/0"]


def deep(file):
    file.create_group("/".join(["a"] * 100))


def large_attribute(file):
    file.attrs["name"] = np.zeros(5000)


def no_shape(file):
    file["empty"] = h5py.Empty("f")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (soft_link, "is a link"),
        (external_link, "is a link"),
        (external_storage, "lies in another file"),
        (virtual, "is virtual"),
        (shape_bomb, "declares more than it stores"),
        (compressed_bomb, "has filters"),
        (sparse, "declares more than it stores"),
        (texts, "holds no numbers"),
        (references, "holds no numbers"),
        (committed_type, "is a Datatype"),
        (cycle, "is there twice"),
        (twice, "is there twice"),
        (deep, "lies too deep"),
        (large_attribute, "is not a plain value"),
        (no_shape, "has no shape"),
    ],
)
def test_check_plain_names_what_is_not_plain(change, fault, path):
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(HDF5StructureError, match=fault):
        check_plain(path)


def test_check_plain_damaged_file_raises(path):
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(HDF5StructureError, match="damaged"):
        check_plain(path)


def test_inspect_weights_reports_the_fault(path):
    with h5py.File(path, "r+") as file:
        external_storage(file)
    fault = inspect_weights(path)
    assert "lies in another file" in fault.reason
    assert fault.is_damage
