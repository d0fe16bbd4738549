"""A real browser that opens pages from disk, and lets no request leave them."""

import contextlib
import shutil

import pytest

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
    faults = []
    with contextlib.ExitStack() as contexts:

        def open_page(path, **options):
            context = contexts.enter_context(
                contextlib.closing(browser.new_context(**{"offline": True} | options))
            )
            page = context.new_page()
            url = path.as_uri()
            page.on("request", lambda request: faults.extend(_requests_elsewhere(request, url)))
            page.on("console", lambda message: faults.extend(_errors(message)))
            page.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
            page.goto(url)
            return page

        yield open_page
    assert faults == []


def _requests_elsewhere(request, url):
    is_inside = request.url.partition("#")[0] == url or request.url.startswith(("data:", "blob:"))
    return [] if is_inside else [f"request: {request.url}"]


def _errors(message):
    return [f"console: {message.text}"] if message.type == "error" else []
