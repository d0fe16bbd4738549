"""Pictures: thumbnails of the samples that a page shows, each image decoded once for its list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from featx.evaluation.small_images import small_images
from featx.extractor import FeatureExtractor
from featx.inputs.kinds import IMAGE, InputForm
from featx.inputs.samples import Samples
from featx.reporting.thumbnails import Atlas, as_data_uri

_LARGE, _SMALL = 160, 112  # pixels
_QUALITY = 70
_MANY = 300  # pictures, beyond which they are small
_TILE_PX = 128
_ATLAS_BYTES = 4_500_000


def has_pictures(extractor: FeatureExtractor) -> bool:
    """Return True if the samples of a fitted extractor are images."""
    return InputForm.of_space(extractor.space_.description).kind is IMAGE


class Pictures:
    """Thumbnails of samples by row; none if the samples are not images."""

    def __init__(self, samples: Samples, *, are_images: bool) -> None:
        self._samples, self.are_images = samples, are_images
        self._uris: dict[int, str] = {}

    def take(self, rows: Iterable[int]) -> None:
        """Decode the images of these rows, and keep a thumbnail of each."""
        wanted = sorted(set(rows))
        size = _LARGE if len(wanted) <= _MANY else _SMALL
        for row, image in self._images(wanted, size):
            if image is not None:
                self._uris[row] = as_data_uri(image, size, quality=_QUALITY)

    def uri(self, row: int) -> str | None:
        """Return the thumbnail of a row as a data URI; None if there is none."""
        return self._uris.get(row)

    def atlas(self, rows: Sequence[int] | np.ndarray) -> Atlas | None:
        """Return small thumbnails of many rows, numbered by their place in `rows`."""
        if not self.are_images:
            return None
        images = self._images(rows, _TILE_PX)
        numbered = ((place, image) for place, (_, image) in enumerate(images))
        return Atlas.pack(numbered, len(rows), budget_bytes=_ATLAS_BYTES)

    def _images(
        self, rows: Sequence[int] | np.ndarray, size: int
    ) -> Iterator[tuple[int, Image.Image | None]]:
        if self.are_images:
            for small in small_images(self._samples, rows, size=size):
                yield small.row, small.image


def rows_listed(data: dict[str, Any], n_listed: int) -> set[int]:
    """Return the rows of the samples in the lists of a report, at most `n_listed` of each list."""
    lists = [
        data["mistakes"],
        (data["label_issues"] or {}).get("suspects", []),
        data["outliers"]["samples"],
        *(pair["examples"] for pair in data["confused"]),
        *(issue["samples"] for issue in data["image_issues"].values()),
        *([pair["first"], pair["second"]] for pair in data["duplicates"].get("pairs", [])),
    ]
    rows = {sample["row"] for samples in lists for sample in samples[:n_listed]}
    return {row for row in rows if row >= 0}  # -1 is a training sample
