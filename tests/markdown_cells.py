"""Hostile names, and the cells of tables in Markdown as a browser shows them."""

import re
from html import unescape

from markdown_it import MarkdownIt

NAMES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "**bold** _italic_ ~~gone~~",
    "[link](http://evil.example)",
    "![image](http://evil.example/x.png)",
    "http://evil.example www.evil.example",
    "a | b",
    "$x_1$ and $$y$$",
    "# heading",
    "`code` ``more``",
    "two\nlines",
    "esc\x1b[2J",
    "back\\slash \\",
    "{{ jinja }} {% raw %}",
    "&amp; &lt;",
    ":warning: @someone",
    "plain name",
    "déjà vu 花",
]


def cells_of(text):
    """Return the cells of the tables in Markdown, as a browser shows them, and the tags in them."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    cells = re.findall(r"<t[dh]>(.*?)</t[dh]>", html, re.DOTALL)
    return [unescape(cell) for cell in cells if "<" not in cell], [
        cell for cell in cells if "<" in cell
    ]
