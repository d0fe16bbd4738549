"""Many shards into few: nothing is lost, whatever comes in between."""

import os
import time

import numpy as np
import pytest
from sample_rows import SPACE, keys_and_rows, open_store

from featx.cache import maintenance
from featx.cache.maintenance import compact, merge_tiny
from featx.cache.shard import Shard
from featx.cache.store import SpaceStore
from featx.exceptions import CacheDamageWarning


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def test_compact_merges_in_order_without_repeats(store, stored):
    keys, rows = stored
    store.append(keys[:3], rows[:3])
    compact(store)
    (shard,) = store.shards()
    np.testing.assert_array_equal(shard.keys, keys)
    np.testing.assert_array_equal(store.find(keys)[0], rows)
    assert len(list(store.folder.glob("shard-*"))) == 2


def test_compact_one_shard_stays(store):
    (shard,) = store.append(*keys_and_rows(4))
    compact(store)
    assert [left.path for left in store.shards()] == [shard.path]


def test_compact_large_shards_stay_unless_repeated(store, monkeypatch):
    monkeypatch.setattr(maintenance, "_MERGED_BYTES", 2 * 4 * 24)
    large, small, more = (store.append(*keys_and_rows(n, seed=n))[0] for n in (4, 2, 1))
    compact(store)
    left, merged = store.shards()
    assert left.path == large.path
    assert set(merged.keys) == {*small.keys, *more.keys}
    store.append(large.keys[:1], large.read_all()[0][:1])
    compact(store)
    assert sum(map(len, store.shards())) == 7


def test_compact_empty_store_makes_nothing(store):
    compact(store)
    assert not store.folder.exists()


def test_compact_twice_changes_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setattr(maintenance, "_MERGED_BYTES", 5 * 2 * 6)
    half = open_store(tmp_path, SPACE.stored_as("float16"))
    keys, rows = keys_and_rows(20)
    for start in range(0, 20, 2):
        half.append(keys[start : start + 2], rows[start : start + 2])
    compact(half)
    names = [shard.path for shard in half.shards()]
    compact(half)
    assert [shard.path for shard in half.shards()] == names
    assert [len(shard) for shard in half.shards()] == [5, 5, 5, 5]


def test_compact_concurrently_loses_no_repeated_row(store, monkeypatch):
    """Two large shards share a row; each compactor must not count on the other's shard."""
    monkeypatch.setattr(maintenance, "_MERGED_BYTES", 2 * 4 * 24)
    keys, rows = keys_and_rows(9)
    one, two = np.arange(5), np.arange(4, 9)
    store.append(keys[one], rows[one])
    store.append(keys[two], rows[two])
    real = maintenance.remove_shard

    def let_another_go_first(shard):
        monkeypatch.setattr(maintenance, "remove_shard", real)
        other = open_store(store.folder.parent)
        other.append(*keys_and_rows(1, seed=8))
        compact(other)
        real(shard)

    monkeypatch.setattr(maintenance, "remove_shard", let_another_go_first)
    compact(store)
    embeddings, found = store.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_compact_removes_old_indexes_without_data(store, stored):
    old, new = (store.folder / f"shard-{name}.index" for name in ("old", "new"))
    for index in (old, new):
        index.write_bytes(b"left behind")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    compact(store)
    assert (old.exists(), new.exists()) == (False, True)


def test_compact_float16_rows_stay_equal(tmp_path):
    half = open_store(tmp_path, SPACE.stored_as("float16"))
    keys, rows = keys_and_rows(8)
    half.append(keys[:4], rows[:4])
    half.append(keys[4:], rows[4:])
    compact(half)
    np.testing.assert_array_equal(half.find(keys)[0], rows.astype(np.float16))


def test_compact_unreadable_row_keeps_all_shards(store, stored, monkeypatch):
    keys, rows = stored
    unreadable = store.shards()[0].path
    read = Shard.read

    def read_or_fail(shard, *arguments):
        if shard.path == unreadable:
            raise OSError(5, "Input/output error")
        return read(shard, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "read", read_or_fail)
        with pytest.warns(CacheDamageWarning, match="cannot be read"):
            compact(store)
    again = open_store(store.folder.parent)
    embeddings, found = again.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_compact_full_disk_loses_nothing(store, stored, monkeypatch):
    keys, rows = stored

    def refuse(contents):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("featx.cache.shard.write_in_order", refuse)
        with pytest.raises(OSError, match="No space left"):
            compact(store)
    np.testing.assert_array_equal(store.find(keys)[0], rows)


def test_compact_removes_old_unfinished_files(store, stored):
    old, new = (store.folder / f".shard-{name}.h5.{'1' * 32}.part" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"unfinished")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    compact(store)
    assert not old.exists()
    assert new.exists()


def test_merge_tiny_single_rows_leave_few_shards(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    written, append = [], SpaceStore.append

    def append_and_count(self, keys, *arguments, **options):
        written.append(len(keys))
        return append(self, keys, *arguments, **options)

    monkeypatch.setattr(SpaceStore, "append", append_and_count)
    keys, rows = keys_and_rows(120)
    for number in range(120):
        store.append(keys[number : number + 1], rows[number : number + 1])
        merge_tiny(store)
        assert len(store.shards()) <= 16
    assert sum(written) <= 120 * 8
    embeddings, found = store.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)
    np.testing.assert_array_equal(np.sort(store.keys()), np.sort(keys))


def test_merge_tiny_leaves_large_shards_alone(store, monkeypatch):
    monkeypatch.setattr(maintenance, "_TINY_BYTES", 10 * 24)
    (large,) = store.append(*keys_and_rows(11))
    for seed in range(1, 18):
        store.append(*keys_and_rows(1, seed=seed))
    merge_tiny(store)
    assert [len(shard) for shard in store.shards()] == [11, 17]
    assert store.shards()[0].path == large.path


def test_merge_tiny_concurrently_stores_each_row_once(store, monkeypatch):
    keys, rows = keys_and_rows(17)
    for number in range(17):
        store.append(keys[number : number + 1], rows[number : number + 1])
    real = maintenance.remove_shard

    def let_another_go_first(shard):
        monkeypatch.setattr(maintenance, "remove_shard", real)
        merge_tiny(other)
        real(shard)

    other = open_store(store.folder.parent)
    other.shards()
    monkeypatch.setattr(maintenance, "remove_shard", let_another_go_first)
    merge_tiny(store)
    (shard,) = store.shards()
    assert sorted(shard.keys) == sorted(keys)
    np.testing.assert_array_equal(store.find(keys)[0], rows)


def test_compact_rows_beyond_half_precision_stay_exact(tmp_path):
    half = open_store(tmp_path, SPACE.stored_as("float16"))
    keys, rows = keys_and_rows(8)
    rows[::2] *= 1e6
    for start in range(8):
        half.append(keys[start : start + 1], rows[start : start + 1])
    compact(half)
    assert [shard.dtype.name for shard in half.shards()] in (
        ["float16", "float32"],
        ["float32", "float16"],
    )
    found = half.find(keys)[0]
    np.testing.assert_array_equal(found[::2], rows[::2])
    np.testing.assert_array_equal(found[1::2], rows[1::2].astype("f2"))
