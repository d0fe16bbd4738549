"""A file in memory against one that is on disk."""

import io
import random

import pytest

from featx.cache.hdf5 import PagedFile


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


def test_paged_file_can_be_made_larger_than_memory():
    file = PagedFile()
    file.truncate(10**15)
    file.seek(-4, io.SEEK_END)
    assert file.read() == bytes(4)
    assert file.seek(-2, io.SEEK_CUR) == 10**15 - 2
    assert file.readable()
    assert file.writable()
    assert file.seekable()
