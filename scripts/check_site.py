"""Check the links of a built site: each leads somewhere, and no page loads anything from elsewhere.

    python scripts/check_site.py docs/_build/html

prints each fault with its page, and exits with 1 if there is any. Checked are the pages' links to
files and anchors of the site, and what pages and style sheets load, which has to be in the site, so
that it works from disk and without a network. Links to other sites are allowed, and not followed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LOADED = {("link", "href"), ("use", "href"), ("object", "data"), ("video", "poster")}
LINKS_THAT_LOAD_NOTHING = {"canonical", "next", "prev", "search", "index", "author", "license"}
LINKED = {("a", "href"), ("area", "href"), ("form", "action")}
INLINE = {"data", "blob"}
CSS_URL = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Reference(NamedTuple):
    """An address in a page or a style sheet, and whether a browser loads it by itself."""

    address: str
    is_loaded: bool


class Page(HTMLParser):
    """References of a page, and the anchors in it.

    Attributes
    ----------
    references : list of Reference
        Addresses in the order of the page.
    anchors : set of str
        Names that follow ``#`` in a link to the page.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[Reference] = []
        self.anchors: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag refers to, and its anchor."""
        values = {name: value for name, value in attrs if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self._add_css(values.get("style", ""))
        rel = set(values.get("rel", "").split()) if tag == "link" else set()
        for name, value in values.items():
            if name == "src" or (tag, name) in LOADED:
                self.references.append(Reference(value, not rel & LINKS_THAT_LOAD_NOTHING))
            elif name == "srcset":
                for part in value.split(","):
                    self.references.append(Reference(part.split()[0], True))
            elif (tag, name) in LINKED:
                self.references.append(Reference(value, False))

    def handle_data(self, data: str) -> None:
        """Collect what an inline style sheet loads."""
        if self.lasttag == "style":
            self._add_css(data)

    def _add_css(self, css: str) -> None:
        self.references += [Reference(address, True) for address in css_addresses(css)]


def css_addresses(css: str) -> list[str]:
    """Return the addresses that a style sheet loads."""
    return [quoted or imported for quoted, imported in CSS_URL.findall(css)]


@cache
def read_page(path: Path) -> Page:
    """Return the references and anchors of a page."""
    return Page(path.read_text(encoding="utf-8"))


def references(path: Path) -> list[Reference]:
    """Return the references in a page or style sheet."""
    if path.suffix == ".html":
        return read_page(path).references
    addresses = css_addresses(path.read_text(encoding="utf-8"))
    return [Reference(address, True) for address in addresses]


def fault_of(reference: Reference, file: Path, site: Path) -> str:
    """Return what is wrong with a reference in a file of the site; empty if nothing is."""
    parts = urlsplit(reference.address)
    if parts.scheme in INLINE:
        return ""
    if parts.scheme or parts.netloc:
        return "is loaded from another host" if reference.is_loaded else ""
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.is_relative_to(site):
        return "leads out of the site"
    if not target.is_file():
        return "leads to no file"
    is_anchor = parts.fragment and file.suffix == target.suffix == ".html"
    if is_anchor and unquote(parts.fragment) not in read_page(target).anchors:
        return "leads to no anchor"
    return ""


def faults(site: Path) -> Iterator[str]:
    """Yield the faults of a site, one line each."""
    site = site.resolve()
    pages = (path for path in site.rglob("*.html") if path.parent.name != "_static")  # templates
    for path in sorted([*pages, *site.rglob("*.css")]):
        for reference in dict.fromkeys(references(path)):
            if fault := fault_of(reference, path, site):
                yield f"{path.relative_to(site)}: {reference.address} {fault}"


def main(site: Path) -> int:
    """Print the faults of a site and return the exit status."""
    if not (site / "index.html").is_file():
        print(f"{site} holds no index.html: expected a built site")
        return 1
    found = list(faults(site))
    print("\n".join([*found, f"links: {len(found)} faults"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
