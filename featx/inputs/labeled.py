"""LabeledSamples: samples and their targets, loaded from a folder, a table or a WebDataset."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featx._html import html_table
from featx._text import counted, one_line
from featx._urls import file_name, shown_path, suffix_of
from featx.exceptions import UnreadableImageError

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
_N_CLASSES = 10  # that notebooks show
_N_THUMBNAILS = 6  # of a class
_THUMBNAIL_PX = 112  # twice what is shown, for screens of high density


class LabeledSamples(Bunch):
    """Samples and their targets: see ``load_image_folder``, ``load_table``, ``load_webdataset``.

    In notebooks, they are shown with the first images of some classes.
    """

    def __repr__(self) -> str:
        shown = counted(len(self.data), "image" if self._are_images() else "sample")
        if self.target_names:
            shown += f" of {counted(len(self.target_names), 'class', 'es')}"
        if self.get("groups") is not None:
            shown += f" in {counted(len(set(self.groups)), 'group')}"
        return shown

    @property
    def names(self) -> list[str]:
        """Paths of the samples, or URLs without secrets; for encoded images, row numbers."""
        if isinstance(self.data, np.ndarray):
            return list(map(shown_path, self.data))
        return [f"row {row}" for row in range(len(self.data))]

    def _repr_html_(self) -> str:
        names = self._class_names()
        rows = [
            (one_line(name), self._pictures(self.data[self.target == name]))
            for name in names[:_N_CLASSES]
        ]
        if len(names) > _N_CLASSES:
            rows.append(("...", f"and {len(names) - _N_CLASSES:,} more classes"))
        if not names and self._are_paths_of_images():
            rows.append(("images", self._pictures(self.data)))
        return f"<div>{html.escape(repr(self))}{html_table(rows)}</div>"

    def _class_names(self) -> list[Any]:
        """Return the classes, if each sample has one."""
        is_one_class = self.target_names and getattr(self.target, "ndim", 1) == 1
        return self.target_names if is_one_class and self._are_paths_of_images() else []

    def _are_paths_of_images(self) -> bool:
        return isinstance(self.data, np.ndarray) and self._are_images()

    def _are_images(self) -> bool:
        first = self.data[0] if len(self.data) else ""
        is_path = isinstance(first, str | os.PathLike)
        return is_path and suffix_of(os.fspath(first)) in IMAGE_SUFFIXES

    @staticmethod
    def _pictures(paths: Any) -> str:
        """Return the number of images and the first of them; unreadable ones are left out.

        They are read again each time, since nothing says that the files stay as they are.
        """
        return f"{len(paths):,}<br>{_pictures_html(paths[:_N_THUMBNAILS])}"


def _pictures_html(paths: Iterable[str]) -> str:
    return "".join(map(_picture_html, paths))


def _picture_html(path: str) -> str:
    from featx.inputs.images import reduced_image  # Pillow and others, which a list does not need
    from featx.inputs.items import content_of_item

    try:
        picture = reduced_image(content_of_item(path), _THUMBNAIL_PX).picture
    except (OSError, UnreadableImageError):
        return ""
    name = file_name(os.fspath(path))
    encoded = io.BytesIO()
    picture.save(encoded, "webp", quality=70)
    uri = f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    return f'<img src="{uri}" title="{html.escape(one_line(name))}">'
