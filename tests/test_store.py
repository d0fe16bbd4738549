"""The rows of one space: looked up, merged, and set aside when they are damaged."""

import os
import shutil

import numpy as np
import pytest

from featx.exceptions import CacheDamageWarning
from featx.key_table import keys_from_matrix
from featx.shards import Shard, remove_shard, write_shard
from featx.spaces import Space
from featx.store import SpaceStore

SPACE = Space({"graph": "ab12", "feature_shape": [6]})
OTHER = Space({"graph": "cd34", "feature_shape": [6]})


def keys_and_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    keys = keys_from_matrix(rng.integers(0, 256, (n, 16), dtype=np.uint8))
    return keys, rng.normal(size=(n, 6)).astype(np.float32)


def open_store(tmp_path, space=SPACE):
    return SpaceStore(tmp_path / "rows", space, damaged_folder=tmp_path / "damaged")


@pytest.fixture
def stored(tmp_path):
    """Three shards of four rows each: their keys and rows."""
    keys, rows = keys_and_rows(12)
    store = open_store(tmp_path)
    for start in (0, 4, 8):
        store.append(keys[start : start + 4], rows[start : start + 4])
    return keys, rows


def files(tmp_path, suffix):
    return sorted((tmp_path / "rows").glob(f"*{suffix}"))


def test_find_in_an_empty_store_finds_nothing(tmp_path):
    keys, _ = keys_and_rows(3)
    embeddings, found = open_store(tmp_path).find(keys)
    assert not found.any()
    assert np.isnan(embeddings).all()
    assert embeddings.shape == (3, 6)


def test_find_returns_rows_in_the_order_of_the_keys(tmp_path, stored):
    keys, rows = stored
    missing, _ = keys_and_rows(2, seed=5)
    order = np.array([11, 0, 5, 5, 3])
    embeddings, found = open_store(tmp_path).find(np.concatenate([keys[order], missing]))
    assert found.tolist() == [True] * 5 + [False] * 2
    np.testing.assert_array_equal(embeddings[:5], rows[order])


def test_find_sees_rows_that_another_store_appended(tmp_path, stored):
    reader, writer = open_store(tmp_path), open_store(tmp_path)
    keys, rows = keys_and_rows(2, seed=5)
    assert not reader.find(keys)[1].any()
    writer.append(keys, rows)
    np.testing.assert_array_equal(reader.find(keys)[0], rows)


def test_find_damaged_row_warns_once_and_keeps_its_neighbours(tmp_path, stored):
    keys, rows = stored
    store = open_store(tmp_path)
    shard = store.shards()[0]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\xff\xff")
    lost = int(np.flatnonzero(keys == shard.keys[0])[0])
    with pytest.warns(CacheDamageWarning, match="1 of 4 rows are damaged") as caught:
        _, found = store.find(keys)
    assert len(caught) == 1
    assert np.flatnonzero(~found).tolist() == [lost]
    embeddings, found = open_store(tmp_path).find(keys)
    assert np.flatnonzero(~found).tolist() == [lost]
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert len(os.listdir(tmp_path / "damaged")) == 2


def test_find_lost_index_is_made_anew_without_a_word(tmp_path, stored):
    keys, rows = stored
    files(tmp_path, ".index")[1].unlink()
    embeddings, found = open_store(tmp_path).find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)
    assert len(files(tmp_path, ".index")) == 3


def test_find_damaged_index_is_made_anew_with_a_warning(tmp_path, stored):
    keys, rows = stored
    files(tmp_path, ".index")[0].write_bytes(b"")
    with pytest.warns(CacheDamageWarning, match="index was made anew"):
        embeddings, found = open_store(tmp_path).find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_find_damaged_data_are_set_aside_with_their_index(content, tmp_path, stored):
    keys, rows = stored
    files(tmp_path, ".h5")[0].write_bytes(content)
    with pytest.warns(CacheDamageWarning, match="shorter than its index"):
        embeddings, found = open_store(tmp_path).find(keys)
    assert found.sum() == 8
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert len(files(tmp_path, ".h5")) == len(files(tmp_path, ".index")) == 2


def test_find_shard_of_another_space_is_set_aside(tmp_path, stored):
    keys, _ = stored
    elsewhere = write_shard(tmp_path / "other", *keys_and_rows(4, seed=9), space=OTHER)
    shutil.copy(elsewhere.path, tmp_path / "rows" / "shard-foreign.h5")
    shutil.copy(elsewhere.index_path, tmp_path / "rows" / "shard-foreign.index")
    with pytest.warns(CacheDamageWarning, match="rows of another space"):
        assert open_store(tmp_path).find(keys)[1].all()
    assert len(files(tmp_path, ".h5")) == 3


def test_find_damage_that_cannot_be_moved_aside_is_a_warning(tmp_path, stored):
    keys, rows = stored
    (tmp_path / "damaged").write_text("in the way")
    files(tmp_path, ".h5")[0].write_bytes(b"")
    with pytest.warns(CacheDamageWarning, match="cannot be moved aside"):
        embeddings, found = open_store(tmp_path).find(keys)
    assert found.sum() == 8
    np.testing.assert_array_equal(embeddings[found], rows[found])


def refuse_to_write(monkeypatch):
    """Make the folder read-only, which permissions cannot do to root."""

    def refuse(path, data):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("featx.shards.write_atomically", refuse)


