"""The rows of one space: looked up, appended, and quarantined when they are damaged."""

import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sample_rows import SPACE, keys_and_rows, open_store

from featx.cache.maintenance import compact
from featx.cache.shard import Shard, remove_shard, write_shard
from featx.digests.key_table import NO_KEY
from featx.digests.space import Space
from featx.exceptions import CacheDamageWarning

OTHER = Space({"graph": "cd34", "feature_shape": [6], "dtype": "float32"})


def files(tmp_path, suffix):
    return sorted((tmp_path / "rows").glob(f"*{suffix}"))


def test_find_empty_store_finds_nothing(tmp_path):
    keys, _ = keys_and_rows(3)
    embeddings, found = open_store(tmp_path).find(keys)
    assert not found.any()
    assert np.isnan(embeddings).all()
    assert embeddings.shape == (3, 6)


@pytest.mark.parametrize("least_bytes", [0, 10**6])
@pytest.mark.parametrize("piece_bytes", [1, 50, 10**6])
def test_find_returns_rows_in_key_order(piece_bytes, least_bytes, tmp_path, stored, monkeypatch):
    monkeypatch.setattr("featx.cache.store._BYTES_OF_A_PIECE", piece_bytes)
    monkeypatch.setattr("featx.cache.store._BYTES_FOR_THREADS", least_bytes)
    keys, rows = stored
    missing, _ = keys_and_rows(2, seed=5)
    order = np.array([11, 0, 5, 5, 3])
    embeddings, found = open_store(tmp_path).find(np.concatenate([keys[order], missing]))
    assert found.tolist() == [True] * 5 + [False] * 2
    np.testing.assert_array_equal(embeddings[:5], rows[order])


def test_find_sees_rows_of_other_store(tmp_path, stored):
    reader, writer = open_store(tmp_path), open_store(tmp_path)
    keys, rows = keys_and_rows(2, seed=5)
    assert not reader.find(keys)[1].any()
    writer.append(keys, rows)
    np.testing.assert_array_equal(reader.find(keys)[0], rows)


def test_find_damaged_row_keeps_its_neighbors(tmp_path, stored):
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


def test_find_lost_index_is_rebuilt_silently(tmp_path, stored):
    keys, rows = stored
    files(tmp_path, ".index")[1].unlink()
    embeddings, found = open_store(tmp_path).find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)
    assert len(files(tmp_path, ".index")) == 3


def test_find_damaged_index_is_rebuilt_with_warning(tmp_path, stored):
    keys, rows = stored
    files(tmp_path, ".index")[0].write_bytes(b"")
    with pytest.warns(CacheDamageWarning, match="index was rebuilt"):
        embeddings, found = open_store(tmp_path).find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_find_damaged_data_is_quarantined_with_index(content, tmp_path, stored):
    keys, rows = stored
    files(tmp_path, ".h5")[0].write_bytes(content)
    with pytest.warns(CacheDamageWarning, match="4 of 4 rows are damaged"):
        embeddings, found = open_store(tmp_path).find(keys)
    assert found.sum() == 8
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert len(files(tmp_path, ".h5")) == len(files(tmp_path, ".index")) == 2


def test_find_shard_of_other_space_is_quarantined(tmp_path, stored):
    keys, _ = stored
    elsewhere = write_shard(tmp_path / "other", *keys_and_rows(4, seed=9), space=OTHER)
    shutil.copy(elsewhere.path, tmp_path / "rows" / "shard-foreign.h5")
    shutil.copy(elsewhere.index_path, tmp_path / "rows" / "shard-foreign.index")
    with pytest.warns(CacheDamageWarning, match="rows of another space"):
        assert open_store(tmp_path).find(keys)[1].all()
    assert len(files(tmp_path, ".h5")) == 3


def test_find_damage_without_quarantine_warns(tmp_path, stored):
    keys, rows = stored
    (tmp_path / "damaged").write_text("in the way")
    files(tmp_path, ".h5")[0].write_bytes(b"")
    with pytest.warns(CacheDamageWarning, match="cannot be quarantined"):
        embeddings, found = open_store(tmp_path).find(keys)
    assert found.sum() == 8
    np.testing.assert_array_equal(embeddings[found], rows[found])


def refuse_to_write(monkeypatch):
    """Make the folder read-only, which permissions cannot do to root."""

    def refuse(path, *_):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("featx.cache.shard.write_atomically", refuse)
    monkeypatch.setattr("featx.cache.shard.write_in_order", lambda contents: refuse(*contents))


def test_find_damage_in_read_only_folder_warns(tmp_path, stored, monkeypatch):
    keys, rows = stored
    store = open_store(tmp_path)
    shard = store.shards()[0]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\xff\xff")
    refuse_to_write(monkeypatch)
    with pytest.warns(CacheDamageWarning, match="others cannot be stored again .*Read-only"):
        embeddings, found = store.find(keys)
    assert found.sum() == 11
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert shard.path.exists()


