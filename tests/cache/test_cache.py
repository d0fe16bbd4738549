"""The cache folder: what it holds, and keeping it in order."""

import json
import pickle
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from featx import EmbeddingCache, FeatureExtractor
from featx.cache.cache import resolve_cache
from featx.cache.shard import remove_shard
from featx.cache.usage import USAGE_FILE
from featx.digests.key_table import NO_KEY, keys_from_matrix
from featx.digests.space import Space
from featx.exceptions import CacheDamageWarning, ParameterError

SMALL = Space({"graph": "small", "feature_shape": [4], "dtype": "float32"}, label="small")
LARGE = Space({"graph": "large", "feature_shape": [8], "dtype": "float32"}, label="large")


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


def test_cache_of_same_path_is_equal(cache, tmp_path):
    assert clone(cache) is cache
    assert pickle.loads(pickle.dumps(cache)) == cache
    assert {cache, EmbeddingCache(cache.path)} == {cache}
    assert cache != EmbeddingCache(tmp_path / "other")
    assert cache != str(cache.path)
    assert repr(cache) == f"EmbeddingCache({str(cache.path)!r})"
    half = EmbeddingCache(cache.path, dtype="float16")
    assert half != cache
    assert pickle.loads(pickle.dumps(half)) == half
    assert repr(half) == f"EmbeddingCache({str(cache.path)!r}, dtype='float16')"


def test_resolve_cache_takes_each_form(cache, tmp_path):
    assert resolve_cache(None) is None
    assert resolve_cache(cache) is cache
    assert resolve_cache("auto") == cache
    assert resolve_cache(tmp_path / "x") is resolve_cache(str(tmp_path / "x"))


def test_info_missing_cache_is_empty(cache):
    assert cache.info() == {
        "path": str(cache.path),
        "n_rows": 0,
        "n_forward": 0,
        "n_hits": 0,
        "n_shards": 0,
        "size_bytes": 0,
        "graph_bytes": 0,
        "damaged_bytes": 0,
        "spaces": [],
    }
    assert not cache.path.exists()


def test_info_counts_rows_and_passes(cache):
    fill(cache, SMALL)
    fill(cache, SMALL)
    fill(cache, LARGE, n=5)
    info = EmbeddingCache(cache.path).info()
    assert (info["n_rows"], info["n_forward"], info["n_shards"]) == (8, 11, 3)
    on_disk = sum(path.stat().st_size for path in cache.path.rglob("shard-*"))
    assert info["size_bytes"] == on_disk
    by_label = {space["label"]: space for space in info["spaces"]}
    assert by_label["small"]["identity"] == SMALL.description
    assert (by_label["small"]["n_rows"], by_label["small"]["n_forward"]) == (3, 6)
    json.dumps(info)


def test_info_skips_foreign_folders(cache):
    fill(cache, SMALL)
    (cache.path / "spaces" / "mine").mkdir()
    (cache.path / "spaces" / "damaged").mkdir()
    (cache.path / "spaces" / "damaged" / "shard-1.index").write_bytes(b"x")
    (cache.path / "spaces" / "damaged" / "shard-1.h5").write_bytes(b"x")
    assert len(EmbeddingCache(cache.path).info()["spaces"]) == 1


def test_verify_names_damaged_shards_and_repairs(cache):
    keys, _ = fill(cache, SMALL)
    fill(cache, LARGE)
    assert cache.verify()["damaged"] == {}
    assert cache.verify()["n_rows"] == 6
    damage_first_row(cache.store(SMALL))
    (path,) = cache.verify()["damaged"]
    assert Path(path).parent.name == SMALL.digest
    assert cache.info()["damaged_bytes"] == 0
    with pytest.warns(CacheDamageWarning, match="1 of 3 rows"):
        assert cache.verify(repair=True)["damaged"] == {path: "1 of 3 rows are damaged"}
    assert cache.verify()["damaged"] == {}
    assert cache.info()["damaged_bytes"] > 0
    assert cache.store(SMALL).find(keys)[1].tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_verify_sample_computes_rows_again(dtype, cache_folder):
    cache = EmbeddingCache(cache_folder, dtype=dtype)
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    extractor = FeatureExtractor("tiny", cache=cache)
    extractor.fit_transform(images)
    result = cache.verify(sample=4, extractor=extractor, X=images)
    assert (result["n_sampled"], result["differing"]) == (4, [])
    assert 0 <= result["largest_difference"] < 1e-3
    store = cache.store(extractor.current_source().space)
    rows, _ = store.find(store.keys())
    store.append(store.keys(), rows * 1.01)  # as other weights might have made them
    remove_shard(store.shards()[0])
    result = cache.verify(sample=100, extractor=extractor, X=images)
    assert result["n_sampled"] == len(result["differing"]) == 6
    assert result["largest_difference"] == pytest.approx(0.01, rel=0.1)


