"""The map in a real browser: what a pointer, a keyboard and a hostile name do there."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from featx.exceptions import InputError
from featx.reporting.map import N_STYLES, MapPoints, embedding_map
from featx.reporting.projection import project
from featx.reporting.thumbnails import Atlas

HOSTILE = [
    '</script><script>window.hacked="script"</script>',
    "<img src=x onerror=\"window.hacked='img'\">",
    "'\"><svg onload=window.hacked=1>",
    "line\nbreak\u202egpj.exe",
    "${window.hacked=1} {{ 7 * 7 }} <!-- &lt;b&gt;",
    "\u2028 caf\u00e9 \udcff",
    "</script x",
    "<!--<script x",
]
PICTURE_AT = """canvas => [...canvas.getContext("2d").getImageData(0, 0, 16, 16).data]"""


def digits(n_samples=200):
    """Return images of 16 by 16 pixels in color, their labels and features."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:n_samples], y[:n_samples]
    gray = np.repeat(np.repeat(X.reshape(-1, 8, 8) * 15.9, 2, axis=1), 2, axis=2)
    colored = np.stack([gray, np.broadcast_to(y[:, None, None] * 25, gray.shape), gray], axis=-1)
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in colored], y, X


def map_points(**changes):
    images, y, X = digits()
    predictions = np.where(np.arange(len(y)) % 9, y, (y + 1) % 10)
    parts = {
        "xy": project(X).xy,
        "names": [f"digits/{i:03}.png" for i in range(len(y))],
        "colorings": {
            "label": [f"digit {label}" for label in y],
            "fold": [str(i % 5) for i in range(len(y))],
            "mistake": ["right" if same else "wrong" for same in predictions == y],
            "loss": np.linspace(0, 3, len(y)),
        },
        "muted": {"mistake": "right"},
        "tiles": Atlas.pack(enumerate(images), len(y)),
    }
    return MapPoints(**parts | changes)


