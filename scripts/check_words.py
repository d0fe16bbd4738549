"""Reject words and openings of docstrings for which ``docs/glossary.md`` has better ones.

    python scripts/check_words.py [FOLDER]

reads the code, tests and docs of the repository (or of another folder), prints each place with the
better words, and exits with 1 if there is any. Words are also found in names: ``twin_of``,
``TwinFinder``. An opening is the first line of a docstring, or of an entry of its Parameters,
Returns and the like.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

CHECKED = "featx tests benchmarks scripts examples docs README.md CHANGELOG.md CONTRIBUTING.md"
SUFFIXES = {".md", ".py", ""}
NAMES_THE_WORDS = {"docs/glossary.md", "scripts/check_words.py", "tests/test_check_words.py"}
BETTER_WORDS = {
    "twins?": "duplicate",
    "anew": "again; made anew: rebuilt",
    "mend(s|ed|ing)?": "repair, fix",
    "vouch(es|ed|ing)?": "guarantee, confirm",
    "taught": "trained; teacher probabilities",
    "under way": "pending, running",
    "note books?": "fact store",
    "(behavi|col|neighb)ours?": "behavior, color, neighbor: spelling is American",
    "centre[ds]?|labelled|learnt|spelt": "center, labeled, learned, spelled",
    "(factor|initial|normal|recogn|regular|standard)is(e[ds]?|ing|ations?)": "-ize",
}
BETTER_OPENINGS = {
    "Of ": "a noun phrase, such as 'Shape of ...'",
    "Tell whether": "Return whether, Check whether",
    "Say ": "Return, Describe, Report",
}


class Hit(NamedTuple):
    """A word or opening that has a better one."""

    line: int
    found: str
    better: str


def main(root: Path) -> int:
    """Print the hits below a folder and return the exit status."""
    n_hits = 0
    for path in checked_files(root):
        for hit in hits(path):
            n_hits += 1
            print(f"{path.relative_to(root)}:{hit.line}: {hit.found} -> {hit.better}")
    return 1 if n_hits else 0


def checked_files(root: Path) -> Iterator[Path]:
    """Yield the files that have to use the words of the glossary."""
    for name in CHECKED.split():
        place = root / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            relative = path.relative_to(root)
            is_text = path.is_file() and path.suffix in SUFFIXES and "_build" not in relative.parts
            if is_text and relative.as_posix() not in NAMES_THE_WORDS:
                yield path


def hits(path: Path) -> list[Hit]:
    """Return the hits in a file, from its first line to its last."""
    text = path.read_text(encoding="utf-8")
    found = list(word_hits(text))
    if path.suffix == ".py":
        for line, docstring in docstrings(ast.parse(text)):
            found += opening_hits(line, docstring)
    return sorted(found)


def word_hits(text: str) -> Iterator[Hit]:
    """Yield the words that have better ones, whether in prose or in names."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text.replace("_", " "))  # note_book, NoteBook
    for word, better in BETTER_WORDS.items():
        pattern = word.replace(" ", r"[\s#]+")  # across the lines of a comment
        for match in re.finditer(rf"(?<![a-z]){pattern}(?![a-z])", parted, re.IGNORECASE):
            line = parted.count("\n", 0, match.start()) + 1
            yield Hit(line, " ".join(re.findall(r"\w+", match[0])), better)


def opening_hits(line: int, docstring: str) -> Iterator[Hit]:
    """Yield the openings of a docstring that have better ones; it starts on line `line`."""
    for number, opening in openings(docstring):
        for bad, better in BETTER_OPENINGS.items():
            if opening.startswith(bad):
                yield Hit(line + number, f'"{bad.strip()} ..."', better)


def openings(docstring: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the first line, and of each that is indented below another."""
    lines = docstring.splitlines()
    yield 0, lines[0]
    for number, (above, line) in enumerate(pairwise(lines), start=1):
        if above.strip() and indentation(line) > indentation(above):
            yield number, line.strip()


def indentation(line: str) -> int:
    """Return the number of spaces that a line opens with."""
    return len(line) - len(line.lstrip())


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module, its classes and functions, each with its first line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.body[0].lineno, docstring


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])))
