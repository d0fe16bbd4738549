"""Write docs/files.md, which says in one line what each file of the package holds.

    python scripts/list_files.py

The lines are the first lines of the docstrings, so a file is described where it is written. A test
compares the page with them.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "files.md"
INTRODUCTION = """\
# Files

What each file of `featx/` holds: the first line of its docstring. This page is
written by `python scripts/list_files.py`.
[`architecture.md`](architecture.md) follows the data through them, and
[`CONTRIBUTING.md`](../CONTRIBUTING.md#where-things-belong) says which room may import which.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(file_list(ROOT / "featx"), encoding="utf-8")


def file_list(package: Path) -> str:
    """Return the page: a list of files for each folder of `package`, that of the package first."""
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in sorted(package.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        folders[path.parent].append(path)
    return "\n".join([INTRODUCTION, *(folder_lines(package, *item) for item in folders.items())])


def folder_lines(package: Path, folder: Path, paths: list[Path]) -> str:
    """Return the heading of a folder, what it is, and a line for each of its files."""
    lines = {path.stem: first_line(path) for path in paths}
    about = lines.pop("__init__")
    files = [f"- `{stem}.py`: {line}" for stem, line in lines.items()]
    heading = folder.relative_to(package.parent).as_posix()
    return "\n".join([f"## {heading}/", "", about, "", *files, ""])


def first_line(path: Path) -> str:
    """Return the first line of a file's docstring as Markdown."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.sub(r"(?::\w+:)?`+([^`]+)`+", r"`\1`", docstring.partition("\n")[0])


if __name__ == "__main__":
    main()
