"""Thumbnails: what an atlas holds, where, and in how many bytes."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from featx.exceptions import ParameterError
from featx.reporting.thumbnails import Atlas, as_data_uri


def photo(width=96, height=64, hue=0):
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 2, y * 3, np.full_like(x, hue)], axis=-1)
    return Image.fromarray((pixels % 256).astype(np.uint8))


def noise(n_images, px=64):
    pixels = np.random.default_rng(0).integers(0, 256, (n_images, px, px, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in pixels]


def tile_of(atlas, row):
    """Return the picture of a row, cut from its sheet."""
    n_per_sheet = atlas.n_columns**2
    sheet, within = divmod(atlas.places[row], n_per_sheet)
    line, column = divmod(within, atlas.n_columns)
    x, y = column * atlas.tile_px, line * atlas.tile_px
    width, height = atlas.sizes[atlas.places[row]]
    return Image.open(io.BytesIO(atlas.sheets[sheet])).crop((x, y, x + width, y + height))


def distance(first, second):
    return np.abs(np.asarray(first, float) - np.asarray(second, float)).mean()


def test_tiles_are_whole_images_at_their_places():
    images = [photo(96, 64, hue) for hue in range(0, 250, 2)] + [photo(40, 90, 200)]
    atlas = Atlas.pack(enumerate(images), len(images))
    assert len(atlas.sheets) == 2
    assert atlas.tile_px == 96
    for row in (0, 57, 110, 125):
        assert tile_of(atlas, row).size == images[row].size
        assert distance(tile_of(atlas, row), images[row]) < 5


def test_large_image_is_reduced_to_its_tile():
    atlas = Atlas.pack([(0, photo(1000, 250))], 1)
    assert atlas.sizes.tolist() == [[128, 32]]
    assert distance(tile_of(atlas, 0), photo(1000, 250).resize((128, 32))) < 12


def test_rows_without_image_have_no_place():
    atlas = Atlas.pack([(3, photo()), (1, None), (0, photo(hue=90))], 5)
    assert atlas.places.tolist() == [1, -1, -1, 0, -1]
    assert distance(tile_of(atlas, 0), photo(hue=90)) < 3


def test_no_images_make_no_sheets():
    atlas = Atlas.pack([(0, None)], 1)
    assert (atlas.sheets, atlas.size_bytes, atlas.sizes.shape) == ([], 0, (0, 2))


@pytest.mark.parametrize(("fraction", "smaller"), [(0.9, False), (0.3, True)])
def test_budget_lowers_quality_then_tiles(fraction, smaller):
    images = noise(100)
    best = Atlas.pack(enumerate(images), 100, budget_bytes=10**9)
    assert (best.tile_px, best.quality) == (64, 80)
    budget = int(best.size_bytes * fraction)
    atlas = Atlas.pack(enumerate(images), 100, budget_bytes=budget)
    assert atlas.size_bytes == sum(len(base64.b64encode(sheet)) for sheet in atlas.sheets)
    assert budget / 2 < atlas.size_bytes <= budget
    assert (atlas.tile_px < 64) == smaller
    assert smaller or atlas.quality < 80


def test_budget_below_smallest_tiles_raises_parameter_error():
    with pytest.raises(ParameterError, match="budget_bytes=100: expected more, for 9 thumbnails"):
        Atlas.pack(enumerate(noise(9)), 9, budget_bytes=100)


def test_many_rows_start_with_smaller_tiles():
    atlas = Atlas.pack([(0, photo(300, 300))], 10_000)
    assert (atlas.tile_px, len(atlas.places)) == (64, 10_000)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_data_uri_holds_image_of_any_mode(mode):
    uri = as_data_uri(photo(300, 200).convert(mode), 60)
    kind, encoded = uri.split(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (60, 40)


def test_data_uri_of_thin_image_keeps_a_pixel():
    encoded = as_data_uri(photo(500, 2), 50).split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (50, 1)
