"""Images for the examples: scikit-learn's handwritten digits, as a folder of files."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from featx.cli.demo import write_digits


def image_folder() -> str:
    """Return the folder named on the command line, or a new folder of digits in this directory."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    folder = Path("featx-digits")
    if not folder.exists():
        with TemporaryDirectory(dir=".") as unfinished:
            write_digits(Path(unfinished) / "digits")
            (Path(unfinished) / "digits").rename(folder)
    return str(folder)
