"""Passes over all sources of featx' readers: each distinct sample once, and then none."""

import subprocess
import sys

import pytest
import reader_sources

from featx import FeatureExtractor
from featx.exceptions import BadSampleError
from featx.readers import ArrayReader, DicomReader, NiftiReader, TiffReader


def test_transform_each_source_runs_distinct_samples_once(tmp_path):
    reader_sources.write_files(tmp_path)
    expected = {name: n for name, (_, _, n) in reader_sources.sources(tmp_path).items()}
    assert reader_sources.embed(tmp_path) == expected
    command = [sys.executable, reader_sources.__file__, tmp_path]
    warm = subprocess.run(command, capture_output=True, check=True, text=True)
    assert warm.stdout.strip() == f"{dict.fromkeys(expected, 0)} []"


@pytest.mark.parametrize("reader", [DicomReader(), NiftiReader(), TiffReader(), ArrayReader()])
def test_transform_foreign_files_are_named_faults(reader, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("neither pixels nor voxels" * 99)
    extractor = FeatureExtractor("tiny", read=reader, cache=None)
    with pytest.raises(BadSampleError) as caught:
        extractor.fit_transform([tmp_path / "empty", tmp_path / "text", tmp_path / "gone"])
    assert [fault.position for fault in caught.value.faults] == [0, 1, 2]
