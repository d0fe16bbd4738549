"""Files that featx' readers read, from the packages that ship or write them, and extractors."""

import sys
from pathlib import Path

import nibabel
import numpy as np
import tifffile
from pydicom.data import get_testdata_file

from featx import FeatureExtractor
from featx.readers import ArrayReader, DicomReader, NiftiReader, Page, Region, TiffReader

VOLUME = str(Path(nibabel.__file__).parent / "tests" / "data" / "anatomical.nii")
SCANS = [
    get_testdata_file(name, download=False)
    for name in ("CT_small.dcm", "MR_small.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm")
]


def write_files(folder):
    """Write the TIFF and NumPy files into a folder."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 4096, (3, 70, 90), dtype=np.uint16)
    bands = rng.integers(0, 9000, (13, 70, 90), dtype=np.uint16)
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack")
    tifffile.imwrite(folder / "bands.tif", bands, photometric="minisblack", planarconfig="separate")
    slide = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    tifffile.imwrite(folder / "slide.tif", slide, photometric="rgb", tile=(64, 64))
    np.save(folder / "pixels.npy", slide)


def sources(folder):
    """Return, by name, the parameters of an extractor, samples, and how many are distinct."""
    stack, slide = folder / "stack.tif", folder / "slide.tif"
    return {
        "DICOM": ({"read": DicomReader()}, [*SCANS[:3], SCANS[0]], 3),
        "frames": ({"read": DicomReader()}, [Page(SCANS[3], i) for i in (0, 1, 0)], 2),
        "slices": (
            {"read": NiftiReader(percentiles=(1, 99))},
            [Page(VOLUME, i) for i in (3, 4, 5, 4)],
            3,
        ),
        "bands": (
            {"read": TiffReader(scale=(0, 9000)), "in_channels": 13},
            [folder / "bands.tif"] * 2,
            1,
        ),
        "pages": (
            {"read": TiffReader(scale=(0, 4095))},
            [Page(stack, i) for i in (0, 1, 2, 2)],
            3,
        ),
        "regions": ({"read": TiffReader()}, [Region(slide, x, 8, 64, 64) for x in (0, 64, 0)], 2),
        "arrays": ({"read": ArrayReader()}, [folder / "pixels.npy"] * 2, 1),
    }


def embed(folder):
    """Embed each source; return the number of samples that went through the network."""
    counts = {}
    for name, (params, X, _) in sources(folder).items():
        extractor = FeatureExtractor("tiny", cache=folder / "cache", **params)
        extractor.fit_transform(X)
        counts[name] = extractor.report_.n_forward
    return counts


if __name__ == "__main__":
    print(embed(Path(sys.argv[1])), sorted({"keras", "tensorflow"} & sys.modules.keys()))
