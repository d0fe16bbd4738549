"""Print how a package is cut into modules and functions: a table with a column for each package.

    python scripts/print_structure.py                                  # featx
    python scripts/print_structure.py featx .venv/lib/python3.12/site-packages/joblib

Tests and vendored packages are left out. What is counted:

- modules: all files but ``__init__.py``, which still counts as an importer;
- import edges: pairs of a file and a module that it imports, at the top or inside a function;
- import cycles: groups of files that import each other when they are loaded;
- code lines of a function: all but its docstring, comments and blank lines;
- parameters: all but ``self``, ``cls``, ``*args`` and ``**kwargs``;
- public functions: functions and methods without a leading underscore;
- docstring fragments: docstrings, and entries of their Parameters, that open with these words;
- commit subjects: those of the repository that tracks the package, without merges.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import resolve_name
from pathlib import Path
from statistics import median
from typing import NamedTuple

from check_words import BETTER_OPENINGS, docstrings, openings

LEFT_OUT = {"_vendor", "conftest.py", "externals", "test", "tests"}
SHORT_FILE = 100
MANY_PARAMETERS = 6
LONGEST_SUBJECT = 72
NOTHING = "-"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Edge = tuple[str, str]


class Module(NamedTuple):
    """A Python file; its name is that of its package if it is an ``__init__.py``."""

    name: str
    package: str
    lines: list[str]
    tree: ast.Module


def main(folders: Sequence[str]) -> None:
    """Print the table, and below it the files of each import cycle."""
    packages = {Path(folder).resolve(): read_package(Path(folder).resolve()) for folder in folders}
    columns = [measure(folder, modules) for folder, modules in packages.items()]
    print_table([[label, *(column[label] for column in columns)] for label in columns[0]])
    for modules in packages.values():
        for cycle in cycles(edges(modules, nodes_on_loading)):
            print(f"\nimport cycle: {', '.join(cycle)}")


def read_package(folder: Path) -> list[Module]:
    """Read the files of a package."""
    paths = sorted(folder.rglob("*.py"))
    kept = [path for path in paths if LEFT_OUT.isdisjoint(path.relative_to(folder).parts)]
    modules = [read_module(path, path.relative_to(folder.parent)) for path in kept]
    if not any(module.name != module.package for module in modules):
        raise SystemExit(f"{folder} holds no modules to measure")
    return modules


def read_module(path: Path, place: Path) -> Module:
    """Read a file whose place among the importable files is `place`."""
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as exc:
        raise SystemExit(f"{path}:{exc.lineno}: {exc.msg}; run this with a newer Python") from exc
    package = ".".join(place.parts[:-1])
    name = package if place.stem == "__init__" else f"{package}.{place.stem}"
    return Module(name, package, text.splitlines(), tree)


def measure(folder: Path, modules: Sequence[Module]) -> dict[str, str]:
    """Return the column of a package: the cells by the labels of their rows."""
    return {
        "": folder.name,
        **file_cells(modules),
        **import_cells(modules),
        **function_cells(modules),
        **docstring_cells(modules),
        **commit_cells(folder),
    }


def file_cells(modules: Iterable[Module]) -> dict[str, str]:
    """Return how many and how long the modules are."""
    n_lines = [len(module.lines) for module in modules if module.name != module.package]
    return {
        "modules / lines": f"{len(n_lines)} / {sum(n_lines):,}",
        "file length: median / p90 / max": spread(n_lines),
        f"files under {SHORT_FILE} lines": part([n < SHORT_FILE for n in n_lines]),
    }


def import_cells(modules: Sequence[Module]) -> dict[str, str]:
    """Return how closely the modules are tied to each other."""
    n_lines = {m.name: len(m.lines) for m in modules if m.name != m.package}
    found = [edge for edge in edges(modules, ast.walk) if edge[1] in n_lines]
    n_importers = Counter(imported for _, imported in found)
    return {
        "modules with exactly one importer": part([n_importers[name] == 1 for name in n_lines]),
        "import edges": str(len(found)),
        "import edges per 1,000 lines": f"{1000 * len(found) / max(1, sum(n_lines.values())):.1f}",
        "import cycles": str(len(cycles(edges(modules, nodes_on_loading)))),
    }


def edges(modules: Iterable[Module], nodes_of: Callable[[ast.AST], Iterator[ast.AST]]) -> set[Edge]:
    """Return the pairs of importer and imported file, by the imports among the nodes of a file."""
    files = {module.name: module for module in modules}
    found = set()
    for importer, module in files.items():
        for name in imported_names(nodes_of(module.tree), module.package):
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name not in ("", importer):
                found.add((importer, name))
    return found


def imported_names(nodes: Iterable[ast.AST], package: str) -> Iterator[str]:
    """Yield the full name of each module, or object of a module, that is imported."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{source}.{alias.name}" for alias in node.names)


