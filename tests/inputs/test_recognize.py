"""Whatever is passed as ``X`` is recognized, in its order, or refused with a cure."""

import collections
import io
import itertools
import os
from array import array as typed_array
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from image_files import encoded
from input_samples import FORM, keys, loaded
from PIL import Image

from featx.exceptions import InputError
from featx.inputs.file_index import FileIndex
from featx.inputs.recognize import as_samples
from featx.inputs.samples import ValueSamples


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
        encoded(Image.fromarray(images[1])),
        Image.fromarray(images[2]),
        images[3],
        bytearray(encoded(Image.fromarray(images[4]))),
        memoryview(encoded(Image.fromarray(images[5]))),
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


def test_keys_of_pil_image_and_array_agree(images):
    assert keys([Image.fromarray(images[0])])[0] == keys(images)[0] == keys([images[0]])[0]


def test_keys_missing_images_in_columns_are_faults(images):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    rows = [None, *tensors.storage.to_pylist()[1:]]
    with_none = pa.ExtensionArray.from_storage(tensors.type, pa.array(rows, tensors.storage.type))
    gray = [None, *images[1:, :, :, 0].tolist()]
    for X in (with_none, pa.chunked_array([with_none]), pa.array(gray), pl.Series(gray), gray):
        samples = as_samples(X)
        _, faults = samples.keys(FileIndex(None))
        assert [fault.position for fault in faults] == [0]
        rows, inputs, _ = samples.batch(np.arange(1, 6), FORM)
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


def test_as_samples_lists_with_gaps_are_vectors():
    samples = as_samples([[1, 2.5], [None, 4]]).for_inputs((2,))
    np.testing.assert_array_equal(samples.array, [[1, 2.5], [np.nan, 4]])


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
        (["a", None, object()], r"1 of 3 samples are of unknown types: \[2\] object"),
        ([None, 0.5, 1.5], r"2 of 3 samples are of unknown types: \[1\] float, \[2\] float"),
        ([0.5, None], r"\[0\] float"),
        ([0.5, "a"], r"\[0\] float"),
        (3, "expected a list"),
        ({"data": ["a.png"], "target": [1]}, r"a dict with 'data', 'target': .* pass .data"),
        ([[1, 2], [3]], "list of lists that is not an array"),
        ({"a.png", "b.png"}, "a set, which has no order: pass a list"),
        ([(Image.new("L", (2, 2)), 0)], r"\(PIL Image, int\) tuples: .*without labels"),
        ([("a.png", 0), ("b.png", 1)], r"\(str, int\) tuples: .*\[item\[0\] for item in X\]"),
        ([("a.png", "cat"), ("b.png", "dog")], r"\(str, str\) tuples"),
        (((np.ones((2, 8, 8, 3)), 0) for _ in itertools.count()), "generator of .* tuples"),
        (map(np.ones, [(2, 8, 8, 3)]), "map of arrays of shape .* which are batches"),
        ((np.ones((2, 8, 8, 3)), np.ones(2)), "tuple of arrays .* which are batches"),
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
        lambda x: [encoded(Image.fromarray(image)) for image in x],
        lambda x: [np.frombuffer(encoded(Image.fromarray(image)), np.uint8) for image in x],
        lambda x: pa.array([encoded(Image.fromarray(image)) for image in x]),
        lambda x: pl.Series([encoded(Image.fromarray(image)) for image in x]),
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
            dataset[row] = np.frombuffer(encoded(Image.fromarray(image)), np.uint8)
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
    with pytest.raises(
        InputError, match=r"Tensor cannot be converted .*Sparse layout.*numpy array"
    ):
        as_samples(Tensor(images, "torch.sparse"))


def test_as_samples_samples_are_returned(paths):
    samples = as_samples(paths)
    assert as_samples(samples) is samples
