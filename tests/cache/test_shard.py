"""One shard: whatever happens to its bytes, a row is right or it is not handed out."""

from dataclasses import replace

import numpy as np
import pytest

from featx.cache.read import Checksums
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


def flip(path, byte, bit=0):
    """Flip one bit of a file in place."""
    with open(path, "r+b") as file:
        file.seek(byte)
        value = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))


def test_write_shard_is_opened_again_whole(shard, rows):
    again = open_shard(shard.index_path)
    assert (again.space, again.space.label) == (SPACE, "vgg16")
    np.testing.assert_array_equal(again.keys, shard.keys)
    for opened in (shard, again):
        embeddings, sound = opened.read_all()
        assert sound.all()
        assert opened.has_sound_frame()
        np.testing.assert_array_equal(embeddings, rows)


def test_read_puts_rows_where_they_are_wanted(shard, rows):
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


def test_write_shard_names_are_in_the_order_of_time(rows, shard, tmp_path):
    later = write_shard(tmp_path, shard.keys, rows, space=SPACE)
    assert sorted([later.path, shard.path]) == [shard.path, later.path]


def test_read_every_flipped_bit_of_the_file_never_gives_a_wrong_row(shard, rows):
    """One bit at a time, in every byte of the file: what is vouched for is what was stored."""
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


def test_open_shard_every_flipped_bit_of_the_index_is_found(shard):
    for byte in range(shard.index_path.stat().st_size):
        flip(shard.index_path, byte, bit=byte % 8)
        with pytest.raises(DamagedShardError):
            open_shard(shard.index_path)
        flip(shard.index_path, byte, bit=byte % 8)
    assert len(open_shard(shard.index_path)) == 7


def test_open_shard_every_truncation_of_the_index_is_found(shard):
    whole = shard.index_path.read_bytes()
    for length in range(len(whole)):
        shard.index_path.write_bytes(whole[:length])
        with pytest.raises(DamagedShardError):
            open_shard(shard.index_path)


@pytest.mark.parametrize("n_whole_rows", [0, 3, 6])
def test_read_truncated_file_vouches_for_the_rows_before_the_cut(n_whole_rows, shard, rows):
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[: shard.offset + n_whole_rows * shard.row_bytes + 5])
    embeddings, sound = open_shard(shard.index_path).read_all()
    assert np.flatnonzero(sound).tolist() == list(range(n_whole_rows))
    np.testing.assert_array_equal(embeddings[sound], rows[sound])


def test_remove_shard_leaves_nothing_and_does_so_twice(shard, tmp_path):
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


def test_examine_shards_damaged_files_are_told_apart_from_sound_ones(shard, tmp_path):
    (tmp_path / "shard-cut.h5").write_bytes(shard.path.read_bytes()[:50])
    cut, sound, missing = examine_shards(
        [tmp_path / "shard-cut.h5", shard.path, tmp_path / "shard-none.h5"]
    )
    assert isinstance(cut, DamagedShardError)
    assert "not a sound shard" in str(cut)
    assert len(sound) == 7
    assert isinstance(missing, FileNotFoundError)


def test_examine_shards_row_without_a_key_is_refused(rows, shard, tmp_path):
    keys = shard.keys.copy()
    keys[3] = NO_KEY
    (fault,) = examine_shards([write_shard(tmp_path, keys, rows, space=SPACE).path])
    assert str(fault) == "a row has no key"


def test_examine_shards_rows_of_another_length_than_described_are_refused(rows, shard, tmp_path):
    narrow = Space({**SPACE.description, "feature_shape": [5]}, label="vgg16")
    wrong = write_shard(tmp_path, shard.keys, rows, space=narrow)
    (fault,) = examine_shards([wrong.path])
    assert "not as long as its description says" in str(fault)
