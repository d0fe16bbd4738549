"""What the pages of the repository say of files, tests, networks and one another is true."""

import re
from pathlib import Path

import pytest

from featx import list_backbones
from featx.backbones.layers import POOLINGS

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "benchmarks", "examples", "tests")
# Pages that `scripts/docs` writes; it also checks the links to them.
WRITTEN = ("docs/_build/", "docs/api/", "docs/commands/", "docs/gallery/")
FILES = [*ROOT.glob("*.md"), *(file for name in FOLDERS for file in (ROOT / name).rglob("*.md"))]
PAGES = [file for file in FILES if not file.relative_to(ROOT).as_posix().startswith(WRITTEN)]


def anchors(page):
    """Return the anchors of a page's headings, as code hosts and the site name them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(\s*([^)\s]+)\)", text)
    for link in links:
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        name = target.relative_to(ROOT).as_posix()
        if "://" in link or name.startswith(WRITTEN):
            continue
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_guide_lists_its_pages():
    guide = ROOT / "docs" / "guide"
    listed = set(re.findall(r"\]\((\w+\.md)\)", (guide / "index.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in guide.glob("*.md")} - {"index.md"}


def test_guide_lists_every_example():
    guide = (ROOT / "docs" / "guide" / "index.md").read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"digits"}
    assert names == set(re.findall(r"examples/(\w+)\.py", guide))


def test_readme_has_at_most_150_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


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


def test_backbones_page_agrees_with_list_backbones():
    page = (ROOT / "docs" / "guide" / "backbones.md").read_text(encoding="utf-8")
    table = page.partition("| parameters |")[2].partition("\n\n")[0]
    networks = {network.name: network for network in list_backbones()}
    rows = re.findall(r'\| `"(\w+)"` \| (\d+) \| ([\d.%]*) ?\| ([\d,]+) \| (\d+) \|', table)
    assert len(rows) >= 8
    for name, *shown in rows:
        network = networks[name]
        top1 = "" if network.imagenet_top1 is None else f"{network.imagenet_top1:.1%}"
        expected = [str(network.input_size), top1, f"{network.n_parameters:,}"]
        assert shown == [*expected, str(network.n_features)], name


def test_backbones_page_names_networks_that_exist():
    page = (ROOT / "docs" / "guide" / "backbones.md").read_text(encoding="utf-8")
    values = {"pretrained", "imagenet", "auto", *POOLINGS}
    named = set(re.findall(r'`"([a-z]+\w*\d?)"`', page)) - values
    assert named <= {network.name for network in list_backbones()}
    commands = re.findall(r"featx backbones --measure ([\w ]+?) +#", page)
    assert set(" ".join(commands).split()) <= {network.name for network in list_backbones()}


def test_files_page_agrees_with_docstrings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from list_files import file_list

    assert file_list(ROOT / "featx") == (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
