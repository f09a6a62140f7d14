// Nothing that was done is lost: each action is kept in the browser before it is sent, until the server has written it down.
//
// An action has a number of its own (`request`), and the server takes the same number once only. So actions can be sent again
// without harm: after a failure, after the page was closed, or by another page of the same browser that finds them.

import { Failed, here, post, project } from "../base.js";

const PREFIX = `harvest:${project}:waiting:`;
const LONGEST_WAIT_MS = 15000;
const PATIENCE_MS = 30000;
/** Left by a page that is gone, if nobody has sent it for so long. */
const ORPHAN_MS = 15000;
/** A browser sends at most 64 KiB after the page is closed. */
const KEEPALIVE_CHARACTERS = 60000;
/** Answers that will not change by asking again. */
const FINAL = [400, 410, 413, 415, 422];

export class Outbox extends EventTarget {
  #entries = [];
  #order = 0;
  #draining = false;
  #wake = null;
  #storage = null;
  #trouble = null;

  constructor(storage) {
    super();
    this.#storage = storage;
    this.#adopt(0);
    setInterval(() => this.#adopt(ORPHAN_MS), ORPHAN_MS);
    addEventListener("online", () => this.now());
    addEventListener("beforeunload", (event) => {
      // Signing in again leads away and back; what waits stays here.
      if (this.#entries.length > 0 && this.#trouble?.status !== 401) event.preventDefault();
    });
  }

  /** Actions that are not saved yet, in order. */
  get entries() {
    return this.#entries;
  }

  /** `{ status, words, until, kept }` while sending fails, else null. */
  get trouble() {
    return this.#trouble;
  }

  /** Whether the browser keeps what waits. */
  kept = true;

  /**
   * Keeps an action, then sends it: `{ path, body, label?, images?, was?, count? }`. `images` and `label` say what to show
   * meanwhile, `was` how many images of each label change.
   */
  add(action) {
    const request = identifier();
    // Never before what waits already, whatever the clock says: the order is kept in the key.
    const at = Math.max(Date.now(), this.#entries.at(-1)?.at ?? 0);
    this.#order += 1;
    const key = `${PREFIX}${String(at).padStart(15, "0")}-${String(this.#order).padStart(6, "0")}-${request}`;
    const entry = { ...action, request, at, key, tries: 0 };
    this.#keep(entry);
    this.#entries.push(entry);
    this.#changed();
    this.send();
    return entry;
  }

  /** What the images' labels will be once all is saved: `label`, or undefined where nothing waits. */
  labelOf(hash, index, view) {
    for (let i = this.#entries.length - 1; i >= 0; i -= 1) {
      const { images, body, label } = this.#entries[i];
      if (label === undefined) continue;
      if (images ? images.includes(hash) : body.view === view && index >= body.from && index < body.to) return label;
    }
    return undefined;
  }

  /** By how much each label's count changes once all is saved. */
  differences() {
    const sums = new Map();
    const add = (code, number) => sums.set(code, (sums.get(code) ?? 0) + number);
    for (const { was, label } of this.#entries) {
      for (const [code, number] of was ?? []) {
        add(code, -number);
        add(label, number);
      }
    }
    return sums;
  }

  /** Stops waiting and tries at once. */
  now() {
    this.#wake?.();
    this.send();
  }

  /** Gives the first action up, which the server does not take. */
  discard() {
    const [entry] = this.#entries;
    if (!entry) return;
    this.#remove(entry);
    this.#trouble = null;
    this.dispatchEvent(new CustomEvent("refused", { detail: { entry, words: "given up." } }));
    this.#changed();
    this.now();
  }

  /** Sends what waits, one after the other, so that the order is kept. */
  async send() {
    if (this.#draining) return;
    this.#draining = true;
    while (this.#entries.length > 0) await this.#sendFirst(this.#entries[0]);
    this.#draining = false;
  }

  async #sendFirst(entry) {
    try {
      entry.tries += 1;
      const body = { request: entry.request, ...entry.body };
      const keepalive = JSON.stringify(body).length < KEEPALIVE_CHARACTERS;
      const answer = await post(here(entry.path), body, { keepalive, signal: AbortSignal.timeout(PATIENCE_MS) });
      this.#remove(entry);
      this.#trouble = null;
      this.dispatchEvent(new CustomEvent("done", { detail: { entry, answer } }));
      this.#changed();
    } catch (error) {
      if (error instanceof Failed && FINAL.includes(error.status)) {
        this.#remove(entry);
        this.dispatchEvent(new CustomEvent("refused", { detail: { entry, words: error.message } }));
        this.#changed();
        return;
      }
      await this.#wait(entry, error);
    }
  }

  async #wait(entry, error) {
    // Twice as long each time, and not all pages at the same moment.
    const pause = Math.min(LONGEST_WAIT_MS, 500 * 2 ** Math.min(entry.tries - 1, 6)) * (0.8 + 0.4 * Math.random());
    const words = error instanceof Failed ? error.message : "The server does not answer.";
    this.#trouble = { words, status: error.status ?? 0, until: Date.now() + pause };
    this.#changed();
    await new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, pause);
    });
    this.#wake = null;
  }

  /** Takes over what pages that are gone have left. */
  #adopt(age) {
    if (!this.#storage) return;
    const known = new Set(this.#entries.map((entry) => entry.key));
    const found = Object.keys(this.#storage).filter((key) => key.startsWith(PREFIX) && !known.has(key));
    for (const key of found) {
      try {
        const entry = JSON.parse(this.#storage.getItem(key));
        if (Date.now() - entry.at >= age) this.#entries.push({ ...entry, key, tries: 0 });
      } catch {
        // Sent and removed by its own page in this moment, or not ours.
      }
    }
    if (found.length === 0) return;
    this.#entries.sort((a, b) => (a.key < b.key ? -1 : 1));
    this.#changed();
    this.send();
  }

  #keep(entry) {
    const { key, tries, ...kept } = entry;
    try {
      this.#storage.setItem(key, JSON.stringify(kept));
    } catch {
      // Full or forbidden: it is sent all the same, and the page says that it must stay open.
      this.kept = false;
    }
  }

  #remove(entry) {
    this.#entries = this.#entries.filter((each) => each !== entry);
    this.#storage?.removeItem(entry.key);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** A random UUID, also where the browser offers `randomUUID` only over https. */
function identifier() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
