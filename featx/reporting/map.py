"""The interactive map of a report: embeddings in two dimensions, with their pictures.

Bokeh draws, moves and zooms the points. The legend, the search and the card are HTML, so that a
keyboard and a screen reader reach them (``map.html``, ``map.css``, ``map.js``). All data are in the
page; nothing is requested from elsewhere.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from featx._text import one_line
from featx._validation import InputFaults
from featx.reporting.rendering import html_template, text_of
from featx.reporting.thumbnails import Atlas

# Okabe and Ito (2008), "Color universal design", without yellow, which is too pale on white. Their
# black is the color of text, so that it is seen on a dark page too: it is the last of the seven.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
MARKERS = ("circle", "square", "triangle", "diamond")
N_STYLES = (len(PALETTE) + 1) * len(MARKERS)  # further categories share one
_INK, _PAPER, _GREY = "#1f2328", "#ffffff", "#8c939c"  # in print, as in map.css
_MOST_CHARS = 120  # of a name, category or detail, whose middle is left out
_MARKERS_OF_MATPLOTLIB = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}
_FIRST_BESIDE_MUTED = 3  # vermilion, the color that stands out most beside grey
_MISSING = "missing"
_N_RANGES = 5  # of numbers, in the legend
_N_SHADES = 32  # of a scale of colors
_SCALE = 0.3, 0.85  # part of the color map that is seen on white and on black
_STILL_INCHES, _STILL_DPI = (7.5, 5.0), 160


class MapParts(NamedTuple):
    """HTML of the map: what belongs into the head of a page, and into its body."""

    head_html: str
    body_html: str


@dataclass(frozen=True)
class MapPoints:
    """What the map shows of each sample.

    Attributes
    ----------
    xy : ndarray of shape (n, 2)
        Coordinates; a sample with NaN has no point.
    names : sequence of str
        Names by which a reader finds the files.
    colorings : mapping of str to sequence
        Ways to color the points, the first one at the start: n strings (categories), or n floats.
    details : sequence of sequences of str, optional
        Further lines of text for the card of each sample.
    tiles : Atlas, optional
        Thumbnails, in which a sample's place is that of its row.
    muted : mapping of str to str, optional
        The category of a coloring that is drawn in grey below the others, such as "right".
    caption : str, default=""
        A sentence on the axes.
    """

    xy: np.ndarray
    names: Sequence[str]
    colorings: Mapping[str, Sequence[Any] | np.ndarray]
    details: Sequence[Sequence[str]] | None = None
    tiles: Atlas | None = None
    muted: Mapping[str, str] = field(default_factory=dict)
    caption: str = ""

    def check(self) -> None:
        """Raise InputError with all that does not fit together."""
        faults = InputFaults()
        n_samples = len(self.names)
        if np.shape(self.xy) != (n_samples, 2):
            faults.messages.append(
                f"xy has shape {np.shape(self.xy)}: expected ({n_samples}, 2), for as many names"
            )
        if not self.colorings:
            faults.messages.append("colorings is empty: expected one or more")
        lengths = {f"colorings[{name!r}]": len(of) for name, of in self.colorings.items()}
        if self.details is not None:
            lengths["details"] = len(self.details)
        if self.tiles is not None:
            lengths["tiles.places"] = len(self.tiles.places)
        faults.messages += [
            f"{name} has {length} items: expected {n_samples}, one for each name"
            for name, length in lengths.items()
            if length != n_samples
        ]
        faults.raise_any()


@dataclass(frozen=True)
class _Coloring:
    """Categories of the samples, and a shade for each if they are ranges of numbers.

    `codes` is the category of each sample; `styles` the style of each category, None for grey;
    `values` are the numbers.
    """

    name: str
    categories: list[str]
    codes: np.ndarray
    styles: list[int | None]
    shades: np.ndarray | None = None
    values: list[str | None] | None = None

    @property
    def counts(self) -> list[int]:
        """Number of samples in each category."""
        return np.bincount(self.codes, minlength=len(self.categories)).tolist()

    def as_dict(self) -> dict[str, Any]:
        """Return what the page needs."""
        return {
            "name": self.name,
            "categories": self.categories,
            "codes": self.codes.tolist(),
            "styles": self.styles,
            "shades": None if self.shades is None else self.shades.tolist(),
            "values": self.values,
        }


def embedding_map(points: MapPoints) -> MapParts:
    """Return the map of samples as HTML that works without a network.

    Parameters
    ----------
    points : MapPoints

    Returns
    -------
    MapParts
        There may be one map in a page.

    Raises
    ------
    InputError
        The parts of `points` are of different lengths.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.reporting.map import MapPoints, embedding_map
    >>> points = MapPoints(np.eye(2), ["a.jpg", "b.jpg"], {"label": ["rose", "tulip"]})
    >>> head_html, body_html = embedding_map(points)
    >>> "a.jpg" in body_html, "<script>" in head_html
    (True, True)
    """
    points.check()
    colorings = [_coloring(name, of, points) for name, of in points.colorings.items()]
    xy = _normalized(points.xy)
    data = _data(points, xy, colorings)
    sheets = points.tiles.sheets if points.tiles else []
    has_point = np.isfinite(xy).all(axis=1)
    body = html_template("map.html").render(
        colorings=colorings,
        caption=one_line(points.caption),
        n_samples=len(xy),
        noun=data["noun"],
        n_missing=int((~has_point).sum()),
        palette=PALETTE,
        still=_still(xy[has_point], colorings[0], has_point),
        still_entries=_still_entries(colorings[0]),
        data=_safe_json(data),
        plot=_safe_json(_plot_item()),
        sheets=[base64.b64encode(sheet).decode() for sheet in sheets],
        script=text_of("map.js"),
    )
    head = html_template("map_head.html").render(
        style=text_of("map.css"), palette=PALETTE, bokeh=_bokeh_scripts()
    )
    return MapParts(head, body)


def _data(points: MapPoints, xy: np.ndarray, colorings: list[_Coloring]) -> dict[str, Any]:
    """Return all that the script of the page needs."""
    data: dict[str, Any] = {
        "x": _numbers(xy[:, 0]),
        "y": _numbers(xy[:, 1]),
        "noun": "samples" if points.tiles is None else "images",
        "names": [_short(name) for name in points.names],
        "colorings": [coloring.as_dict() for coloring in colorings],
        "palette": PALETTE,
        "markers": MARKERS,
        "scale": _scale(),
        "details": None,
        "tiles": None,
    }
    if points.details is not None:
        data["details"] = [[_short(line) for line in lines] for lines in points.details]
    if points.tiles is not None:
        data["tiles"] = {
            "px": points.tiles.tile_px,
            "n_columns": points.tiles.n_columns,
            "places": points.tiles.places.tolist(),
            "sizes": points.tiles.sizes.ravel().tolist(),
        }
    return data


def _normalized(xy: np.ndarray) -> np.ndarray:
    """Return coordinates from -1 to 1 with the same unit on both axes; NaN where one is missing."""
    xy = np.array(xy, dtype=np.float64)
    xy[~np.isfinite(xy).all(axis=1)] = np.nan
    finite = xy[np.isfinite(xy).all(axis=1)]
    if not len(finite):
        return xy
    low, high = finite.min(axis=0), finite.max(axis=0)
    half = (high / 2 - low / 2).max() or 1.0
    return (xy - (low / 2 + high / 2)) / half


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers to five digits as JSON has them; None for NaN."""
    return [None if np.isnan(value) else round(value, 5) for value in values.tolist()]