def test_find_damage_in_a_folder_that_cannot_be_written_is_a_warning(tmp_path, stored, monkeypatch):
    keys, rows = stored
    store = open_store(tmp_path)
    shard = store.shards()[0]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\xff\xff")
    refuse_to_write(monkeypatch)
    with pytest.warns(CacheDamageWarning, match="others cannot be stored anew .*Read-only"):
        embeddings, found = store.find(keys)
    assert found.sum() == 11
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert shard.path.exists()


def test_find_lost_index_in_a_folder_that_cannot_be_written(tmp_path, stored, monkeypatch):
    keys, _ = stored
    files(tmp_path, ".index")[1].unlink()
    refuse_to_write(monkeypatch)
    assert open_store(tmp_path).find(keys)[1].all()


def test_find_files_that_may_not_be_read_count_as_missing(tmp_path, stored):
    """A folder in the place of each file: it can be opened by nobody, root included."""
    keys, _ = stored
    for suffix in (".h5", ".index"):
        path = files(tmp_path, suffix)[0]
        path.unlink()
    (tmp_path / "rows" / f"{path.stem}.index").mkdir()
    assert open_store(tmp_path).find(keys)[1].sum() == 8


def test_find_foreign_files_in_the_folder_are_left_alone(tmp_path, stored):
    keys, _ = stored
    (tmp_path / "rows" / "notes.txt").write_text("mine")
    (tmp_path / "rows" / "shard-notes.txt").write_text("mine")
    assert open_store(tmp_path).find(keys)[1].all()
    assert (tmp_path / "rows" / "notes.txt").exists()


def test_find_index_without_data_is_skipped(tmp_path, stored):
    keys, _ = stored
    files(tmp_path, ".h5")[0].unlink()
    assert open_store(tmp_path).find(keys)[1].sum() == 8


def test_find_shards_removed_after_the_listing_looks_again(tmp_path, stored):
    keys, rows = stored
    reader = open_store(tmp_path)
    # Its memory of the shards is older than the compaction, as in a race.
    reader.shards()
    open_store(tmp_path).compact()
    embeddings, found = reader.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_find_shards_that_keep_vanishing_counts_as_missing(tmp_path, stored, monkeypatch):
    keys, _ = stored
    store = open_store(tmp_path)
    snapshot = store._refreshed()
    for shard in snapshot.shards:
        remove_shard(shard)
    monkeypatch.setattr(store, "_refreshed", lambda: snapshot)
    assert not store.find(keys)[1].any()


def test_keys_are_distinct_and_sorted(tmp_path, stored):
    keys, rows = stored
    store = open_store(tmp_path)
    store.append(keys[:3], rows[:3])
    np.testing.assert_array_equal(store.keys(), np.sort(keys))


def test_compact_merges_and_drops_doubles(tmp_path, stored):
    keys, rows = stored
    store = open_store(tmp_path)
    store.append(keys[:3], rows[:3])
    store.compact()
    assert len(files(tmp_path, ".h5")) == 1
    assert [shard.shape for shard in store.shards()] == [(12, 6)]
    np.testing.assert_array_equal(store.find(keys)[0], rows)


def test_compact_one_shard_is_left_as_it_is(tmp_path):
    keys, rows = keys_and_rows(4)
    store = open_store(tmp_path)
    path = store.append(keys, rows).path
    store.compact()
    assert files(tmp_path, ".h5") == [path]


def test_compact_keeps_all_shards_while_a_row_cannot_be_read(tmp_path, stored, monkeypatch):
    keys, rows = stored
    store = open_store(tmp_path)
    unreadable = store.shards()[0].path
    read = Shard.read

    def read_or_fail(shard, wanted):
        if shard.path == unreadable:
            raise OSError(5, "Input/output error")
        return read(shard, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "read", read_or_fail)
        store.compact()
    embeddings, found = store.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_blocks_are_bounded_and_hold_each_key_once(tmp_path, stored, monkeypatch):
    keys, rows = stored
    monkeypatch.setattr("featx.store._COMPACTED_BYTES", 5 * 4 * 6)
    blocks = list(open_store(tmp_path).blocks())
    assert [len(block_keys) for _, block_keys in blocks] == [5, 5, 2]
    found = np.concatenate([block_keys for _, block_keys in blocks])
    np.testing.assert_array_equal(found, np.sort(keys))
    embeddings = np.concatenate([block for block, _ in blocks])
    np.testing.assert_array_equal(embeddings, rows[np.argsort(keys)])


def test_damaged_rows_and_repair(tmp_path, stored):
    keys, _ = stored
    store = open_store(tmp_path)
    assert store.damaged_rows() == {}
    shard = store.shards()[2]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset + 24)
        file.write(b"\xff" * 25)
    assert store.damaged_rows() == {shard.path: 2}
    with pytest.warns(CacheDamageWarning, match="2 of 4 rows"):
        store.repair()
    assert store.damaged_rows() == {}
    assert store.find(keys)[1].sum() == 10


def test_repair_shard_without_a_sound_row_is_set_aside(tmp_path):
    keys, rows = keys_and_rows(1)
    store = open_store(tmp_path)
    shard = store.append(keys, rows)
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\xff")
    with pytest.warns(CacheDamageWarning, match="1 of 1 rows"):
        store.repair()
    assert store.shards() == ()
