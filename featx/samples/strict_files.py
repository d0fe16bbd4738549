"""Strict reading of image files, even where ``ImageFile.LOAD_TRUNCATED_IMAGES`` is set.

Other libraries set it when they are imported. Damaged files would then become half gray images,
cached under the key of the file. The setting belongs to the application, so it is not changed.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

_DECODER = "featx-strict"


class _StrictDecoder:
    """A decoder of Pillow that raises OSError if the data end too early or are damaged.

    Parameters
    ----------
    mode : str
    name : str
        Name of the decoder of Pillow.
    args : tuple or str
        Arguments of the decoder.
    *config
        Further arguments of the decoder.
    """

    def __init__(self, mode: str, name: str, args: Any, *config: Any) -> None:
        self._decoder = Image._getdecoder(mode, name, args, config)
        self._is_complete = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, data: bytes) -> tuple[int, int]:
        """Decode the next bytes."""
        n_bytes, error = self._decoder.decode(data)
        if error < 0:
            raise OSError(f"decoder error {error}")
        self._is_complete = n_bytes < 0 or self._decoder.pulls_fd
        return n_bytes, error

    def cleanup(self) -> None:
        """Free the decoder, and check that it has decoded the whole image."""
        self._decoder.cleanup()
        if not self._is_complete:
            raise OSError("image file is truncated")


Image.register_decoder(_DECODER, _StrictDecoder)  # type: ignore[arg-type]


def make_strict(image: ImageFile.ImageFile) -> None:
    """Make loading an opened file fail if its data are truncated or damaged."""
    if image.format in ("JPEG", "MPO"):  # whose load_read adds a missing end to the file
        image.load_read = image.fp.read  # type: ignore[attr-defined, union-attr]
    image.tile = [
        tile
        if tile.codec_name == "libtiff"  # strict by itself
        else tile._replace(codec_name=_DECODER, args=(tile.codec_name, tile.args))
        for tile in image.tile
    ]