def test_verify_sample_without_stored_rows_compares_nothing(cache):
    images = np.zeros((2, 64, 64, 3), np.uint8)
    result = cache.verify(sample=3, extractor=FeatureExtractor("tiny"), X=images)
    assert result["n_sampled"] == 0


def test_verify_sample_without_an_extractor_raises(cache):
    with pytest.raises(
        ParameterError, match="sample=3: expected 0, or more with an extractor and X"
    ):
        cache.verify(sample=3)


def test_dtype_unknown_raises(tmp_path):
    with pytest.raises(ParameterError, match="dtype='int8'"):
        EmbeddingCache(tmp_path, dtype="int8")


def test_info_finds_space_without_indexes(cache):
    fill(cache, SMALL)
    for index in cache.path.rglob("shard-*.index"):
        index.unlink()
    assert [space["n_rows"] for space in EmbeddingCache(cache.path).info()["spaces"]] == [3]


def test_compact_changes_no_times(cache):
    for seed in range(3):
        fill(cache, SMALL, seed=seed)
    write_long_ago(cache, SMALL, days=9)
    times = ("oldest", "newest")
    before = [cache.info()["spaces"][0][name] for name in times]
    cache.compact()
    assert [cache.info()["spaces"][0][name] for name in times] == before


def test_verify_names_quarantined_shards(cache):
    fill(cache, SMALL)
    (shard,) = cache.store(SMALL).shards()
    for path in (shard.path, shard.index_path):
        path.write_bytes(path.read_bytes()[:100])
    damaged = EmbeddingCache(cache.path)
    fill(damaged, SMALL, seed=5)
    result = damaged.verify()
    assert list(result["damaged"]) == [str(shard.path)]
    assert result["n_rows"] == 3


def test_clear_failing_to_remove_raises(cache, monkeypatch):
    fill(cache, SMALL)

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    with pytest.raises(OSError, match="Read-only"):
        cache.clear()


def test_open_takes_space_object(cache):
    with pytest.raises(ParameterError, match="nothing is stored in"):
        cache.open()
    fill(cache, SMALL)
    fill(cache, LARGE)
    assert cache.open(LARGE).shape == (3, 8)


def test_compact_leaves_one_shard_per_space(cache):
    for seed in range(3):
        fill(cache, SMALL, seed=seed)
        fill(cache, LARGE, seed=seed)
    cache.compact()
    assert [space["n_shards"] for space in cache.info()["spaces"]] == [1, 1]
    assert cache.info()["n_rows"] == 18


def write_long_ago(cache, space, *, days):
    """Make a space look as if it had been used so long ago, and not since."""
    when = time.time() - days * 24 * 3600
    (cache.store(space).folder / USAGE_FILE).write_text(f"{when:.0f} 0\n")


def test_evict_removes_least_recently_used_first(cache):
    for space in (SMALL, LARGE):
        for seed in range(2):
            fill(cache, space, seed=seed)
        write_long_ago(cache, space, days=9)
    cache.store(SMALL).note_use(n_hits=3)
    sizes = {space["label"]: space["size_bytes"] for space in cache.info()["spaces"]}
    total = sum(sizes.values())
    assert cache.evict(max_bytes=total) == []
    (planned,) = cache.evictable(max_bytes=total - 1)
    assert cache.info()["size_bytes"] == total
    assert cache.evict(max_bytes=total - 1) == [planned]
    assert (planned.label, planned.n_shards, planned.n_rows) == ("large", 1, 3)
    assert cache.info()["size_bytes"] == total - planned.size_bytes
    labels = [space.label for space in cache.evict(max_bytes=0)]
    assert labels == ["large", "small"]
    assert cache.info()["n_rows"] == 0
    assert list((cache.path / "spaces").iterdir()) == []


