"""Samples of every kind: order, identity, what is refused."""

import collections
import io
import itertools
import os
import socket
from array import array as typed_array
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from featx.exceptions import BadSampleError, InputError
from featx.inputs.file_index import FileIndex
from featx.inputs.recognize import as_samples
from featx.inputs.samples import ArraySamples, ValueSamples
from featx.inputs.sequence import ItemSamples

SHAPE = (8, 8, 3)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


@pytest.fixture
def paths(images, tmp_path):
    names = [tmp_path / f"{number}.png" for number in range(len(images))]
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(name)
    return [str(name) for name in names]


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def loaded(X, shape=SHAPE):
    samples = as_samples(X).for_inputs(shape)
    rows, inputs, faults = samples.batch(np.arange(len(samples)), shape)
    assert not faults
    assert rows.tolist() == list(range(len(samples)))
    return inputs


def keys(X):
    found, faults = as_samples(X).keys(FileIndex(None))
    assert not faults
    return found


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        tuple,
        np.array,
        lambda p: np.array(p, dtype=object),
        lambda p: np.array(p, dtype=object)[:, np.newaxis],
        lambda p: np.array(p)[:, np.newaxis],
        pd.Series,
        lambda p: pd.DataFrame({"path": p}),
        lambda p: pd.DataFrame({"path": p}, index=range(10, 16)),
    ],
)
def test_as_samples_any_paths_load_in_order(wrap, paths, images):
    np.testing.assert_array_equal(loaded(wrap(paths)), images)


def test_as_samples_one_column_loads_in_order(paths, images):
    np.testing.assert_array_equal(loaded([[path] for path in paths]), images)


def test_as_samples_hdf5_paths_load_in_order(paths, images, tmp_path):
    with h5py.File(tmp_path / "paths.h5", "w") as file:
        dataset = file.create_dataset("paths", data=paths)
        np.testing.assert_array_equal(loaded(dataset), images)


def test_as_samples_path_objects_load_in_order(tmp_path, paths, images):
    np.testing.assert_array_equal(loaded([tmp_path / p for p in paths]), images)


def test_as_samples_mixture_loads_in_order(paths, images):
    mixture = [
        paths[0],
        encoded(images[1]),
        Image.fromarray(images[2]),
        images[3],
        bytearray(encoded(images[4])),
        memoryview(encoded(images[5])),
    ]
    np.testing.assert_array_equal(loaded(mixture), images)


def test_as_samples_any_arrays_load_in_order(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    for array in (images, np.load(tmp_path / "images.npy", mmap_mode="r"), list(images)):
        np.testing.assert_array_equal(loaded(array), images)


def test_as_samples_nested_lists_are_an_array(images):
    np.testing.assert_array_equal(loaded(images.tolist()), images)


def test_as_samples_gray_arrays_become_rgb(images):
    np.testing.assert_array_equal(loaded(images[..., 0]), np.repeat(images[..., :1], 3, axis=-1))


def test_array_samples_hdf5_is_read_in_blocks(images, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.inputs.samples._BLOCK_BYTES", 2 * images[0].nbytes)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", data=images)
        sizes = []

        class Watched:
            shape, dtype, ndim = dataset.shape, dataset.dtype, dataset.ndim

            def __getitem__(self, rows):
                block = dataset[rows]
                sizes.append(len(block))
                return block

        samples = ArraySamples(Watched())
        np.testing.assert_array_equal(samples.keys(FileIndex(None))[0], keys(images))
        _, inputs, _ = samples.batch(np.array([1, 4]), SHAPE)
        np.testing.assert_array_equal(inputs, images[[1, 4]])
        assert max(sizes) == 2
        assert isinstance(as_samples(dataset), ArraySamples)


def test_array_samples_other_size_is_resized(images):
    assert loaded(images, (4, 6, 3)).shape == (6, 4, 6, 3)


def test_array_samples_float_keeps_fractions(images):
    floats = images.astype(np.float64) + 0.25
    inputs = loaded(np.clip(floats, 0, 255))
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, np.clip(floats, 0, 255), rtol=1e-6)


def test_item_samples_mixed_dtypes_become_floats(images):
    inputs = loaded([images[0], images[1].astype(np.float32)])
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, images[:2])


