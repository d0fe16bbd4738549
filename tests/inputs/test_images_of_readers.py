"""Files that need a reader: without one, the error names it, and nothing is embedded wrongly."""

import gzip
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file

from featx import FeatureExtractor
from featx.exceptions import BadSampleError, UnreadableImageError
from featx.inputs.images import check_header, decode_to

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
SHAPE = (20, 30, 1)


def tiff(*pages, **options):
    """Return a TIFF file; a page is an array, or an array and its kind (NewSubfileType)."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            array, kind = page if isinstance(page, tuple) else (page, 0)
            writer.write(array, subfiletype=kind, photometric="minisblack", **options)
    return file.getvalue()


def test_check_header_stack_names_its_pages():
    with pytest.raises(UnreadableImageError, match=r"has 3 pages, .*a Page of .*TiffReader\(\)"):
        check_header(tiff(*PIXELS))


def imagej_stack():
    """Return a stack of which the file names only the first page."""
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, imagej=True, truncate=True)
    return file.getvalue()


def test_check_header_stack_of_imagej_is_a_stack():
    with pytest.raises(UnreadableImageError, match="has 3 pages"):
        check_header(imagej_stack())


def test_decode_first_page_of_imagej_stack_is_an_image():
    data = imagej_stack()[: -PIXELS[1:].nbytes]
    np.testing.assert_array_equal(decode_to(data, SHAPE)[..., 0], PIXELS[0])


def test_transform_stack_is_fault_before_the_pass(tmp_path):
    (tmp_path / "stack.tif").write_bytes(tiff(*PIXELS))
    with pytest.raises(BadSampleError, match=r"\[1\] .*stack.tif: has 3 pages"):
        FeatureExtractor("tiny", cache=None).fit_transform([b"", tmp_path / "stack.tif"])


@pytest.mark.parametrize("kind", [1, 4, 5])
def test_decode_thumbnails_and_masks_are_no_pages(kind):
    aside = PIXELS[1, ::2, ::2]
    data = tiff(PIXELS[0], (aside if kind == 1 else aside > 99, kind))
    np.testing.assert_array_equal(decode_to(data, SHAPE)[..., 0], PIXELS[0])


def test_decode_damaged_second_page_is_no_page():
    data = tiff(PIXELS[0], PIXELS[1])
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        second = file.pages[1].offset
    np.testing.assert_array_equal(decode_to(data[:second], SHAPE)[..., 0], PIXELS[0])


@pytest.mark.parametrize("name", ["GIF", "WEBP"])
def test_decode_animation_is_its_first_frame(name):
    frames, file = [Image.fromarray(each) for each in PIXELS], io.BytesIO()
    frames[0].save(file, name, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_allclose(decode_to(file.getvalue(), SHAPE)[..., 0], PIXELS[0], atol=1)


def npz():
    file = io.BytesIO()
    np.savez(file, PIXELS)
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, PIXELS)
    return file.getvalue()


def nifti():
    return nibabel.Nifti1Image(PIXELS, np.eye(4)).to_bytes()


CONTENTS = {
    "dicom": (lambda: Path(get_testdata_file("CT_small.dcm")).read_bytes(), "DicomReader()"),
    "nifti": (nifti, "NiftiReader()"),
    "compressed nifti": (lambda: gzip.compress(nifti()), "NiftiReader()"),
    "nifti 2": (lambda: nibabel.Nifti2Image(PIXELS, np.eye(4)).to_bytes(), "NiftiReader()"),
    "npy": (npy, "ArrayReader()"),
    "npz": (npz, "ArrayReader()"),
    "thirteen bands": (lambda: tiff(np.zeros((13, 8, 8), "u1"), planarconfig=2), "TiffReader()"),
    "floats": (lambda: tiff(PIXELS[0] / np.float32(255)), "TiffReader(scale=(0, 1))"),
    "twelve bits": (lambda: tiff(PIXELS[0] * np.uint16(8)), "TiffReader(scale=(0, 4095))"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_decode_other_file_names_its_reader(name):
    content, reader = CONTENTS[name]
    with pytest.raises(UnreadableImageError) as caught:
        decode_to(content(), SHAPE)
    assert f"FeatureExtractor(read=featx.readers.{reader})" in str(caught.value)


@pytest.mark.parametrize(
    "content", [gzip.compress(b"text", mtime=0), b"\x1f\x8bno gzip", b"PK\x03\x04zip"]
)
def test_decode_foreign_file_names_no_reader(content):
    with pytest.raises(UnreadableImageError, match=r"GIF, WebP or TIFF$"):
        decode_to(content, SHAPE)
