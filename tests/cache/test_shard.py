"""One shard: whatever happens to its bytes, a row is right or it is not handed out."""

from dataclasses import replace

import numpy as np
import pytest
from sample_rows import flip

from featx.cache.read_rows import Checksums
from featx.cache.shard import (
    DamagedShardError,
    examine_shards,
    open_shard,
    remove_shard,
    store_index,
    write_shard,
)
from featx.digests.key_table import NO_KEY, keys_from_matrix
from featx.digests.space import Space

SPACE = Space({"graph": "ab12", "feature_shape": [6], "dtype": "float32"}, label="vgg16")


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)


@pytest.fixture
def shard(rows, tmp_path):
    matrix = np.random.default_rng(1).integers(0, 256, (7, 16), dtype=np.uint8)
    return write_shard(tmp_path, keys_from_matrix(matrix), rows, space=SPACE)


def test_write_shard_is_opened_again_whole(shard, rows):
    again = open_shard(shard.index_path)
    assert (again.space, again.space.label) == (SPACE, "vgg16")
    np.testing.assert_array_equal(again.keys, shard.keys)
    for opened in (shard, again):
        embeddings, sound = opened.read_all()
        assert sound.all()
        assert opened.has_sound_frame()
        np.testing.assert_array_equal(embeddings, rows)


def test_read_fills_target_rows(shard, rows):
    out = np.zeros((5, 6), np.float32)
    assert shard.read(np.array([6, 0, 3, 3]), out, np.array([4, 0, 2, 1])).all()
    np.testing.assert_array_equal(out, np.stack([rows[0], rows[3], rows[3], 0 * rows[0], rows[6]]))


def test_write_shard_half_precision_is_rounded_once(rows, tmp_path):
    keys = keys_from_matrix(np.arange(7 * 16, dtype=np.uint8).reshape(7, 16))
    half = write_shard(tmp_path, keys, rows.astype("f2"), space=SPACE.stored_as("float16"))
    embeddings, sound = half.read_all()
    assert sound.all()
    np.testing.assert_array_equal(embeddings, rows.astype(np.float16))
    assert half.size_bytes == rows.nbytes // 2


def test_write_shard_names_follow_time(rows, shard, tmp_path):
    later = write_shard(tmp_path, shard.keys, rows, space=SPACE)
    assert sorted([later.path, shard.path]) == [shard.path, later.path]


def test_read_flipped_bit_never_gives_wrong_row(shard, rows):
    """One bit at a time, in every byte of the file: rows that pass are those that were stored."""
    intact = shard.path.read_bytes()
    n_detected = 0
    for byte in range(len(intact)):
        flip(shard.path, byte, bit=byte % 8)
        opened = open_shard(shard.index_path)
        embeddings, sound = opened.read_all()
        np.testing.assert_array_equal(embeddings[sound], rows[sound])
        n_detected += sound.all() != opened.has_sound_frame()
        flip(shard.path, byte, bit=byte % 8)
    assert shard.path.read_bytes() == intact
    assert n_detected == len(intact)


def test_open_shard_flipped_bit_raises(shard):
    for byte in range(shard.index_path.stat().st_size):
        flip(shard.index_path, byte, bit=byte % 8)
        with pytest.raises(DamagedShardError):
            open_shard(shard.index_path)
        flip(shard.index_path, byte, bit=byte % 8)
    assert len(open_shard(shard.index_path)) == 7


def test_open_shard_truncated_index_raises(shard):
    whole = shard.index_path.read_bytes()
    for length in range(len(whole)):
        shard.index_path.write_bytes(whole[:length])
        with pytest.raises(DamagedShardError):
            open_shard(shard.index_path)


@pytest.mark.parametrize("n_whole_rows", [0, 3, 6])
def test_read_truncated_file_gives_rows_before_cut(n_whole_rows, shard, rows):
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[: shard.offset + n_whole_rows * shard.row_bytes + 5])
    embeddings, sound = open_shard(shard.index_path).read_all()
    assert np.flatnonzero(sound).tolist() == list(range(n_whole_rows))
    np.testing.assert_array_equal(embeddings[sound], rows[sound])


def test_remove_shard_twice_leaves_nothing(shard, tmp_path):
    remove_shard(shard)
    remove_shard(shard)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        shard.read_all()


def test_examine_shards_gives_the_same_index(shard):
    """But for the checksums of blocks, which rows that nobody has checked yet must not give."""
    alone = Checksums.of_rows_alone(shard.checksums.rows)
    store_index(replace(shard, checksums=alone))
    before = shard.index_path.read_bytes()
    shard.index_path.unlink()
    (examined,) = examine_shards([shard.path])
    assert abs(examined.times_s[0] - shard.times_s[0]) < 60
    store_index(replace(examined, times_s=shard.times_s))
    assert shard.index_path.read_bytes() == before
    assert examined.read_all()[1].all()


def test_examine_shards_distinguishes_damaged_from_sound(shard, tmp_path):
    (tmp_path / "shard-cut.h5").write_bytes(shard.path.read_bytes()[:50])
    cut, sound, missing = examine_shards(
        [tmp_path / "shard-cut.h5", shard.path, tmp_path / "shard-none.h5"]
    )
    assert isinstance(cut, DamagedShardError)
    assert "not a sound shard" in str(cut)
    assert len(sound) == 7
    assert isinstance(missing, FileNotFoundError)


def test_examine_shards_row_without_key_is_damage(rows, shard, tmp_path):
    keys = shard.keys.copy()
    keys[3] = NO_KEY
    (fault,) = examine_shards([write_shard(tmp_path, keys, rows, space=SPACE).path])
    assert str(fault) == "a row has no key"