def _coloring(name: str, values: Any, points: MapPoints) -> _Coloring:
    """Return a coloring of categories, or of ranges for floats."""
    array = np.asarray(values)
    if np.issubdtype(array.dtype, np.floating):
        return _ranges(name, array.astype(np.float64))
    return _categories(name, [str(value) for value in values], points.muted.get(name))


def _categories(name: str, values: list[str], muted: str | None) -> _Coloring:
    """Return the coloring of categories; the most frequent ones have styles of their own."""
    found = sorted(set(values), key=_natural_order)
    index = {category: i for i, category in enumerate(found)}
    codes = np.array([index[value] for value in values], dtype=int)
    counts = np.bincount(codes, minlength=len(found))
    styled = [i for i in np.argsort(-counts, kind="stable").tolist() if found[i] != muted]
    styles: list[int | None] = [None] * len(found)
    first = _FIRST_BESIDE_MUTED if muted in index else 0
    for style, category in enumerate(sorted(styled[:N_STYLES]), start=first):
        styles[category] = style % N_STYLES
    return _Coloring(_short(name), [_short(category) for category in found], codes, styles)


def _ranges(name: str, values: np.ndarray) -> _Coloring:
    """Return the coloring of numbers: a scale of colors, and a few ranges of equal counts."""
    is_finite = np.isfinite(values)
    finite = values[is_finite]
    edges = _edges(finite)
    shown = _rounded(values)
    categories = [f"{low} to {high}" for low, high in pairwise(_rounded(np.array(edges)))]
    codes = np.full(len(values), len(categories))
    codes[is_finite] = np.searchsorted(edges[1:-1], finite, side="right")
    shades = np.full(len(values), -1)
    if len(finite):
        span = edges[-1] - edges[0] or 1.0
        shades[is_finite] = np.round((finite - edges[0]) / span * (_N_SHADES - 1))
    if not is_finite.all():
        categories.append(_MISSING)
    return _Coloring(_short(name), categories, codes, [None] * len(categories), shades, shown)