def write_page(path, points):
    head_html, body_html = embedding_map(points)
    page = f"<!doctype html><html lang=en><head><meta charset=utf-8><title>Map</title>{head_html}"
    path.write_text(f"{page}</head><body>{body_html}</body></html>", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def digits_page(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("map") / "map.html", map_points())


@pytest.fixture
def open_map(opened):
    def open_ready(path, **options):
        page = opened(path, **options)
        page.wait_for_selector("#featx-map[data-is-ready]")
        return page

    return open_ready


def lone_row(page):
    """Return a row without a neighbor that the pointer could hit too, and its place on screen."""
    row, x, y = page.evaluate("""() => {
        const map = window.featxMap, at = map.shown.map((row) => [row, ...map.pixel(row)]);
        const distance = ([, x, y], [, u, v]) => Math.hypot(u - x, v - y) || 1e9;
        const gap = (each) => Math.min(...at.map((other) => distance(each, other)));
        return at.reduce((best, each) => gap(each) > gap(best) ? each : best);
    }""")
    box = page.locator("#featx-map-plot").bounding_box()
    return row, (box["x"] + x, box["y"] + y)


def legend_boxes(page):
    return page.locator("#featx-map-legend").get_by_role("checkbox")


def n_drawn(page):
    return page.evaluate("window.featxMap.points.data.x.length")


def assert_shows_picture(canvas, row):
    canvas.and_(canvas.page.locator("[data-is-drawn]")).wait_for(state="attached")
    pixels = np.array(canvas.evaluate(PICTURE_AT)).reshape(16, 16, 4)[..., :3]
    errors = [np.abs(pixels.astype(float) - np.asarray(image)).mean() for image in digits()[0]]
    assert np.argmin(errors) == row


def test_hover_shows_picture_name_and_label(open_map, digits_page):
    page = open_map(digits_page)
    row, place = lone_row(page)
    page.mouse.move(*place)
    tip = page.locator("#featx-map-tip")
    tip.wait_for()
    assert_shows_picture(tip.locator("canvas"), row)
    label = f"digit {digits()[1][row]}"
    assert f"digits/{row:03}.png" in tip.inner_text()
    assert tip.locator("dd").first.inner_text() == label
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")


def test_hover_over_close_points_shows_the_nearest(open_map, tmp_path):
    xy = np.array([[0, 0], [1, 1], [0.5, 0.5], [0.506, 0.5]])
    points = MapPoints(xy, ["low", "high", "left", "right"], {"label": ["a"] * 4})
    page = open_map(write_page(tmp_path / "close.html", points))
    box = page.locator("#featx-map-plot").bounding_box()
    (left, y), (right, _) = page.evaluate("[2, 3].map((row) => window.featxMap.pixel(row))")
    assert 2 < right - left < 5
    for x, name in [(left - 1, "left"), (right + 1, "right"), (left, "left")]:
        page.mouse.move(box["x"] + x, box["y"] + y)
        page.locator("#featx-map-tip").get_by_text(name, exact=True).wait_for()


def test_click_keeps_card_of_point(open_map, digits_page):
    page = open_map(digits_page)
    row, place = lone_row(page)
    page.mouse.click(*place)
    card = page.locator("#featx-map-card")
    card.get_by_text(f"digits/{row:03}.png", exact=True).wait_for()
    assert_shows_picture(card.locator("canvas"), row)
    assert card.get_attribute("aria-live") == "polite"
    assert card.get_by_role("img").get_attribute("aria-label") == f"Picture of digits/{row:03}.png"
    assert page.locator("img").get_attribute("alt").startswith("Map of 200 images")


def test_unchecked_category_removes_its_points(open_map, digits_page):
    page = open_map(digits_page)
    n_threes = int((digits()[1] == 3).sum())
    page.get_by_label("digit 3").uncheck()
    assert n_drawn(page) == 200 - n_threes
    page.get_by_label("Color by").select_option(label="mistake")
    page.get_by_label("right").uncheck()
    shown = page.evaluate("window.featxMap.points.data.row")
    assert sorted(shown) == [i for i in range(0, 200, 9) if digits()[1][i] != 3]
    wrong = page.get_by_role("listitem").filter(has_text="wrong")
    wrong.hover()
    wrong.get_by_role("button", name="only").click()
    assert page.evaluate("window.featxMap.points.data.row") == shown
    assert "filtered by label, mistake" in page.get_by_role("status").first.inner_text()
    page.get_by_role("button", name="Show all images").click()
    assert n_drawn(page) == 200
    assert page.get_by_label("right").is_checked()


def test_coloring_changes_colors_and_legend(open_map, digits_page):
    page = open_map(digits_page)
    colors = {}
    for name, n_entries in {"label": 10, "fold": 5, "mistake": 2, "loss": 5}.items():
        page.get_by_label("Color by").select_option(label=name)
        assert legend_boxes(page).count() == n_entries
        data = page.evaluate("window.featxMap.points.data")
        pairs = zip(data["color"], data["marker"], strict=True)
        colors[name] = len(set(pairs))
    assert colors == {"label": 10, "fold": 5, "mistake": 2, "loss": 32}


def test_keyboard_reaches_search_legend_and_card(open_map, digits_page):
    page = open_map(digits_page)
    page.get_by_label("Color by").focus()
    page.keyboard.press("Tab")
    page.keyboard.type("digits/12")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    card = page.get_by_role("region", name="Card")
    assert "digits/123.png" in card.inner_text()
    assert page.evaluate("document.activeElement.id") == "featx-map-card"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert n_drawn(page) == 0
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert n_drawn(page) == (digits()[1] == 0).sum()


def test_arrow_keys_move_from_point_to_point(open_map, digits_page):
    page = open_map(digits_page)
    plot = page.get_by_role("application")
    plot.focus()
    page.keyboard.press("ArrowRight")
    start = page.evaluate("window.featxMap.data.x[window.featxMap.cursor]")
    page.keyboard.press("ArrowRight")
    row, x = page.evaluate(
        "[window.featxMap.cursor, window.featxMap.data.x[window.featxMap.cursor]]"
    )
    assert x > start
    assert f"digits/{row:03}.png" in page.get_by_role("status").first.inner_text()
    page.keyboard.press("Enter")
    assert f"digits/{row:03}.png" in page.locator("#featx-map-card").inner_text()


def test_keys_and_wheel_zoom_the_plot(open_map, digits_page):
    page = open_map(digits_page)
    page.get_by_role("application").focus()
    page.keyboard.press("+")
    assert page.evaluate("window.featxMap.zoom") == 1.5
    page.keyboard.press("0")
    page.locator("#featx-map-plot").hover()
    page.evaluate("addEventListener('wheel', () => { window.isWheeled = true; })")
    page.mouse.wheel(0, -300)
    page.wait_for_function("window.isWheeled")
    assert page.evaluate("window.featxMap.zoom") == 1
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.wait_for_function("window.featxMap.zoom > 1.01")


def test_hostile_names_are_text_and_run_nothing(open_map, tmp_path):
    names = HOSTILE * 25
    points = map_points(
        names=names,
        colorings={HOSTILE[1]: names, HOSTILE[-1]: ["1"] * 200},
        details=[[name] for name in names],
        caption=HOSTILE[0],
        muted={},
    )
    page = open_map(write_page(tmp_path / "hostile.html", points))
    page.get_by_label("Find", exact=True).fill("onerror")
    page.get_by_role("button", name="onerror").first.click()
    _, place = lone_row(page)
    page.mouse.move(*place)
    page.locator("#featx-map-tip").wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#featx-map img, svg[onload]").count() == 0
    assert HOSTILE[1] in page.locator("#featx-map-card").inner_text()
    assert r"line\nbreak\u202egpj.exe" in page.locator("#featx-map-legend").inner_text()


def test_dark_page_has_light_text(open_map, digits_page):
    page = open_map(digits_page)
    assert shades(page) == ("dark", "light")
    colors = set(page.evaluate("window.featxMap.points.data.color"))
    page.emulate_media(color_scheme="dark")
    assert shades(page) == ("light", "dark")
    text = "getComputedStyle(document.querySelector('#featx-map')).getPropertyValue('--featx-ink')"
    page.wait_for_function(f"window.featxMap.points.data.color.includes({text})")
    assert len(colors ^ set(page.evaluate("window.featxMap.points.data.color"))) == 2


def shades(page):
    """Return whether text and plot are light or dark."""
    style = "selector => getComputedStyle(document.querySelector(selector))"
    colors = [
        page.evaluate(f"({style})('#featx-map').color"),
        page.evaluate(f"({style})('#featx-map-plot').backgroundColor"),
    ]
    means = [np.mean([int(part) for part in color.strip("rgb()").split(",")]) for color in colors]
    return tuple("dark" if mean < 60 else "light" if mean > 195 else mean for mean in means)


def test_print_shows_still_picture_without_controls(open_map, digits_page):
    page = open_map(digits_page, viewport={"width": 360, "height": 740})
    assert not page.locator(".featx-map-still").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".featx-map-still img").is_visible()
    assert not page.get_by_label("Color by").is_visible()
    assert page.locator(".featx-map-still").inner_text().count("digit") == 10


