"""What docs/ says of the tests is true."""

import re
from pathlib import Path

from featx import list_backbones
from featx.backbones.layers import POOLINGS

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


def test_backbones_page_agrees_with_list_backbones():
    page = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
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
    page = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    values = {"pretrained", "imagenet", "auto", *POOLINGS}
    named = set(re.findall(r'`"([a-z]+\w*\d?)"`', page)) - values
    assert named <= {network.name for network in list_backbones()}
    commands = re.findall(r"featx backbones --measure ([\w ]+?) +#", page)
    assert set(" ".join(commands).split()) <= {network.name for network in list_backbones()}


def test_files_page_agrees_with_docstrings(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from list_files import file_list

    assert file_list(ROOT / "featx") == (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
