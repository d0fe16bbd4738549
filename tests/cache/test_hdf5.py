"""The format of a shard: a stranger reads it with h5py alone; a hostile one is refused."""

import json

import h5py
import numpy as np
import pytest

from featx.cache.hdf5 import FORMAT_VERSION, ShardStructureError, read_layout, shard_frame
from featx.digests.hashing import checksums_of_rows

SPACE = {"label": "vgg16", "identity": {"graph": "ab12", "feature_shape": [3], "dtype": "float32"}}


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def keys():
    return np.random.default_rng(1).integers(0, 256, (5, 16), dtype=np.uint8)


@pytest.fixture
def shard(rows, keys, tmp_path):
    parts = shard_frame(rows.shape, space=SPACE, dtype="float32").filled(
        embeddings=rows, keys=keys, checksums=checksums_of_rows(rows)
    )
    path = tmp_path / "shard-1.h5"
    path.write_bytes(b"".join(map(bytes, parts)))
    return path


def test_shard_frame_filled_is_read_by_a_stranger_with_h5py_alone(shard, rows, keys):
    with h5py.File(shard, "r") as file:
        np.testing.assert_array_equal(file["embeddings"], rows)
        np.testing.assert_array_equal(file["keys"], keys)
        np.testing.assert_array_equal(file["checksums"], checksums_of_rows(rows))
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert json.loads(file.attrs["space"]) == SPACE


def test_shard_frame_of_a_terabyte_takes_kilobytes(rows, keys):
    frame = shard_frame((10**9, 3), space=SPACE, dtype="float32")
    assert frame.file.size > 3 * 4 * 10**9
    assert sum(len(part) for _, part in frame.rest(n_rows=10**9, row_bytes=12)) < 10_000


def test_read_layout_says_where_everything_lies(shard, rows, keys):
    layout = read_layout(shard)
    assert (layout.n_rows, layout.n_features, layout.space) == (5, 3, SPACE)
    content = shard.read_bytes()
    parts = {
        layout.embeddings: rows,
        layout.keys: keys,
        layout.checksums: checksums_of_rows(rows),
    }
    for offset, part in parts.items():
        assert content[offset : offset + part.nbytes] == part.tobytes()


def test_shard_frame_takes_names_that_are_not_utf8(rows, keys, tmp_path):
    texts = {"names": ["a", "b", "\udcff.jpg", "d", "ü"]}
    frame = shard_frame(rows.shape, space=SPACE, dtype="float32", texts=texts)
    parts = frame.filled(embeddings=rows, keys=keys, checksums=checksums_of_rows(rows))
    (tmp_path / "names.h5").write_bytes(b"".join(map(bytes, parts)))
    with h5py.File(tmp_path / "names.h5") as file:
        assert file["names"].asstr()[:].tolist() == ["a", "b", "\\udcff.jpg", "d", "ü"]


def replaced(name):
    """Open a dataset's place for something else."""

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
        identity = {**SPACE["identity"], "dtype": "float64"}
        file.attrs["space"] = json.dumps({**SPACE, "identity": identity})


def changed_space(**changes):
    """Describe the space as somebody would who wants the reader to stumble."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            file.attrs["space"] = json.dumps({**SPACE, **changes})

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
        (external_storage, "lies in another file"),
        (virtual, "is virtual"),
        (chunked, "is not contiguous"),
        (filtered, "is not contiguous|has filters"),
        (other_dtype, "another dtype"),
        (other_rank, "another rank"),
        (never_written, "is empty"),
        (missing, "embeddings"),
        (too_few_keys, "differ in length"),
        (too_few_checksums, "differ in length"),
        (object_references, "keys has another dtype"),
        (other_version, "format version 99, not 1"),
        (version_is_an_array, "format_version is not a plain value"),
        (version_is_text, "format_version is not a plain value"),
        (space_is_huge, "space is too large"),
        (space_is_of_another_dtype, "embeddings of dtype float64"),
        (changed_space(label=3), "description of another form"),
        (changed_space(identity=3), "description of another form"),
        (changed_space(identity={**SPACE["identity"], "feature_shape": "ab"}), "of shape ab"),
        (changed_space(identity={**SPACE["identity"], "feature_shape": [3.0]}), "of shape"),
        (changed_space(identity={**SPACE["identity"], "feature_shape": [4]}), "not as long as"),
        (changed_space(identity={"dtype": "float32"}), "not a sound shard"),
        (no_version, "format_version"),
        (space_is_no_json, "not a sound shard"),
        (cut_short, "not a sound shard"),
        (empty, "not a sound shard"),
        (foreign, "not a sound shard"),
    ],
)
def test_read_layout_unsound_structure_is_refused(damage, message, shard):
    damage(shard)
    with pytest.raises(ShardStructureError, match=message):
        read_layout(shard)


def test_read_layout_missing_file_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_layout(tmp_path / "shard-1.h5")
