"""Arrays, columns and data sets of libraries that are only tried where they are installed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from input_samples import FORM, SHAPE
from PIL import Image

from featx.exceptions import InputError
from featx.inputs.file_index import FileIndex
from featx.inputs.lazy import LazySamples
from featx.inputs.recognize import as_samples


def check_loads(X, images):
    samples = as_samples(X).for_inputs(SHAPE)
    keys, faults = samples.keys(FileIndex(None))
    assert (len(set(keys)), faults) == (len(images), [])
    for rows in (np.arange(len(images)), np.array([1, 4])):
        np.testing.assert_array_equal(samples.batch(rows, FORM)[1], images[rows])


def test_zarr_arrays_and_strings_load(images, paths, tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=images.shape, chunks=(2, 8, 8, 3), dtype="u1"
    )
    array[:] = images
    check_loads(array, images)
    names = zarr.create_array(tmp_path / "p.zarr", shape=(len(paths),), dtype=str)
    names[:] = np.array(paths, object)
    check_loads(names, images)


def test_dask_arrays_and_columns_load(images, paths):
    frames = pytest.importorskip("dask.dataframe")
    arrays = pytest.importorskip("dask.array")
    check_loads(arrays.from_array(images, chunks=(2, 8, 8, 3)), images)
    check_loads(arrays.from_array(np.array(paths), chunks=2), images)
    check_loads(frames.from_pandas(pd.Series(paths), npartitions=2), images)
    check_loads(frames.from_pandas(pd.DataFrame({"path": paths}), npartitions=2), images)


def test_dask_masked_values_are_refused(images):
    arrays = pytest.importorskip("dask.array")
    masked = arrays.ma.masked_greater(arrays.from_array(images, chunks=(2, 8, 8, 3)), 100)
    with pytest.raises(InputError, match="masked values"):
        as_samples(masked)
    loaded = as_samples(arrays.ma.masked_array(arrays.from_array(images))).array
    np.testing.assert_array_equal(loaded, images)


def test_xarray_arrays_load(images, paths):
    xarray = pytest.importorskip("xarray")
    check_loads(xarray.DataArray(images), images)
    check_loads(xarray.DataArray(paths), images)


def test_tensorflow_tensors_and_strings_load(images, paths):
    tf = pytest.importorskip("tensorflow")
    encoded = [Path(path).read_bytes() for path in paths]
    for X in (images, paths, encoded):
        check_loads(tf.constant(X), images)
        check_loads(list(tf.constant(X)), images)
    check_loads(tf.Variable(images), images)
    labeled = tf.data.Dataset.from_tensor_slices((images, range(6)))
    with pytest.raises(InputError, match=r"BatchDataset of TensorFlow, a stream: .*\(x, y\)"):
        as_samples(labeled.batch(2))
    with pytest.raises(InputError, match="its rows differ in length, or it is sparse"):
        as_samples(tf.ragged.constant([[1], [2, 3]]))


def test_torch_tensors_and_data_sets_load(images, paths):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(images)
    for X in (tensor, tensor.float().requires_grad_(), tensor.bfloat16(), list(tensor)):
        check_loads(X, images)

    class Images(torch.utils.data.Dataset):
        def __init__(self, make):
            self.make = make

        def __len__(self):
            return len(images)

        def __getitem__(self, row):
            return self.make(row)

    for make in (tensor.__getitem__, lambda row: Image.fromarray(images[row])):
        assert isinstance(as_samples(Images(make)), LazySamples)
        check_loads(Images(make), images)
    check_loads(torch.utils.data.Subset(Images(paths.__getitem__), range(6)), images)
    labeled = Images(lambda row: (tensor[row], row))
    with pytest.raises(InputError, match="tuples: expected samples without labels"):
        as_samples(labeled)
    with pytest.raises(InputError, match=r"DataLoader, which gives batches: .*X.dataset"):
        as_samples(torch.utils.data.DataLoader(labeled))


def test_datasets_columns_load(images, paths):
    datasets = pytest.importorskip("datasets")
    held = {"image": [Image.fromarray(image) for image in images], "path": paths}
    whole = datasets.Dataset.from_dict(held).cast_column("image", datasets.Image())
    assert isinstance(as_samples(whole["image"]), LazySamples)
    for X in (whole["image"], whole["image"][:], whole["path"]):
        check_loads(X, images)
    with pytest.raises(InputError, match=r"rows with 'image', 'path': .*X\['image'\]"):
        as_samples(whole)
    with pytest.raises(InputError, match=r"DatasetDict with 'train': .*X\['train'\]\['image'\]"):
        as_samples(datasets.DatasetDict({"train": whole}))
