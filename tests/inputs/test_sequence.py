"""Samples of a sequence: files, encoded images and PIL images, and their faults."""

import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from input_samples import FORM, SHAPE, keys, loaded
from PIL import Image

from featx._progress import displayed_by
from featx.exceptions import InputError
from featx.inputs.file_index import FileIndex
from featx.inputs.recognize import as_samples
from featx.inputs.sequence import ItemSamples


def test_item_samples_mixed_dtypes_become_floats(images):
    inputs = loaded([images[0], images[1].astype(np.float32)])
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, images[:2])


def test_keys_equal_bytes_agree_whatever_the_name(paths, tmp_path):
    duplicate = tmp_path / "duplicate.png"
    duplicate.write_bytes(Path(paths[2]).read_bytes())
    assert keys([str(duplicate)])[0] == keys(paths)[2]


def test_keys_list_every_faulty_file(paths, tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    text = tmp_path / "text.png"
    text.write_text("hello")
    X = [
        paths[0],
        str(tmp_path / "gone.png"),
        str(empty),
        str(tmp_path),
        str(text),
        "nul\0byte",
        "",
    ]
    _, faults = as_samples(X).keys(FileIndex(None))
    assert sorted(fault.position for fault in faults) == [1, 2, 3, 4, 5, 6]
    reasons = {fault.position: fault.reason for fault in faults}
    assert reasons[1] == "no such file"
    assert "empty" in reasons[2]
    assert "a folder" in reasons[3]
    assert reasons[6] == "an empty path"


def test_keys_show_files_that_are_read(paths):
    shown = []
    with displayed_by(shown.append):
        as_samples(paths).keys(FileIndex(None))
    assert shown == [f"reading 0 of {len(paths)} files", None]


@pytest.mark.parametrize("missing", [None, np.nan, np.float32("nan"), pd.NA, pd.NaT])
@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize(
    "wrap",
    [
        list,
        lambda p: np.array(p, dtype=object),
        lambda p: [[path] for path in p],
        pd.Series,
        lambda p: pd.DataFrame({"path": p}),
        lambda p: pd.DataFrame({"path": p}, dtype="string"),
    ],
    ids=["list", "array", "rows", "series", "frame", "strings"],
)
def test_keys_missing_paths_are_faults(wrap, row, missing, paths):
    paths[row] = missing
    samples = as_samples(wrap(paths))
    found, faults = samples.keys(FileIndex(None))
    assert [fault.position for fault in faults] == [row]
    assert faults[0].reason == "missing value (None or NaN)"
    assert faults[0].name.lower() in ("none", "nan", "<na>", "nat")
    assert np.flatnonzero(found).tolist() == [other for other in range(6) if other != row]


def test_keys_without_any_path_are_all_faults():
    _, faults = as_samples([None, np.nan]).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [0, 1]


def test_keys_faulty_bytes_and_arrays_are_named(images):
    X = [b"", images[0], np.full(SHAPE, np.nan)]
    _, faults = as_samples(X).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [0, 2]
    assert faults[0].name == "0 bytes"
    assert "NaN" in faults[1].reason


def test_masked_items_are_refused(images):
    masked = np.ma.masked_greater(images[0], 100)
    held = np.array([None, images[1]], object)
    held[0] = masked
    for X in ([masked, images[1]], held):
        _, faults = as_samples(X).keys(FileIndex(None))
        assert [fault.position for fault in faults] == [0]
        assert "masked values: pass image.filled(value)" in faults[0].reason
    signal = np.ma.masked_greater(np.arange(5.0), 3)
    with pytest.raises(InputError, match=r"X\[1\] has masked values"):
        as_samples([signal.data, signal]).for_inputs((5,))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros(4), r"X\[1\] is array \(4,\) float64, but the backbone takes .*\(5,\)"),
        (None, r"X\[1\] is None"),
        ("a.png", r"X\[1\] is an image, 'a.png'"),
        (np.array(list("abcde")), r"X\[1\] is array \(5,\) <U1"),
    ],
)
def test_for_inputs_vector_among_others_is_named(other, message):
    with pytest.raises(InputError, match=message):
        as_samples([np.zeros(5), other]).for_inputs((5,))


