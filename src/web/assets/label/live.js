// What others do, as they do it. After a gap everything is read anew rather than guessed.

import { here } from "../base.js";

/** Many small changes by one person are told together. */
const TELL_MS = 2500;

export class Live extends EventTarget {
  #source = null;
  #broken = false;
  #done = new Map();
  #timer = 0;

  /** Opens the connection; the browser opens it again when it breaks. */
  listen() {
    this.#source = new EventSource(here("api/events"));
    this.#source.addEventListener("open", () => {
      if (this.#broken) this.dispatchEvent(new Event("reload"));
      this.#broken = false;
    });
    this.#source.addEventListener("error", () => {
      this.#broken = true;
      // A refusal closes it for good; the server may be starting.
      if (this.#source.readyState === EventSource.CLOSED) setTimeout(() => this.listen(), 5000);
    });
    this.#source.addEventListener("message", (event) => this.#message(event));
    for (const name of ["reload", "labels", "classes", "job"]) this.#source.addEventListener(name, (event) => this.#message(event, name));
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

  #message(event, name) {
    let data = {};
    try {
      data = JSON.parse(event.data);
    } catch {
      // `reload` may come without anything.
    }
    this.dispatchEvent(new CustomEvent(data.event ?? name ?? "none", { detail: data }));
  }
}
