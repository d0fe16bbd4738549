"""The page docs/format.md is exact: its reader runs, and its test vectors come out again."""

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from sample_rows import SPACE, flip, keys_and_rows

from featx import EmbeddingCache, FeatureExtractor
from featx.cache.shard import examine_shards, open_shard, store_index, write_shard
from featx.cache.store import SpaceStore
from featx.digests.hashing import (
    checksum_of,
    digest_of,
    digest_of_array,
    digest_of_json,
    digests_of_rows,
)
from featx.digests.keras_graph import graph_digest
from featx.digests.key_table import keys_from, matrix_from_keys
from featx.digests.space import Space

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
READER, EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXACT = np.float32([[1, 2], [0.5, -1]])
PAIR = Space({"graph": "ab12", "feature_shape": [2], "dtype": "float32"}, label="example")


@pytest.fixture
def reader():
    """The functions of the reader on the page."""
    namespace = {}
    exec(compile(READER, "docs/format.md", "exec"), namespace)
    return namespace


@pytest.fixture
def shard(tmp_path):
    """A shard of seven rows, in a folder named by its space."""
    keys, rows = keys_and_rows(7)
    return write_shard(tmp_path / SPACE.digest, keys, rows, space=SPACE)


def index_of_the_page(folder):
    """Return the bytes of the index that the page shows."""
    keys = keys_from([digest_of(b"first"), digest_of(b"second")], count=2)
    written = write_shard(folder, keys, EXACT, space=PAIR, times_s=(1.8e9, 1.8e9 + 0.5))
    shown = replace(written, offset=2048, frame_digest=digest_of(b"frame").hex())
    store_index(shown)
    return shown.index_path.read_bytes()


