"""Stored graphs in a cache folder: described, verified, evicted and cleared as rows are."""

import os

import numpy as np
import pytest

from featx import EmbeddingCache
from featx.cache.graph_store import GraphKey
from featx.digests.space import Space
from featx.exceptions import CacheDamageWarning

SPACE = Space({"graph": "ab", "feature_shape": [4], "input_shape": [2], "dtype": "float32"}, "net")
KEY = GraphKey((SPACE.digest,), "openvino", "2026.4", "uint8")


@pytest.fixture
def cache(tmp_path):
    cache = EmbeddingCache(tmp_path / "cache")
    keys = np.array([bytes([number]) * 16 for number in range(1, 4)])
    cache.store(SPACE).append(keys, np.ones((3, 4), np.float32))
    cache.graphs.store(KEY, b"graph" * 100)
    return cache


def file_of(cache):
    (path,) = (cache.path / "graphs").iterdir()
    return path


def test_find_other_key_finds_nothing(cache):
    assert EmbeddingCache(cache.path).graphs.find(KEY) == b"graph" * 100
    others = {"spaces": ("ab" * 16,), "engine": "onnx", "version": "2027.1", "dtype": "float32"}
    assert [cache.graphs.find(KEY._replace(**{name: value})) for name, value in others.items()] == [
        None
    ] * 4


def test_find_renamed_file_refuses_it(cache):
    other = KEY._replace(version="2027.1")
    file_of(cache).rename(cache.path / "graphs" / other.file_name)
    with pytest.warns(CacheDamageWarning, match="checksum"):
        assert cache.graphs.find(other) is None


def test_info_counts_graphs(cache):
    size = file_of(cache).stat().st_size
    info = cache.info()
    assert (info["graph_bytes"], info["spaces"][0]["graph_bytes"]) == (size, size)
    rows = sum(path.stat().st_size for path in cache.path.rglob("shard-*"))
    assert info["size_bytes"] == rows


def test_evict_removes_graphs_with_the_last_row(cache):
    info = cache.info()
    total = info["graph_bytes"] + info["size_bytes"]
    assert cache.evictable(max_bytes=total) == []
    assert file_of(cache)
    (removed,) = cache.evict(max_bytes=total - 1)
    assert removed.size_bytes == total
    assert cache.info()["graph_bytes"] == 0


def test_evict_removes_graphs_without_rows(cache):
    cache.graphs.store(KEY._replace(spaces=("ab" * 16,)), b"graph")
    kept = file_of_space(cache, SPACE.digest)
    assert cache.evict(max_bytes=10**6) == []
    assert file_of(cache) == kept


def file_of_space(cache, digest):
    (path,) = (cache.path / "graphs").glob(f"{digest}-*")
    return path


def test_clear_removes_graphs_and_damaged_ones(cache):
    (cache.path / "graphs" / "thesis.graph").write_text("mine")
    file_of_space(cache, SPACE.digest).write_bytes(b"x")
    with pytest.warns(CacheDamageWarning):
        assert cache.graphs.find(KEY) is None
    cache.graphs.store(KEY, b"graph")
    cache.clear()
    left = [path.name for path in cache.path.rglob("*") if path.is_file()]
    assert left == ["thesis.graph"]


def test_verify_names_damaged_graphs_and_repairs(cache):
    path = file_of(cache)
    assert cache.verify()["damaged"] == {}
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.verify()["damaged"] == {str(path): "its checksum does not fit"}
    with pytest.warns(CacheDamageWarning, match="checksum"):
        cache.verify(repair=True)
    assert cache.verify()["damaged"] == {}
    assert cache.info()["damaged_bytes"] > 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(__file__, path)])
def test_irregular_files_are_no_graphs(make, cache):
    path = file_of(cache)
    path.unlink()
    make(path)
    assert not cache.graphs.has(KEY)
    assert cache.graphs.sizes() == {}
    with pytest.warns(CacheDamageWarning, match="cannot be read"):
        assert cache.graphs.find(KEY) is None


def test_folder_that_is_a_link_is_quarantined(cache, tmp_path):
    (cache.path / "graphs").rename(tmp_path / "elsewhere")
    (cache.path / "graphs").symlink_to(tmp_path / "elsewhere")
    assert not cache.graphs.has(KEY)
    assert cache.graphs.find(KEY) is None
    with pytest.warns(CacheDamageWarning, match="is not a folder, or a link"):
        assert EmbeddingCache(cache.path).graphs.find(KEY) is None
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
