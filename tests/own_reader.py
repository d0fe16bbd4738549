"""A reader of DICOM files, as a user would write it."""

import io
import sys

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from featx import FeatureExtractor

NAMES = ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm")


def scan_paths():
    """Return the paths of three files that pydicom ships; the last two have the same pixels."""
    return [get_testdata_file(name, download=False) for name in NAMES]


def read_scan(content):
    """Return the pixels of a DICOM file, stretched to 0..255."""
    values = pydicom.dcmread(io.BytesIO(content)).pixel_array.astype(float)
    return (values - values.min()) / np.ptp(values) * 255


if __name__ == "__main__":
    extractor = FeatureExtractor("tiny", read=read_scan, cache=sys.argv[1])
    extractor.fit_transform(scan_paths())
    print(extractor.report_.n_forward, *sorted({"keras", "tensorflow"} & sys.modules.keys()))
