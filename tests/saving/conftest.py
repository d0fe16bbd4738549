"""The file that a test saves to."""

import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.featx"
