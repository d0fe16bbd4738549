"""The gallery: the order of its examples, and the folder in which they run.

Examples write files into the working directory, which for sphinx-gallery is the folder of the
example. They are therefore copied to ``docs/_build``, which git ignores, and run there.
``setup`` makes this module a Sphinx extension.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

DOCS = Path(__file__).resolve().parents[1]
EXAMPLES = DOCS.parent / "examples"
SCRATCH = DOCS / "_build" / "examples"
# From the first script that a user needs to special cases; the gallery shows them in this order.
ORDER = (
    "image_folder",
    "model_selection",
    "few_labels",
    "calibration",
    "saliency",
    "wrong_labels",
    "near_duplicates",
    "xray_patients",
    "similar_images",
    "fine_tuning",
    "own_keras_model",
    "image_beside_table",
    "multi_label",
    "regression",
    "batch_predict",
    "onnx_model",
)


def position(filename: str) -> tuple[int, str]:
    """Return the sort key of an example; one that is not in the order comes last."""
    name = Path(filename).stem
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def warning_line(message: Warning | str, category: type[Warning], *_: object) -> str:
    """Return a warning without the path of the example, which is one of this machine."""
    return f"{category.__name__}: {message}\n"


def prepare_examples(app: Sphinx, config: Config) -> None:
    """Copy the examples to where they run, and remove pages of those that no longer exist."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    copied = [*EXAMPLES.glob("*.py"), DOCS / "_templates" / "GALLERY_HEADER.rst"]
    for path in copied:
        shutil.copy2(path, SCRATCH)
    names = {path.name for path in copied}
    for path in SCRATCH.glob("*.py"):
        if path.name not in names:
            path.unlink()
    for path in Path(app.srcdir, "gallery").glob("*.rst"):
        if path.stem != "index" and f"{path.stem}.py" not in names:
            path.unlink()
    warnings.formatwarning = warning_line
    os.environ["FEATX_CACHE"] = str(DOCS / "_build" / "cache")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the copying with Sphinx, before sphinx-gallery looks for examples."""
    app.connect("config-inited", prepare_examples, priority=1)
    return {"parallel_read_safe": True}
