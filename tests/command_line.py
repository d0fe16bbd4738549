"""The command, run in the process of the test, and images and a model for it."""

import numpy as np
from PIL import Image

from featx.cli.main import main

CODES = {"input": 3, "backbone": 4, "saved": 5, "disk": 6, "fault": 70, "interrupted": 130}


def write_photos(folder):
    """Write a folder of two classes, dark and light, with six images each."""
    rng = np.random.default_rng(0)
    for name, offset in (("dark", 0), ("light", 127)):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 128, (64, 64, 3)).astype(np.uint8) + np.uint8(offset)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def runner(capsys):
    """Return a function that runs the command and returns its exit code, output and messages."""

    def run(*arguments):
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as exc:
            code = exc.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def fit_tiny(run, photos, path):
    """Fit and save a model of the smallest backbone, whose rows are then in the cache."""
    code, _, err = run("fit", photos, "--out", path, "--backbone", "tiny", "-q")
    assert code == 0, err
    return path
