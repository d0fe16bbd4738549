"""InputKind (Image, Vector, Signal): what a sample is, decided by the shape of one input.

All code that depends on the kind uses the object that :func:`kind_of` returns. A new kind is one
class and its entry in :data:`KINDS`. `reader` is part of the digest of a space: changing it makes
all stored rows of that kind unreachable. :class:`InputForm` describes one input of a backbone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from featx.digests.hashing import digest_of, digest_of_array
from featx.exceptions import UnreadableImageError
from featx.inputs.images import DECODER, check_header, conform_pixels, decode_to
from featx.inputs.items import check_unmasked, content_of_item
from featx.inputs.pixels import check_range
from featx.inputs.resize import RESIZES

NOT_FINITE = "has NaN or infinite values, or some beyond float32 (3.4e38)"


class InputKind(ABC):
    """A kind of sample."""

    name: ClassVar[str]
    n_axes: ClassVar[int | None] = None  # of one input; None is any number that no other kind has
    dtype: ClassVar[str] = "float32"  # in which an exported network takes a batch
    is_resized: ClassVar[bool] = False  # True if samples of any size become inputs of one size
    is_augmentable: ClassVar[bool] = False  # by ``augment="standard"`` and cutmix

    @abstractmethod
    def content_of(self, item: Any) -> np.ndarray | bytes:
        """Read an item of a sequence: return the array or the encoded bytes that identify it."""

    @abstractmethod
    def digest_of(self, content: np.ndarray | bytes) -> bytes:
        """Return the digest of the content, after the checks that are cheap."""

    @abstractmethod
    def load(self, content: np.ndarray | bytes, form: InputForm) -> np.ndarray:
        """Convert the content to one input of a backbone, uint8 or float32."""

    def reader(self, resize: str) -> dict[str, str]:
        """Return the names and versions of what reads the samples, which spaces describe."""
        return {}

    def peak(self, content: np.ndarray | bytes) -> float:
        """Return the largest floating-point pixel; -inf if there is none."""
        return -np.inf


class Image(InputKind):
    """Pictures (h, w, c): decoded from files or bytes, or given as pixels of any size."""

    name = "image"
    n_axes = 3
    dtype = "uint8"
    is_resized = True
    is_augmentable = True

    def content_of(self, item: Any) -> np.ndarray | bytes:
        """Return the pixels of an array or a PIL image, or the encoded bytes of other items."""
        return content_of_item(item)

    def digest_of(self, content: np.ndarray | bytes) -> bytes:
        """Return the digest of pixels or bytes, after checking their range or header."""
        if isinstance(content, np.ndarray):
            check_range(content)
            return digest_of_array(content)
        check_header(content)
        return digest_of(content)

    def load(self, content: np.ndarray | bytes, form: InputForm) -> np.ndarray:
        """Decode an image, and give it the size and channels of the input."""
        if isinstance(content, np.ndarray):
            return conform_pixels(content, form.shape, form.resize)
        return decode_to(content, form.shape, form.resize)

    def reader(self, resize: str) -> dict[str, str]:
        """Return the names of the decoder and of the way to resize."""
        return {"decoder": DECODER, "resize": RESIZES[resize]}

    def peak(self, content: np.ndarray | bytes) -> float:
        """Return the largest pixel of a floating-point image; -inf for others."""
        if isinstance(content, np.ndarray) and content.dtype.kind == "f":
            return float(content.max(initial=-np.inf))
        return -np.inf


class _Values(InputKind):
    """Numbers that are not pixels: arrays of exactly the shape of the input."""

    def content_of(self, item: Any) -> np.ndarray:
        """Return the item, which has to be an array."""
        if not isinstance(item, np.ndarray):
            raise UnreadableImageError("not an array of numbers")
        check_unmasked(item)
        return item

    def digest_of(self, content: np.ndarray | bytes) -> bytes:
        """Return the digest of an array."""
        return digest_of_array(np.asarray(content))

    def load(self, content: np.ndarray | bytes, form: InputForm) -> np.ndarray:
        """Return the array as float32; raise if it has another shape or is not finite."""
        values = as_float32_values(np.asarray(content))
        if values.shape != form.shape:
            raise UnreadableImageError(f"has shape {values.shape}: expected {form.shape}")
        if not np.isfinite(values).all():
            raise UnreadableImageError(NOT_FINITE)
        if faults := form.faults_of_texts(values[np.newaxis]):
            raise UnreadableImageError(faults[0])
        return values


class Vector(_Values):
    """Feature vectors (p,)."""

    name = "vector"
    n_axes = 1


class Signal(_Values):
    """Signals (t, c)."""

    name = "signal"


IMAGE = Image()
KINDS: tuple[InputKind, ...] = (IMAGE, Vector(), Signal())  # the first that fits is chosen


def kind_of(input_shape: Sequence[int | None]) -> InputKind:
    """Return the kind of sample that a backbone takes, from the shape of one input.

    Examples
    --------
    >>> [kind_of(shape).name for shape in ((224, 224, 3), (20,), (1000, 2))]
    ['image', 'vector', 'signal']
    """
    return next(kind for kind in KINDS if kind.n_axes in (len(input_shape), None))


class InputForm(NamedTuple):
    """The form of one input of a backbone: its shape, and how images are resized to it.

    `n_token_ids` is the number of token ids that a backbone of texts knows, and `padding_id` that
    of padding; None for others. `takes_any_values` is True for images of a reader if the
    backbone gets numbers as they are.

    Examples
    --------
    >>> InputForm((224, 224, 3), "crop").reader["resize"]
    'lanczos-crop-1'
    """

    shape: tuple[int, ...]
    resize: str = "stretch"
    n_token_ids: int | None = None
    padding_id: int | None = None
    takes_any_values: bool = False

    @classmethod
    def of_space(cls, description: Mapping[str, Any]) -> InputForm:
        """Return the form that the description of a space names."""
        named = description.get("resize", RESIZES["stretch"])
        resize = next(way for way, name in RESIZES.items() if name == named)
        ids = description.get("token_ids"), description.get("padding_id")
        takes_any_values = description.get("any_values", False)
        return cls(tuple(description["input_shape"]), resize, *ids, takes_any_values)

    @property
    def kind(self) -> InputKind:
        """Kind of sample."""
        return kind_of(self.shape)

    @property
    def reader(self) -> dict[str, Any]:
        """What reads the samples, and which token ids it accepts, which spaces describe."""
        ids = {"token_ids": self.n_token_ids, "padding_id": self.padding_id}
        known: dict[str, Any] = {name: number for name, number in ids.items() if number is not None}
        if self.takes_any_values:
            known["any_values"] = True
        return dict(self.kind.reader(self.resize)) | known

    def faults_of_texts(self, texts: np.ndarray) -> dict[int, str]:
        """Return, by row, why texts, float32 of shape (n, length), have no embedding.

        Of unknown token ids, engines would take others instead, or fail. A text that is all padding
        would get zeros. Samples of other backbones have no such faults.

        Examples
        --------
        >>> form = InputForm((2,), n_token_ids=9, padding_id=0)
        >>> form.faults_of_texts(np.float32([[3, 8], [3, 0], [0, 0]]))
        {2: 'has no token: all ids are 0, which stands for padding'}
        """
        if self.n_token_ids is None:
            return {}
        faults = {}
        if self.padding_id is not None:
            reason = f"has no token: all ids are {self.padding_id}, which stands for padding"
            is_empty = (texts == self.padding_id).all(axis=1)
            faults = dict.fromkeys(np.flatnonzero(is_empty).tolist(), reason)
        reason = (
            "has values that are no token ids of the backbone: expected integers from 0 to "
            f"{self.n_token_ids - 1}"
        )
        is_known = (texts >= 0) & (texts < self.n_token_ids) & (texts == np.floor(texts))
        return faults | dict.fromkeys(np.flatnonzero(~is_known.all(axis=1)).tolist(), reason)


def as_float32_values(numbers: np.ndarray) -> np.ndarray:
    """Return numbers as float32; they become infinite where float32 cannot hold them."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32, copy=False)
