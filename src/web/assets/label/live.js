// What others do, as they do it. After a gap everything is read anew rather than guessed.

import { here } from "../base.js";

/** Many small changes by one person are told together. */
const TELL_MS = 2500;
const REFUSED_MS = 5000;

export class Live extends EventTarget {
  #source = null;
  #done = new Map();
  #timer = 0;

  /** Opens the connection; the browser opens it again when it breaks. */
  listen() {
    this.#source = new EventSource(here("api/events"));
    this.#source.addEventListener("message", ({ data }) => {
      const told = JSON.parse(data);
      this.dispatchEvent(new CustomEvent(told.event, { detail: told }));
    });
    this.#source.addEventListener("error", () => {
      // The browser comes back by itself and says what it heard last, but for a refusal: then the server may be starting.
      if (this.#source.readyState === EventSource.CLOSED) setTimeout(() => this.#again(), REFUSED_MS);
    });
  }

  #again() {
    this.listen();
    this.#source.addEventListener("open", () => this.dispatchEvent(new Event("reload")), { once: true });
  }

  /** Somebody else labelled some images: told after a while, all together. */
  tell(who, number) {
    this.#done.set(who, (this.#done.get(who) ?? 0) + number);
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      const done = [...this.#done];
      this.#done.clear();
      this.dispatchEvent(new CustomEvent("others", { detail: done }));
    }, TELL_MS);
  }
}
