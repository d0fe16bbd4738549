"""The link to its documentation that scikit-learn shows beside an estimator in notebooks.

Its address is that of the installed package's metadata, under ``project_urls``, ``Documentation``:
whoever publishes featx says there where. Without one there is no link.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata

from sklearn.base import BaseEstimator

_PACKAGE = __name__.partition(".")[0]


@cache
def documentation_url() -> str:
    """Return the address that the package's metadata gives for its documentation, "" for none."""
    try:
        links = metadata.metadata(_PACKAGE).get_all("Project-URL", [])
    except metadata.PackageNotFoundError:  # it is run from its folder, and not installed
        return ""
    by_label = {label.strip().lower(): url for label, _, url in (x.partition(",") for x in links)}
    return by_label.get("documentation", "").strip()


class DocumentedEstimator(BaseEstimator):
    """An estimator that scikit-learn links to the documentation of featx, not to its own.

    The underscores are those of scikit-learn's hook for other packages, which its documentation of
    the HTML representation describes.
    """

    @property
    def _doc_link_module(self) -> str:
        return _PACKAGE if documentation_url() else ""

    @property
    def _doc_link_template(self) -> str:
        return documentation_url().replace("{", "{{").replace("}", "}}") + "#{estimator_name}"