def test_evict_removes_spaces_unused_for_long(cache):
    for space in (SMALL, LARGE):
        fill(cache, space)
        write_long_ago(cache, space, days=40)
    cache.store(LARGE).note_use(n_hits=0)
    removed = cache.evict(older_than=timedelta(days=30))
    assert [space.label for space in removed] == ["small"]
    assert [space["label"] for space in cache.info()["spaces"]] == ["large"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes": -1}, "max_bytes=-1"),
        ({"older_than": timedelta(days=-1)}, "older_than=-1 day"),
        ({}, "expected max_bytes, older_than or both"),
    ],
)
def test_evict_invalid_limits_raise(limits, message, cache):
    with pytest.raises(ParameterError, match=message):
        cache.evict(**limits)


def test_info_reports_hits_and_times(cache):
    fill(cache, SMALL)
    cache.store(SMALL).note_use(n_hits=2)
    cache.store(SMALL).note_use(n_hits=1)
    (space,) = cache.info()["spaces"]
    assert space["n_hits"] == cache.info()["n_hits"] == 3
    times = [datetime.fromisoformat(space[name]) for name in ("oldest", "newest", "last_used")]
    assert all(abs(datetime.now(UTC) - when) < timedelta(minutes=5) for when in times)


def test_clear_keeps_foreign_files(cache):
    keys, rows = fill(cache, SMALL)
    cache.facts.remember({"name": "vgg16"}, SMALL.to_json())
    cache.files.add(b"k" * 16, b"d" * 16, modified_s=0)
    cache.files.flush()
    (cache.path / "notes.txt").write_text("mine")
    cache.clear()
    assert [path.name for path in cache.path.iterdir()] == ["notes.txt"]
    assert not cache.store(SMALL).find(keys)[1].any()
    assert cache.files.find(np.array([b"k" * 16])).tobytes() == NO_KEY
    cache.store(SMALL).append(keys, rows)
    assert cache.info()["n_rows"] == 3


FOREIGN = [
    "notes/thesis.txt",
    "notes/0123.json",
    f"notes/.{'a' * 32}.part",
    f"files/files-{'a' * 32}.index",
    "files/report.pdf",
    "spaces/plan.h5",
    f"spaces/{'a' * 32}/shard-1.h5",
    "spaces/rooms/shard-1.h5",
    "damaged/car.jpg",
    "tuning/piano.txt",
    f".notes.{'a' * 32}.cleared/thesis.txt",
]


def test_clear_files_of_others_stay(tmp_path):
    for name in FOREIGN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert EmbeddingCache(tmp_path).clear() == 0
    found = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert found == set(FOREIGN)


def test_clear_returns_bytes_of_all_files(cache):
    fill(cache, SMALL)
    cache.facts.remember({"name": "vgg16"}, SMALL.to_json())
    cache.files.add(b"k" * 16, b"d" * 16, modified_s=0)
    cache.files.flush()
    folder = cache.store(SMALL).folder
    (folder / "thesis.txt").write_text("mine")  # quarantined, and kept there
    (folder / f".a.{'a' * 32}.part").write_text("unfinished")
    fill(cache, LARGE)
    shard = cache.store(LARGE).shards()[0]
    shard.path.write_bytes(b"x")
    shard.index_path.unlink()
    fresh = EmbeddingCache(cache.path)
    with pytest.warns(CacheDamageWarning):
        assert [len(fresh.store(space).shards()) for space in (SMALL, LARGE)] == [1, 0]
    assert cache.info()["damaged_bytes"] == 5
    n_bytes = sum(path.stat().st_size for path in cache.path.rglob("*") if path.is_file())
    assert cache.clear() == n_bytes - 4
    left = [path for path in cache.path.rglob("*") if path.is_file()]
    assert [path.read_text() for path in left] == ["mine"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("", "cache=''"), ("a\0b", "null"), ("x" * 300, "too long"), ("~nobody-here/rows", "home")],
)
def test_cache_impossible_path_raises(path, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(ParameterError, match=reason):
        EmbeddingCache(path)
    with pytest.raises(ParameterError, match="2 faulty parameters") as caught:
        FeatureExtractor("tiny", pooling="min", cache=path).fit(images)
    assert [fault.name for fault in caught.value.faults] == ["pooling", "cache"]
    with pytest.raises(ParameterError, match=reason):
        FeatureExtractor("tiny", cache=path).fit_transform(images)
    assert list(tmp_path.iterdir()) == []
