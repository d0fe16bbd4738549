"""Readers of DICOM, NIfTI, TIFF and NumPy files for ``FeatureExtractor(read=...)``.

:class:`Page` and :class:`Region` select a part of a file as a sample of its own.
"""

from __future__ import annotations

from featx.readers.arrays import ArrayReader
from featx.readers.dicom import DicomReader
from featx.readers.nifti import NiftiReader
from featx.readers.parts import Page, Region
from featx.readers.tiff import TiffReader

# Readers that a saved model names by class and parameters.
SHIPPED = (ArrayReader, DicomReader, NiftiReader, TiffReader)
__all__ = ["ArrayReader", "DicomReader", "NiftiReader", "Page", "Region", "TiffReader"]
