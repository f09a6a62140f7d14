// The map: like images lie close together. A box chosen on it filters the grid; the image in focus has a ring on it.

import { count, get, here } from "../base.js";

const byId = (id) => document.getElementById(id);
const NEAR_PX = 9;
/** Part of the side that stays free around the points. */
const MARGIN = 0.05;

export class ImageMap {
  #project;
  #filters;
  #canvas = byId("map");
  #points = [];
  #at = new Map();
  #scale = 1;
  #middle = [0, 0];
  #span = 2;
  #drag = null;
  #focus = null;
  #frame = 0;
  #opened = false;
  #open;
  #select;

  /** `open(hash)` shows an image in the grid, `select(hashes)` selects those inside a lasso. */
  constructor(project, filters, { open, select }) {
    this.#project = project;
    this.#filters = filters;
    this.#open = open;
    this.#select = select;
    byId("map-in").addEventListener("click", () => this.#zoom(1.5));
    byId("map-out").addEventListener("click", () => this.#zoom(1 / 1.5));
    byId("map-all").addEventListener("click", () => this.#all());
    byId("map-colour").addEventListener("change", () => this.draw());
    const canvas = this.#canvas;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => (byId("map-tip").hidden = true));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    document.addEventListener("themechange", () => this.draw());
  }

  /** Loads the points when it is opened first, or again if `anew`. */
  async load(anew = false) {
    if (this.#opened && !anew) return this.draw();
    this.#opened = true;
    const { points } = await get(here("api/map"));
    this.#points = points;
    this.#at = new Map(points.map((point, index) => [point[3], index]));
    // Of very many images the map shows a part, drawn at random.
    const all = this.#project.data.counts.distinct ?? points.length;
    const number = points.length < all ? `${count(points.length)} of ${count(all)} images, drawn at random.` : `${count(points.length)} images.`;
    byId("map-note").textContent = points.length
      ? `${number} Draw a box to show only what lies in it, or a lasso to select. With the keyboard, the cluster filter does the same.`
      : "There is no map yet: it is drawn when images are clustered.";
    this.#fit();
    return this.draw();
  }

  /** Takes labels in: `[hash, code]`. */
  learn(pairs) {
    for (const [hash, code] of pairs) {
      const index = this.#at.get(hash);
      if (index !== undefined) this.#points[index][4] = code;
    }
    this.draw();
  }

  /** Rings an image. */
  focus(hash) {
    this.#focus = hash;
    this.draw();
  }

  draw() {
    if (this.#frame || !this.#opened) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #fit() {
    let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const [x, y] of this.#points) {
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
    }
    if (this.#points.length === 0) [left, right, top, bottom] = [-1, 1, -1, 1];
    this.#middle = [(left + right) / 2, (top + bottom) / 2];
    this.#span = Math.max(right - left, bottom - top, 1e-6) * (1 + 2 * MARGIN);
    this.#scale = 1;
  }

  #all() {
    this.#fit();
    this.#filters.set({ box: undefined });
    this.draw();
  }

  /** Pixels of one unit. */
  get #unit() {
    return (Math.min(this.#canvas.clientWidth, this.#canvas.clientHeight) / this.#span) * this.#scale;
  }

  #toScreen(x, y) {
    return [
      this.#canvas.clientWidth / 2 + (x - this.#middle[0]) * this.#unit,
      this.#canvas.clientHeight / 2 + (y - this.#middle[1]) * this.#unit,
    ];
  }

  #toMap(x, y) {
    return [
      (x - this.#canvas.clientWidth / 2) / this.#unit + this.#middle[0],
      (y - this.#canvas.clientHeight / 2) / this.#unit + this.#middle[1],
    ];
  }

  #paint() {
    const canvas = this.#canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (width === 0) return;
    const sharp = devicePixelRatio || 1;
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    const pen = canvas.getContext("2d");
    pen.scale(sharp, sharp);
    const style = getComputedStyle(document.documentElement);
    const dark = getComputedStyle(canvas).colorScheme === "dark" || style.getPropertyValue("--paper").trim() === "#121614";
    const byLabel = byId("map-colour").value === "label";
    const none = style.getPropertyValue("--line-strong").trim();
    const side = Math.max(2.5, Math.min(7, 2.5 * Math.sqrt(this.#scale)));
    const colours = new Map();
    const colourOf = (point) => {
      const key = byLabel ? point[4] : point[2];
      if (!colours.has(key)) colours.set(key, byLabel ? this.#project.colourOf(key) ?? none : clusterColour(key, dark) ?? none);
      return colours.get(key);
    };
    for (const point of this.#points) {
      const [x, y] = this.#toScreen(point[0], point[1]);
      if (x < -8 || y < -8 || x > width + 8 || y > height + 8) continue;
      pen.fillStyle = colourOf(point);
      pen.fillRect(x - side / 2, y - side / 2, side, side);
    }
    this.#paintBox(pen, style);
    this.#paintLasso(pen, style);
    this.#paintFocus(pen, style);
  }

  #paintBox(pen, style) {
    const box = this.#drag?.box ?? this.#filters.values.box?.split(",").map(Number);
    if (!box || box.length !== 4 || box.some(Number.isNaN)) return;
    const [left, top] = this.#toScreen(box[0], box[1]);
    const [right, bottom] = this.#toScreen(box[2], box[3]);
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 2;
    pen.setLineDash([5, 3]);
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.setLineDash([]);
  }

  #paintLasso(pen, style) {
    if (this.#drag?.tool !== "lasso") return;
    pen.strokeStyle = style.getPropertyValue("--focus");
    pen.lineWidth = 2;
    pen.beginPath();
    for (const point of this.#drag.line) pen.lineTo(...this.#toScreen(...point));
    pen.closePath();
    pen.stroke();
  }

  #paintFocus(pen, style) {
    const point = this.#points[this.#at.get(this.#focus)];
    if (!point) return;
    const [x, y] = this.#toScreen(point[0], point[1]);
    for (const [colour, width] of [["--surface", 5], ["--focus", 2.5]]) {
      pen.strokeStyle = style.getPropertyValue(colour);
      pen.lineWidth = width;
      pen.beginPath();
      pen.arc(x, y, 8, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  #zoom(factor, x = this.#canvas.clientWidth / 2, y = this.#canvas.clientHeight / 2) {
    const before = this.#toMap(x, y);
    this.#scale = Math.min(60, Math.max(1, this.#scale * factor));
    const after = this.#toMap(x, y);
    this.#middle = [this.#middle[0] + before[0] - after[0], this.#middle[1] + before[1] - after[1]];
    this.draw();
  }

  #wheel(event) {
    event.preventDefault();
    this.#zoom(Math.exp(-event.deltaY * 0.002), event.offsetX, event.offsetY);
  }

  #down(event) {
    if (event.button !== 0) return;
    const tool = ["move", "lasso", "choose"].find((each) => byId(`map-${each}`).checked);
    const from = this.#toMap(event.offsetX, event.offsetY);
    this.#drag = { tool, x: event.offsetX, y: event.offsetY, from, far: false, line: [from] };
    this.#canvas.setPointerCapture(event.pointerId);
    byId("map-tip").hidden = true;
  }

  #move(event) {
    const drag = this.#drag;
    if (!drag) return this.#hover(event.offsetX, event.offsetY);
    if (Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y) > 4) drag.far = true;
    const now = this.#toMap(event.offsetX, event.offsetY);
    if (drag.tool === "lasso") drag.line.push(now);
    else if (drag.tool === "move") this.#middle = [this.#middle[0] + drag.from[0] - now[0], this.#middle[1] + drag.from[1] - now[1]];
    else drag.box = [Math.min(drag.from[0], now[0]), Math.min(drag.from[1], now[1]), Math.max(drag.from[0], now[0]), Math.max(drag.from[1], now[1])];
    return this.draw();
  }

  #up(event) {
    const drag = this.#drag;
    this.#drag = null;
    if (!drag) return;
    if (drag.far && drag.tool === "lasso") this.#select(this.#points.filter(([x, y]) => inside(x, y, drag.line)).map((point) => point[3]));
    else if (drag.far && drag.box) this.#filters.set({ box: drag.box.map((each) => each.toFixed(4)).join(",") });
    else if (!drag.far) {
      const point = this.#nearest(event.offsetX, event.offsetY);
      if (point) this.#open(point[3]);
    }
    this.draw();
  }

  #nearest(x, y) {
    let best = null;
    let nearest = NEAR_PX;
    for (const point of this.#points) {
      const [px, py] = this.#toScreen(point[0], point[1]);
      const distance = Math.hypot(px - x, py - y);
      if (distance < nearest) [best, nearest] = [point, distance];
    }
    return best;
  }

  #hover(x, y) {
    const tip = byId("map-tip");
    const point = this.#nearest(x, y);
    tip.hidden = !point;
    if (!point) return;
    byId("map-thumb").src = here(`t/${point[3]}.jpg`);
    byId("map-words").textContent = `cluster ${point[2]}, ${this.#project.nameOf(point[4])}`;
    const right = x + 150 > this.#canvas.clientWidth;
    const below = y + 170 > this.#canvas.clientHeight;
    tip.style.left = `${right ? x - 144 : x + 12}px`;
    tip.style.top = `${below ? Math.max(0, y - 165) : y + 12}px`;
  }
}

/** Whether a point lies inside a closed line: a ray from it crosses the line an odd number of times. */
function inside(x, y, line) {
  let odd = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i, i += 1) {
    const [[ax, ay], [bx, by]] = [line[i], line[j]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

/** Colours far from each other for neighbouring numbers: steps of the golden angle. */
function clusterColour(cluster, dark) {
  if (cluster === null || cluster === undefined) return null;
  return `hsl(${(cluster * 137.508) % 360} ${cluster % 2 ? 55 : 70}% ${dark ? 64 : 44}%)`;
}