def test_keys_equal_bytes_agree_whatever_the_name(paths, tmp_path):
    twin = tmp_path / "twin.png"
    twin.write_bytes(Path(paths[2]).read_bytes())
    assert keys([str(twin)])[0] == keys(paths)[2]


def test_keys_do_not_depend_on_memory_layout(images):
    np.testing.assert_array_equal(keys(np.asfortranarray(images)), keys(images))


def test_keys_of_pil_image_and_array_agree(images):
    assert keys([Image.fromarray(images[0])])[0] == keys(images)[0] == keys([images[0]])[0]


def test_keys_tell_dtype_and_shape_apart(images):
    assert keys(images)[0] != keys(images.astype(np.float32))[0]
    assert keys(images)[0] != keys(images.reshape(6, 4, 16, 3))[0]


def test_keys_changed_pixel_changes_one(images):
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    assert np.flatnonzero(keys(images) != keys(changed)).tolist() == [3]


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


def test_keys_nan_pixels_are_named_by_position(images):
    floats = images.astype(np.float32)
    floats[[1, 4], 0, 0, 0] = np.nan, np.inf
    _, faults = as_samples(floats).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [1, 4]


@pytest.mark.parametrize("wrap", [np.asarray, list])
def test_keys_floats_beyond_pixels_are_named(wrap, images):
    floats = images.astype(np.float32)
    floats[1] = floats[1] / 50 - 2.5
    floats[4] *= 257
    floats[5] += 0.4  # rounds to 255
    _, faults = as_samples(wrap(floats)).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [1, 4]
    assert "expected 0 to 255" in faults[0].reason


@pytest.mark.parametrize("wrap", [np.asarray, list])
def test_keys_black_floats_are_pixels(wrap):
    assert len(keys(wrap(np.zeros((2, *SHAPE), np.float32)))) == 2


@pytest.mark.parametrize("wrap", [np.asarray, list])
@pytest.mark.parametrize("largest", [1e-6, 1, 1.02, 2])
def test_float_range_scaled_to_one_names_cure(wrap, largest, images):
    with pytest.raises(InputError, match=r"X \* 255"):
        as_samples(wrap(images / 255 * largest)).float_range()


@pytest.mark.parametrize("wrap", [np.asarray, list])
@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, (0, 255)), (1 / 6, (0, 255)), (0.0, None), (np.uint8(1), None)]
)
def test_float_range_is_learnt_from_floats(wrap, factor, expected, images):
    assert as_samples(wrap(images * factor)).float_range() == expected


def test_keys_nan_vectors_are_named():
    _, faults = as_samples(np.array([[1.0, 2.0], [np.nan, 1.0]])).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [1]


def test_keys_missing_images_in_columns_are_faults(images):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    rows = [None, *tensors.storage.to_pylist()[1:]]
    with_none = pa.ExtensionArray.from_storage(tensors.type, pa.array(rows, tensors.storage.type))
    gray = [None, *images[1:, :, :, 0].tolist()]
    for X in (with_none, pa.chunked_array([with_none]), pa.array(gray), pl.Series(gray), gray):
        samples = as_samples(X)
        _, faults = samples.keys(FileIndex(None))
        assert [fault.position for fault in faults] == [0]
        rows, inputs, _ = samples.batch(np.arange(1, 6), SHAPE)
        np.testing.assert_array_equal(inputs[..., 0], images[1:, :, :, 0])


def test_as_samples_tensors_with_missing_numbers_raise(images):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    rows = tensors.storage.to_pylist()
    rows[1][5] = None
    X = pa.ExtensionArray.from_storage(tensors.type, pa.array(rows, tensors.storage.type))
    with pytest.raises(InputError, match="missing numbers"):
        as_samples(X)


