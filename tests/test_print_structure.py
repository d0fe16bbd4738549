"""What `scripts/print_structure.py` counts, on a small package."""

from pathlib import Path

import pytest
from git_repository import git

SCRIPTS = Path(__file__).parents[1] / "scripts"
FILES = {
    "__init__.py": '"""Of a package."""\nfrom pack.low import add\n',
    "low.py": '''\
def add(a, /, b, *rest, c=0, **options):
    """Return the sum.

    Parameters
    ----------
    a : int
        Of both.
    """

    # The first.
    total = a + b
    return total


def _hidden():
    return 1


class Many:
    def __init__(self, a, b, c, d, e, f, g):
        pass

    def method(self):
        pass
''',
    "middle/__init__.py": "",
    "middle/left.py": "from pack.low import add\nfrom ..low import Many\n",
    "middle/right.py": "def late():\n    from pack.middle import left\n    import pack.low\n",
    "tests/test_low.py": "from pack.low import add\n",
}


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script and return what it prints."""
    monkeypatch.syspath_prepend(SCRIPTS)
    from print_structure import main

    def run_main(*folders):
        main([str(folder) for folder in folders])
        return capsys.readouterr().out

    return run_main


@pytest.fixture
def pack(tmp_path):
    return write(tmp_path / "pack", FILES)


def table(printed):
    """Return the printed cells of each row, by its label."""
    rows = [line.strip("|").split(" | ") for line in printed.splitlines() if "|" in line]
    return {label.strip(): [cell.strip() for cell in cells] for label, *cells in rows}


def test_print_structure_counts_a_small_package(run, pack):
    cells = {label: row[0] for label, row in table(run(pack)).items()}
    assert cells["modules / lines"] == "3 / 29"
    assert cells["file length: median / p90 / max"] == "3 / 24 / 24"
    assert cells["files under 100 lines"] == "100% (3)"
    assert cells["modules with exactly one importer"] == "33% (1)"
    assert cells["import edges"] == "4"
    assert cells["import edges per 1,000 lines"] == "137.9"
    assert cells["import cycles"] == "0"
    assert cells["function length in code lines: median / p90 / max"] == "2 / 3 / 3"
    assert cells["parameters: p90"] == "7"
    assert cells["functions with 6 parameters or more"] == "1"
    assert cells["most parameters"] == "7 (Many)"
    assert cells["public functions with docstring"] == "33% (1)"
    assert cells["docstring fragments: Of / Tell whether / Say"] == "2 / 0 / 0"
    assert cells["commit subjects over 72 characters: all / last 100"] == "- / -"


def test_print_structure_prints_a_column_per_package(run, pack, tmp_path):
    other = write(tmp_path / "other", {"__init__.py": "", "only.py": "x = 1\n"})
    rows = table(run(pack, other))
    assert rows["modules / lines"] == ["3 / 29", "1 / 1"]
    assert rows["parameters: p90"] == ["7", "-"]


def test_print_structure_names_files_of_cycles(run, tmp_path):
    files = {
        "__init__.py": "",
        "a.py": "from . import b\n",
        "b.py": "if True:\n    from pack.c import thing\n",
        "c.py": "import pack.a\n",
        "above.py": "from pack import a\n",
    }
    printed = run(write(tmp_path / "pack", files))
    assert table(printed)["import cycles"] == ["1"]
    assert "import cycle: pack.a, pack.b, pack.c\n" in printed


def test_print_structure_late_imports_make_no_cycle(run, tmp_path):
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.a import A\n"
    files = {
        "__init__.py": "",
        "a.py": "from pack import b, c\n",
        "b.py": types,
        "c.py": "def late():\n    import pack.a\n",
    }
    rows = table(run(write(tmp_path / "pack", files)))
    assert (rows["import edges"], rows["import cycles"]) == (["4"], ["0"])


def test_print_structure_counts_subjects_of_commits(run, pack):
    git(pack, "init")
    git(pack, "add", ".")
    for subject in ("x" * 73, *["é" * 72] * 3):
        git(pack, "commit", "--allow-empty", "--message", subject)
    rows = table(run(pack))
    assert rows["commit subjects over 72 characters: all / last 100"] == ["25% (1) / 25% (1)"]


@pytest.mark.parametrize("files", [{}, {"__init__.py": ""}], ids=["missing", "no module"])
def test_print_structure_without_modules_fails(run, tmp_path, files):
    with pytest.raises(SystemExit, match="pack holds no modules to measure"):
        run(write(tmp_path / "pack", files))


def test_print_structure_unreadable_code_fails(run, tmp_path):
    with pytest.raises(SystemExit, match=r"new.py:2: invalid syntax; run this with a newer Python"):
        run(write(tmp_path / "pack", {"new.py": "x = 1\nmatch of the day\n"}))
