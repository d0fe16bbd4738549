"""One shard: whatever happens to its bytes, a row is right or it is not handed out."""

import numpy as np
import pytest

from featx.key_table import keys_from_matrix
from featx.shards import (
    DamagedShardError,
    open_shard,
    rebuild_index,
    remove_shard,
    write_shard,
)
from featx.spaces import Space

SPACE = Space({"graph": "ab12", "feature_shape": [6]}, label="vgg16")


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
        embeddings, sound = opened.read(np.array([6, 0, 3, 3]))
        assert sound.all()
        np.testing.assert_array_equal(embeddings, rows[[6, 0, 3, 3]])


def test_read_every_flipped_bit_of_the_file_never_gives_a_wrong_row(shard, rows):
    """One bit at a time, in every byte of the file: what is vouched for is what was stored."""
    intact = shard.path.read_bytes()
    n_detected = 0
    for byte in range(len(intact)):
        flip(shard.path, byte, bit=byte % 8)
        embeddings, sound = open_shard(shard.index_path).read(slice(None))
        np.testing.assert_array_equal(embeddings[sound], rows[sound])
        n_detected += not sound.all()
        flip(shard.path, byte, bit=byte % 8)
    assert shard.path.read_bytes() == intact
    assert n_detected == rows.nbytes


def test_open_shard_every_flipped_bit_of_the_index_is_found(shard):
    for byte in range(shard.index_path.stat().st_size):
        flip(shard.index_path, byte, bit=byte % 8)
        with pytest.raises(DamagedShardError):
            open_shard(shard.index_path)
        flip(shard.index_path, byte, bit=byte % 8)
    assert open_shard(shard.index_path).shape == (7, 6)


def test_open_shard_every_truncation_of_the_index_is_found(shard):
    whole = shard.index_path.read_bytes()
    for length in range(len(whole)):
        shard.index_path.write_bytes(whole[:length])
        with pytest.raises(DamagedShardError):
            open_shard(shard.index_path)


def test_open_shard_truncated_data_are_found(shard):
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[: shard.offset + shard.size_bytes - 1])
    with pytest.raises(DamagedShardError, match="shorter than its index says"):
        open_shard(shard.index_path)


def test_read_file_truncated_after_it_was_opened_vouches_for_nothing(shard, rows):
    assert shard.read(slice(None))[1].all()
    with open(shard.path, "r+b") as file:
        file.truncate(100)
    embeddings, sound = shard.read(slice(None))
    assert embeddings.shape == rows.shape
    assert not sound.any()


def test_remove_shard_leaves_nothing_and_does_so_twice(shard, tmp_path):
    remove_shard(shard)
    remove_shard(shard)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        shard.is_whole()


def test_rebuild_index_gives_the_same_index(shard):
    before = shard.index_path.read_bytes()
    shard.index_path.unlink()
    rebuilt = rebuild_index(shard.path)
    assert shard.index_path.read_bytes() == before
    assert rebuilt.read(slice(None))[1].all()


def test_rebuild_index_damaged_file_is_refused(shard):
    shard.path.write_bytes(shard.path.read_bytes()[:50])
    with pytest.raises(DamagedShardError, match="not a sound shard"):
        rebuild_index(shard.path)
    with pytest.raises(FileNotFoundError):
        rebuild_index(shard.path.with_name("shard-none.h5"))