def test_find_lost_index_in_read_only_folder(tmp_path, stored, monkeypatch):
    keys, _ = stored
    files(tmp_path, ".index")[1].unlink()
    refuse_to_write(monkeypatch)
    assert open_store(tmp_path).find(keys)[1].all()


IRREGULAR = {
    "folder": lambda path, target: path.mkdir(),
    "pipe": lambda path, target: os.mkfifo(path),
    "link": lambda path, target: path.symlink_to(target),
    "dangling link": lambda path, target: path.symlink_to(target / "none"),
    "device": lambda path, target: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("suffix", [".h5", ".index"])
def test_find_irregular_file_is_quarantined_unopened(suffix, kind, tmp_path, stored):
    keys, rows = stored
    path = files(tmp_path, suffix)[0]
    content = path.rename(tmp_path / "elsewhere")
    IRREGULAR[kind](path, content)
    with pytest.warns(CacheDamageWarning, match="is not a regular file") as caught:
        embeddings, found = open_store(tmp_path).find(keys)
    assert len(caught) == 1
    assert found.sum() == (8 if suffix == ".h5" else 12)  # an index is rebuilt from its data
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert [aside.name for aside in (tmp_path / "damaged").iterdir()] == [f"rows-{path.name}"]
    assert open_store(tmp_path).find(keys)[1].sum() == found.sum()


def test_find_data_replaced_by_pipe_warns(tmp_path, stored):
    keys, rows = stored
    store = open_store(tmp_path)
    path = store.shards()[0].path
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(CacheDamageWarning, match="cannot be read"):
        embeddings, found = store.find(keys)
    assert found.sum() == 8
    np.testing.assert_array_equal(embeddings[found], rows[found])


def test_find_usage_pipe_is_quarantined(tmp_path, stored):
    (tmp_path / "rows" / "usage.log").unlink()
    os.mkfifo(tmp_path / "rows" / "usage.log")
    store = open_store(tmp_path)
    store.note_use(n_hits=1)
    with pytest.warns(CacheDamageWarning, match="usage.log: is not a regular file"):
        assert store.find(stored[0])[1].all()


def test_append_through_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rows").symlink_to(tmp_path / "elsewhere")
    store = open_store(tmp_path)
    with pytest.raises(NotADirectoryError, match="not a folder, or a link"):
        store.append(*keys_and_rows(2))
    assert not store.shards()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_find_foreign_files_are_quarantined_with_warning(tmp_path, stored):
    keys, _ = stored
    (tmp_path / "rows" / "notes.txt").write_text("mine")
    (tmp_path / "rows" / "shard-notes.txt").write_text("mine")
    (tmp_path / "rows" / ".shard-1.h5.abc.part").write_text("unfinished")
    with pytest.warns(CacheDamageWarning, match=r"notes.txt: is no part of a cache") as caught:
        assert open_store(tmp_path).find(keys)[1].all()
    assert len(caught) == 1
    names = {path.name.removeprefix("rows-") for path in (tmp_path / "damaged").iterdir()}
    assert names == {"notes.txt", "shard-notes.txt"}
    assert open_store(tmp_path).find(keys)[1].all()


def test_find_index_without_data_is_skipped(tmp_path, stored):
    keys, _ = stored
    files(tmp_path, ".h5")[0].unlink()
    assert open_store(tmp_path).find(keys)[1].sum() == 8


def test_find_shards_removed_after_listing_retries(tmp_path, stored):
    keys, rows = stored
    reader = open_store(tmp_path)
    # Its memory of the shards is older than the compaction, as in a race.
    reader.shards()
    compact(open_store(tmp_path))
    embeddings, found = reader.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_find_vanishing_shards_count_as_missing(tmp_path, stored, monkeypatch):
    keys, _ = stored
    store = open_store(tmp_path)
    snapshot = store.snapshot()
    for shard in snapshot.shards:
        remove_shard(shard)
    monkeypatch.setattr(store, "snapshot", lambda: snapshot)
    assert not store.find(keys)[1].any()


def test_find_unreadable_shard_loses_its_rows_only(tmp_path, stored, monkeypatch):
    keys, rows = stored
    store = open_store(tmp_path)
    unreadable = store.shards()[0]
    read = Shard.read

    def read_or_fail(shard, *arguments):
        if shard is unreadable:
            raise OSError(5, "Input/output error")
        return read(shard, *arguments)

    monkeypatch.setattr(Shard, "read", read_or_fail)
    with pytest.warns(CacheDamageWarning, match=r"cannot be read \(Input/output error\)"):
        embeddings, found = store.find(keys)
    assert found.tolist() == [False] * 4 + [True] * 8
    np.testing.assert_array_equal(embeddings[found], rows[found])
    assert store.find(keys)[1].sum() == 8  # without another warning
    store.append(keys[:4], rows[:4])
    np.testing.assert_array_equal(store.find(keys)[0], rows)


def test_find_row_misread_once_is_found(tmp_path, stored, monkeypatch):
    keys, rows = stored
    store = open_store(tmp_path)
    read, n_reads = Shard.read, []

    def read_wrongly_once(shard, *arguments):
        n_reads.append(shard)
        sound = read(shard, *arguments)
        return sound & (len(n_reads) != 1)

    monkeypatch.setattr(Shard, "read", read_wrongly_once)
    embeddings, found = store.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)
    assert not (tmp_path / "damaged").exists()


