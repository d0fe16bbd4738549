"""What docs/ says of the tests is true."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_robustness_page_names_tests_that_exist():
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(?:test_\w+\.py::)?(test_\w+)`", page))
    defined = set(re.findall(r"def (test_\w+)", code))
    assert len(named) > 100
    assert named - defined == set()


def test_robustness_page_names_files_of_tests_that_exist():
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    files = set(re.findall(r"((?:\w+/)?test_\w+\.py)", page))
    assert {name for name in files if not (ROOT / "tests" / name).is_file()} == set()
