"""Change links to files of the repository into links to the pages of the site that show them.

In the repository, ``[CONTRIBUTING.md](../CONTRIBUTING.md)`` is right: it works on a code host and
in an editor. On the site, the same text is another page, and an example is a page of the gallery.
``setup`` makes this module a Sphinx extension.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
LINK = re.compile(r"\]\(([^()\s#:]+)(#[^()\s]*)?\)")
# Files outside docs/, and the pages that include them.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "benchmarks/NOTES.md": "project/notes.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "examples/serve/README.md": "project/web_service.md",
    "featx/data/TINY.md": "project/tiny.md",
}
EXAMPLE = re.compile(r"examples/(\w+)\.py")


def site_path(repository_path: str) -> Path:
    """Return the file behind a page of the site, or the file of the repository itself."""
    if repository_path in PAGES:
        return DOCS / PAGES[repository_path]
    example = EXAMPLE.fullmatch(repository_path)
    if example and example[1] != "digits":
        return DOCS / "gallery" / f"{example[1]}.rst"
    return ROOT / repository_path


def relink(text: str, file: Path, page: Path) -> str:
    """Return Markdown whose relative links lead to pages of the site.

    Parameters
    ----------
    text : str
        Markdown, or a part of it.
    file : Path
        The file that holds the text, from which its links start.
    page : Path
        The page that shows the text, from which the new links start.
    """

    def new_link(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(file.parent / match[1]))
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]
        reached = site_path(target.relative_to(ROOT).as_posix())
        return f"]({Path(os.path.relpath(reached, page.parent)).as_posix()}{match[2] or ''})"

    return LINK.sub(new_link, text)


def relink_page(app: Sphinx, docname: str, content: list[str]) -> None:
    """Change the links of a page that is about to be read."""
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".md":
        content[0] = relink(content[0], path, path)


def relink_included(app: Sphinx, file: Path, _: str, content: list[str]) -> None:
    """Change the links of a file that a page includes."""
    path = Path(app.srcdir, file).resolve()
    # MyST passes the name of the page without its folder.
    content[0] = relink(content[0], path, Path(app.env.doc2path(app.env.docname)))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the changes with Sphinx."""
    app.connect("source-read", relink_page)
    app.connect("include-read", relink_included)
    return {"parallel_read_safe": True}
