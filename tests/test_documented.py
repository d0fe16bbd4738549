"""What notebooks show of an estimator, and where it leads to."""

from email.message import Message
from importlib import metadata

import numpy as np
import pytest
from sample_networks import pixels
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_html_repr

from featx import FeatureExtractor, RidgeProbe, TransferClassifier
from featx.documented import documentation_url


@pytest.fixture
def published(monkeypatch):
    """Let the metadata of the package name addresses."""

    def publish(*links):
        message = Message()
        for link in links:
            message["Project-URL"] = link
        monkeypatch.setattr(metadata, "metadata", lambda _: message)
        documentation_url.cache_clear()

    yield publish
    documentation_url.cache_clear()


def estimators():
    return [
        TransferClassifier(FeatureExtractor("tiny"), head=RidgeProbe()),
        make_pipeline(FeatureExtractor("tiny"), RidgeProbe()),
    ]


@pytest.mark.parametrize("estimator", estimators(), ids=["classifier", "pipeline"])
def test_html_representation_tells_whether_it_is_fitted(estimator):
    assert "<span>Not fitted</span>" in estimator_html_repr(estimator)
    estimator.fit(pixels((64, 64, 3), n_images=20), np.arange(20) % 2)
    assert "<span>Fitted</span>" in estimator_html_repr(estimator)


@pytest.mark.parametrize("estimator", estimators(), ids=["classifier", "pipeline"])
def test_html_representation_links_to_the_documentation_that_the_metadata_name(
    estimator, published
):
    address = "protocol://somewhere/docs"
    published("Source, protocol://elsewhere", f"Documentation, {address}")
    html = estimator_html_repr(estimator)
    assert f'href="{address}#FeatureExtractor"' in html
    assert f'href="{address}#RidgeProbe"' in html


def test_html_representation_without_an_address_has_no_link_of_ours(published):
    published("Source, protocol://elsewhere")
    assert "Documentation for RidgeProbe" not in estimator_html_repr(RidgeProbe())
    published("Documentation, protocol://somewhere")
    assert "Documentation for RidgeProbe" in estimator_html_repr(RidgeProbe())


def test_documentation_url_of_a_package_that_is_not_installed_is_empty(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", missing)
    documentation_url.cache_clear()
    assert documentation_url() == ""
    documentation_url.cache_clear()
