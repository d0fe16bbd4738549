"""Page and Region: their text, their identity, and what they refuse."""

import os
import pickle
from pathlib import Path

import pytest

from featx.exceptions import ParameterError
from featx.readers import Page, Region


def test_part_is_path_of_its_file():
    assert os.fspath(Page(Path("a.tif"), 1)) == os.fspath(Region("a.tif", 0, 0, 1, 1)) == "a.tif"


def test_part_selection_names_kind_and_numbers():
    assert Page("a.tif", 3).selection == Page("b.tif", 3).selection == "Page(3)"
    assert Region("a.tif", 1, 2, 3, 4, level=5).selection == "Region(1,2,3,4,5)"


def test_part_survives_pickling():
    region = Region("a.tif", 1, 2, 3, 4)
    assert pickle.loads(pickle.dumps(region)) == region


@pytest.mark.parametrize("index", [-1, 1.0, True, "1"])
def test_page_index_out_of_place_raises(index):
    with pytest.raises(ParameterError, match=r"index=.*: expected an integer of 0 or more"):
        Page("a.tif", index)


def test_region_without_pixels_raises():
    with pytest.raises(ParameterError, match="width=0: expected an integer of 1 or more"):
        Region("a.tif", 0, 0, 0, 4)


def test_part_of_url_raises():
    with pytest.raises(ParameterError, match=r"path='s3://bucket/a.tif': expected the path of a"):
        Page("s3://bucket/a.tif", 0)
