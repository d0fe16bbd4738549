"""A real browser that opens pages from disk, and lets no request leave them."""

import contextlib
import shutil

import pytest
from watched_pages import WatchedPages

CHROMIUM = "chromium", "chromium-browser", "google-chrome"


@pytest.fixture(scope="session")
def browser():
    """Return Chromium without a window, for all tests of a process."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser):
    """Open files in pages; at the end, check that they requested nothing and ran without errors."""
    with contextlib.closing(WatchedPages(browser)) as pages:
        yield pages.open
    assert pages.faults == []
