"""Pages of command help: one for each command of ``featx``, written from its click object.

``setup`` makes this module a Sphinx extension. The pages are in ``docs/commands/``, which git
ignores, and follow the order of ``featx COMMAND --help``: usage, text, options in groups, examples.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from sphinx.application import Sphinx
from sphinx.util.rst import escape

from featx.cli.main import cli

INTRODUCTION = """\
Everything the command can do, as ``featx COMMAND --help`` prints it.

"""
TREE = """
.. toctree::
   :hidden:

"""


class RstFormatter(click.HelpFormatter):
    """Help of a command as reStructuredText.

    Parameters
    ----------
    command_path : str
        The command with those above it, such as ``"featx cache info"``.
    """

    def __init__(self, command_path: str) -> None:
        super().__init__()
        self.command_path = command_path

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage as a line to type."""
        self.write(f".. code-block:: text\n\n   {prog} {args}\n\n")

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        for paragraph in text.split("\n\n"):
            self.write(f"{escape(' '.join(paragraph.split()))}\n\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: int) -> None:
        """Write options with anchors, and commands with links to their pages."""
        self.write(f".. program:: {self.command_path}\n\n")
        for name, text in rows:
            if name.startswith("-"):
                self.write(f".. option:: {name}\n\n   {escape(text)}\n\n")
            else:
                page = page_name(f"{self.command_path} {name}")
                self.write(f":doc:`{name} <{page}>`\n   {escape(text)}\n\n")

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Write a section; that of the examples holds lines to type."""
        self.write(f"{name}\n{'-' * len(name)}\n\n")
        if name == "Examples":
            self.write(".. code-block:: bash\n\n")
        with self.indentation():
            yield
        self.write("\n")


def page_name(command_path: str) -> str:
    """Return the name of the page of a command; that of ``featx`` itself is the index."""
    return "-".join(command_path.split()[1:]) or "index"


def contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of all commands below it."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            yield from contexts(click.Context(below, info_name=name, parent=context))


def page(context: click.Context) -> str:
    """Return the page of a command."""
    to = RstFormatter(context.command_path)
    is_top = context.parent is None
    title = "Command" if is_top else context.command_path
    to.write(f"{title}\n{'=' * len(title)}\n\n{INTRODUCTION if is_top else ''}")
    context.command.format_help(context, to)
    if isinstance(context.command, click.Group):
        names = context.command.list_commands(context)
        pages = [page_name(f"{context.command_path} {name}") for name in names]
        to.write(TREE + "".join(f"   {name}\n" for name in pages))
    return to.getvalue()


def write_pages(app: Sphinx) -> None:
    """Write all pages, and remove those of commands that no longer exist."""
    folder = Path(app.srcdir, "commands")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for context in contexts(click.Context(cli, info_name="featx")):
        path = folder / f"{page_name(context.command_path)}.rst"
        path.write_text(page(context), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the pages with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
