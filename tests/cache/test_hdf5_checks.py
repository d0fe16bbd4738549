"""Untrusted shards and weights: HDF5 that points elsewhere, or declares more than it holds."""

import json

import h5py
import numpy as np
import pytest

from featx.cache.hdf5_checks import HDF5StructureError, check_plain, read_layout
from featx.cache.hdf5_child_process import inspect_weights
from featx.cache.schema import FORMAT_VERSION
from featx.cache.shard import write_shard
from featx.digests.key_table import keys_from_matrix
from featx.digests.space import Space

SPACE = Space({"graph": "ab12", "feature_shape": [3], "dtype": "float32"}, label="vgg16")


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def shard(rows, tmp_path):
    keys = keys_from_matrix(np.arange(80, dtype=np.uint8).reshape(5, 16))
    return write_shard(tmp_path, keys, rows, space=SPACE).path


def test_read_layout_places_each_field(shard, rows):
    layout = read_layout(shard)
    assert layout.space == SPACE.to_json()
    with h5py.File(shard) as file:
        stored = {name: file[name][()] for name in ("embeddings", "keys", "checksums")}
    content = shard.read_bytes()
    assert layout.places.keys() == stored.keys()
    for name, place in layout.places.items():
        assert (place.shape, place.dtype) == (stored[name].shape, stored[name].dtype.name)
        assert content[place.offset : place.stop] == stored[name].tobytes()


def replaced(name):
    """Replace a dataset by something else."""

    def decorate(put):
        def damage(path):
            with h5py.File(path, "r+") as file:
                old = file[name][()]
                del file[name]
                put(file, old, path)

        return damage

    return decorate


@replaced("embeddings")
def soft_link(file, old, path):
    file["embeddings"] = h5py.SoftLink("/keys")


@replaced("embeddings")
def external_link(file, old, path):
    file["embeddings"] = h5py.ExternalLink("/etc/passwd", "/x")


@replaced("embeddings")
def group(file, old, path):
    file.create_group("embeddings")


