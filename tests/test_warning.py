"""Warnings quote the caller's own line, and Python shows one that repeats there once."""

import linecache
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featx import FeatureExtractor, TransferClassifier
from featx.exceptions import BadSampleWarning


@pytest.fixture
def extractor():
    return FeatureExtractor("tiny", on_error="nan", cache=None)


@pytest.fixture
def samples():
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    images[::2] //= 4
    return [*images, "gone.png"]


def test_warn_caller_in_pipeline_quotes_callers_line(extractor, samples):
    pipeline = make_pipeline(TransferClassifier(extractor, "ridge"))
    with pytest.warns(BadSampleWarning) as caught:
        pipeline.fit(samples, [0, 1, 0, 1, 0])
    quoted = {linecache.getline(one.filename, one.lineno).strip() for one in caught}
    assert quoted == {"pipeline.fit(samples, [0, 1, 0, 1, 0])"}


def test_warn_caller_in_search_quotes_callers_line(extractor, samples):
    search = GridSearchCV(TransferClassifier(extractor, "ridge"), {"head__alpha": [1.0]}, cv=2)
    samples, labels = [*samples, *samples[:4]], [0, 1, 0, 1, 0, 0, 1, 0, 1]
    with pytest.warns(BadSampleWarning) as caught:
        search.fit(samples, labels)
    quoted = {linecache.getline(one.filename, one.lineno).strip() for one in caught}
    assert quoted == {"search.fit(samples, labels)"}


def test_warn_caller_in_thread_quotes_no_library(extractor, samples):
    with pytest.warns(BadSampleWarning) as caught, ThreadPoolExecutor(1) as threads:
        threads.submit(extractor.fit_transform, samples).result()
    assert {one.filename for one in caught} == {"<sys>" if sys.version_info >= (3, 12) else "sys"}


def test_warn_caller_from_one_line_warns_once(extractor, samples):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            extractor.fit_transform(samples)
    assert [str(one.message).splitlines()[0] for one in caught] == [
        "1 of 5 samples cannot be read:"
    ]
