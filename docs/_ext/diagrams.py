"""Mermaid diagrams: drawn once as SVG files, which the site shows in place of their text.

    npm install --prefix /tmp/mermaid mermaid
    python docs/_ext/diagrams.py /tmp/mermaid/node_modules/mermaid/dist/mermaid.min.js

A code host draws the diagrams itself; the site would need 3.5 MB of JavaScript for it. It shows
``docs/images/PAGE.svg``, which begins with a digest of the diagram's text: a test compares them.
Drawing needs Chromium, and playwright of the extra ``dev``. ``setup`` makes this module a Sphinx
extension.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DRAW = """async text => {
    mermaid.initialize({
        startOnLoad: false, theme: "neutral", fontFamily: "sans-serif",
        flowchart: {wrappingWidth: 400},
    });
    const box = document.createElement("div");
    box.innerHTML = (await mermaid.render("diagram", text)).svg;
    return new XMLSerializer().serializeToString(box.firstChild);
}"""


def drawing_of(page: Path) -> Path:
    """Return the file that holds the drawing of the diagram of a page."""
    return DOCS / "images" / f"{page.stem}.svg"


def diagrams() -> dict[Path, str]:
    """Return the text of each diagram in the pages, by the file of its drawing."""
    texts = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}
    return {drawing_of(page): text for page in texts for text in FENCE.findall(texts[page])}


def mark(text: str) -> str:
    """Return the first line of an SVG file, which identifies the text that it was drawn from."""
    return f"<!-- diagram {hashlib.sha256(text.encode()).hexdigest()[:16]} -->\n"


def show_drawing(app: Sphinx, docname: str, content: list[str]) -> None:
    """Replace the diagram in a page with its drawing, before Sphinx reads the page."""
    page = Path(app.env.doc2path(docname))
    drawing = Path(os.path.relpath(drawing_of(page), page.parent)).as_posix()
    content[0] = FENCE.sub(f"![Diagram of this page]({drawing})", content[0])


def draw_all(mermaid: str) -> None:
    """Draw all diagrams with a file of Mermaid's JavaScript."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.add_script_tag(path=mermaid)
        for drawing, text in diagrams().items():
            drawing.write_text(mark(text) + page.evaluate(DRAW, text), encoding="utf-8")
            print(drawing)
        browser.close()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the replacement with Sphinx."""
    app.connect("source-read", show_drawing)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    draw_all(sys.argv[1])