@replaced("embeddings")
def external_storage(file, old, path):
    external = [(str(path.parent / "secret"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("embeddings", shape=old.shape, dtype="f4", external=external)


@replaced("embeddings")
def virtual(file, old, path):
    layout = h5py.VirtualLayout(shape=old.shape, dtype="f4")
    layout[:] = h5py.VirtualSource(str(path.parent / "other.h5"), "x", shape=old.shape)
    file.create_virtual_dataset("embeddings", layout)


@replaced("embeddings")
def chunked(file, old, path):
    file.create_dataset("embeddings", data=old, chunks=(1, 3))


@replaced("embeddings")
def filtered(file, old, path):
    file.create_dataset("embeddings", data=old, compression="gzip")


@replaced("embeddings")
def other_dtype(file, old, path):
    file.create_dataset("embeddings", data=old.astype("f8"))


@replaced("embeddings")
def other_rank(file, old, path):
    file.create_dataset("embeddings", data=old.ravel())


@replaced("embeddings")
def never_written(file, old, path):
    file.create_dataset("embeddings", shape=(10**9, 10**3), dtype="f4")


@replaced("embeddings")
def missing(file, old, path):
    pass


@replaced("keys")
def too_few_keys(file, old, path):
    file.create_dataset("keys", data=old[:-1])


@replaced("checksums")
def too_few_checksums(file, old, path):
    file.create_dataset("checksums", data=old[:-1])


@replaced("keys")
def object_references(file, old, path):
    file.create_dataset("keys", data=[[file["embeddings"].ref]], dtype=h5py.ref_dtype)


def other_version(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99


def no_version(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["format_version"]


def version_is_an_array(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["format_version"]
        file.attrs["format_version"] = np.arange(10)


def version_is_text(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = "1"


def space_is_huge(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["space"] = np.bytes_(b" " * (2**20 + 1))


def space_is_of_another_dtype(path):
    with h5py.File(path, "r+") as file:
        identity = {**SPACE.description, "dtype": "float64"}
        file.attrs["space"] = json.dumps({**SPACE.to_json(), "identity": identity})


def changed_space(**changes):
    """Change the description of the space."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            file.attrs["space"] = json.dumps({**SPACE.to_json(), **changes})

    return damage


def space_is_no_json(path):
    with h5py.File(path, "r+") as file:
        file.attrs["space"] = "not json"


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-8])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (soft_link, "embeddings is a link"),
        (external_link, "embeddings is a link"),
        (group, "is not a dataset"),
        (external_storage, "is stored in another file"),
        (virtual, "is virtual"),
        (chunked, "is not contiguous"),
        (filtered, "is not contiguous|has filters"),
        (other_dtype, "another dtype"),
        (other_rank, "another rank"),
        (never_written, "is empty"),
        (missing, "embeddings"),
        (too_few_keys, r"keys of shape \(4, 16\), expected \(5, 16\)"),
        (too_few_checksums, "checksums of shape"),
        (object_references, "keys has another dtype"),
        (other_version, "format version 99, not 1"),
        (version_is_an_array, "format_version is not a plain value"),
        (version_is_text, "format_version is not a plain value"),
        (space_is_huge, "space is too large"),
        (space_is_of_another_dtype, "embeddings of dtype float64"),
        (changed_space(label=3), "description of another form"),
        (changed_space(identity=3), "description of another form"),
        (changed_space(identity={**SPACE.description, "feature_shape": "ab"}), "of shape ab"),
        (changed_space(identity={**SPACE.description, "feature_shape": [3.0]}), "of shape"),
        (
            changed_space(identity={**SPACE.description, "feature_shape": [4]}),
            r"embeddings of shape \(5, 3\), expected \(5, 4\)",
        ),
        (changed_space(identity={"dtype": "float32"}), "not a sound shard"),
        (no_version, "format_version"),
        (space_is_no_json, "not a sound shard"),
        (cut_short, "not a sound shard"),
        (empty, "not a sound shard"),
        (foreign, "not a sound shard"),
    ],
)
def test_read_layout_unsound_structure_raises(damage, message, shard):
    damage(shard)
    with pytest.raises(HDF5StructureError, match=message):
        read_layout(shard)


def test_read_layout_missing_file_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_layout(tmp_path / "shard-1.h5")


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


def test_check_plain_takes_lists_of_names(path):
    """Such as files of Keras 2 have, in which the names of layers are attributes."""
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = [b"conv", b"dense"]
        file.attrs["other_names"] = ["conv", "dense"]  # text of any length, stored elsewhere
        file["layers"].attrs["weight_names"] = np.zeros(0)
    check_plain(path)


def weight_soft_link(file):
    file["layers/dense/link"] = h5py.SoftLink("/layers/dense/vars/0")


def weight_external_link(file):
    """CVE-2026-1669: a link that leads into another file."""
    file["layers/dense/link"] = h5py.ExternalLink("/etc/passwd", "/")


def weight_external_storage(file):
    """CVE-2026-1669: an array whose bytes lie in another file."""
    file.create_dataset("secret", (10,), np.uint8, external=[("/etc/passwd", 0, 10)])


def weight_virtual(file):
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


def long_names(file):
    file.attrs["layer_names"] = ["a" * 2**16, "b"]


def list_of_numbers(file):
    file.attrs["layer_names"] = np.zeros(3)


def table_of_names(file):
    file.attrs["layer_names"] = [[b"a"], [b"b"]]


def list_of_references(file):
    file.attrs.create("layer_names", [file["layers"].ref], dtype=h5py.ref_dtype)


def no_shape(file):
    file["empty"] = h5py.Empty("f")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (weight_soft_link, "is a link"),
        (weight_external_link, "is a link"),
        (weight_external_storage, "is stored in another file"),
        (weight_virtual, "is virtual"),
        (shape_bomb, "declares more than it stores"),
        (compressed_bomb, "has filters"),
        (sparse, "declares more than it stores"),
        (texts, "holds no numbers"),
        (references, "holds no numbers"),
        (committed_type, "is a Datatype"),
        (cycle, "is linked twice"),
        (twice, "is linked twice"),
        (deep, "is nested too deeply"),
        (large_attribute, "is not a plain value"),
        (long_names, "is not a plain value"),
        (list_of_numbers, "is not a plain value"),
        (table_of_names, "is not a plain value"),
        (list_of_references, "is not a plain value"),
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
        weight_external_storage(file)
    fault = inspect_weights(path)
    assert "is stored in another file" in fault.reason
    assert fault.is_damage
