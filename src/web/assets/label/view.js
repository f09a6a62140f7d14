// The images of a view: a list that the server froze. Rows come in pages, those on screen first.

import { get, here } from "../base.js";

const PAGE = 200;
/** Pages kept; the longest unused go. */
const KEPT_PAGES = 200;
/** Changes of labels remembered, for pages that were on their way when they happened. */
const KEPT_CHANGES = 50000;
/** After a failure. */
const AGAIN_MS = 2000;

export class View extends EventTarget {
  /** The server's name of the list, and how long it is. */
  token = null;
  total = 0;
  /** Whether there is a list yet. */
  ready = false;
  #query = "";
  #pages = new Map();
  #loading = new Map();
  #places = new Map();
  #changes = new Map();
  #opening = null;
  #renewing = false;

  /** Asks for a list. What was asked before no longer matters; false if this too was overtaken. */
  async open(query) {
    this.#opening?.abort();
    const opening = new AbortController();
    this.#opening = opening;
    const answer = await get(here(`api/view?${query}`), { signal: opening.signal }).catch((error) => {
      if (!opening.signal.aborted) throw error;
    });
    if (!answer || opening.signal.aborted) return false;
    this.#query = query;
    this.forget();
    this.token = answer.view;
    this.total = answer.total;
    this.version = answer.version;
    this.ready = true;
    this.dispatchEvent(new Event("open"));
    return true;
  }

  /** The row at a place, if it is loaded. */
  row(index) {
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** Where an image is, among the loaded rows. */
  places(hash) {
    return this.#places.get(hash) ?? [];
  }

  /** Where an image is in the whole list, or null. */
  async locate(hash) {
    const known = this.places(hash)[0];
    if (known !== undefined) return known;
    const { at } = await get(here(`api/locate?view=${encodeURIComponent(this.token)}&image=${hash}`));
    return at;
  }

  /** Loads the rows from `from` to before `to`, and gives up loading what is far from them. */
  want(from, to) {
    if (!this.ready || this.total === 0) return;
    const first = Math.floor(Math.max(0, from) / PAGE);
    const last = Math.floor(Math.min(this.total - 1, Math.max(0, to - 1)) / PAGE);
    for (const [page, loading] of this.#loading) {
      if (!loading.kept && (page < first || page > last)) loading.stop.abort();
    }
    for (let page = first; page <= last; page += 1) {
      const rows = this.#pages.get(page);
      if (rows) {
        // Moved to the end: the order of the map is the order of use.
        this.#pages.delete(page);
        this.#pages.set(page, rows);
      } else if (!this.#loading.has(page)) this.#load(page);
    }
  }

  /** All rows from `from` to before `to`, loaded if need be. */
  async rows(from, to) {
    const rows = [];
    for (let page = Math.floor(from / PAGE); page * PAGE < to; page += 1) {
      if (!this.#pages.has(page)) await (this.#loading.get(page) ?? this.#load(page, true)).done;
      const loaded = this.#pages.get(page) ?? [];
      rows.push(...loaded.slice(Math.max(0, from - page * PAGE), Math.min(PAGE, to - page * PAGE)));
    }
    return rows;
  }

  /** An image has another label. Tells what it was, or undefined if it is not loaded. */
  relabel(hash, code, version) {
    const before = this.#changes.get(hash);
    if (before && before.version > version) return undefined;
    this.#changes.delete(hash);
    this.#changes.set(hash, { code, version });
    if (this.#changes.size > KEPT_CHANGES) this.#changes.delete(this.#changes.keys().next().value);
    let was;
    for (const index of this.places(hash)) {
      const row = this.row(index);
      if (!row) continue;
      was = row.l;
      row.l = code;
    }
    return was;
  }

  /** Throws loaded rows away; they are loaded anew when they are wanted. */
  forget() {
    for (const loading of this.#loading.values()) loading.stop.abort();
    this.#loading.clear();
    this.#pages.clear();
    this.#places.clear();
  }

  #load(page, kept = false) {
    const stop = new AbortController();
    const loading = { stop, kept };
    loading.done = this.#fetch(page, stop.signal)
      .catch((error) => {
        if (stop.signal.aborted) return undefined;
        return error.status === 410 ? this.#renew() : this.#again(error);
      })
      .finally(() => {
        if (this.#loading.get(page) === loading) this.#loading.delete(page);
      });
    this.#loading.set(page, loading);
    return loading;
  }

  async #fetch(page, signal) {
    const token = this.token;
    const from = page * PAGE;
    const count = Math.min(PAGE, this.total - from);
    const { rows } = await get(here(`api/rows?view=${encodeURIComponent(token)}&from=${from}&count=${count}`), { signal });
    if (token !== this.token) return;
    for (const row of rows) this.#place(row);
    this.#pages.set(page, rows);
    this.#drop();
    this.dispatchEvent(new Event("rows"));
  }

  #place(row) {
    const changed = this.#changes.get(row.h);
    if (changed) row.l = changed.code;
    const places = this.#places.get(row.h);
    if (!places) this.#places.set(row.h, [row.i]);
    else if (!places.includes(row.i)) places.push(row.i);
  }

  #drop() {
    while (this.#pages.size > KEPT_PAGES) {
      const [page, rows] = this.#pages.entries().next().value;
      this.#pages.delete(page);
      for (const row of rows) this.#places.delete(row.h);
    }
  }

  /** The server was started anew and knows the list no longer. */
  async #renew() {
    if (this.#renewing) return;
    this.#renewing = true;
    this.dispatchEvent(new Event("gone"));
    try {
      await this.open(this.#query);
    } catch (error) {
      this.dispatchEvent(new CustomEvent("trouble", { detail: error }));
    } finally {
      this.#renewing = false;
    }
  }

  /** What is still wanted then is asked for again: whoever shows rows asks for those that are missing. */
  #again(error) {
    this.dispatchEvent(new CustomEvent("trouble", { detail: error }));
    setTimeout(() => this.dispatchEvent(new Event("rows")), AGAIN_MS);
  }
}
