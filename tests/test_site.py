"""The documentation site: its pages, its links, and, in the long form, the built site."""

import contextlib
import importlib.util
import os
import re
import runpy
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from watched_pages import WatchedPages

import featx
from featx import readers

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PHOTOS = ROOT.parent / "shared" / "data" / "flower_photos" / "train"
GENERATED = {"_build", "_templates", "backreferences", "commands", "gallery", "generated"}
OF_THE_SITE = "sphinx_gallery", "myst_parser", "pydata_sphinx_theme", "sphinx_copybutton"
SHOWN_PAGES = (
    "index.html",
    "guide/inputs.html",
    "api/generated/featx.FeatureExtractor.html",
    "api/generated/featx.TransferClassifier.html",
    "commands/cv.html",
    "gallery/index.html",
    "gallery/image_folder.html",
)
# Text that sticks out of its box, as a long name does on a phone; boxes that scroll are left out.
STICKING_OUT = """
[...document.querySelectorAll("article :is(h1, h2, h3, p, li, dt, dd)")]
    .filter(box => box.scrollWidth > box.clientWidth + 1)
    .filter(box => getComputedStyle(box).overflowX === "visible" && box.clientWidth > 0)
    .filter(box => !box.closest("pre, .pst-scrollable-table-container"))
    .map(box => box.textContent.trim().slice(0, 40))
"""


@pytest.fixture(autouse=True)
def _modules_of_docs(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "_ext")
    monkeypatch.syspath_prepend(ROOT / "scripts")


def own_pages():
    """Return the names of the pages that nothing generates."""
    paths = (path.relative_to(DOCS) for path in DOCS.rglob("*") if path.suffix in (".md", ".rst"))
    return {path.with_suffix("").as_posix() for path in paths if not GENERATED & set(path.parts)}


def toctree_entries(page):
    """Return the names of the pages in the toctrees of a page."""
    path = next(DOCS.glob(f"{page}.*"))
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"^\.\. toctree::\n((?:[ \t].*\n|\n)*)", text, re.MULTILINE)
    names = [line.strip() for block in blocks for line in block.splitlines()]
    names = [name for name in names if name and not name.startswith(":")]
    return {os.path.normpath(f"{Path(page).parent}/{name}") for name in names}


def test_every_page_is_in_a_toctree():
    pages = own_pages()
    assert len(pages) > 10
    assert pages - set().union(*map(toctree_entries, pages)) == {"index"}


def test_configuration_lists_members_of_classes():
    configuration = runpy.run_path(str(DOCS / "conf.py"))
    members = configuration["autosummary_context"]["class_members"]
    assert {"fit", "predict", "predict_proba"} <= set(members["TransferClassifier"]["methods"])
    assert "get_params" not in members["EmbeddingCache"]["methods"]
    assert configuration["release"] == featx.__version__


def test_constant_is_described_by_its_comment():
    from public_names import describe_constant

    lines = ["Built-in mutable sequence."]
    describe_constant(None, "data", "featx.TRUSTED_TYPES", featx.TRUSTED_TYPES, None, lines)
    assert lines[0].startswith("Types of featx that skops has to trust")


def test_api_groups_name_public_names_once():
    index = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    blocks = re.findall(r"\.\. autosummary::\n(?: +:.*\n)+\n((?: +\w+\n)+)", index)
    counts = Counter(" ".join(blocks).split())
    assert counts == Counter({*featx.__all__, *readers.__all__} - {"__version__"})


def test_gallery_order_names_every_example_once():
    from gallery import EXAMPLES, ORDER, position

    names = {path.stem for path in EXAMPLES.glob("*.py")} - {"digits"}
    assert Counter(ORDER) == Counter(names)
    shown = sorted(["new.py", f"{ORDER[1]}.py", f"{ORDER[0]}.py"], key=position)
    assert shown == [f"{ORDER[0]}.py", f"{ORDER[1]}.py", "new.py"]