def test_as_samples_closed_hdf5_dataset_raises(images, tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", data=images)
    with pytest.raises(InputError, match="closed file: open it"):
        as_samples(dataset)


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


def test_values_beyond_float32_are_faults():
    X = np.array([[0.0, 1e300], [1.0, 2.0], [3e38, 1]])
    faults = ValueSamples(X).keys(FileIndex(None))[1]
    assert [(fault.position, "beyond float32" in fault.reason) for fault in faults] == [(0, True)]
    with pytest.raises(BadSampleError, match="beyond float32"):
        ValueSamples(X).check_values()


def test_as_samples_lists_with_gaps_are_vectors():
    samples = as_samples([[1, 2.5], [None, 4]]).for_inputs((2,))
    np.testing.assert_array_equal(samples.array, [[1, 2.5], [np.nan, 4]])


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
    rows, inputs, faults = as_samples(paths).batch(np.arange(6), SHAPE)
    assert rows.tolist() == [0, 2, 3, 4, 5]
    np.testing.assert_array_equal(inputs, images[rows])
    assert [(fault.position, fault.name) for fault in faults] == [(1, paths[1])]


def test_batch_file_that_vanished_is_a_fault(paths, tmp_path):
    samples = as_samples(paths)
    (tmp_path / "0.png").unlink()
    _, _, faults = samples.batch(np.arange(2), SHAPE)
    assert [fault.reason for fault in faults] == ["no such file"]


def test_keys_and_batch_damaged_pil_are_faults(paths, tmp_path):
    (tmp_path / "cut.png").write_bytes(Path(paths[1]).read_bytes()[:100])
    closed = Image.open(paths[2])
    closed.close()
    with Image.open(paths[0]) as sound, Image.open(tmp_path / "cut.png") as cut:
        samples = as_samples([sound, cut, closed])
        _, faults = samples.keys(FileIndex(None))
        assert [fault.position for fault in faults] == [1, 2]
        rows, _, faults = samples.batch(np.arange(3), SHAPE)
        assert rows.tolist() == [0]
        assert [fault.position for fault in faults] == [1, 2]


def test_batch_all_faulty_gives_an_empty_batch(tmp_path):
    rows, inputs, faults = as_samples([str(tmp_path / "gone.png")]).batch(np.arange(1), SHAPE)
    assert len(rows) == len(inputs) == 0
    assert len(faults) == 1


def test_for_inputs_images_for_vector_backbone_raises(images):
    with pytest.raises(InputError, match="takes inputs of shape"):
        as_samples(images).for_inputs((5,))
    with pytest.raises(InputError, match="takes inputs of shape"):
        as_samples(list(images)).for_inputs((5,))


def test_value_samples_load_as_float32():
    X = np.arange(6.0).reshape(3, 2)
    assert isinstance(as_samples(X), ValueSamples)
    _, inputs, _ = as_samples(X).batch(np.array([0, 2]), (2,))
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, X[[0, 2]])


def test_value_samples_wrong_width_raises():
    with pytest.raises(InputError, match="has 2 features"):
        as_samples(np.ones((3, 2))).for_inputs((5,))
    with pytest.raises(InputError, match="has 2 features"):
        as_samples(np.ones((3, 2))).for_inputs(SHAPE)


@pytest.mark.parametrize("wrap", [np.asarray, list])
def test_for_inputs_signals_are_no_pixels(wrap):
    """Series of 20 steps of 3 channels, between -1 and 1, for a backbone that takes just these."""
    signals = np.random.default_rng(0).uniform(-1, 1, (5, 20, 3))
    samples = as_samples(wrap(signals)).for_inputs((20, 3))
    found, faults = samples.keys(FileIndex(None))
    assert (len(set(found)), faults) == (5, [])
    _, inputs, _ = samples.batch(np.array([1, 4]), (20, 3))
    np.testing.assert_array_equal(inputs, signals[[1, 4]].astype(np.float32))
    with pytest.raises(InputError, match=r"samples of shape \(20, 3\)"):
        as_samples(signals).for_inputs((20, 4))


@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_for_inputs_single_colour_image_raises(n_channels):
    image = np.zeros((64, 48, n_channels), np.uint8)
    with pytest.raises(InputError, match=r"looks like one image .* X\[np.newaxis\]"):
        as_samples(image).for_inputs(SHAPE)


