// A scroll area of any height. Browsers cut elements off somewhere beyond ten million pixels, and a million images are higher.
//
// Up to that height the scrollbar's position is the position. Beyond it the bar is a map: a small movement moves by as many pixels,
// a large one (a dragged thumb, a click into the bar) goes to that part of the whole, and in rest the bar is set to where we are.

/** Highest element we make, in pixels; Firefox ends at 17.8 million. */
const HIGHEST = 12_000_000;
/** Without scrolling for so long, the bar is put right. */
const REST_MS = 160;

export class Scroll extends EventTarget {
  #scroller;
  #sizer;
  #height = 0;
  #top = 0;
  #bar = 0;
  #timer = 0;

  constructor(scroller, sizer) {
    super();
    this.#scroller = scroller;
    this.#sizer = sizer;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
  }

  /** Position in the whole, in pixels. */
  get top() {
    return this.#top;
  }

  /** Height of what is seen. */
  get seen() {
    return this.#scroller.clientHeight;
  }

  /** What is added to a position in the whole to get one in the element. */
  get shift() {
    return this.#bar - this.#top;
  }

  get #longest() {
    return Math.max(0, this.#height - this.seen);
  }

  get #barLongest() {
    return Math.max(0, Math.min(this.#height, HIGHEST) - this.seen);
  }

  /** The whole is that high now; stays at `top`. */
  size(height, top = this.#top) {
    this.#height = height;
    this.#sizer.style.height = `${Math.min(height, HIGHEST)}px`;
    this.to(top);
  }

  /** Goes to a position in the whole. */
  to(top) {
    this.#top = Math.min(Math.max(0, top), this.#longest);
    this.#set();
    this.dispatchEvent(new Event("move"));
  }

  #set() {
    const mapped = this.#height <= HIGHEST ? this.#top : (this.#top * this.#barLongest) / Math.max(1, this.#longest);
    this.#scroller.scrollTop = mapped;
    this.#bar = this.#scroller.scrollTop;
  }

  #scrolled() {
    const bar = this.#scroller.scrollTop;
    const moved = bar - this.#bar;
    if (moved === 0) return;
    this.#bar = bar;
    if (this.#height <= HIGHEST) this.#top = bar;
    else if (Math.abs(moved) < this.seen) this.#top = Math.min(Math.max(0, this.#top + moved), this.#longest);
    else this.#top = (bar * this.#longest) / Math.max(1, this.#barLongest);
    this.dispatchEvent(new Event("move"));
    if (this.#height <= HIGHEST) return;
    clearTimeout(this.#timer);
    // At an end of the bar there may be more of the whole: at once, so that nobody is stuck.
    if (bar <= 0 || bar >= this.#barLongest - 1) this.#putRight();
    else this.#timer = setTimeout(() => this.#putRight(), REST_MS);
  }

  #putRight() {
    this.#set();
    this.dispatchEvent(new Event("move"));
  }
}