def test_examples_run_in_scratch_folder(tmp_path, monkeypatch):
    import gallery

    monkeypatch.setattr(gallery, "SCRATCH", tmp_path / "examples")
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    (tmp_path / "examples").mkdir()
    (tmp_path / "gallery").mkdir()
    for stale in (
        "examples/old.py",
        "gallery/old.rst",
        "gallery/index.rst",
        "gallery/saliency.rst",
    ):
        (tmp_path / stale).touch()
    gallery.prepare_examples(SimpleNamespace(srcdir=tmp_path), None)
    copied = {path.stem for path in (tmp_path / "examples").glob("*.py")}
    assert copied == {*gallery.ORDER, "digits"}
    kept = sorted(path.stem for path in (tmp_path / "gallery").iterdir())
    assert kept == ["index", "saliency"]
    assert str(DOCS / "_build") in os.environ["FEATX_CACHE"]
    shown = warnings.formatwarning(UserWarning("odd"), UserWarning, "/home/me/a.py", 3)
    assert shown == "UserWarning: odd\n"


def test_command_pages_hold_every_option():
    from command_pages import cli, contexts, page

    for context in contexts(click.Context(cli, info_name="featx")):
        text = page(context)
        parameters = context.command.get_params(context)
        names = [each.opts[-1] for each in parameters if isinstance(each, click.Option)]
        lines = re.findall(r"^ *\.\. option:: (.*)", text, re.MULTILINE)
        assert len(lines) == len(names), context.command_path
        assert all(any(name in line for line in lines) for name in names)


def test_command_pages_link_to_each_other():
    from command_pages import cli, contexts, page, page_name

    made = {page_name(c.command_path): c for c in contexts(click.Context(cli, info_name="featx"))}
    linked = {
        name
        for context in made.values()
        for name in re.findall(r":doc:`.*? <(.*?)>`", page(context))
    }
    assert linked == set(made) - {"index"}


@pytest.mark.parametrize(
    ("link", "file", "page", "expected"),
    [
        ("CONTRIBUTING.md#run-tests", "README.md", "index.md", "project/contributing.md#run-tests"),
        ("../CONTRIBUTING.md", "docs/files.md", "files.md", "project/contributing.md"),
        ("docs/format.md", "CHANGELOG.md", "project/changelog.md", "../format.md"),
        ("NOTES.md#augmented-views", "benchmarks/README.md", "project/benchmarks.md", None),
        ("../examples/regression.py", "docs/files.md", "files.md", "gallery/regression.rst"),
        ("../examples/digits.py", "docs/files.md", "files.md", "../examples/digits.py"),
        ("../featx/export.py", "docs/files.md", "files.md", "../featx/export.py"),
        ("files.md", "docs/format.md", "format.md", "files.md"),
        ("missing.md", "docs/format.md", "format.md", "missing.md"),
        ("https://keras.io/api#x", "README.md", "index.md", "https://keras.io/api#x"),
        ("#hashes", "docs/format.md", "format.md", "#hashes"),
    ],
)
def test_link_leads_to_page_of_site(link, file, page, expected):
    from repository_links import relink

    text = relink(f"see [this]({link}).", ROOT / file, DOCS / page)
    assert text == f"see [this]({expected or 'notes.md#augmented-views'})."


def test_pages_that_include_files_exist():
    from repository_links import PAGES

    for file, page in PAGES.items():
        assert (ROOT / file).is_file()
        text = (DOCS / page).read_text(encoding="utf-8")
        assert page == "index.md" or f"{{include}} ../../{file}\n" in text


def test_drawings_show_the_diagrams_of_pages():
    from diagrams import diagrams, mark

    drawn = diagrams()
    assert len(drawn) > 0
    for drawing, text in drawn.items():
        assert drawing.read_text(encoding="utf-8").startswith(mark(text)), drawing


