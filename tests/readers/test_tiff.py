"""TiffReader on files that tifffile writes, compared with tifffile's own arrays."""

import numpy as np
import pytest
import tifffile

from featx import FeatureExtractor
from featx.exceptions import BadSampleError, ParameterError, UnreadableImageError
from featx.readers import Page, Region, TiffReader

RNG = np.random.default_rng(0)
GDAL = """<GDALMetadata>
  <Item name="DESCRIPTION" sample="0" role="description">B4</Item>
  <Item name="DESCRIPTION" sample="2" role="description">B8A</Item>
  <Item name="STATISTICS_MAXIMUM" sample="0">9</Item>
</GDALMetadata>"""


def values(*shape, dtype=np.uint8):
    return RNG.integers(0, 256, shape).astype(dtype)


def written(folder, pixels, name="image.tif", **options):
    path = str(folder / name)
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    return path


def bands_first(folder, pixels):
    return written(folder, np.moveaxis(pixels, -1, 0), planarconfig="separate")


def bands_last(folder, pixels):
    return written(folder, pixels, planarconfig="contig")


@pytest.mark.parametrize("write", [bands_first, bands_last])
def test_read_bands_by_number(write, tmp_path):
    pixels = values(20, 30, 13)
    path = write(tmp_path, pixels)
    np.testing.assert_array_equal(TiffReader()(path), pixels)
    np.testing.assert_array_equal(TiffReader(bands=[12, 0])(path), pixels[..., [12, 0]])
    with pytest.raises(UnreadableImageError, match=r"has no band 13, but 13 bands$"):
        TiffReader(bands=[13])(path)


def test_read_bands_by_name_of_gdal(tmp_path):
    pixels = values(20, 30, 5)
    tag = (42112, "s", 0, GDAL, True)
    path = written(tmp_path, pixels, planarconfig="contig", extratags=[tag])
    np.testing.assert_array_equal(TiffReader(bands=["B8A", "B4"])(path), pixels[..., [2, 0]])
    with pytest.raises(UnreadableImageError, match="no band 'B9', but 5 bands with the names B4, "):
        TiffReader(bands=["B9"])(path)


@pytest.mark.parametrize("bands", [3, (), (-1,), ("B4", 1.5)])
def test_bands_of_other_form_raise(bands):
    with pytest.raises(ParameterError, match="expected numbers from 0, or names"):
        TiffReader(bands=bands)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.uint32])
def test_read_wide_values_need_scale(dtype, tmp_path):
    pixels = (values(20, 30).astype(int) * 11 + 200).astype(dtype)
    path = written(tmp_path, pixels)
    expected = np.rint(np.clip((pixels - 500.0) / 1500, 0, 1) * 255)
    np.testing.assert_array_equal(TiffReader(scale=(500, 2000))(path), expected)
    with pytest.raises(UnreadableImageError, match=r"as in TiffReader\(scale=\("):
        TiffReader()(path)


def test_read_four_bands_without_opacity_raises(tmp_path):
    pixels = values(20, 30, 4)
    path = written(tmp_path, pixels, planarconfig="contig", extrasamples=["unspecified"] * 3)
    with pytest.raises(UnreadableImageError, match="has 4 bands, none of which is opacity"):
        TiffReader()(path)
    np.testing.assert_array_equal(TiffReader(bands=[0, 1, 2])(path), pixels[..., :3])
    opaque = written(tmp_path, pixels, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(TiffReader()(opaque), pixels)


def test_read_white_at_zero_is_inverted(tmp_path):
    pixels = values(20, 30)
    path = written(tmp_path, pixels, photometric="miniswhite")
    np.testing.assert_array_equal(TiffReader()(path), 255 - pixels)


def test_read_palette_becomes_rgb(tmp_path):
    pixels, colors = values(20, 30), RNG.integers(0, 256, (3, 256)).astype(np.uint16)
    path = written(tmp_path, pixels, photometric="palette", colormap=colors * 257)
    np.testing.assert_array_equal(TiffReader()(path), np.moveaxis(colors[:, pixels], 0, -1))


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"imagej": True, "truncate": True}])
def test_read_page_of_stack(options, tmp_path):
    stack = values(5, 20, 30)
    path = written(tmp_path, stack, **options)
    np.testing.assert_array_equal(TiffReader()(path, Page(path, 3)), stack[3])
    with pytest.raises(UnreadableImageError, match=r"has 5 pages: pass Page\(path, index\)"):
        TiffReader()(path)
    with pytest.raises(UnreadableImageError, match="has 5 pages: there is no page 5"):
        TiffReader()(path, Page(path, 5))
    with pytest.raises(UnreadableImageError, match="has several pages: a Region is a part"):
        TiffReader()(path, Region(path, 0, 0, 8, 8))
    with open(path, "rb") as file:
        np.testing.assert_array_equal(TiffReader()(file.read(), Page(path, 3)), stack[3])


