// Mouse, pen and finger on the grid: a click, a rubber band, a long press.

const DRAG_PX = 6;
const LONG_PRESS_MS = 450;
/** A second click on the same image so soon is a trembling hand, not a change of mind. */
const DOUBLE_MS = 350;
const EDGE_PX = 32;

/**
 * `handlers`: `click(index, event)`, `open(index)`, `toggle(index)`, `select(ranges, more)`.
 */
export class Pointing {
  #grid;
  #band;
  #handlers;
  #start = null;
  #press = 0;
  #pressed = false;
  #last = { index: -1, at: 0 };
  #before = [];

  constructor(grid, band, handlers) {
    this.#grid = grid;
    this.#band = band;
    this.#handlers = handlers;
    const { scroller } = grid;
    scroller.addEventListener("pointerdown", (event) => this.#down(event));
    scroller.addEventListener("pointermove", (event) => this.#move(event));
    scroller.addEventListener("pointerup", (event) => this.#up(event));
    scroller.addEventListener("pointercancel", () => this.#end());
    scroller.addEventListener("click", (event) => this.#click(event));
    scroller.addEventListener("dblclick", (event) => this.#double(event));
    scroller.addEventListener("contextmenu", (event) => {
      if (this.#pressed) event.preventDefault();
    });
    scroller.addEventListener("dragstart", (event) => event.preventDefault());
  }

  #down(event) {
    this.#pressed = false;
    // Beside the pictures is the scrollbar.
    const inside = event.offsetX <= this.#grid.scroller.clientWidth || event.target !== this.#grid.scroller;
    if (event.button !== 0 || !inside || event.target.closest("button")) return;
    if (event.pointerType === "touch") {
      const index = this.#grid.indexOf(event.target);
      clearTimeout(this.#press);
      if (index !== null) this.#press = setTimeout(() => this.#longPress(index), LONG_PRESS_MS);
      this.#start = { touch: true, x: event.clientX, y: event.clientY };
      return;
    }
    const at = this.#grid.pointAt(event.clientX, event.clientY);
    this.#start = { x: event.clientX, y: event.clientY, at, pointer: event.pointerId, more: event.ctrlKey || event.metaKey, band: false };
  }

  #move(event) {
    const start = this.#start;
    if (!start) return;
    const far = Math.hypot(event.clientX - start.x, event.clientY - start.y) > DRAG_PX;
    if (start.touch) {
      if (far) clearTimeout(this.#press);
      return;
    }
    if (!start.band) {
      if (!far) return;
      start.band = true;
      this.#before = start.more ? this.#handlers.ranges() : [];
      this.#grid.scroller.setPointerCapture(start.pointer);
    }
    start.now = { x: event.clientX, y: event.clientY };
    this.#stretch();
  }

  #stretch() {
    const start = this.#start;
    if (!start?.now) return;
    const now = this.#grid.pointAt(start.now.x, start.now.y);
    const left = Math.min(start.at.x, now.x);
    const right = Math.max(start.at.x, now.x);
    const top = Math.min(start.at.y, now.y);
    const bottom = Math.max(start.at.y, now.y);
    Object.assign(this.#band.style, {
      left: `${left}px`, width: `${right - left}px`, top: `${this.#grid.inSizer(top)}px`, height: `${bottom - top}px`,
    });
    this.#band.hidden = false;
    this.#handlers.select([...this.#before, ...this.#grid.within(left, top, right, bottom)]);
    this.#scrollAtEdge();
  }

  #scrollAtEdge() {
    const start = this.#start;
    const box = this.#grid.scroller.getBoundingClientRect();
    const over = Math.max(0, start.now.y - (box.bottom - EDGE_PX)) - Math.max(0, box.top + EDGE_PX - start.now.y);
    if (over === 0 || start.scrolling) return;
    start.scrolling = true;
    requestAnimationFrame(() => {
      start.scrolling = false;
      if (this.#start !== start) return;
      this.#grid.scrollBy(over / 2);
      this.#stretch();
    });
  }

  #up() {
    clearTimeout(this.#press);
    // The click that follows a band is part of it.
    if (this.#start?.band) {
      this.#pressed = true;
      setTimeout(() => (this.#pressed = false));
    }
    this.#end();
  }

  #end() {
    clearTimeout(this.#press);
    this.#band.hidden = true;
    this.#start = null;
  }

  #longPress(index) {
    this.#pressed = true;
    navigator.vibrate?.(15);
    this.#handlers.toggle(index);
  }

  #click(event) {
    if (this.#pressed) {
      this.#pressed = false;
      event.preventDefault();
      return;
    }
    const index = this.#grid.indexOf(event.target);
    if (index === null) {
      if (!event.target.closest("button")) this.#handlers.select([]);
      return;
    }
    if (event.target.closest(".cell-large")) {
      this.#handlers.open(index);
      return;
    }
    const now = performance.now();
    const again = index === this.#last.index && now - this.#last.at < DOUBLE_MS;
    this.#last = { index, at: now };
    if (!again) this.#handlers.click(index, event);
  }

  #double(event) {
    const index = this.#grid.indexOf(event.target);
    if (index !== null) this.#handlers.double(index);
  }
}