def test_as_samples_numeric_frame_is_vectors():
    assert isinstance(as_samples(pd.DataFrame({"a": [1.0, 2], "b": [3.0, 4]})), ValueSamples)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("photo.jpg", "single str"),
        (Path("photo.jpg"), r"single PosixPath.* Pass \[X\]"),
        (os.curdir, r"a folder: pass load_image_folder\(X\)"),
        (b"bytes", "single bytes"),
        (bytearray(b"bytes"), "single bytearray"),
        (memoryview(b"bytes"), "single memoryview"),
        (np.array("photo.jpg"), "single value"),
        (Image.new("RGB", (2, 2)), "single Image"),
        ([], "0 sample"),
        (np.empty((0, 8, 8, 3)), "0 sample"),
        (np.zeros(4), "Expected 2D array"),
        (np.zeros((2, 2, 2, 2, 2)), "got 5D array"),
        (np.array([b"a", b"b"]), "trailing zero"),
        (np.array([1j, 2j]), "Complex data not supported"),
        (np.array([["a", "b"], ["c", "d"]]), "one column"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "2 columns"),
        (["a", None, object()], r"1 of 3 samples are of no known kind: \[2\] object"),
        ([None, 0.5, 1.5], r"2 of 3 samples are of no known kind: \[1\] float, \[2\] float"),
        ([0.5, None], r"\[0\] float"),
        ([0.5, "a"], r"\[0\] float"),
        (3, "expected a list"),
        ({"data": ["a.png"], "target": [1]}, r"a dict with 'data', 'target': .* pass .data"),
        ([[1, 2], [3]], "list of lists that make no array"),
        ({"a.png", "b.png"}, "a set, which has no order: pass a list"),
        ([(Image.new("L", (2, 2)), 0)], r"\(PIL Image, int\) tuples: .*without labels"),
        ([("a.png", 0), ("b.png", 1)], r"\(str, int\) tuples: .*\[item\[0\] for item in X\]"),
        ([("a.png", "cat"), ("b.png", "dog")], r"\(str, str\) tuples"),
        (((np.ones((2, 8, 8, 3)), 0) for _ in itertools.count()), "generator of .* tuples"),
        (map(np.ones, [(2, 8, 8, 3)]), "map of arrays of shape .* which are batches"),
        ((np.ones((2, 8, 8, 3)), np.ones(2)), "tuple of arrays .* which are batches"),
        ([{"bytes": b"x", "path": None}], r"rows with 'bytes', 'path': .*\[row\['bytes'\]"),
        ([{"image": 1, "label": 0}], r"rows with 'image', 'label': .*X\['image'\]"),
        ([io.BytesIO(b"x")], r"open files .*\[file.read\(\) for file in X\]"),
        (io.BytesIO(b"x"), r"an open file: pass \[X.read\(\)\]"),
        (np.array([("a", 1)], [("path", "U5"), ("label", int)]), r"'path', 'label'.*X\['path'\]"),
        (np.ma.masked_less(np.ones((2, 8, 8)), 2), r"masked values.*X.filled\(value\)"),
        (np.array(["2020-01-01"], "M8[D]"), r"\[0\] date"),
        (typed_array("B", [1, 2]), "Expected 2D array"),
        (pa.table({"a": ["x"], "b": [1]}), r"pyarrow Table with 2 columns \['a', 'b'\]"),
        (pl.DataFrame({"a": ["x"], "b": [1]}), "polars DataFrame with 2 columns"),
        (pl.DataFrame({"a": ["x"]}).lazy(), r"pass X.collect\(\)"),
        (pd.DataFrame({"a": ["x"]}).groupby("a"), r"X\[0\] raises KeyError"),
        (list, "type, a stream without length"),
        (type("Endless", (), {"__getitem__": lambda own, row: row})(), "stream without length"),
    ],
)
def test_as_samples_unusable_x_raises(X, message):
    with pytest.raises(InputError, match=message):
        as_samples(X)


def test_as_samples_sparse_tensor_raises():
    sparse = type("SparseTensor", (), {"dense_shape": (2, 3), "shape": (2, 3), "dtype": "float32"})
    with pytest.raises(InputError, match=r"sparse.*pass tf.sparse.to_dense\(X\)"):
        as_samples(sparse())


