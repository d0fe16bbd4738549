"""The page in a real browser: it opens from disk, shows the right pictures, and runs no names."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from featx import FeatureExtractor, TransferClassifier, TransferRegressor
from featx.exceptions import ParameterError
from featx.reporting.report import report

HOSTILE = "</script><img src=x onerror='window.hacked=1'>"
COLORS = {"blue": (20, 40, 200), HOSTILE: (200, 40, 20), "grün\u202e$x_1$": (30, 160, 40)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return files and labels of three colors; two of the files are in the wrong class."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    files, labels = [], []
    for label, color in COLORS.items():
        for number in range(12):
            pixels = np.array(color) + rng.normal(0, 25, (40, 60, 3)) + rng.normal(0, 10, 3)
            file = folder / f"{len(files)}-<b>&'{number}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
            files.append(str(file))
            labels.append(label)
    labels[0], labels[13] = HOSTILE, "blue"
    return files, labels


@pytest.fixture(scope="module")
def page(photos, tmp_path_factory):
    """Return the page of a report with mistakes, and its data."""
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None))
    found = report([classifier, TransferClassifier("tiny", "knn")], *photos)
    path = tmp_path_factory.mktemp("page") / "report.html"
    found.to_html(path)
    return path, found.to_dict()


def test_page_opens_without_requests_or_errors(page, opened):
    shown = opened(page[0])
    assert shown.title() == "Report on 36 images of 3 classes"
    assert shown.inner_text("h1") == "Report on 36 images of 3 classes"
    assert shown.locator("svg[role=img]").count() >= 3


def test_page_hostile_names_are_text(page, opened):
    shown = opened(page[0])
    shown.wait_for_timeout(200)
    assert shown.evaluate("window.hacked") is None
    assert shown.locator("img[src=x]").count() == 0
    assert HOSTILE in shown.inner_text("#data")
    assert "\u202e" not in shown.content()
    assert r"gr\xfcn" not in shown.inner_text("#data")
    assert "grün" in shown.inner_text("#data")


def test_page_mistakes_show_their_own_pictures(page, photos, opened):
    shown = opened(page[0])
    entries = page[1]["mistakes"]
    items = shown.locator("#mistakes-list > li")
    assert items.count() == len(entries) >= 2
    for place, entry in enumerate(entries):
        source = items.nth(place).locator("img").get_attribute("src")
        thumbnail = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        original = np.asarray(Image.open(photos[0][entry["row"]]))
        assert np.abs(thumbnail.mean((0, 1)) - original.mean((0, 1))).max() < 12
        assert entry["label"] in items.nth(place).inner_text()


def test_page_pictures_have_alternative_texts(page, opened):
    shown = opened(page[0])
    texts = shown.locator(".gallery img").evaluate_all("all => all.map(each => each.alt)")
    assert len(texts) > 4
    assert all(re.match(r"\d+-<b>&'\d+\.png, labeled .+, predicted .+", text) for text in texts)
    assert shown.locator("img:not([alt]), img[alt='']").count() == 0


def test_page_mistakes_filter_by_class(page, opened):
    shown = opened(page[0])
    shown.select_option("#mistakes-class", "blue")
    expected = sum(entry["label"] == "blue" for entry in page[1]["mistakes"])
    assert shown.locator("#mistakes-list > li:visible").count() == expected
    assert shown.inner_text("#mistakes-count") == f"{expected} shown"


def test_page_links_lead_to_sections(page, opened):
    shown = opened(page[0])
    targets = shown.locator("a[href^='#']").evaluate_all("all => all.map(each => each.hash)")
    assert len(targets) > 10
    assert all(shown.locator(target).count() == 1 for target in set(targets))


def test_page_answers_what_readers_ask(page, opened):
    shown, data = opened(page[0]), page[1]
    text = shown.inner_text("#short")
    assert f"{data['metrics']['accuracy']:.1%}" in text
    for question in (
        "How good",
        "How sure",
        "Where is it wrong",
        "Which labels",
        "What to do next",
    ):
        assert question in text
    assert all(advice["step"] in text for advice in data["advice"])


def test_page_suspects_come_first(page):
    suspects = [sample["row"] for sample in page[1]["label_issues"]["suspects"]]
    assert set(suspects[:2]) == {0, 13}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_text_stands_out(scheme, page, opened):
    shown = opened(page[0], color_scheme=scheme)
    luminances = shown.evaluate(
        """() => ["color", "background-color"].map(name => {
            const rgb = getComputedStyle(document.body).getPropertyValue(name);
            const [r, g, b] = rgb.match(/[0-9.]+/g).map(v => (v / 255) ** 2.2);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        })"""
    )
    low, high = sorted(luminances)
    assert (high + 0.05) / (low + 0.05) > 7  # level AAA of WCAG 2


def test_page_narrow_screen_needs_no_sideways_scrolling(page, opened):
    shown = opened(page[0], viewport={"width": 360, "height": 740})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360


def test_page_prints_pictures_in_one_piece(page, opened):
    shown = opened(page[0])
    shown.emulate_media(media="print")
    assert shown.locator("nav").is_hidden()
    assert shown.evaluate(
        "[...document.querySelectorAll('.gallery > li')]"
        ".every(each => getComputedStyle(each).breakInside === 'avoid')"
    )
    assert shown.pdf().startswith(b"%PDF")


def test_page_of_values(photos, opened, tmp_path):
    y = [float(np.asarray(Image.open(file)).mean()) for file in photos[0]]
    found = report(TransferRegressor("tiny"), photos[0], y)
    found.to_html(tmp_path / "values.html")
    shown = opened(tmp_path / "values.html")
    assert "Residuals" in shown.inner_text("nav")
    assert shown.locator("#labels").count() == 0


@pytest.mark.long
def test_page_of_several_labels(photos, opened, tmp_path):
    y = [[label == "blue", number % 2] for number, label in enumerate(photos[1])]
    found = report(TransferClassifier("tiny"), photos[0], y)
    found.to_html(tmp_path / "labels.html")
    shown = opened(tmp_path / "labels.html")
    assert "Output 2" in shown.inner_text("#scores")


def test_page_of_vectors_has_no_pictures(tmp_path, opened):
    import keras

    X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    classifier = TransferClassifier(FeatureExtractor(network, pooling=None, cache=None))
    report(classifier, X, X[:, 0] > 0).to_html(tmp_path / "vectors.html")
    shown = opened(tmp_path / "vectors.html")
    assert "40 samples" in shown.title()
    assert shown.locator("#mistakes-list img").count() == 0


@pytest.mark.long
def test_page_map_by_t_sne(photos, opened, tmp_path):
    found = report(TransferClassifier("tiny"), *photos)
    found.to_html(tmp_path / "report.html", projection="tsne")
    assert "t-SNE" in opened(tmp_path / "report.html").inner_text("#map")
    with pytest.raises(ParameterError, match="pca"):
        found.to_html(tmp_path / "report.html", projection="pcq")
