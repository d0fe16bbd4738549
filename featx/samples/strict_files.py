"""Files read as strictly as by default where ``ImageFile.LOAD_TRUNCATED_IMAGES`` is set.

Other libraries set it when they are imported. Damaged files would then become half gray images,
which would be remembered under the key of the file; and it is not ours to reset.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageFile

_DECODER = "featx-strict"


class _StrictDecoder:
    """A decoder of Pillow that raises OSError where the data end too early or are damaged.

    Parameters
    ----------
    mode : str
    name : str
        The decoder of Pillow.
    args : tuple or str
        Its arguments.
    *config
        Further ones, which are given last.
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
        """Free what the decoder holds, and check that it has decoded all."""
        self._decoder.cleanup()
        if not self._is_complete:
            raise OSError("image file is truncated")


Image.register_decoder(_DECODER, _StrictDecoder)  # type: ignore[arg-type]


def make_strict(image: ImageFile.ImageFile) -> None:
    """Make the loading of an opened file fail where its data are truncated or damaged."""
    if image.format in ("JPEG", "MPO"):  # which else adds the missing end to the file
        image.load_read = image.fp.read  # type: ignore[attr-defined, union-attr]
    image.tile = [
        tile
        if tile.codec_name == "libtiff"  # strict by itself
        else tile._replace(codec_name=_DECODER, args=(tile.codec_name, tile.args))
        for tile in image.tile
    ]
