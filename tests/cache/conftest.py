"""Fixtures of the cache: shards of a few rows."""

import pytest
from sample_rows import keys_and_rows, open_store


@pytest.fixture
def stored(tmp_path):
    """Store three shards of four rows each; return their keys and rows."""
    keys, rows = keys_and_rows(12)
    store = open_store(tmp_path)
    for start in (0, 4, 8):
        store.append(keys[start : start + 4], rows[start : start + 4])
    return keys, rows
