"""The command, run in the process of the test, with a folder of images and a fitted model."""

import pytest
from command_line import fit_tiny, runner, write_photos

from featx import FeatureExtractor, TransferClassifier, load_image_folder, save


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


@pytest.fixture
def saved(photos, tmp_path):
    """A function that saves a classifier fitted on the photos with other labels."""

    def fit_and_save(labels, head="logistic"):
        path = tmp_path / "other.featx"
        classifier = TransferClassifier(FeatureExtractor("tiny"), head)
        save(classifier.fit(load_image_folder(photos).data, labels), path)
        return path

    return fit_and_save