def _short(text: object) -> str:
    """Return text as a line that fits into the legend and the card."""
    return one_line(text, max_chars=_MOST_CHARS)


def _rounded(values: np.ndarray) -> list[str | None]:
    """Return numbers to three digits of the largest one as text; None for one that is missing."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0)
    n_decimals = 2 - int(np.floor(np.log10(largest))) if largest else 0
    if not 0 <= n_decimals <= 6:
        return [f"{value:.3g}" if np.isfinite(value) else None for value in values.tolist()]
    shown = np.round(values, n_decimals) + 0.0  # no -0
    return [f"{value:.{n_decimals}f}" if np.isfinite(value) else None for value in shown.tolist()]


def _edges(numbers: np.ndarray) -> list[float]:
    """Return the edges of ranges with about equal counts; none if there are no numbers."""
    if not len(numbers):
        return []
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _N_RANGES + 1))).tolist()
    return edges if len(edges) > 1 else edges * 2


def _natural_order(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts text as people do: 2 before 10."""
    parts = re.findall(r"\d+|\D+", text)
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts
    ] + [(2, 0, text)]


def _safe_json(data: Any) -> str:
    """Return JSON that a script element can hold: no ``</script>``, comment or line separator."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# ---- Bokeh ----


def _plot_item() -> Any:
    """Return the plot as JSON for Bokeh: its tools, and no points yet."""
    from bokeh.embed import json_item
    from bokeh.models import CustomJS, PanTool, Range1d, WheelZoomTool
    from bokeh.plotting import figure

    # Both axes have one unit, and the script sets the ranges by the shape of the plot.
    plot = figure(
        name="featx-plot",
        x_range=Range1d(start=-1, end=1),
        y_range=Range1d(start=-1, end=1),
        sizing_mode="stretch_both",
        toolbar_location=None,
        tools=[],
        min_border=0,
        lod_threshold=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    plot.scatter(
        "x",
        "y",
        source=_source("featx-points", ("x", "y", "color", "line", "marker", "alpha", "row")),
        marker="marker",
        size=6,
        fill_color="color",
        line_color="line",
        line_width=0.75,
        alpha="alpha",
        name="featx-dots",
    )
    plot.scatter(
        "x",
        "y",
        source=_source("featx-rings", ("x", "y", "color")),
        size=17,
        fill_color=None,
        line_color="color",
        line_width=2.5,
        name="featx-ring",
    )
    pan = PanTool()
    # A wheel without a key scrolls the page, also above the map.
    zoom = WheelZoomTool(modifiers="ctrl", maintain_focus=False)
    plot.add_tools(pan, zoom)
    plot.toolbar.active_drag = pan
    plot.toolbar.active_scroll = zoom
    plot.js_on_event("mousemove", CustomJS(code="window.featxMap?.hover(cb_obj)"))
    plot.js_on_event("tap", CustomJS(code="window.featxMap?.tap(cb_obj)"))
    return json_item(plot)


def _source(name: str, columns: Sequence[str]) -> Any:
    """Return a data source without rows, which the script finds by its name."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({column: [] for column in columns}, name=name)