def test_pictures_replace_points_where_they_fit(open_map, digits_page):
    page = open_map(digits_page, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360  # none sideways
    page.get_by_label("Pictures").check()
    page.wait_for_function("window.featxMap.pictured.length > 10")
    places = np.array(page.evaluate("featxMap.pictured.map((row) => featxMap.pixel(row))"))
    apart = np.abs(places[:, np.newaxis] - places).max(axis=-1)
    assert apart[~np.eye(len(places), dtype=bool)].min() >= 48
    painted = """() => {
        const canvas = document.getElementById("featx-map-pictures");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 === 3 && value).length / (data.length / 4);
    }"""
    page.wait_for_function(f"({painted})() > 0.1")
    box = page.locator("#featx-map-plot").bounding_box()
    page.mouse.move(box["x"] + places[0, 0] + 15, box["y"] + places[0, 1] - 15)
    row = page.evaluate("window.featxMap.pictured[0]")
    page.locator("#featx-map-tip").get_by_text(f"digits/{row:03}.png").wait_for()


def test_page_without_scripts_shows_still_picture(opened, digits_page):
    page = opened(digits_page, java_script_enabled=False)
    assert page.locator(".featx-map-still img").is_visible()
    assert not page.locator("#featx-map").is_visible()


def test_many_categories_share_grey_and_are_found(open_map, tmp_path):
    names = [f"class {i % 100}" for i in range(200)]
    points = map_points(colorings={"label": names}, muted={})
    page = open_map(write_page(tmp_path / "many.html", points))
    data = page.evaluate("window.featxMap.points.data")
    assert len(set(zip(data["color"], data["marker"], strict=True))) == N_STYLES + 1
    assert f"{100 - N_STYLES} others (144)" in page.locator(".featx-map-still").text_content()
    page.get_by_label("Find in the legend").fill("class 77")
    assert legend_boxes(page).count() == 1
    page.get_by_role("button", name="None", exact=True).click()
    page.get_by_label("class 77").check()
    assert sorted(page.evaluate("window.featxMap.points.data.row")) == [77, 177]


def test_rows_without_embedding_or_picture_are_shown_as_such(open_map, tmp_path):
    xy = project(digits()[2]).xy
    xy[5] = np.nan
    images = [(i, image if i != 5 else None) for i, image in enumerate(digits()[0])]
    points = map_points(xy=xy, tiles=Atlas.pack(images, 200))
    page = open_map(write_page(tmp_path / "missing.html", points))
    assert n_drawn(page) == 199
    assert "1 of 200 images have no embedding" in page.locator(".featx-map-caption").inner_text()
    page.get_by_label("Find", exact=True).fill("digits/005")
    page.get_by_role("button", name="digits/005.png").click()
    assert "no picture" in page.locator("#featx-map-card").inner_text()


def test_numbers_become_ranges_at_one_place(open_map, tmp_path):
    losses = np.array([0.0] * 100 + [np.nan] * 50 + [1.5] * 50)
    points = map_points(colorings={"loss": losses}, xy=np.zeros((200, 2)), muted={})
    page = open_map(write_page(tmp_path / "map.html", points))
    entries = page.locator("#featx-map-categories span").all_inner_texts()
    assert entries == ["0.00 to 1.50", "missing"]
    page.get_by_label("missing").uncheck()
    assert n_drawn(page) == 150


@pytest.mark.parametrize(
    ("values", "entries"),
    [
        ([1.0] * 5, ["1.00 to 1.00"]),
        ([np.nan] * 5, ["missing"]),
        ([], []),
        ([-2e9, 0, 0, 0, 3e9], ["-2e+09 to -4e+08", "-4e+08 to 0", "0 to 6e+08", "6e+08 to 3e+09"]),
        ([1e-9, 2e-9], ["1e-09 to 1.2e-09", "1.2e-09 to 1.4e-09", "1.4e-09 to 1.6e-09"]),
        (
            np.arange(200) - 100.0,
            ["-100 to -60", "-60 to -20", "-20 to 19", "19 to 59", "59 to 99"],
        ),
    ],
)
def test_ranges_are_short_numbers(values, entries):
    n_values = len(values)
    points = MapPoints(np.zeros((n_values, 2)), ["a.png"] * n_values, {"loss": np.array(values)})
    (coloring,) = page_data(points)["colorings"]
    assert coloring["categories"][: len(entries)] == entries


def page_data(points):
    """Return the data of a map that its script reads."""
    _, body_html = embedding_map(points)
    return json.loads(re.search(r'id="featx-map-data">(.*?)</script>', body_html)[1])


def test_categories_are_in_natural_order():
    points = MapPoints(
        np.eye(3)[:, :2], list("abc"), {"fold": ["10", "2", "b"]}, muted={"fold": "b"}
    )
    (coloring,) = page_data(points)["colorings"]
    assert coloring["categories"] == ["2", "10", "b"]
    assert coloring["styles"] == [3, 4, None]


def test_map_points_of_wrong_length_are_all_named():
    points = map_points(names=["one"], details=[[]] * 3)
    with pytest.raises(InputError) as raised:
        embedding_map(points)
    for part in ("xy has shape", "colorings['label']", "colorings['loss']", "details", "tiles"):
        assert part in str(raised.value)


def test_map_without_colorings_raises_input_error():
    with pytest.raises(InputError, match="colorings is empty"):
        embedding_map(map_points(colorings={}))


def test_still_picture_shows_the_points():
    _, body_html = embedding_map(map_points())
    encoded = re.search(r'src="data:image/webp;base64,(.*?)"', body_html)[1]
    still = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert still.size == (1200, 800)
    assert 0.005 < (np.asarray(still.convert("L")) < 200).mean() < 0.5
