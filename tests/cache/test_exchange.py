"""Rows as one file for others, and back."""

import json
import os

import h5py
import numpy as np
import pytest

from featx import EmbeddingCache
from featx.cache import exchange
from featx.digests.hashing import digest_of
from featx.digests.key_table import keys_from, matrix_from_keys
from featx.digests.space import Space
from featx.exceptions import (
    BadSampleError,
    InputError,
    MissingExtraError,
    MissingRowsError,
    ParameterError,
)
from featx.extractor import FeatureExtractor


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(params=["float32", "float16"])
def cache(request, tmp_path):
    return EmbeddingCache(tmp_path / "mine", dtype=request.param)


@pytest.fixture
def embeddings(cache, images):
    return FeatureExtractor("tiny", cache=cache).fit_transform(images)


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(exchange, "_BLOCK_BYTES", 2 * 4 * 400)
    monkeypatch.setattr("featx.cache.lazy_array._BLOCK_BYTES", 2 * 4 * 400)


def read_h5(path):
    with h5py.File(path) as file:
        texts = {name: file[name].asstr()[:].tolist() for name in ("names", "labels")}
        return file["embeddings"][:], file["keys"][:], texts["names"], texts["labels"]


def read_npz(path):
    with np.load(path) as file:
        names, labels = file["names"].tolist(), file["labels"].tolist()
        return file["embeddings"], file["keys"], names, labels


def read_parquet(path):
    from pyarrow import parquet

    table = parquet.read_table(path)
    keys = [np.frombuffer(key, np.uint8) for key in table["key"].to_pylist()]
    embeddings = np.array(table["embedding"].to_pylist(), np.float32)
    return embeddings, np.stack(keys), table["names"].to_pylist(), table["labels"].to_pylist()


