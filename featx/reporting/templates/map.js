// The map of a report: what is drawn, the legend, the search and the card. All text of the data
// goes into the page as textContent, never as HTML.
(() => {
"use strict";

const N_FOUND = 30;
const PICTURE_PX = 48; // of a picture in the map, with the space around it
const NO_PICTURE = "no picture";
const PATHS = {
  circle: "M5.5 0a5.5 5.5 0 1 1-11 0 5.5 5.5 0 1 1 11 0z",
  square: "M-5-5h10v10h-10z",
  triangle: "M0-6 6 5h-12z",
  diamond: "M0-6.5 5.5 0 0 6.5-5.5 0z",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

const byId = (id) => document.getElementById(id);
const parsed = (id) => JSON.parse(byId(id).textContent);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Pictures: each sheet is decoded when one of its tiles is first shown.
class Tiles {
  constructor(tiles) {
    this.tiles = tiles;
    this.scripts = document.querySelectorAll(".featx-map-sheet");
    this.sheets = new Map();
  }

  sheet(number) {
    if (!this.sheets.has(number)) {
      const image = new Image();
      image.src = `data:image/webp;base64,${this.scripts[number].textContent}`;
      this.sheets.set(number, image.decode().then(() => image));
    }
    return this.sheets.get(number);
  }

  place(row) {
    const tile = this.tiles ? this.tiles.places[row] : -1;
    if (tile < 0) return null;
    const { px, n_columns: nColumns, sizes } = this.tiles;
    const within = tile % (nColumns * nColumns);
    return {
      sheet: Math.floor(tile / (nColumns * nColumns)),
      x: (within % nColumns) * px,
      y: Math.floor(within / nColumns) * px,
      width: sizes[2 * tile],
      height: sizes[2 * tile + 1],
    };
  }

  // Draw the picture of a row around a place, as large as fits into a square.
  async draw(context, row, [x, y], most, color) {
    const place = this.place(row);
    const image = await this.sheet(place.sheet);
    const scale = most / Math.max(place.width, place.height);
    const [width, height] = [place.width * scale, place.height * scale];
    const [left, top] = [Math.round(x - width / 2), Math.round(y - height / 2)];
    context.fillStyle = color;
    context.fillRect(left - 2, top - 2, width + 4, height + 4);
    context.drawImage(image, place.x, place.y, place.width, place.height, left, top, width, height);
  }

  // Return an element with the picture of a row, as large as fits into a square.
  picture(row, text, most) {
    const place = this.place(row);
    if (!place) return element("div", { class: "featx-map-none" }, NO_PICTURE);
    const { sheet, x, y, width, height } = place;
    const canvas = element("canvas", { width, height, ...(text ? { role: "img", "aria-label": text } : { "aria-hidden": "true" }) });
    const scale = most / Math.max(width, height);
    canvas.className = "featx-map-picture";
    canvas.style.width = `${Math.round(width * scale)}px`;
    canvas.style.height = `${Math.round(height * scale)}px`;
    canvas.dataset.row = row;
    this.sheet(sheet).then((image) => {
      canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
      canvas.dataset.isDrawn = "true";
    });
    return canvas;
  }
}

class EmbeddingMap {
  constructor(data) {
    this.data = data;
    this.tiles = new Tiles(data.tiles);
    this.coloring = data.colorings[0];
    this.hidden = new Map(data.colorings.map((coloring) => [coloring, new Set()]));
    this.matches = null; // rows that the search finds; null for no search
    this.stressed = null; // category under the pointer in the legend
    this.cursor = null; // row that the arrow keys reached
    this.pinned = null; // row whose card is shown
    this.shown = [];
    this.pictured = []; // rows whose pictures are in the plot
    this.center = [0, 0];
    this.zoom = 1;
    this.order = this.drawingOrder();
  }

  // An order without pattern, so that no class covers the others.
  drawingOrder() {
    const rows = this.data.x.map((_, row) => row).filter((row) => this.data.x[row] !== null);
    const key = (row) => Math.imul(row + 1, 2654435761) >>> 0;
    return rows.sort((a, b) => key(a) - key(b));
  }

  async start() {
    this.listen();
    this.makeLegend();
    await Bokeh.embed.embed_item(parsed("featx-map-plot-item"), "featx-map-canvas");
    const model = (name) => {
      const owner = Bokeh.documents.find((each) => each.get_model_by_name(name));
      return owner.get_model_by_name(name);
    };
    this.plot = model("featx-plot");
    this.points = model("featx-points");
    this.rings = model("featx-rings");
    this.dots = model("featx-dots");
    this.leaveFocusToPlot();
    new ResizeObserver(() => this.fit()).observe(byId("featx-map-plot"));
    for (const range of [this.plot.x_range, this.plot.y_range]) range.change.connect(() => this.onRange());
    this.fit();
    this.draw();
    byId("featx-map").dataset.isReady = "true"; // for tests
  }

  // Bokeh's own element takes the focus too, which would be a second stop for the tab key.
  leaveFocusToPlot() {
    const roots = [byId("featx-map-canvas")];
    for (const root of roots) {
      for (const each of root.querySelectorAll("*")) {
        if (each.shadowRoot) roots.push(each.shadowRoot);
        if (each.tabIndex === 0) [each.tabIndex, each.style.outline] = [-1, "none"];
      }
    }
  }

  // ---- which points, in which color ----

  style() {
    const css = getComputedStyle(byId("featx-map"));
    const value = (name) => css.getPropertyValue(`--featx-${name}`).trim();
    return {
      colors: [...this.data.palette, value("ink")],
      ink: value("ink"), grey: value("grey"), paper: value("paper"),
    };
  }

  look(row, style) {
    const { codes, styles, shades } = this.coloring;
    if (shades) return [shades[row] < 0 ? style.grey : this.data.scale[shades[row]], "circle"];
    const number = styles[codes[row]];
    if (number === null) return [style.grey, "circle"];
    const nColors = style.colors.length;
    return [style.colors[number % nColors], this.data.markers[Math.floor(number / nColors)]];
  }

  isShown(row) {
    for (const [coloring, hidden] of this.hidden) if (hidden.has(coloring.codes[row])) return false;
    return true;
  }

  isFaded(row) {
    if (this.stressed !== null) return this.coloring.codes[row] !== this.stressed;
    return this.matches !== null && !this.matches.has(row);
  }

  draw() {
    const { codes, styles, shades } = this.coloring;
    const style = this.style();
    const shown = this.order.filter((row) => this.isShown(row));
    const layer = (row) => this.isFaded(row) ? 0 : !shades && styles[codes[row]] === null ? 1 : 2;
    this.shown = [0, 1, 2].flatMap((number) => shown.filter((row) => layer(row) === number));
    const plain = byId("featx-map-with-pictures").checked ? 0.4 : 0.9;
    const looks = this.shown.map((row) => this.look(row, style));
    this.points.data = {
      x: this.shown.map((row) => this.data.x[row]),
      y: this.shown.map((row) => this.data.y[row]),
      color: looks.map(([color]) => color),
      marker: looks.map(([, marker]) => marker),
      line: this.shown.map(() => style.paper),
      alpha: this.shown.map((row) => this.isFaded(row) ? 0.12 : plain),
      row: this.shown,
    };
    this.drawRings(style);
    this.drawPictures();
    this.reportCount();
  }

  // Draw pictures in place of points, as many as lie apart from each other.
  drawPictures() {
    const canvas = byId("featx-map-pictures");
    canvas.hidden = !byId("featx-map-with-pictures").checked;
    this.pictured = [];
    cancelAnimationFrame(this.frame);
    if (!canvas.hidden) this.frame = requestAnimationFrame(() => this.drawPicturesNow(canvas));
  }

  drawPicturesNow(canvas) {
    const [width, height] = this.size();
    const style = this.style();
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const placed = [];
    this.pictured = [];
    const isFree = ([x, y]) => placed.every(([u, v]) => Math.max(Math.abs(u - x), Math.abs(v - y)) >= PICTURE_PX);
    for (const row of [...this.shown].reverse()) {
      const [x, y] = this.pixel(row);
      const isInside = x > 0 && y > 0 && x < width && y < height;
      if (!isInside || this.isFaded(row) || !this.tiles.place(row) || !isFree([x, y])) continue;
      placed.push([x, y]);
      this.pictured.push(row);
      this.tiles.draw(context, row, [x, y], PICTURE_PX - 8, this.look(row, style)[0]);
    }
  }

  // Draw once for all entries of the legend that the pointer crosses within a frame.
  drawSoon() {
    this.nextDraw ??= requestAnimationFrame(() => {
      this.nextDraw = null;
      this.draw();
    });
  }

  drawRings(style = this.style()) {
    const rows = [...new Set([this.pinned, this.cursor])].filter((row) => row !== null && this.data.x[row] !== null);
    this.rings.data = {
      x: rows.map((row) => this.data.x[row]),
      y: rows.map((row) => this.data.y[row]),
      color: rows.map(() => style.ink),
    };
  }

  reportCount() {
    const { noun } = this.data;
    const filters = [...this.hidden].filter(([, hidden]) => hidden.size).map(([coloring]) => coloring.name);
    const [n, all] = [this.shown.length, this.order.length].map((number) => number.toLocaleString("en"));
    const count = filters.length ? `${n} of ${all} ${noun} shown` : `All ${all} ${noun} shown`;
    byId("featx-map-status").textContent = filters.length ? `${count}, filtered by ${filters.join(", ")}` : count;
    byId("featx-map-reset").hidden = !filters.length;
  }

  // ---- zoom ----

  size() {
    const { clientWidth, clientHeight } = byId("featx-map-plot");
    return [Math.max(clientWidth, 1), Math.max(clientHeight, 1)];
  }

  // Half of the range of each axis at zoom 1: all points and a margin, with one unit for both axes.
  halves() {
    const extent = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0.05);
    this.extents ??= [extent(this.data.x), extent(this.data.y)];
    const sizes = this.size();
    const unitsPerPx = Math.max(...this.extents.map((most, axis) => 2 * most / Math.max(sizes[axis] - 56, 40)));
    return sizes.map((px) => unitsPerPx * px / 2);
  }

  fit() {
    const halves = this.halves();
    const [x, y] = this.center;
    this.isSetting = true;
    this.plot.x_range.setv({ start: x - halves[0] / this.zoom, end: x + halves[0] / this.zoom });
    this.plot.y_range.setv({ start: y - halves[1] / this.zoom, end: y + halves[1] / this.zoom });
    this.isSetting = false;
    this.resizeDots();
    this.drawPictures();
  }

  onRange() {
    if (this.isSetting) return;
    const { x_range: x, y_range: y } = this.plot;
    this.center = [(x.start + x.end) / 2, (y.start + y.end) / 2];
    this.zoom = 2 * this.halves()[0] / (x.end - x.start);
    this.hideTip();
    this.resizeDots();
    this.drawPictures();
  }

  resizeDots() {
    const plain = Math.min(10, Math.max(4.5, 26 / this.order.length ** 0.2));
    const size = plain * Math.min(2.2, Math.max(0.8, Math.sqrt(this.zoom)));
    if (Math.abs(this.dots.glyph.size.value - size) > 0.2) this.dots.glyph.size = { value: size };
  }

  zoomBy(factor) {
    this.zoom = Math.min(200, Math.max(0.5, this.zoom * factor));
    this.fit();
  }

  zoomToAll() {
    [this.center, this.zoom] = [[0, 0], 1];
    this.fit();
  }

  // Place of a row in the plot, in pixels from its upper left corner.
  pixel(row) {
    const { x_range: x, y_range: y } = this.plot;
    const [width, height] = this.size();
    return [
      (this.data.x[row] - x.start) / (x.end - x.start) * width,
      (y.end - this.data.y[row]) / (y.end - y.start) * height,
    ];
  }

  // ---- tip and card ----

  // The row of the picture or point at a place of the plot; null if there is none.
  rowAt({ sx, sy }) {
    const { x_range: xRange, y_range: yRange } = this.plot;
    const unit = (xRange.end - xRange.start) / this.size()[0];
    const [x, y] = [xRange.start + sx * unit, yRange.end - sy * unit];
    const distances = (row) => [Math.abs(this.data.x[row] - x), Math.abs(this.data.y[row] - y)];
    const pictured = this.pictured.find((row) => Math.max(...distances(row)) <= unit * PICTURE_PX / 2);
    if (pictured !== undefined) return pictured;
    let [best, least] = [null, unit * (this.dots.glyph.size.value / 2 + 3)];
    for (const row of this.shown) {
      const distance = Math.hypot(...distances(row));
      if (distance <= least) [best, least] = [row, distance];
    }
    return best;
  }

  hover(event) {
    const row = this.rowAt(event);
    byId("featx-map-canvas").style.cursor = row === null ? "" : "pointer";
    if (row === null) this.hideTip();
    else this.showTip(row);
  }

  tap(event) {
    const row = this.rowAt(event);
    if (row !== null) this.pin(row);
  }

  facts(row) {
    return this.data.colorings.map(({ name, categories, codes, values }) =>
      [name, values && values[row] !== null ? String(values[row]) : categories[codes[row]]]);
  }

  describe(row, most) {
    const { names, details } = this.data;
    const facts = element("dl", { class: "featx-map-facts" });
    for (const [name, value] of this.facts(row)) facts.append(element("dt", {}, name), element("dd", {}, value));
    const name = element("div", { class: "featx-map-name" }, names[row]);
    const parts = [this.tiles.picture(row, `Picture of ${names[row]}`, most), name, facts];
    if (details?.[row].length) {
      parts.push(element("ul", { class: "featx-map-more" }, ...details[row].map((line) => element("li", {}, line))));
    }
    return parts;
  }

  showTip(row) {
    const tip = byId("featx-map-tip");
    const isNew = tip.hidden || tip.dataset.row !== String(row);
    if (isNew) {
      tip.replaceChildren(...this.describe(row, 112));
      tip.dataset.row = row;
      tip.hidden = false;
    }
    const [x, y] = this.pixel(row);
    const [width, height] = this.size();
    const gap = this.pictured.includes(row) ? 30 : 14;
    const fits = x + gap + tip.offsetWidth <= width;
    tip.style.left = `${Math.max(4, fits ? x + gap : Math.min(x - gap, width - 4) - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(4, Math.min(y - tip.offsetHeight / 2, height - tip.offsetHeight - 4))}px`;
  }

  hideTip() {
    byId("featx-map-tip").hidden = true;
  }

  pin(row) {
    this.pinned = row;
    this.cursor = row;
    byId("featx-map-card").dataset.row = row;
    byId("featx-map-card").replaceChildren(...this.describe(row, 96));
    this.drawRings();
  }

  // ---- keys in the plot ----

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "+": () => this.zoomBy(1.5), "=": () => this.zoomBy(1.5), "-": () => this.zoomBy(1 / 1.5),
      "0": () => this.zoomToAll(), Enter: () => this.cursor !== null && this.pin(this.cursor),
      Escape: () => this.hideTip(),
    };
    const action = ARROWS[event.key] ? () => this.moveCursor(...ARROWS[event.key]) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  // Move to the nearest point in a direction, within 45 degrees of it.
  moveCursor(dx, dy) {
    if (!this.shown.length) return;
    const start = this.cursor !== null && this.data.x[this.cursor] !== null && this.isShown(this.cursor)
      ? this.cursor : null;
    const [x, y] = start === null ? this.center : [this.data.x[start], this.data.y[start]];
    let best = null;
    let least = Infinity;
    for (const row of this.shown) {
      const [right, up] = [this.data.x[row] - x, this.data.y[row] - y];
      const along = right * dx + up * dy;
      const across = Math.abs(right * dy) + Math.abs(up * dx);
      const distance = along + 2 * across;
      if ((start === null || (along > 0 && across <= along)) && row !== start && distance < least) {
        [best, least] = [row, start === null ? Math.hypot(right, up) : distance];
      }
    }
    if (best !== null) this.moveTo(best);
  }

  moveTo(row) {
    this.cursor = row;
    const [x, y] = this.pixel(row);
    const [width, height] = this.size();
    if (x < 8 || y < 8 || x > width - 8 || y > height - 8) {
      this.center = [this.data.x[row], this.data.y[row]];
      this.fit();
    }
    this.drawRings();
    this.showTip(row);
    const facts = this.facts(row).map(([name, value]) => `${name} ${value}`);
    byId("featx-map-status").textContent = [this.data.names[row], ...facts].join(", ");
  }

  // ---- legend ----

  makeLegend() {
    const { name, categories, codes, shades } = this.coloring;
    const counts = categories.map(() => 0);
    for (const code of codes) counts[code] += 1;
    byId("featx-map-legend-name").textContent = name;
    const find = byId("featx-map-legend-find");
    [find.hidden, find.value] = [categories.length <= 12, ""];
    byId("featx-map-categories").replaceChildren(
      ...categories.map((category, code) => this.legendEntry(category, code, counts[code])),
    );
    document.querySelector(".featx-map-scale")?.remove();
    if (shades) {
      const scale = element("div", { class: "featx-map-scale", "aria-hidden": "true" });
      scale.style.background = `linear-gradient(90deg, ${this.data.scale.join(",")})`;
      byId("featx-map-categories").before(scale);
    }
  }

  legendEntry(category, code, count) {
    const hidden = this.hidden.get(this.coloring);
    const box = element("input", { type: "checkbox" });
    box.checked = !hidden.has(code);
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(code);
      else hidden.add(code);
      this.draw();
    });
    const number = element("small", {}, count.toLocaleString("en"));
    const label = element("label", {}, box, this.swatch(code), element("span", {}, category), number);
    const only = element("button", { type: "button", tabindex: "-1", title: "Show only these" }, "only");
    only.addEventListener("click", () => this.showOnly((each) => each === code));
    const item = element("li", {}, label, only);
    const stress = (value) => () => { this.stressed = value; this.drawSoon(); };
    item.addEventListener("mouseenter", stress(code));
    item.addEventListener("mouseleave", stress(null));
    return item;
  }

  swatch(code) {
    const { styles, shades, codes } = this.coloring;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const nColors = this.data.palette.length + 1;
    const number = styles[code];
    let [color, marker] = ["var(--featx-grey)", "circle"];
    if (shades) {
      const own = shades.filter((shade, row) => codes[row] === code && shade >= 0).sort((a, b) => a - b);
      if (own.length) color = this.data.scale[own[Math.floor(own.length / 2)]];
    } else if (number !== null) {
      color = `var(--featx-${number % nColors})`;
      marker = this.data.markers[Math.floor(number / nColors)];
    }
    path.setAttribute("d", PATHS[marker]);
    path.style.fill = color;
    svg.setAttribute("viewBox", "-8 -8 16 16");
    svg.setAttribute("class", "featx-map-swatch");
    svg.setAttribute("aria-hidden", "true");
    svg.append(path);
    return svg;
  }

  // Show the categories of the coloring for which a function returns true.
  showOnly(isWanted) {
    const hidden = this.hidden.get(this.coloring);
    hidden.clear();
    this.coloring.categories.forEach((_, code) => { if (!isWanted(code)) hidden.add(code); });
    this.checkBoxes();
    this.draw();
  }

  checkBoxes() {
    const hidden = this.hidden.get(this.coloring);
    byId("featx-map-categories").querySelectorAll("input").forEach((box, code) => { box.checked = !hidden.has(code); });
  }

  findInLegend() {
    const wanted = byId("featx-map-legend-find").value.trim().toLowerCase();
    byId("featx-map-categories").querySelectorAll("li").forEach((item, code) => {
      item.hidden = !this.coloring.categories[code].toLowerCase().includes(wanted);
    });
  }

  // ---- search ----

  texts() {
    this.searchable ??= this.data.names.map((name, row) =>
      [name, ...this.facts(row).map(([, value]) => value)].join("\n").toLowerCase());
    return this.searchable;
  }

  find() {
    const wanted = byId("featx-map-find").value.trim().toLowerCase();
    const list = byId("featx-map-found");
    list.hidden = !wanted;
    const rows = wanted ? [...this.texts().keys()].filter((row) => this.texts()[row].includes(wanted)) : [];
    this.matches = wanted ? new Set(rows) : null;
    const { noun } = this.data;
    const found = rows.length === 1 ? `1 ${noun.slice(0, -1)}` : `${rows.length.toLocaleString("en")} ${noun}`;
    const count = rows.length > N_FOUND ? `${found}, of which the first ${N_FOUND}:` : found;
    list.replaceChildren(element("p", { role: "status" }, count), ...rows.slice(0, N_FOUND).map((row) => this.foundEntry(row)));
    this.draw();
  }

  // Arrow keys go through the list; enter in the field chooses the first.
  onFindKey(event) {
    const stops = [byId("featx-map-find"), ...byId("featx-map-found").querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1, Enter: 1 }[event.key];
    const next = stops[stops.indexOf(document.activeElement) + step];
    if (!step || !next || (event.key === "Enter" && document.activeElement !== stops[0])) return;
    event.preventDefault();
    if (event.key === "Enter") next.click();
    else next.focus();
  }

  foundEntry(row) {
    const facts = element("small", {}, this.facts(row).slice(0, 2).map(([name, value]) => `${name}: ${value}`).join(" · "));
    const text = element("span", {}, this.data.names[row], facts);
    return element("button", { type: "button", onclick: () => this.choose(row) }, this.tiles.picture(row, "", 28), text);
  }

  choose(row) {
    this.closeFound();
    this.pin(row);
    if (this.data.x[row] !== null) this.showTip(row);
    byId("featx-map-card").focus();
  }

  closeFound() {
    byId("featx-map-found").hidden = true;
  }

  // ---- events ----

  listen() {
    const on = (id, event, action) => byId(id).addEventListener(event, action);
    on("featx-map-color", "change", (event) => {
      this.coloring = this.data.colorings[event.target.value];
      this.stressed = null;
      this.makeLegend();
      this.draw();
    });
    on("featx-map-find", "input", () => this.find());
    on("featx-map-find", "focus", () => { if (byId("featx-map-find").value.trim()) byId("featx-map-found").hidden = false; });
    on("featx-map-with-pictures", "change", () => this.draw());
    on("featx-map-legend-find", "input", () => this.findInLegend());
    on("featx-map-plot", "keydown", (event) => this.onKey(event));
    on("featx-map-plot", "mouseleave", () => this.hideTip());
    on("featx-map-plot", "blur", () => this.hideTip());
    on("featx-map-reset", "click", () => {
      for (const hidden of this.hidden.values()) hidden.clear();
      this.checkBoxes();
      this.draw();
      byId("featx-map-plot").focus({ preventScroll: true });
    });
    on("featx-map", "keydown", (event) => { if (event.key === "Escape") this.closeFound(); });
    for (const id of ["featx-map-find", "featx-map-found"]) on(id, "keydown", (event) => this.onFindKey(event));
    document.addEventListener("pointerdown", (event) => {
      if (!event.target.closest(".featx-map-search")) this.closeFound();
    });
    const zooms = { in: () => this.zoomBy(1.5), out: () => this.zoomBy(1 / 1.5), all: () => this.zoomToAll() };
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => zooms[button.dataset.zoom]());
    }
    for (const button of document.querySelectorAll("[data-legend]")) {
      button.addEventListener("click", () => this.showOnly(() => button.dataset.legend === "all"));
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }
}

window.featxMap = new EmbeddingMap(parsed("featx-map-data"));
window.featxMap.start();
})();