def test_find_damaged_row_stored_twice_is_found(tmp_path, stored):
    keys, rows = stored
    store = open_store(tmp_path)
    store.append(keys[:4], rows[:4])
    for shard in (store.shards()[0], store.shards()[-1]):
        if shard.keys[0] == keys[0]:
            with open(shard.path, "r+b") as file:
                file.seek(shard.offset)
                file.write(b"\xff\xff")
            break
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheDamageWarning)  # the sound copy may be read first
        embeddings, found = store.find(keys)
    assert found.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_find_damage_without_quarantine_warns_once(tmp_path, stored):
    keys, rows = stored
    (tmp_path / "damaged").write_text("in the way")
    store = open_store(tmp_path)
    shard = store.shards()[0]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\xff\xff")
    with pytest.warns(CacheDamageWarning, match="cannot be quarantined"):
        assert store.find(keys)[1].sum() == 11
    for _ in range(3):
        assert store.find(keys)[1].sum() == 11
    assert len(files(tmp_path, ".h5")) == 3
    store.append(keys, rows)
    assert store.find(keys)[1].all()


def test_find_no_key_is_never_found(tmp_path):
    store = open_store(tmp_path)
    keys, rows = keys_and_rows(2)
    keys[0] = NO_KEY
    store.append(keys, rows)
    assert store.find(keys)[1].tolist() == [False, True]


def test_find_writes_into_out(tmp_path, stored):
    keys, rows = stored
    missing, _ = keys_and_rows(1, seed=5)
    out = np.zeros((13, 6), np.float64)
    embeddings, _ = open_store(tmp_path).find(np.concatenate([keys, missing]), out=out)
    assert embeddings is out
    np.testing.assert_array_equal(out[:12], rows)
    assert np.isnan(out[12]).all()


def test_find_float16_rows_are_float32(tmp_path):
    keys, rows = keys_and_rows(4)
    store = open_store(tmp_path, SPACE.stored_as("float16"))
    store.append(keys, rows)
    embeddings, found = store.find(keys[::-1])
    assert found.all()
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, rows[::-1].astype(np.float16))


def test_holds_marks_stored_keys(tmp_path, stored):
    keys, _ = stored
    missing, _ = keys_and_rows(1, seed=5)
    assert open_store(tmp_path).holds(np.concatenate([missing, keys[:2]])).tolist() == [
        False,
        True,
        True,
    ]


def test_keys_are_distinct_in_stored_order(tmp_path, stored):
    keys, rows = stored
    store = open_store(tmp_path)
    store.append(keys[:3], rows[:3])
    np.testing.assert_array_equal(store.keys(), keys)


def test_salvage_missing_shard_raises(tmp_path, stored):
    store = open_store(tmp_path)
    shard = store.shards()[0]
    remove_shard(shard)
    with pytest.raises(FileNotFoundError):
        store.salvage(shard)
    assert len(store.shards()) == 2


def test_find_damaged_files_without_child_stay(tmp_path, stored, monkeypatch):
    """No verdict without a look: the shard is there again for the next reader."""
    keys, _ = stored
    files(tmp_path, ".index")[0].write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        with pytest.warns(CacheDamageWarning, match="cannot be read"):
            assert open_store(tmp_path).find(keys)[1].sum() == 8
    with pytest.warns(CacheDamageWarning, match="index was rebuilt"):
        assert open_store(tmp_path).find(keys)[1].all()


def test_append_together_threads_share_shards(tmp_path):
    keys, rows = keys_and_rows(60)
    store = open_store(tmp_path)
    with ThreadPoolExecutor(12) as threads:
        list(
            threads.map(
                lambda n: store.append_together(keys[n : n + 1], rows[n : n + 1]), range(60)
            )
        )
    np.testing.assert_array_equal(open_store(tmp_path).find(keys)[0], rows)
    assert sum(map(len, store.shards())) == 60
    assert len(store.shards()) < 60


def test_append_together_failing_raises_in_threads(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    refuse_to_write(monkeypatch)
    with ThreadPoolExecutor(4) as threads:
        tries = [
            threads.submit(store.append_together, *keys_and_rows(1, seed=seed)) for seed in range(8)
        ]
    assert all(isinstance(each.exception(), OSError) for each in tries)


def test_find_after_each_append_finds_all_rows(tmp_path):
    """The tables of keys that a look-up keeps from the one before stay right."""
    keys, rows = keys_and_rows(40)
    store, other = open_store(tmp_path), open_store(tmp_path)
    for stop in range(1, 41):
        other.append(keys[stop - 1 : stop], rows[stop - 1 : stop])
        embeddings, found = store.find(keys)
        assert np.flatnonzero(found).tolist() == list(range(stop))
        np.testing.assert_array_equal(embeddings[:stop], rows[:stop])
        if stop % 15 == 0:
            compact(other)