@pytest.mark.parametrize("settles_after_s", [0.0, 1e9])
def test_read_page_counts_no_thumbnails(settles_after_s, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.readers.tiff._SETTLED_S", settles_after_s)
    pixels, path = values(20, 30), str(tmp_path / "image.tif")
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, photometric="minisblack")
        tiff.write(pixels[::2, ::2], photometric="minisblack", subfiletype=1)
        tiff.write(255 - pixels, photometric="minisblack")
    for index, expected in ((1, 255 - pixels), (0, pixels)):
        np.testing.assert_array_equal(TiffReader()(path, Page(path, index)), expected)


def test_read_only_page_beside_thumbnail(tmp_path):
    pixels, path = values(20, 30), str(tmp_path / "image.tif")
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels[::2, ::2], photometric="minisblack", subfiletype=1)
        tiff.write(pixels, photometric="minisblack")
    np.testing.assert_array_equal(TiffReader()(path), pixels)


LAYOUTS = {
    "tiles": {"tile": (16, 32)},
    "compressed tiles": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7},
    "lzw strips": {"rowsperstrip": 7, "compression": "lzw"},
    "one strip": {},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planes", ["gray", "contig", "separate"])
def test_read_region_of_any_layout(layout, planes, tmp_path):
    pixels = values(70, 90) if planes == "gray" else values(70, 90, 5)
    stored = np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
    options = {} if planes == "gray" else {"planarconfig": planes}
    path = written(tmp_path, stored, **options, **LAYOUTS[layout])
    region = TiffReader()(path, Region(path, 11, 13, 50, 40))
    np.testing.assert_array_equal(region, pixels[13:53, 11:61])


def pyramid(folder):
    pixels, path = values(256, 256, 3), str(folder / "slide.tif")
    with tifffile.TiffWriter(path) as tiff:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "jpeg"}
        tiff.write(pixels, subifds=1, **options)
        tiff.write(pixels[::2, ::2], subfiletype=1, **options)
    return path


def test_read_region_of_level(tmp_path):
    path = pyramid(tmp_path)
    for level in (0, 1):
        expected = tifffile.imread(path, level=level)[30:90, 20:120]
        region = TiffReader()(path, Region(path, 20, 30, 100, 60, level))
        np.testing.assert_array_equal(region, expected)
    with pytest.raises(UnreadableImageError, match="has 2 levels: there is no level 2"):
        TiffReader()(path, Region(path, 0, 0, 8, 8, level=2))
    with pytest.raises(UnreadableImageError, match="level 1 has 128x128 pixels: the region ends"):
        TiffReader()(path, Region(path, 100, 0, 64, 64, level=1))


def test_read_region_reads_only_its_tiles(tmp_path):
    pixels = values(64, 64)
    path = written(tmp_path, pixels, tile=(32, 32))
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[0].dataoffsets[-1]
    with open(path, "r+b") as file:
        file.truncate(last)  # and the last tile is gone
    region = TiffReader()(path, Region(path, 0, 0, 60, 30))
    np.testing.assert_array_equal(region, pixels[:30, :60])


def test_read_region_without_data_is_black(tmp_path):
    path = written(tmp_path, values(64, 64), tile=(32, 32))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["TileByteCounts"].overwrite([1024, 0, 1024, 1024])
    assert not TiffReader()(path, Region(path, 32, 0, 32, 32)).any()


def test_transform_thirteen_bands(tmp_path):
    pixels = RNG.integers(0, 10_000, (3, 64, 64, 13)).astype(np.uint16)
    paths = [
        written(tmp_path, each, name=f"{number}.tif", planarconfig="contig")
        for number, each in enumerate(pixels)
    ]
    reader = TiffReader(scale=(0, 10_000))
    extractor = FeatureExtractor("tiny", in_channels=13, read=reader, cache=tmp_path / "cache")
    embeddings = extractor.fit_transform(paths * 2)
    assert extractor.report_.n_forward == 3
    levels = np.rint(pixels / 10_000 * 255).astype(np.uint8)
    expected = FeatureExtractor("tiny", in_channels=13, cache=None).fit_transform(levels)
    np.testing.assert_allclose(embeddings[:3], expected, rtol=1e-5, atol=1e-5)


def test_transform_regions_hash_their_file_once(tmp_path):
    path = pyramid(tmp_path)
    tiles = [Region(path, x, y, 64, 64) for x in range(0, 256, 64) for y in range(0, 256, 64)]
    extractor = FeatureExtractor("tiny", read=TiffReader(), cache=tmp_path / "cache")
    embeddings = extractor.fit_transform(tiles)
    assert extractor.report_.n_forward == len(tiles)
    whole = tifffile.imread(path)
    pixels = np.stack([whole[t.y : t.y + 64, t.x : t.x + 64] for t in tiles])
    expected = FeatureExtractor("tiny", cache=None).fit_transform(pixels)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-5)
    extractor.transform(tiles[::-1])
    assert extractor.report_.n_forward == 0


def test_transform_stack_without_page_names_it(tmp_path):
    path = written(tmp_path, values(5, 20, 30))
    extractor = FeatureExtractor("tiny", read=TiffReader(), cache=None)
    with pytest.raises(BadSampleError, match=r"\[0\] .*image.tif: has 5 pages: pass Page"):
        extractor.fit_transform([path])
