"""Samples as tests of inputs load and identify them."""

import numpy as np

from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import InputForm
from featx.inputs.recognize import as_samples

SHAPE = (8, 8, 3)
FORM = InputForm(SHAPE)


class LazyItems:
    """Makes the items of an array one by one, when they are asked for."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, row):
        return self.array[row].copy()


def loaded(X, shape=SHAPE, resize="stretch"):
    """Return the inputs of all samples, none of which has a fault."""
    samples = as_samples(X).for_inputs(shape)
    rows, inputs, faults = samples.batch(np.arange(len(samples)), InputForm(shape, resize))
    assert not faults
    assert rows.tolist() == list(range(len(samples)))
    return inputs


def keys(X):
    """Return the keys of all samples, none of which has a fault."""
    found, faults = as_samples(X).keys(FileIndex(None))
    assert not faults
    return found