def hex_dump(data):
    """Return lines of an offset, 16 bytes and their characters."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):47}  |{text}|")
    return "\n".join(lines)


def vector_rows():
    """Return what the tables of the page end with, computed by featx."""
    plain = {"é": None, "b": [1, 0.5]}
    tensor = ["input", 0, "float32"]
    pixels, numbers = np.arange(6, dtype=np.uint8).reshape(2, 3), np.float32([1, 2])
    return [
        f"| the bytes `featx` | `{digest_of(b'featx').hex()}` |",
        f'written `{{"b":[1,0.5],"\\u00e9":null}}` | `{digest_of_json(plain)}` |',
        f'`["input",0,"float32"]` | `{digest_of_json(tensor)}` |',
        f'`["{digest_of_json(tensor)}"]` | `{digest_of_json([digest_of_json(tensor)])}` |',
        f"| its bytes | `featx` | `{digest_of(b'featx').hex()}` |",
        rf"`\|u1(2, 3)`, then the bytes 0 to 5 | `{digest_of_array(pixels).hex()}` |",
        f"`<f4(2,)`, then 1.0 and 2.0 | `{digest_of_array(numbers).hex()}` |",
        *(
            f"| `{rows.tobytes().hex()}` | `{checksum_of(rows):016x}` |"
            for rows in (EXACT[0], EXACT[1], EXACT)
        ),
    ]


def test_page_has_the_test_vectors():
    assert [row for row in vector_rows() if row not in PAGE] == []


def test_items_of_stacked_array_have_its_keys():
    stacked = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert digests_of_rows(stacked) == [digest_of_array(item) for item in stacked]


def test_page_has_the_index_byte_by_byte(tmp_path):
    assert hex_dump(index_of_the_page(tmp_path)) in PAGE


def test_page_has_the_smallest_graph():
    import keras

    inputs = keras.Input((4,))
    assert f"`{graph_digest(keras.Model(inputs, inputs))}` |" in PAGE


def test_page_describes_the_datasets(shard):
    with h5py.File(shard.path) as file:
        found = {name: (file[name].shape[1:], file[name].dtype.str) for name in file}
        assert all(file[name].chunks is None for name in file)
        assert sorted(file.attrs) == ["format_version", "space"]
    assert found == {"checksums": ((), "<u8"), "embeddings": ((6,), "<f4"), "keys": ((16,), "|u1")}


def test_index_ends_as_the_page_says(shard):
    index = shard.index_path.read_bytes()
    payload = index[:-16].split(b"\n", 2)[2]
    assert payload[: 16 * 7] == shard.keys.tobytes()
    assert payload[16 * 7 : 24 * 7] == shard.checksums.rows.tobytes()
    assert len(payload) == 24 * 7 + 8


def test_reader_returns_the_stored_rows(reader, shard):
    keys, rows = keys_and_rows(7)
    space, embeddings = reader["read_space"](shard.path.parent)
    assert Space.from_json(space) == SPACE
    assert space["label"] == "vgg16"
    assert list(embeddings) == list(map(bytes, matrix_from_keys(keys)))
    np.testing.assert_array_equal(list(embeddings.values()), rows)


def test_reader_takes_both_dtypes_of_space(reader, tmp_path):
    half = SPACE.stored_as("float16")
    keys, _ = keys_and_rows(2)
    rows = np.float32([[0.5] * 6, [1e6] * 6])  # float16 ends at 65,504
    store = SpaceStore(tmp_path / half.digest, half, damaged_folder=tmp_path / "damaged")
    store.append(keys, rows)
    _, embeddings = reader["read_space"](tmp_path / half.digest)
    assert sorted(row.dtype.name for row in embeddings.values()) == ["float16", "float32"]
    for key, row in zip(matrix_from_keys(keys), rows, strict=True):
        np.testing.assert_array_equal(embeddings[bytes(key)], row)


def test_reader_takes_rebuilt_index(reader, shard):
    _, before = reader["read_space"](shard.path.parent)
    shard.index_path.unlink()
    with pytest.raises(FileNotFoundError):
        reader["read_space"](shard.path.parent)
    (rebuilt,) = examine_shards([shard.path])
    store_index(rebuilt)
    assert len(rebuilt.checksums.blocks) == 0
    _, after = reader["read_space"](shard.path.parent)
    np.testing.assert_equal(after, before)


def test_reader_takes_exported_file(reader, tmp_path):
    keys, rows = keys_and_rows(3)
    cache = EmbeddingCache(tmp_path / "cache")
    cache.store(SPACE).append(keys, rows)
    cache.export(tmp_path / "rows.h5")
    space, found, embeddings, sound = reader["read_shard"](tmp_path / "rows.h5")
    assert Space.from_json(space) == SPACE
    assert found == list(map(bytes, matrix_from_keys(keys)))
    assert sound.all()
    np.testing.assert_array_equal(embeddings, rows)


def test_reader_is_short():
    lines = [line for line in READER.splitlines() if line]
    assert len(lines) <= 50
    modules = re.findall(r"^(?:import|from) (\w+)", READER, re.MULTILINE)
    assert {*modules} == {"h5py", "json", "numpy", "pathlib", "xxhash"}


def test_reader_finds_any_flipped_bit(reader, shard):
    for path in (shard.path, shard.index_path):
        intact = path.read_bytes()
        for byte in range(0, len(intact), 29):
            flip(path, byte, bit=byte % 8)
            assert not is_intact(reader, shard.path), (path.suffix, byte)
            path.write_bytes(intact)
    assert is_intact(reader, shard.path)


def is_intact(reader, path):
    """Return True if the reader finds no damage in a shard."""
    try:
        reader["check_shard"](path)
    except (ValueError, UnicodeDecodeError):
        return False
    return reader["read_shard"](path)[3].all()


def test_reader_leaves_out_damaged_row(reader, shard):
    flip(shard.path, open_shard(shard.index_path).offset + 3 * 6 * 4)
    _, embeddings = reader["read_space"](shard.path.parent)
    keys, _ = keys_and_rows(7)
    assert set(embeddings) == set(map(bytes, matrix_from_keys(np.delete(keys, 3))))


def test_reader_refuses_rows_of_another_space(reader, shard):
    other = shard.path.parent.with_name("0" * 32)
    shard.path.parent.rename(other)
    with pytest.raises(ValueError, match="another space"):
        reader["read_space"](other)


def test_example_finds_file_by_content(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("ein Foto – 1.png")
    embeddings = FeatureExtractor("tiny", cache="CACHE").fit_transform(["ein Foto – 1.png"])
    Path("ein Foto – 1.png").rename("photo.jpg")
    namespace = {}
    exec(compile(READER + EXAMPLE, "docs/format.md", "exec"), namespace)
    np.testing.assert_array_equal(namespace["embeddings"][namespace["key"]], embeddings[0])
    assert capsys.readouterr().out.startswith("tiny, layer 'embedding'")
    shown = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    # If only the graph differs, rows that users have stored are no longer found.
    assert shown == namespace["space"]
