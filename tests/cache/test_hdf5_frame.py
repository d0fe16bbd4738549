"""Files of a shard in memory: a stranger reads them with h5py alone."""

import io
import json
import random

import h5py
import numpy as np
import pytest

from featx.cache.hdf5_frame import PagedFile, shard_frame
from featx.cache.schema import FORMAT_VERSION
from featx.digests.hashing import checksums_of_rows
from featx.digests.space import Space

SPACE = Space({"graph": "ab12", "feature_shape": [3], "dtype": "float32"}, label="vgg16")


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def keys():
    return np.random.default_rng(1).integers(0, 256, (5, 16), dtype=np.uint8)


def filled(path, rows, keys, **texts):
    """Write a shard file."""
    frame = shard_frame(len(rows), space=SPACE, dtype="float32", texts=texts)
    arrays = {"embeddings": rows, "keys": keys, "checksums": checksums_of_rows(rows)}
    path.write_bytes(b"".join(map(bytes, frame.filled(arrays))))
    return path


def test_shard_frame_filled_is_read_by_h5py(rows, keys, tmp_path):
    with h5py.File(filled(tmp_path / "shard.h5", rows, keys), "r") as file:
        np.testing.assert_array_equal(file["embeddings"], rows)
        np.testing.assert_array_equal(file["keys"], keys)
        np.testing.assert_array_equal(file["checksums"], checksums_of_rows(rows))
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert json.loads(file.attrs["space"]) == SPACE.to_json()


def test_shard_frame_of_gigabytes_takes_kilobytes():
    frame = shard_frame(10**9, space=SPACE, dtype="float32")
    assert frame.file.size > 3 * 4 * 10**9
    assert sum(len(part) for _, part in frame.rest()) < 10_000


def test_shard_frame_takes_names_beyond_utf8(rows, keys, tmp_path):
    names = ["a", "b", "\udcff.jpg", "d", "ü"]
    with h5py.File(filled(tmp_path / "names.h5", rows, keys, names=names)) as file:
        assert file["names"].asstr()[:].tolist() == ["a", "b", "\\udcff.jpg", "d", "ü"]


@pytest.mark.parametrize("seed", range(5))
def test_paged_file_agrees_with_bytes_io(seed):
    rng = random.Random(seed)
    paged, plain = PagedFile(), io.BytesIO()
    for _ in range(200):
        offset, length = rng.randrange(20_000), rng.randrange(9000)
        if rng.random() < 0.5:
            data = rng.randbytes(length)
            for file in (paged, plain):
                file.seek(offset)
                file.write(data)
        else:
            results = []
            for file in (paged, plain):
                file.seek(offset)
                results.append((file.read(length), file.tell()))
            assert results[0] == results[1]
        assert paged.seek(0, io.SEEK_END) == plain.seek(0, io.SEEK_END) == paged.size


def test_paged_file_may_exceed_memory():
    file = PagedFile()
    file.truncate(10**15)
    file.seek(-4, io.SEEK_END)
    assert file.read() == bytes(4)
    assert file.seek(-2, io.SEEK_CUR) == 10**15 - 2
    assert file.readable()
    assert file.writable()
    assert file.seekable()
