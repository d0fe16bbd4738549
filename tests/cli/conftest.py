"""The command, run in the process of the test, with a folder of images and a fitted model."""

import pytest
from command_line import fit_tiny, runner, write_photos


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes with six images each."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def run(capsys):
    """A function that runs the command and returns its exit code, output and messages."""
    return runner(capsys)


@pytest.fixture
def model(run, photos, tmp_path):
    """A saved model, fitted on the photos; their rows are in the cache."""
    return fit_tiny(run, photos, tmp_path / "photos.featx")
