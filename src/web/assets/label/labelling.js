// Giving labels: to one image, to the selection, to a whole cluster; and taking it back.

import { ask } from "./ask.js";
import { images } from "./codes.js";

/** Above this many a question comes first. */
const MANY = 200;
/** Up to this many images an action names each; beyond, the range of the view. */
const NAMED = 2000;

export class Labelling extends EventTarget {
  #project;
  #view;
  #outbox;
  /** Who labelled what, as far as this page has seen. */
  #who = new Map();
  /** Images of this view whose labels have changed since it was made. */
  #changed = new Set();
  #changedUnseen = 0;

  /** `matches(code)` tells whether an image of that label belongs to what is shown. */
  constructor(project, view, outbox, matches) {
    super();
    this.matches = matches;
    this.#project = project;
    this.#view = view;
    this.#outbox = outbox;
    view.addEventListener("open", () => {
      this.#changed.clear();
      this.#changedUnseen = 0;
    });
    outbox.addEventListener("done", (event) => this.#done(event.detail));
    outbox.addEventListener("refused", (event) => {
      const { words } = event.detail;
      this.#say(`Not done: ${words}`, true);
      this.#project.refresh();
    });
  }

  /** The label to show at a place, and whether it still waits to be saved. */
  labelAt(index) {
    const row = this.#view.row(index);
    if (!row) return { code: null, saving: false };
    const waiting = this.#outbox.labelOf(row.h, index, this.#view.token);
    return waiting === undefined ? { code: row.l, saving: false } : { code: waiting, saving: true };
  }

  whoLabelled(hash) {
    return this.#who.get(hash);
  }

  /** How many images of the view no longer match its filters. */
  get stale() {
    let number = 0;
    for (const hash of this.#changed) {
      const index = this.#view.places(hash)[0];
      if (index !== undefined && !this.matches(this.labelAt(index).code)) number += 1;
    }
    return number + this.#changedUnseen;
  }

  /** Labels one image. Whether that was possible: not while it loads. */
  one(index, code, how) {
    const row = this.#view.row(index);
    if (!row) {
      this.#say("This image is still loading.");
      return false;
    }
    this.#send([[row, this.labelAt(index).code]], code, how);
    return true;
  }

  /** Labels the images of a selection, after a question if they are many. Whether it was done. */
  async selection(selection, code, how) {
    const { count, cluster, named, ranges } = selection;
    if (count > MANY && !(await this.#sure(count, code))) return false;
    if (cluster) {
      this.#sendRange(cluster.view, 0, cluster.count, code, how);
      return true;
    }
    if (named) {
      this.#sendNames([...named], code, how);
      return true;
    }
    const rows = count <= NAMED ? this.#loaded(ranges) : null;
    if (rows) this.#send(rows, code, how);
    else for (const [from, to] of ranges) this.#sendRange(this.#view.token, from, to, code, how);
    return true;
  }

  undo() {
    this.#back("api/undo", "Undo");
  }

  redo() {
    this.#back("api/redo", "Redo");
  }

  #back(path, words) {
    this.#outbox.add({ path, body: {} });
    if (this.#outbox.trouble) this.#say(`${words} waits for the server.`);
  }

  /** Takes in what the server says of some images: `[hash, code]`, at a version, by somebody. */
  learn(pairs, version, who) {
    for (const [hash, code] of pairs) {
      const was = this.#view.relabel(hash, code, version);
      if (was !== undefined) this.#project.move(was, code, version);
      if (who) this.#who.set(hash, who);
      this.#changed.add(hash);
    }
    this.dispatchEvent(new Event("change"));
  }

  #loaded(ranges) {
    const rows = [];
    for (const [from, to] of ranges) {
      for (let index = from; index < to; index += 1) {
        const row = this.#view.row(index);
        if (!row) return null;
        rows.push([row, this.labelAt(index).code]);
      }
    }
    return rows;
  }

  #sure(count, code) {
    const words = code === null
      ? `The labels of ${images(count)} are removed.`
      : `${images(count)} get the label “${this.#project.nameOf(code)}”, whatever label they have now.`;
    return ask(code === null ? "Remove labels?" : "Label all of them?", `${words} It can be undone.`, code === null ? "Remove" : "Label");
  }

  #send(rows, code, how) {
    const was = new Map();
    for (const [row, before] of rows) {
      was.set(before, (was.get(before) ?? 0) + 1);
      this.#changed.add(row.h);
      this.#who.set(row.h, this.#project.data.me);
    }
    const hashes = [...new Set(rows.map(([row]) => row.h))];
    const body = { images: hashes, label: code, how };
    this.#outbox.add({ path: "api/label", body, label: code, images: hashes, was: [...was], count: hashes.length });
    this.#told(hashes.length, code);
  }

  /** Images of the map, of which not all are loaded: what labels they had is not known. */
  #sendNames(hashes, code, how) {
    for (const hash of hashes) this.#changed.add(hash);
    this.#outbox.add({ path: "api/label", body: { images: hashes, label: code, how }, label: code, images: hashes, was: [], count: hashes.length });
    this.#told(hashes.length, code);
  }

  #sendRange(view, from, to, code, how) {
    this.#outbox.add({ path: "api/label", body: { view, from, to, label: code, how }, label: code, was: [], count: to - from });
    this.#told(to - from, code);
  }

  #told(number, code) {
    if (code === null) this.#say(`Label removed from ${images(number)}.`);
    else this.#say(`${images(number)} labelled ${this.#project.nameOf(code)}. ${this.#project.progressOf(code)}.`);
  }

  #done({ entry, answer }) {
    if (entry.path === "api/label") this.#labelled(entry, answer);
    else this.#undone(answer);
    this.#project.refresh();
  }

  #labelled(entry, answer) {
    if (entry.images) {
      this.learn(entry.images.map((hash) => [hash, entry.label]), answer.version, this.#project.data.me);
      return;
    }
    // Which images of the range were loaded is not kept: they are loaded anew, with the others.
    if (!this.matches(entry.label)) this.#changedUnseen += answer.changed;
    this.#view.forget();
    this.dispatchEvent(new Event("change"));
  }

  #undone(answer) {
    this.learn(answer.images, answer.version, null);
    // Very many are not named.
    if (answer.images.length < answer.count) this.#view.forget();
    this.#say(answer.words);
    this.dispatchEvent(new Event("change"));
  }

  #say(words, bad = false) {
    this.dispatchEvent(new CustomEvent("say", { detail: { words, bad } }));
  }
}
