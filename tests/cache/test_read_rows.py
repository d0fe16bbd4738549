"""Rows read from a file: the right ones in the right places, whatever was asked for."""

import numpy as np
import pytest

from featx.cache import read_rows as read_module
from featx.cache.read_rows import Checksums, read_rows

OFFSET = 40


@pytest.fixture(params=[np.float32, np.float16])
def matrix(request):
    return np.random.default_rng(0).normal(size=(300, 7)).astype(request.param)


@pytest.fixture
def path(matrix, tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(bytes(OFFSET) + matrix.tobytes() + b"tail")
    return path


@pytest.fixture(params=[1, 28, 1000, 10**6], ids="window {}".format)
def window(request, monkeypatch):
    monkeypatch.setattr(read_module, "_WINDOW_BYTES", request.param)
    monkeypatch.setattr(read_module, "_GAP_BYTES", request.param // 4)
    monkeypatch.setattr(read_module, "_BLOCK_BYTES", request.param // 5)


def read(path, matrix, rows, out, targets):
    return read_rows(
        path,
        np.asarray(rows),
        offset=OFFSET,
        dtype=matrix.dtype,
        checksums=Checksums.of(matrix),
        out=out,
        targets=np.asarray(targets),
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("window")
def test_read_rows_any_order_and_target(seed, path, matrix):
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(1, 400))
    rows = rng.integers(0, 300, n_rows) if seed % 2 else np.sort(rng.integers(0, 300, n_rows))
    targets = rng.permutation(500)[:n_rows] if seed % 4 else np.arange(n_rows)
    out = np.zeros((500, 7), np.float32 if seed % 3 else matrix.dtype)
    assert read(path, matrix, rows, out, targets).all()
    np.testing.assert_array_equal(out[targets], matrix[rows])
    untouched = np.setdiff1d(np.arange(500), targets)
    assert not out[untouched].any()


@pytest.mark.usefixtures("window")
def test_read_rows_all_in_order(path, matrix):
    out = np.empty_like(matrix)
    assert read(path, matrix, np.arange(300), out, np.arange(300)).all()
    np.testing.assert_array_equal(out, matrix)


@pytest.mark.usefixtures("window")
def test_read_rows_changed_rows_are_unsound(path, matrix):
    content = bytearray(path.read_bytes())
    row_bytes = matrix.itemsize * 7
    content[OFFSET + 100 * row_bytes + 3] ^= 4
    path.write_bytes(content[: OFFSET + 250 * row_bytes + 2])
    rows = np.random.default_rng(0).permutation(300)
    out = np.zeros((300, 7), np.float32)
    sound = read(path, matrix, rows, out, np.arange(300))
    assert np.sort(rows[~sound]).tolist() == [100, *range(250, 300)]
    np.testing.assert_array_equal(out[sound], matrix[rows[sound]])


def test_read_rows_none_reads_nothing(path, matrix):
    empty = np.empty(0, np.int64)
    assert read(path, matrix, empty, np.empty((0, 7), np.float32), empty).shape == (0,)


def test_read_rows_missing_file_raises(matrix, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none", matrix, [0], np.empty((1, 7), np.float32), [0])
