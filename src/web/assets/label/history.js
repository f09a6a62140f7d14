// Who labelled what, and when.

import { get, here, make } from "../base.js";
import { ago, file, images } from "./codes.js";

const PAGE = 200;
/** Images of one action that are listed. */
const SHOWN = 50;

/** What an entry did, in words. */
function deed(entry, project) {
  if (entry.label === null || entry.label === undefined) return "removed the label";
  // A class that is no more is known by the name it had.
  return `labelled ${project.classOf(entry.label)?.name ?? entry.name ?? project.nameOf(entry.label)}`;
}

const undone = (entry) => (entry.undoes === null || entry.undoes === undefined ? "" : " (undo)");

/** One entry of one image. */
export function historyEntry(entry, project) {
  const swatch = make("span", { class: "swatch" });
  swatch.style.setProperty("--swatch", project.colourOf(entry.label) ?? "transparent");
  return make(
    "li", {}, swatch,
    make("span", {}, make("strong", {}, entry.who), ` ${deed(entry, project)}${undone(entry)}`),
    make("time", { class: "muted" }, ago(entry.at)),
  );
}

/** All that was done, newest first; what one action did to many images is one line. */
export class History {
  #project;
  #open;
  #list = document.getElementById("history-list");
  #older = document.getElementById("older");
  #before = null;
  #groups = [];

  /** `open(hash)` shows an image of an entry. */
  constructor(project, open) {
    this.#project = project;
    this.#open = open;
    this.#older.addEventListener("click", () => this.#more());
  }

  async load() {
    this.#before = null;
    this.#groups = [];
    await this.#more();
  }

  async #more() {
    const from = this.#before === null ? "" : `before=${this.#before}&`;
    const { entries, more } = await get(here(`api/history?${from}count=${PAGE}`));
    this.#older.hidden = !more;
    if (entries.length > 0) this.#before = Math.min(...entries.map((entry) => entry.id));
    for (const entry of entries) {
      const last = this.#groups.at(-1);
      if (last && last[0].action === entry.action && last[0].label === entry.label) last.push(entry);
      else this.#groups.push([entry]);
    }
    this.#fill();
  }

  #fill() {
    const items = this.#groups.map((group) => this.#item(group));
    this.#list.replaceChildren(...(items.length ? items : [make("li", { class: "muted" }, "Nothing has been labelled yet.")]));
  }

  #item(group) {
    const [entry] = group;
    const item = historyEntry(entry, this.#project);
    const show = (each, words) => make("button", { type: "button", class: "link", onclick: () => this.#open(each.image), title: each.path ?? "" }, words);
    if (group.length === 1) item.children[1].append(" ", show(entry, file(entry.path ?? "an image")));
    else {
      const shown = group.slice(0, SHOWN).map((each) => show(each, file(each.path ?? "an image")));
      item.children[1].append(" ", make("details", {}, make("summary", {}, images(group.length)), make("div", { class: "history-images" }, ...shown)));
    }
    return item;
  }
}
