"""Pages opened from disk in a real browser, which lets no request leave them."""

import contextlib

import pytest
from watched_pages import WatchedPages


@pytest.fixture
def opened(browser):
    """Open files in pages; at the end, check that they requested nothing and ran without errors."""
    with contextlib.closing(WatchedPages(browser)) as pages:
        yield pages.open
    assert pages.faults == []
