"""The cache folder: what it holds, and keeping it in order."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from featx import EmbeddingCache
from featx.cache import default_cache_path, resolve_cache
from featx.exceptions import CacheDamageWarning, ParameterError
from featx.key_table import keys_from_matrix
from featx.spaces import Space

SMALL = Space({"graph": "small", "feature_shape": [4]}, label="small")
LARGE = Space({"graph": "large", "feature_shape": [8]}, label="large")


def fill(cache, space, n=3, seed=0):
    """Store n rows as one shard; return their keys and embeddings."""
    rng = np.random.default_rng(seed)
    keys = keys_from_matrix(rng.integers(0, 256, (n, 16), dtype=np.uint8))
    rows = rng.normal(size=(n, space.n_features)).astype(np.float32)
    cache.store(space).append(keys, rows)
    return keys, rows


@pytest.fixture
def cache(cache_folder):
    return EmbeddingCache()


def damage_first_row(store):
    shard = store.shards()[0]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\xff\xff")


def test_path_default_is_the_environment_else_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "mine"))
    assert EmbeddingCache().path == tmp_path / "mine"
    monkeypatch.delenv("FEATX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert default_cache_path().name == "featx"


def test_cache_of_one_path_is_equal_and_survives_clone_and_pickle(cache, tmp_path):
    assert clone(cache) is cache
    assert pickle.loads(pickle.dumps(cache)) == cache
    assert {cache, EmbeddingCache(cache.path)} == {cache}
    assert cache != EmbeddingCache(tmp_path / "other")
    assert cache != str(cache.path)
    assert repr(cache) == f"EmbeddingCache({str(cache.path)!r})"


def test_resolve_cache_every_way_to_say_it(cache, tmp_path):
    assert resolve_cache(None) is None
    assert resolve_cache(cache) is cache
    assert resolve_cache("auto") == cache
    assert resolve_cache(tmp_path / "x") is resolve_cache(str(tmp_path / "x"))


def test_info_of_a_cache_that_is_not_there_yet(cache):
    assert cache.info() == {
        "path": str(cache.path),
        "n_rows": 0,
        "n_forward": 0,
        "n_shards": 0,
        "size_bytes": 0,
        "spaces": [],
    }
    assert not cache.path.exists()


def test_info_counts_rows_and_passes(cache):
    fill(cache, SMALL)
    fill(cache, SMALL)
    fill(cache, LARGE, n=5)
    info = EmbeddingCache(cache.path).info()
    assert (info["n_rows"], info["n_forward"], info["n_shards"]) == (8, 11, 3)
    on_disk = sum(path.stat().st_size for path in cache.path.rglob("*.h5"))
    assert info["size_bytes"] == on_disk
    by_label = {space["label"]: space for space in info["spaces"]}
    assert by_label["small"]["identity"] == SMALL.description
    assert (by_label["small"]["n_rows"], by_label["small"]["n_forward"]) == (3, 6)
    json.dumps(info)


def test_info_skips_folders_that_are_no_spaces(cache):
    fill(cache, SMALL)
    (cache.path / "spaces" / "mine").mkdir()
    (cache.path / "spaces" / "damaged").mkdir()
    (cache.path / "spaces" / "damaged" / "shard-1.index").write_bytes(b"x")
    assert len(EmbeddingCache(cache.path).info()["spaces"]) == 1


def test_recall_space_gives_what_was_remembered(cache):
    recipe = {"name": "vgg16", "size": [224, 224]}
    assert cache.recall_space(recipe) is None
    cache.remember_space(recipe, SMALL)
    again = EmbeddingCache(cache.path).recall_space(recipe)
    assert (again, again.label) == (SMALL, "small")
    assert cache.recall_space({**recipe, "size": [96, 96]}) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"recipe": 1, "space": 2}'])
def test_recall_space_damaged_entry_is_none(content, cache):
    cache.remember_space({"name": "vgg16"}, SMALL)
    (entry,) = (cache.path / "recipes").iterdir()
    entry.write_bytes(content)
    assert cache.recall_space({"name": "vgg16"}) is None


def test_recall_space_entry_of_another_recipe_or_changed_space_is_none(cache):
    cache.remember_space({"name": "vgg16"}, SMALL)
    (entry,) = (cache.path / "recipes").iterdir()
    content = json.loads(entry.read_text())
    entry.write_text(json.dumps({**content, "recipe": {"name": "vgg19"}}))
    assert cache.recall_space({"name": "vgg16"}) is None
    entry.write_text(json.dumps({**content, "space": LARGE.to_json()}))
    assert cache.recall_space({"name": "vgg16"}) is None


def test_verify_counts_damaged_rows_and_repairs(cache):
    keys, _ = fill(cache, SMALL)
    fill(cache, LARGE)
    assert cache.verify() == {}
    damage_first_row(cache.store(SMALL))
    (path,) = cache.verify()
    assert Path(path).parent.name == SMALL.digest
    with pytest.warns(CacheDamageWarning, match="1 of 3 rows"):
        assert cache.verify(repair=True) == {path: 1}
    assert cache.verify() == {}
    assert cache.store(SMALL).find(keys)[1].tolist() == [False, True, True]


def test_compact_leaves_one_shard_to_each_space(cache):
    for seed in range(3):
        fill(cache, SMALL, seed=seed)
        fill(cache, LARGE, seed=seed)
    cache.compact()
    assert [space["n_shards"] for space in cache.info()["spaces"]] == [1, 1]
    assert cache.info()["n_rows"] == 18


def test_evict_removes_the_oldest_until_the_rest_fits(cache):
    import os

    stored = [fill(cache, space, seed=seed) for seed, space in enumerate((SMALL, LARGE, SMALL))]
    sizes = []
    for space, (keys, _) in zip((SMALL, LARGE, SMALL), stored, strict=True):
        shard = next(s for s in cache.store(space).shards() if (s.keys == keys).all())
        sizes.append(shard.path.stat().st_size)
        os.utime(shard.path, ns=(0, len(sizes) * 10**9))
    assert cache.evict(max_bytes=sum(sizes)) == 0
    assert cache.evict(max_bytes=sum(sizes) - 1) == sizes[0]
    assert cache.store(SMALL).find(stored[0][0])[1].sum() == 0
    assert cache.store(LARGE).find(stored[1][0])[1].all()
    assert cache.evict(max_bytes=0) == sum(sizes[1:])
    assert cache.info()["n_rows"] == 0


def test_evict_negative_size_raises(cache):
    with pytest.raises(ParameterError, match="max_bytes=-1"):
        cache.evict(max_bytes=-1)


def test_export_copies_merged_rows_and_recipes_once(cache, tmp_path):
    keys, rows = fill(cache, SMALL)
    fill(cache, SMALL, seed=1)
    cache.remember_space({"name": "vgg16"}, SMALL)
    cache.export(tmp_path / "copy")
    cache.export(tmp_path / "copy")
    copy = EmbeddingCache(tmp_path / "copy")
    assert (copy.info()["n_rows"], copy.info()["n_shards"]) == (6, 1)
    np.testing.assert_array_equal(copy.store(SMALL).find(keys)[0], rows)
    assert copy.recall_space({"name": "vgg16"}) == SMALL


def test_clear_removes_what_is_stored_and_nothing_else(cache):
    keys, rows = fill(cache, SMALL)
    cache.remember_space({"name": "vgg16"}, SMALL)
    cache.files.add(b"k" * 16, b"d" * 16, modified_s=0)
    cache.files.flush()
    (cache.path / "notes.txt").write_text("mine")
    cache.clear()
    assert [path.name for path in cache.path.iterdir()] == ["notes.txt"]
    assert not cache.store(SMALL).find(keys)[1].any()
    assert cache.files.find([b"k" * 16]) == [None]
    cache.store(SMALL).append(keys, rows)
    assert cache.info()["n_rows"] == 3
