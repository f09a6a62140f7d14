// The grid: only what is seen is in the page, whatever the length of the view. One image has the focus and is the only tab stop.

import { dropCell, makeCell, paintCell } from "./cell.js";
import { make } from "../base.js";
import { Scroll } from "./scroll.js";

const GAP = 6;
const EDGE = 12;
/** Rows made beyond what is seen, so that scrolling finds them there. */
const BEYOND = 2;
/** While the bar is dragged rows rush past; only those that stay are asked for. */
const STAYS_MS = 70;
/** Two images beside each other, however narrow the window, as long as each is at least so wide. */
const NARROWEST = 120;

export class Grid extends EventTarget {
  /** The image that has, or had last, the focus. */
  focus = 0;
  /** What scrolls. */
  scroller;
  #element;
  #view;
  #paint;
  #project;
  #scroll;
  #rows = new Map();
  #columns = 1;
  #side = 148;
  #pitch = 154;
  #width = 0;
  #frame = 0;
  #asking = 0;
  #asked = 0;

  /** `paint(index)` tells what a cell shows, see `paintCell`. */
  constructor({ element, scroller, sizer, view, project, paint }) {
    super();
    this.#element = element;
    this.scroller = scroller;
    this.#view = view;
    this.#project = project;
    this.#paint = paint;
    this.#scroll = new Scroll(scroller, sizer);
    this.#scroll.addEventListener("move", () => this.#soon());
    new ResizeObserver(() => this.layout()).observe(scroller);
    element.addEventListener("focusin", (event) => this.#focused(event));
    view.addEventListener("rows", () => this.refresh());
  }

  get columns() {
    return this.#columns;
  }

  get rowsSeen() {
    return Math.max(1, Math.floor(this.#scroll.seen / this.#pitch));
  }

  /** Places on screen: `[from, to)`. */
  get seen() {
    const top = Math.max(0, this.#scroll.top - EDGE);
    const first = Math.floor(top / this.#pitch);
    const last = Math.ceil((top + this.#scroll.seen) / this.#pitch);
    return [first * this.#columns, Math.min(this.#view.total, last * this.#columns)];
  }

  /** The pictures' side in pixels, about. */
  set side(side) {
    this.#side = side;
    this.layout();
  }

  /** A new view: from its beginning, or with `index` in sight. */
  show(index = 0) {
    this.focus = Math.min(index, Math.max(0, this.#view.total - 1));
    this.#clear();
    this.#measure();
    this.#scroll.size(this.#height, 0);
    this.reveal(this.focus);
    this.refresh();
  }

  /** Fits columns to the width, and keeps the first image seen where it is. */
  layout() {
    const first = this.seen[0];
    const pitch = this.#pitch;
    const within = this.#scroll.top - Math.floor(first / this.#columns) * pitch;
    if (!this.#measure()) return this.#soon();
    this.#clear();
    this.#scroll.size(this.#height, Math.floor(first / this.#columns) * this.#pitch + (within * this.#pitch) / pitch);
    return this.#soon();
  }

  /** Shows what has changed. */
  refresh() {
    this.#soon();
  }

  /** Scrolls only as far as needed. */
  reveal(index) {
    const top = EDGE + Math.floor(index / this.#columns) * this.#pitch;
    const { top: at, seen } = this.#scroll;
    if (top - EDGE < at) this.#scroll.to(top - EDGE);
    else if (top + this.#pitch + EDGE > at + seen) this.#scroll.to(top + this.#pitch + EDGE - seen);
  }

  /** Gives an image the focus, and shows it. */
  go(index, { focus = true } = {}) {
    if (this.#view.total === 0) return;
    const moved = this.focus;
    this.focus = Math.min(Math.max(0, index), this.#view.total - 1);
    this.reveal(this.focus);
    this.#draw();
    if (focus) this.#cell(this.focus)?.focus({ preventScroll: true });
    if (moved !== this.focus) this.dispatchEvent(new Event("focus"));
  }

  /** The place of the image that an element belongs to, or null. */
  indexOf(target) {
    const cell = target instanceof Element ? target.closest(".cell") : null;
    return cell && this.#element.contains(cell) ? cell.index : null;
  }

  /** A point of the window as a point of the whole grid. */
  pointAt(x, y) {
    const box = this.scroller.getBoundingClientRect();
    return { x: x - box.left, y: y - box.top + this.#scroll.top };
  }

  /** A point of the whole grid as a point in the scrolled element. */
  inSizer(y) {
    return y + this.#scroll.shift;
  }

  /** Ranges of places whose pictures a rectangle of the whole grid touches. */
  within(left, top, right, bottom) {
    const cellWidth = (this.#width - 2 * EDGE + GAP) / this.#columns;
    const column = (x) => Math.floor((x - EDGE) / cellWidth);
    const from = Math.max(0, column(left));
    const to = Math.min(this.#columns - 1, column(right));
    const firstRow = Math.max(0, Math.floor((top - EDGE) / this.#pitch));
    const lastRow = Math.floor((bottom - EDGE) / this.#pitch);
    const ranges = [];
    for (let row = firstRow; row <= lastRow && from <= to; row += 1) {
      const start = row * this.#columns;
      if (start + from >= this.#view.total) break;
      ranges.push([start + from, Math.min(this.#view.total, start + to + 1)]);
    }
    return ranges;
  }

  /** Scrolls by some pixels, as when a rubber band reaches the edge. */
  scrollBy(pixels) {
    this.#scroll.to(this.#scroll.top + pixels);
  }

  get #height() {
    return Math.ceil(this.#view.total / this.#columns) * this.#pitch + 2 * EDGE - GAP;
  }

  /** Whether columns or their width are others than before. */
  #measure() {
    const width = this.scroller.clientWidth;
    const room = width - 2 * EDGE + GAP;
    const least = room >= 2 * (NARROWEST + GAP) ? 2 : 1;
    const columns = Math.max(least, Math.floor(room / (this.#side + GAP)));
    const pitch = Math.max(16, room / columns);
    if (columns === this.#columns && pitch === this.#pitch && width === this.#width) return false;
    this.#columns = columns;
    this.#pitch = pitch;
    this.#width = width;
    return true;
  }

  #soon() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #clear() {
    for (const row of this.#rows.values()) this.#remove(row);
    this.#rows.clear();
  }

  #remove(row) {
    for (const cell of row.children) dropCell(cell);
    row.remove();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const [from, to] = this.seen;
    const first = Math.max(0, Math.floor(from / this.#columns) - BEYOND);
    const last = Math.min(Math.ceil(this.#view.total / this.#columns), Math.ceil(to / this.#columns) + BEYOND);
    const wanted = new Set();
    for (let row = first; row < last; row += 1) wanted.add(row);
    // The focused image stays in the page, or the focus would be lost.
    if (this.#view.total > 0) wanted.add(Math.floor(this.focus / this.#columns));
    for (const [number, row] of this.#rows) {
      if (wanted.has(number)) continue;
      this.#remove(row);
      this.#rows.delete(number);
    }
    this.#element.setAttribute("aria-rowcount", Math.ceil(this.#view.total / this.#columns));
    this.#element.setAttribute("aria-colcount", this.#columns);
    for (const number of [...wanted].sort((a, b) => a - b)) this.#drawRow(number);
    // A screen before and after too, so that paging finds it there.
    this.#ask(first * this.#columns - (to - from), last * this.#columns + (to - from));
    this.dispatchEvent(new Event("draw"));
  }

  #drawRow(number) {
    const row = this.#rows.get(number) ?? this.#makeRow(number);
    row.style.top = `${EDGE + number * this.#pitch + this.#scroll.shift}px`;
    for (const cell of row.children) {
      cell.tabIndex = cell.index === this.focus ? 0 : -1;
      paintCell(cell, this.#paint(cell.index), this.#project);
    }
  }

  #makeRow(number) {
    const row = make("div", { class: "row", role: "row", "aria-rowindex": String(number + 1) });
    row.style.height = `${this.#pitch - GAP}px`;
    row.style.gridTemplateColumns = `repeat(${this.#columns}, ${this.#pitch - GAP}px)`;
    const start = number * this.#columns;
    for (let index = start; index < Math.min(start + this.#columns, this.#view.total); index += 1) {
      const cell = makeCell();
      cell.index = index;
      cell.setAttribute("aria-colindex", String(index - start + 1));
      row.append(cell);
    }
    // In the order of the rows, as a screen reader walks through them.
    const after = [...this.#rows.keys()].filter((other) => other > number).sort((a, b) => a - b)[0];
    this.#element.insertBefore(row, after === undefined ? null : this.#rows.get(after));
    this.#rows.set(number, row);
    return row;
  }

  #cell(index) {
    const row = this.#rows.get(Math.floor(index / this.#columns));
    return row?.children[index % this.#columns];
  }

  #ask(from, to) {
    const ask = () => {
      clearTimeout(this.#asking);
      this.#asking = 0;
      this.#asked = performance.now();
      this.#view.want(from, to);
    };
    clearTimeout(this.#asking);
    // The first of a series at once, the others when they stay.
    if (performance.now() - this.#asked > STAYS_MS) ask();
    else this.#asking = setTimeout(ask, STAYS_MS);
  }

  #focused(event) {
    const index = this.indexOf(event.target);
    if (index === null || index === this.focus) return;
    this.focus = index;
    this.#soon();
    this.dispatchEvent(new Event("focus"));
  }
}
