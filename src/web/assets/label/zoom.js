// A picture that can be zoomed and moved: wheel, keys, two fingers, dragging.

const LARGEST = 16;
const DOUBLE = 2.5;

export class Zoom {
  #stage;
  #image;
  #scale = 1;
  #x = 0;
  #y = 0;
  #pointers = new Map();
  #swipe = null;

  /** `swiped(direction)` is called for a finger's swipe while the whole picture is seen. */
  constructor(stage, image, swiped) {
    this.#stage = stage;
    this.#image = image;
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.#up(event, swiped));
    stage.addEventListener("dblclick", (event) => {
      if (!event.target.closest("button")) this.by(this.#scale > 1 ? 1 / this.#scale : DOUBLE, event.clientX, event.clientY);
    });
  }

  get scale() {
    return this.#scale;
  }

  /** The whole picture. */
  fit() {
    this.#scale = 1;
    this.#x = 0;
    this.#y = 0;
    this.#show();
  }

  /** Larger or smaller by a factor; the point of the window (or the middle) stays where it is. */
  by(factor, x, y) {
    const box = this.#stage.getBoundingClientRect();
    const fromMiddle = [(x ?? box.left + box.width / 2) - box.left - box.width / 2, (y ?? box.top + box.height / 2) - box.top - box.height / 2];
    const scale = Math.min(LARGEST, Math.max(1, this.#scale * factor));
    const ratio = scale / this.#scale;
    this.#x = fromMiddle[0] - (fromMiddle[0] - this.#x) * ratio;
    this.#y = fromMiddle[1] - (fromMiddle[1] - this.#y) * ratio;
    this.#scale = scale;
    this.#show();
  }

  /** Moves the picture by some pixels. */
  pan(x, y) {
    this.#x += x;
    this.#y += y;
    this.#show();
  }

  #show() {
    // Not beyond its own edges.
    const box = this.#stage.getBoundingClientRect();
    const room = (side) => (side * (this.#scale - 1)) / 2;
    this.#x = Math.min(room(box.width), Math.max(-room(box.width), this.#x));
    this.#y = Math.min(room(box.height), Math.max(-room(box.height), this.#y));
    this.#image.style.transform = `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`;
    this.#stage.classList.toggle("zoomed", this.#scale > 1);
  }

  #wheel(event) {
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), event.clientX, event.clientY);
  }

  #down(event) {
    if (event.target.closest("button")) return;
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.#swipe = this.#pointers.size === 1 && event.pointerType === "touch" ? { x: event.clientX, y: event.clientY } : null;
    this.#stage.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, now);
    if (!other) {
      if (this.#scale > 1) this.pan(now.x - before.x, now.y - before.y);
      return;
    }
    this.#swipe = null;
    const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    this.by(distance(now) / Math.max(1, distance(before)), (now.x + other.x) / 2, (now.y + other.y) / 2);
  }

  #up(event, swiped) {
    this.#pointers.delete(event.pointerId);
    const swipe = this.#swipe;
    this.#swipe = null;
    if (!swipe || this.#scale > 1) return;
    const x = event.clientX - swipe.x;
    if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(event.clientY - swipe.y)) swiped(x < 0 ? 1 : -1);
  }
}
