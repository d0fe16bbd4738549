"""Configuration of the documentation site; ``scripts/docs`` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from public_names import public_members  # noqa: E402

from featx import __version__  # noqa: E402

project = "featx"
author = "The featx developers"
project_copyright = "The featx developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "public_names",
    "gallery",
    "sphinx_gallery.gen_gallery",
    "command_pages",
    "diagrams",
    "repository_links",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
default_role = "literal"  # as scikit-learn's docstrings use single backticks
nitpicky = True

autosummary_context = {"class_members": public_members()}
autodoc_typehints = "none"  # the types are in the docstrings
numpydoc_show_class_members = False  # the template lists them
numpydoc_xref_param_type = False
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 4

sphinx_gallery_conf = {
    "examples_dirs": "_build/examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"digits\.py$",
    "within_subsection_order": "gallery.position",
    "minigallery_sort_order": "gallery.position",
    "doc_module": ("featx",),
    "backreferences_dir": "api/backreferences",
    "default_thumb_file": str(HERE / "_static" / "featx.svg"),
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "featx"
html_favicon = "_static/featx.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False  # browsers let no page that is opened from disk fetch others
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {
        "text": "featx",
        "image_light": "_static/featx.svg",
        "image_dark": "_static/featx.svg",
    },
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
}
html_sidebars = {"index": []}