def test_batch_damaged_file_loads_the_rest(paths, images):
    data = Path(paths[1]).read_bytes()
    Path(paths[1]).write_bytes(data[: len(data) // 2])
    rows, inputs, faults = as_samples(paths).batch(np.arange(6), FORM)
    assert rows.tolist() == [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(inputs, images[rows])
    assert [(fault.position, fault.name) for fault in faults] == [(1, paths[1])]


def test_batch_file_that_vanished_is_a_fault(paths, tmp_path):
    samples = as_samples(paths)
    (tmp_path / "0.png").unlink()
    _, _, faults = samples.batch(np.arange(2), FORM)
    assert [fault.reason for fault in faults] == ["no such file"]


def test_keys_and_batch_damaged_pil_are_faults(paths, tmp_path):
    (tmp_path / "cut.png").write_bytes(Path(paths[1]).read_bytes()[:100])
    closed = Image.open(paths[2])
    closed.close()
    with Image.open(paths[0]) as sound, Image.open(tmp_path / "cut.png") as cut:
        samples = as_samples([sound, cut, closed])
        _, faults = samples.keys(FileIndex(None))
        assert [fault.position for fault in faults] == [1, 2]
        rows, _, faults = samples.batch(np.arange(3), FORM)
        assert rows.tolist() == [0]
        assert [fault.position for fault in faults] == [1, 2]


def test_batch_all_faulty_gives_an_empty_batch(tmp_path):
    rows, inputs, faults = as_samples([str(tmp_path / "gone.png")]).batch(np.arange(1), FORM)
    assert len(rows) == len(inputs) == 0
    assert len(faults) == 1


def test_item_samples_array_shape_if_all_agree(images):
    assert ItemSamples(list(images)).array_shape == SHAPE
    assert ItemSamples([images[0], images[1][:4]]).array_shape is None
    assert ItemSamples(["a.png"]).array_shape is None


def test_item_samples_name_says_what_it_is(images):
    samples = as_samples(["a.png", images[0], Image.new("L", (2, 2)), b"abc"])
    assert [samples.name(row) for row in range(4)] == [
        "a.png",
        "array (8, 8, 3) uint8",
        "Image",
        "3 bytes",
    ]


def test_keys_pipes_and_sockets_are_never_opened(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        X = ["pipe.png", "socket.png", "/dev/zero", "/dev/stdin", images[0]]
        _, faults = as_samples(X).keys(FileIndex(None))
        _, _, again = as_samples(X).batch(np.arange(3), FORM)
    assert [fault.position for fault in faults][:3] == [0, 1, 2]
    assert [fault.reason for fault in again] == [fault.reason for fault in faults[:3]]
    assert "a named pipe, not a file" in faults[0].reason
    assert "a socket" in faults[1].reason
    assert "a device" in faults[2].reason


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "a data URI, not a path"),
        (Path("s3://bucket/a.jpg"), "pass a URL as str, since a Path drops one of its"),
        ("C:/photos/a.jpg", "no such file"),
    ],
)
def test_keys_urls_as_paths_are_named(url, message):
    _, faults = as_samples([url]).keys(FileIndex(None))
    assert message in faults[0].reason
    _, _, faults = as_samples([url]).batch(np.arange(1), FORM)
    assert message in faults[0].reason


def test_keys_links_that_lead_nowhere_are_faults(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    X = [tmp_path / "gone.png", tmp_path / "loop.png", "\ud800.png"]
    _, faults = as_samples(X).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [0, 1, 2]
    assert "no such file" in faults[0].reason
    assert "symbolic links" in faults[1].reason