def test_as_samples_sparse_matrix_raises():
    from scipy.sparse import csr_array

    with pytest.raises(InputError, match="sparse"):
        as_samples(csr_array(np.eye(3)))


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


def in_object_array(images):
    held = np.empty(len(images), object)
    held[:] = list(images)
    return held


@pytest.mark.parametrize(
    "wrap",
    [
        jnp.asarray,
        lambda x: jnp.asarray(x).astype(jnp.bfloat16),
        lambda x: [jnp.asarray(image) for image in x],
        lambda x: list(np.asarray(jnp.asarray(x).astype(jnp.bfloat16))),
        memoryview,
        lambda x: [memoryview(image) for image in x],
        in_object_array,
        lambda x: x.astype(object),
        np.ma.masked_array,
        lambda x: [np.ma.masked_array(image) for image in x],
        lambda x: pa.array(x.tolist()),
        pa.Tensor.from_numpy,
        pa.FixedShapeTensorArray.from_numpy_ndarray,
        lambda x: pa.chunked_array([pa.FixedShapeTensorArray.from_numpy_ndarray(x)]),
        pl.Series,
        lambda x: pl.Series(x.tolist()),
        lambda x: pl.Series([Image.fromarray(image) for image in x], dtype=pl.Object),
        lambda x: pd.Series(list(x)),
        lambda x: pd.Series(pa.array(x.tolist()).to_pandas()),
        lambda x: pd.Series([Image.fromarray(image) for image in x]),
        lambda x: [encoded(image) for image in x],
        lambda x: [np.frombuffer(encoded(image), np.uint8) for image in x],
        lambda x: pa.array([encoded(image) for image in x]),
        lambda x: pl.Series([encoded(image) for image in x]),
        lambda x: (image for image in x),
        collections.deque,
    ],
)
def test_as_samples_images_of_other_libraries_load(wrap, images):
    np.testing.assert_array_equal(loaded(wrap(images)), images)


def test_as_samples_hdf5_encoded_images_load(images, tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", (len(images),), h5py.vlen_dtype(np.uint8))
        for row, image in enumerate(images):
            dataset[row] = np.frombuffer(encoded(image), np.uint8)
        np.testing.assert_array_equal(loaded(dataset), images)


@pytest.mark.parametrize(
    "wrap",
    [
        pa.array,
        lambda p: pa.array(p, pa.large_string()),
        lambda p: pa.chunked_array([p[:2], p[2:]]),
        lambda p: pa.array(p).dictionary_encode(),
        lambda p: pa.chunked_array([p[:2], p[2:]]).dictionary_encode(),
        lambda p: pa.table({"path": p}),
        lambda p: list(pa.array(p)),
        pl.Series,
        lambda p: pl.Series(p).cast(pl.Categorical),
        lambda p: pl.DataFrame({"path": p}),
        lambda p: pd.Series(p, dtype="string"),
        lambda p: pd.Series(p, dtype=pd.ArrowDtype(pa.string())),
        lambda p: pd.Series(p, dtype="category"),
        lambda p: pd.DataFrame({"path": pd.Categorical(p)}),
        pd.Index,
        lambda p: np.array(p, np.dtypes.StringDType()),
        lambda p: np.array(p, np.dtypes.StringDType())[:, np.newaxis],
        collections.UserList,
        iter,
        lambda p: dict.fromkeys(p).keys(),
    ],
)
def test_as_samples_paths_of_other_libraries_load(wrap, paths, images):
    np.testing.assert_array_equal(loaded(wrap(paths)), images)


def test_as_samples_hdf5_paths_fixed_length_load(paths, images, tmp_path):
    with h5py.File(tmp_path / "paths.h5", "w") as file:
        dataset = file.create_dataset("paths", data=np.array(paths, "S"))
        np.testing.assert_array_equal(loaded(dataset), images)
        broken = file.create_dataset("broken", data=np.array([b"\x89PNG", b"\xff\xd8"]))
        with pytest.raises(InputError, match="bytes that are not text"):
            as_samples(broken)


@pytest.mark.parametrize(
    "wrap",
    [
        pa.array,
        lambda p: pa.array(p).dictionary_encode(),
        pl.Series,
        lambda p: pd.Series(p, dtype="category"),
        lambda p: np.array(p, np.dtypes.StringDType(na_object=None)),
        lambda p: np.ma.masked_array(["x" if path is None else path for path in p], [0, 1]),
    ],
)
def test_keys_missing_paths_of_libraries_are_faults(wrap, paths):
    _, faults = as_samples(wrap([paths[0], None])).keys(FileIndex(None))
    assert [fault.reason for fault in faults] == ["missing value (None or NaN)"]
    assert [fault.position for fault in faults] == [1]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [1.0, 0.0]}),
        pd.DataFrame({"a": [1, None], "b": [True, False]}, dtype=object),
        pd.DataFrame({"a": pd.array([1, None], "int64[pyarrow]"), "b": [True, False]}),
        pl.DataFrame({"a": [1, None], "b": [True, False]}),
        pa.table({"a": [1, None], "b": [1, 0]}),
    ],
)
def test_as_samples_numbers_of_frames_are_vectors(frame):
    samples = as_samples(frame)
    assert isinstance(samples, ValueSamples)
    np.testing.assert_array_equal(samples.array, [[1.0, 1.0], [np.nan, 0.0]])
    assert [fault.position for fault in samples.keys(FileIndex(None))[1]] == [1]