@pytest.mark.parametrize(
    ("suffix", "read"),
    [("h5", read_h5), ("hdf5", read_h5), ("npz", read_npz), ("parquet", read_parquet)],
)
def test_export_rows_with_names_and_labels(suffix, read, cache, images, embeddings, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"rows.{suffix}"
    order = [3, 0, 3]
    cache.export(path, X=images[order], y=["x", "y", "x"])
    rows, keys, names, labels = read(path)
    np.testing.assert_array_equal(rows, embeddings[order])
    np.testing.assert_array_equal(keys, matrix_from_keys(cache.open(X=images[order]).keys))
    assert names == ["array (64, 64, 3) uint8"] * 3
    assert labels == ["x", "y", "x"]


def test_import_gives_back_what_was_exported(cache, embeddings, images, tmp_path):
    cache.export(tmp_path / "rows.h5")
    other = EmbeddingCache(tmp_path / "other", dtype=cache.dtype)
    assert other.import_(tmp_path / "rows.h5") == (5, 5, 0)
    assert other.import_(tmp_path / "rows.h5") == (5, 0, 0)
    np.testing.assert_array_equal(other.open(X=images)[:], embeddings)
    extractor = FeatureExtractor("tiny", cache=other)
    extractor.fit_transform(images)
    assert extractor.report_.n_forward == 0


def test_import_cache_folder(cache, embeddings, images, tmp_path):
    FeatureExtractor("tiny", cache=cache, layer="stage3").fit_transform(images)
    other = EmbeddingCache(tmp_path / "other", dtype=cache.dtype)
    assert other.import_(cache.path) == (10, 10, 0)
    assert other.info()["n_rows"] == 10


def test_import_cache_folder_skips_quarantine(cache, embeddings, tmp_path):
    (cache.path / "damaged").mkdir()
    (cache.path / "damaged" / "old.h5").write_bytes(b"not HDF5")
    other = EmbeddingCache(tmp_path / "other", dtype=cache.dtype)
    assert other.import_(cache.path) == (5, 5, 0)


def test_import_damaged_rows_are_left_out(cache, embeddings, images, tmp_path):
    path = tmp_path / "rows.h5"
    cache.export(path, X=images)
    with h5py.File(path) as file:
        offset = file["embeddings"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 7] ^= 1
    path.write_bytes(content)
    other = EmbeddingCache(tmp_path / "other", dtype=cache.dtype)
    assert other.import_(path) == (5, 4, 1)
    np.testing.assert_array_equal(other.open(X=images[1:])[:], embeddings[1:])


def test_import_foreign_files_raises_and_adds_nothing(cache, embeddings, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    cache.export(folder / "a.h5")
    (folder / "b.h5").write_bytes(b"not HDF5")
    other = EmbeddingCache(tmp_path / "other")
    with pytest.raises(InputError, match=r"not embeddings that featx exported: .*b\.h5"):
        other.import_(folder)
    assert other.info()["n_rows"] == 0
    for nothing in (tmp_path / "none.h5", other.path.parent / "nowhere"):
        with pytest.raises(InputError, match="no such file"):
            other.import_(nothing)


def test_export_unreadable_or_missing_samples_raise(cache, embeddings, tmp_path):
    with pytest.raises(BadSampleError, match="no such file"):
        cache.export(tmp_path / "rows.h5", X=[tmp_path / "none.png"])
    with pytest.raises(MissingRowsError, match="1 of 1 samples"):
        cache.export(tmp_path / "rows.h5", X=np.zeros((1, 8, 8), np.uint8))
    assert not (tmp_path / "rows.h5").exists()


def test_export_labels_without_samples_raise(cache, embeddings, images, tmp_path):
    for X in (None, images[:2]):
        with pytest.raises(InputError, match="y holds the labels of X"):
            cache.export(tmp_path / "rows.h5", X=X, y=["a"])


def test_export_unknown_format_raises(cache, embeddings, tmp_path):
    with pytest.raises(ParameterError, match="format='xlsx': expected 'h5', 'npz', 'parquet'"):
        cache.export(tmp_path / "rows.xlsx")
    cache.export(tmp_path / "rows.dat", format="npz")
    assert np.load(tmp_path / "rows.dat")["embeddings"].shape == (5, 400)


def test_export_parquet_without_pyarrow_names_the_extra(cache, embeddings, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install pyarrow"):
        cache.export(tmp_path / "rows.parquet")


def test_export_without_room_raises_first(cache, embeddings, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    needed = 5 * 400 * np.dtype(cache.dtype).itemsize
    message = f"No space left on device: {needed} bytes needed, 100 free"
    with pytest.raises(OSError, match=message):
        cache.export(tmp_path / "rows.h5")


def test_export_failing_keeps_old_file(cache, embeddings, tmp_path, monkeypatch):
    path = tmp_path / "rows.npz"
    path.write_text("precious")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        cache.export(path)
    assert path.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def exported(tmp_path, rows=((1.0, 2.0),), **identity):
    """Export rows of a space that is described in another way than featx does."""
    described = {
        "graph": "x",
        "dtype": "float32",
        "feature_shape": [2],
        "input_shape": [4, 4, 3],
        **identity,
    }
    space = Space({name: value for name, value in described.items() if value is not ...}, label="l")
    cache = EmbeddingCache(tmp_path / "theirs")
    keys = keys_from([digest_of(bytes([row])) for row in range(len(rows))], count=len(rows))
    cache.store(space).append(keys, np.array(rows, np.float32))
    cache.export(tmp_path / "rows.h5")
    return tmp_path / "rows.h5"


@pytest.mark.parametrize(
    "input_shape", [..., None, "abc", [], [0, 4, 3], [4.0], [True], [2**20, 2**20], {"a": 1}]
)
def test_import_invalid_space_description_raises(input_shape, tmp_path):
    path = exported(tmp_path)
    with h5py.File(path, "r+") as file:
        described = json.loads(file.attrs["space"])
        described["identity"].pop("input_shape")
        if input_shape is not ...:
            described["identity"]["input_shape"] = input_shape
        file.attrs["space"] = json.dumps(described)
    mine = EmbeddingCache(tmp_path / "mine")
    with pytest.raises(InputError, match=r"its description has no input_shape|inputs of shape"):
        mine.import_(path)
    assert mine.info()["n_rows"] == 0


def test_import_space_that_cannot_be_identified_raises(tmp_path):
    path = exported(tmp_path, unidentified="x")
    with pytest.raises(InputError, match="its space cannot be identified"):
        EmbeddingCache(tmp_path / "mine").import_(path)


def test_import_non_finite_rows_are_left_out(tmp_path):
    path = exported(tmp_path, rows=[(1, 2), (np.nan, 1), (1, np.inf), (3, 4)])
    assert EmbeddingCache(tmp_path / "mine").import_(path) == (4, 2, 2)


def soft_link(file):
    del file["keys"]
    file["keys"] = h5py.SoftLink("/embeddings")


def external_storage(file):
    del file["embeddings"]
    file.create_dataset("embeddings", (1, 2), np.float32, external=[("/etc/passwd", 0, 8)])


def giant_shape(file):
    del file["embeddings"]
    file.create_dataset("embeddings", (2**40, 2), np.float32, chunks=(2**16, 2))


def texts(file):
    del file["embeddings"]
    file["embeddings"] = np.array([["a", "b"]], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (soft_link, "keys is a link"),
        (external_storage, "embeddings is stored in another file"),
        (giant_shape, "embeddings is not contiguous"),
        (texts, "embeddings has another dtype"),
    ],
)
def test_import_file_that_is_not_plain_raises(change, fault, tmp_path):
    path = exported(tmp_path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=fault):
        EmbeddingCache(tmp_path / "mine").import_(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_import_named_pipe_raises(tmp_path):
    os.mkfifo(tmp_path / "rows.h5")
    for path in (tmp_path / "rows.h5", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            EmbeddingCache(tmp_path / "mine").import_(path)