@cache
def _bokeh_scripts() -> str:
    """Return Bokeh's own scripts as HTML, from the installed package."""
    from bokeh.resources import Resources

    return Resources(mode="inline", components=["bokeh"], log_level="error").render_js()


# ---- the still picture, for print and without JavaScript ----


def _still(xy: np.ndarray, coloring: _Coloring, has_point: np.ndarray) -> str:
    """Return the picture of all points as a data URI of WebP, without any text in it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_STILL_INCHES, dpi=_STILL_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    styles = np.array([-1 if style is None else style for style in coloring.styles])
    styles = styles[coloring.codes[has_point]]
    size = 22 if len(xy) < 1000 else 7
    for style in np.unique(styles):  # -1, which is grey, lies below the others
        at = styles == style
        color, marker = _look(None if style < 0 else int(style))
        colors = color if coloring.shades is None else _shades(coloring.shades[has_point][at])
        axes.scatter(
            xy[at, 0],
            xy[at, 1],
            s=size,
            c=colors,
            marker=_MARKERS_OF_MATPLOTLIB[marker],
            linewidths=0.2,
            edgecolors=_PAPER,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", facecolor=_PAPER, pil_kwargs={"quality": 80})
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _still_entries(coloring: _Coloring) -> list[dict[str, Any]]:
    """Return the legend of the still picture; categories that share grey are one entry."""
    entries: list[dict[str, Any]] = []
    for code, category in enumerate(coloring.categories):
        color, marker = _look(coloring.styles[code])
        if coloring.shades is not None:
            own = coloring.shades[coloring.codes == code]
            color = _shades(np.median(own, keepdims=True).astype(int))[0] if len(own) else color
        entries.append({"name": category, "color": color, "marker": marker})
    entries = [entry | {"count": n} for entry, n in zip(entries, coloring.counts, strict=True)]
    grey = [entry for entry in entries if entry["color"] == _GREY]
    if len(grey) < 2:
        return entries
    others = {"name": f"{len(grey)} others", "count": sum(entry["count"] for entry in grey)}
    return [entry for entry in entries if entry not in grey] + [grey[0] | others]


def _look(style: int | None) -> tuple[str, str]:
    """Return the color and the marker of a style in print."""
    if style is None:
        return _GREY, MARKERS[0]
    marker, color = divmod(style, len(PALETTE) + 1)
    return (*PALETTE, _INK)[color], MARKERS[marker]


@cache
def _scale() -> list[str]:
    """Return the colors of a scale of numbers, from the lowest to the highest."""
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    plasma = mpl.colormaps["plasma"]
    return [to_hex(plasma(value)) for value in np.linspace(*_SCALE, _N_SHADES)]


def _shades(shades: np.ndarray) -> list[str]:
    """Return the colors of shades; grey for a value that is missing."""
    return [_scale()[shade] if shade >= 0 else _GREY for shade in shades.tolist()]


# ---- files of the page ----