@pytest.fixture
def site(tmp_path):
    """Return a site without faults, and a function that adds to its page."""
    page = tmp_path / "index.html"
    page.write_text(
        '<a href="https://keras.io">Keras</a> <a href="sub/other%20page.html#there">other</a>'
        '<link rel="stylesheet" href="site.css?v=1"> <img src="data:image/gif;base64,R0lGOD">'
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other page.html").write_text('<p id="there"><a href="../index.html">')
    (tmp_path / "site.css").write_text("p { background: url(data:image/png;base64,iVBO) }")
    return tmp_path


def test_site_without_faults_has_none(site):
    from check_site import faults, main

    assert list(faults(site)) == []
    assert main(site) == 0


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ('<a href="none.html">', "none.html leads to no file"),
        ('<a href="sub/">', "sub/ leads to no file"),
        ('<a href="#none">', "#none leads to no anchor"),
        ('<a href="sub/other page.html#none">', "sub/other page.html#none leads to no anchor"),
        ('<a href="../other/index.html">', "../other/index.html leads out of the site"),
        ('<img src="/logo.png">', "/logo.png leads out of the site"),
        ('<img srcset="a.png 2x">', "a.png leads to no file"),
        ('<script src="https://cdn.net/x.js">', "https://cdn.net/x.js is loaded from another host"),
        ('<img src="//cdn.net/x.png">', "//cdn.net/x.png is loaded from another host"),
        ('<link rel="preload" href="//cdn.net/x">', "//cdn.net/x is loaded from another host"),
        ("<style>@import '//cdn.net/x.css'</style>", "//cdn.net/x.css is loaded from another host"),
        ('<p style="background: url(//cdn.net/x)">', "//cdn.net/x is loaded from another host"),
    ],
)
def test_fault_of_site_is_found(site, capsys, added, fault):
    from check_site import main

    page = site / "index.html"
    page.write_text(page.read_text() + added)
    assert main(site) == 1
    assert capsys.readouterr().out == f"index.html: {fault}\nlinks: 1 faults\n"


def test_folder_without_site_is_refused(tmp_path, capsys):
    from check_site import main

    assert main(tmp_path) == 1
    assert "expected a built site" in capsys.readouterr().out


def test_script_refuses_unknown_arguments():
    bash = subprocess.run(
        ["bash", ROOT / "scripts" / "docs", "--fast"], capture_output=True, text=True, check=False
    )
    assert bash.returncode == 2
    assert "unknown argument --fast; usage: scripts/docs [--quick]" in bash.stderr


@pytest.mark.long
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared (real images)")
def test_landing_page_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    shown = re.search(r"```\{code-block\} text\n:class: featx-output\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "photos").symlink_to(PHOTOS)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "index.md", "exec"), {})
    assert capsys.readouterr().out == shown


def built_site(folder):
    """Build the whole site, with warnings as errors, and return its folder."""
    command = [sys.executable, "-m", "sphinx", "--fresh-env", "--fail-on-warning", "--keep-going"]
    command += ["--doctree-dir", folder / "doctrees", DOCS, folder / "html"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    sphinx = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert sphinx.returncode == 0, sphinx.stderr
    return folder / "html"


def open_pages(pages, site):
    """Return what sticks out, or scrolls sideways, on phones and desktops, by day and by night."""
    faults = []
    for name in SHOWN_PAGES:
        for width, scheme in ((390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")):
            size = {"width": width, "height": 900}
            page = pages.open(site / name, viewport=size, color_scheme=scheme)
            page.wait_for_load_state()
            if page.evaluate("document.documentElement.scrollWidth") > width:
                faults.append(f"{name} scrolls sideways at {width} pixels")
            faults += [f"{name}, {width}: {text}" for text in page.evaluate(STICKING_OUT)]
    return faults


def found_pages(pages, site, word):
    """Return the titles of the pages that a search for a word finds."""
    page = pages.open(site / "search.html")
    page.goto(f"{(site / 'search.html').as_uri()}?q={word}")
    page.wait_for_selector("#search-results li")
    return page.locator("#search-results li").all_inner_texts()


@pytest.mark.long
@pytest.mark.skipif(not all(map(importlib.util.find_spec, OF_THE_SITE)), reason="needs featx[docs]")
def test_built_site_has_no_faults(tmp_path, browser):
    from check_site import faults

    site = built_site(tmp_path)
    assert list(faults(site)) == []
    with contextlib.closing(WatchedPages(browser, site)) as pages:
        assert open_pages(pages, site) == []
        assert "near_duplicates" in " ".join(found_pages(pages, site, "duplicates"))
    assert pages.faults == []
