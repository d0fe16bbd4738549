"""What all tests share."""

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Give each test a cache of its own, for its child processes too."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FEATX_CACHE", str(folder))
    return folder