def nodes_on_loading(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when a module is loaded: none in functions or for type checkers."""
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not for_types and not isinstance(node, Function):
            yield node
            yield from nodes_on_loading(node)


def cycles(found: Iterable[Edge]) -> list[list[str]]:
    """Return the groups of files that reach each other along the edges."""
    imports = defaultdict(set)
    for importer, imported in found:
        imports[importer].add(imported)
    reached = {name: reachable(name, imports) for name in list(imports)}
    groups = {
        frozenset(other for other in below if name in reached.get(other, ()))
        for name, below in reached.items()
    }
    return sorted(sorted(group) for group in groups if group)


def reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    """Return the files that a file imports, itself or through others."""
    found: set[str] = set()
    pending = [start]
    while pending:
        new = imports.get(pending.pop(), set()) - found
        found |= new
        pending += new
    return found


def function_cells(modules: Iterable[Module]) -> dict[str, str]:
    """Return how long and how well documented functions are, and how many parameters they have."""
    defined = [(m, name, node) for m in modules for name, node in functions(m.tree)]
    n_parameters = [(parameter_count(node), name) for _, name, node in defined]
    counts = [count for count, _ in n_parameters]
    most, name = max(n_parameters, default=(0, NOTHING))
    public = [node for _, _, node in defined if not node.name.startswith("_")]
    return {
        "function length in code lines: median / p90 / max": spread(
            [code_line_count(node, module.lines) for module, _, node in defined]
        ),
        "parameters: p90": p90(counts),
        f"functions with {MANY_PARAMETERS} parameters or more": str(
            sum(count >= MANY_PARAMETERS for count in counts)
        ),
        "most parameters": f"{most} ({name.removesuffix('.__init__')})",
        "public functions with docstring": part([bool(ast.get_docstring(node)) for node in public]),
    }


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Yield the functions, each after its name and that of its class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield f"{prefix}{node.name}", node
        inner = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
        yield from functions(node, inner)


def parameter_count(node: Function) -> int:
    """Return the number of parameters that a caller can pass by position or by name."""
    parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    bound = parameters[:1] and parameters[0].arg in ("self", "cls")
    return len(parameters) - bool(bound)


def code_line_count(node: Function, lines: Sequence[str]) -> int:
    """Return the number of code lines of a function in a file with these lines."""
    first = node.body[0]
    docstring = range(first.lineno, first.end_lineno + 1) if ast.get_docstring(node) else ()
    texts = [
        lines[i - 1].strip() for i in range(node.lineno, node.end_lineno + 1) if i not in docstring
    ]
    return sum(not text.startswith("#") for text in texts if text)


def docstring_cells(modules: Iterable[Module]) -> dict[str, str]:
    """Return how many docstrings and entries in them open with a fragment."""
    found = [
        opening
        for module in modules
        for _, docstring in docstrings(module.tree)
        for _, opening in openings(docstring)
    ]
    fragments = [fragment.strip() for fragment in BETTER_OPENINGS]
    n_found = [
        str(sum(text.startswith(fragment) for text in found)) for fragment in BETTER_OPENINGS
    ]
    return {f"docstring fragments: {' / '.join(fragments)}": " / ".join(n_found)}


def commit_cells(folder: Path) -> dict[str, str]:
    """Return how many subjects of commits are too long, if git tracks the folder."""
    tracked = git(folder, "ls-files", "--", ".")
    subjects = git(folder, "log", "--no-merges", "--format=%s") if tracked else []
    too_long = [len(subject) > LONGEST_SUBJECT for subject in subjects]
    label = f"commit subjects over {LONGEST_SUBJECT} characters: all / last 100"
    return {label: f"{part(too_long)} / {part(too_long[:100])}"}


def git(folder: Path, *arguments: str) -> list[str]:
    """Return the lines that git prints: none where there is no git, or no repository."""
    if shutil.which("git") is None:
        return []
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def spread(values: Sequence[int]) -> str:
    """Return median, 90th percentile and maximum."""
    if not values:
        return NOTHING
    return f"{median(values):g} / {p90(values)} / {max(values)}"


def p90(values: Sequence[int]) -> str:
    """Return the smallest value that nine in ten do not exceed."""
    return str(sorted(values)[(9 * len(values) - 1) // 10]) if values else NOTHING


def part(flags: Sequence[bool]) -> str:
    """Return how many flags are set, in percent and as a number."""
    return f"{sum(flags) / len(flags):.0%} ({sum(flags)})" if flags else NOTHING


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, the header first, as Markdown."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    for row in (rows[0], rule, *rows[1:]):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1:] or [str(Path(__file__).parents[1] / "featx")])