class Tensor:
    """An array with the dtype of another library, like a PyTorch tensor."""

    def __init__(self, array, dtype="torch.uint8"):
        self.held, self.dtype, self.shape = array, dtype, array.shape

    def __len__(self):
        return len(self.held)

    def __getitem__(self, row):
        return Tensor(self.held[row])

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.held.astype(np.float32), "torch.float32")

    def __array__(self, dtype=None, copy=None):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16.")
        if self.dtype == "torch.sparse":
            raise TypeError("can't convert Sparse layout tensor to numpy.")
        return np.asarray(self.held, dtype)


@pytest.mark.parametrize(
    "wrap", [Tensor, lambda x: Tensor(x, "torch.bfloat16"), lambda x: [*Tensor(x)]]
)
def test_as_samples_foreign_dtypes_load(wrap, images):
    np.testing.assert_array_equal(loaded(wrap(images)), images)


def test_as_samples_tensor_numpy_cannot_hold_raises(images):
    with pytest.raises(InputError, match=r"Tensor cannot be turned .*Sparse layout.*numpy array"):
        as_samples(Tensor(images, "torch.sparse"))


def test_keys_pipes_and_sockets_are_never_opened(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        X = ["pipe.png", "socket.png", "/dev/zero", "/dev/stdin", images[0]]
        _, faults = as_samples(X).keys(FileIndex(None))
        _, _, again = as_samples(X).batch(np.arange(3), SHAPE)
    assert [fault.position for fault in faults][:3] == [0, 1, 2]
    assert [fault.reason for fault in again] == [fault.reason for fault in faults[:3]]
    assert "a named pipe, not a file" in faults[0].reason
    assert "a socket" in faults[1].reason
    assert "a device" in faults[2].reason


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.org/a.jpg", "a URL, which featx does not open; pass the bytes"),
        ("s3://bucket/a.jpg", "a URL, which featx does not open"),
        ("gs://bucket/a.jpg", "a URL, which featx does not open"),
        ("file:///photos/a.jpg", "leave file:// out"),
        ("data:image/png;base64,iVBORw0KGgo=", "a data URI, not a path"),
        ("C:/photos/a.jpg", "no such file"),
    ],
)
def test_keys_urls_are_named_as_such(url, message):
    _, faults = as_samples([url]).keys(FileIndex(None))
    assert message in faults[0].reason
    _, _, faults = as_samples([url]).batch(np.arange(1), SHAPE)
    assert message in faults[0].reason


def test_keys_links_that_lead_nowhere_are_faults(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    X = [tmp_path / "gone.png", tmp_path / "loop.png", "\ud800.png"]
    _, faults = as_samples(X).keys(FileIndex(None))
    assert [fault.position for fault in faults] == [0, 1, 2]
    assert "no such file" in faults[0].reason
    assert "symbolic links" in faults[1].reason


def test_as_samples_samples_are_returned(paths):
    samples = as_samples(paths)
    assert as_samples(samples) is samples
