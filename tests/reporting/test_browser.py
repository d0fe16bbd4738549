"""The check of pages notices what it is there for."""

import contextlib

import pytest
from watched_pages import WatchedPages


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<img src="http://127.0.0.1:9/x.png">', "request: http://127.0.0.1:9/x.png"),
        ("<script>fetch('other.json').catch(() => 0)</script>", "request: file://"),
        ("<style>@import url(//127.0.0.1/font.css);</style>", "request: file://127.0.0.1/"),
        ("<script>throw new Error('thrown')</script>", "uncaught: thrown"),
        ("<script>console.error('logged')</script>", "console: logged"),
    ],
)
def test_request_or_error_of_page_is_noticed(browser, tmp_path, body, fault):
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html><body>{body}</body></html>")
    with contextlib.closing(WatchedPages(browser)) as pages:
        pages.open(page).wait_for_load_state()
    assert any(found.startswith(fault) for found in pages.faults), pages.faults


def test_page_of_its_own_data_has_no_faults(opened, tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="">')
    opened(page).wait_for_load_state()


def test_page_loads_only_files_of_its_site(browser, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    for style in (site / "own.css", tmp_path / "other.css"):
        style.write_text("p { color: red }")
    styles = '<link rel="stylesheet" href="own.css"><link rel="stylesheet" href="../other.css">'
    (site / "page.html").write_text(f"<!doctype html><html><head>{styles}</head></html>")
    with contextlib.closing(WatchedPages(browser, site)) as pages:
        pages.open(site / "page.html").wait_for_load_state()
    assert pages.faults == [f"request: {(tmp_path / 'other.css').as_uri()}"]
