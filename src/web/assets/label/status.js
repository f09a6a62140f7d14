// What the page tells around the grid: how far one is, what is saved, what is selected, what happened.

import { count, make } from "../base.js";
import { images } from "./codes.js";

const byId = (id) => document.getElementById(id);
/** A class of fewer images cannot be learned from. */
const A_FEW = 2;
/** Tries after which a click can be given up. */
const STUBBORN = 6;

export class Status {
  #page;
  #ticking = 0;

  constructor(page) {
    this.#page = page;
  }

  show() {
    this.#brush();
    this.#totals();
    this.saved();
    this.selection();
  }

  /** Says what happened, in the page and aloud. */
  say(words) {
    const said = byId("said");
    // The same words twice are said twice.
    said.textContent = "";
    requestAnimationFrame(() => (said.textContent = words));
  }

  /** Words in place of images; nothing to show them again. */
  empty(words) {
    const box = byId("empty");
    box.hidden = !words;
    if (!words) return;
    const { filters } = this.#page;
    const filtered = Object.keys(filters.values).some((part) => part !== "order");
    const all = filtered ? make("button", { type: "button", onclick: () => filters.clear() }, "Show all images") : "";
    box.replaceChildren(make("span", {}, words), all);
  }

  #brush() {
    const { project, how } = this.#page;
    const byClass = how.mode === "class";
    const code = how.brush;
    const hint = byId("class-hint");
    if (project.data.classes.length === 0) hint.textContent = "There are no classes yet. Add one with Edit.";
    else if (byClass) hint.textContent = "Choose a class, then click the images that belong to it.";
    else hint.textContent = "Select images, then choose their class.";
    const notes = project.data.notes ?? [];
    byId("notes").hidden = notes.length === 0;
    byId("notes").textContent = notes.join(" ");
    const box = byId("brush");
    box.hidden = !byClass || code === undefined;
    if (box.hidden) return;
    const target = typeof code === "number" ? project.data.target : 0;
    const number = project.count(code);
    box.style.setProperty("--swatch", project.colourOf(code) ?? "var(--line-strong)");
    box.style.setProperty("--share", target ? Math.min(1, number / target) : 0);
    const words = target ? `${project.progressOf(code)} for ${project.nameOf(code)}` : `${count(number)} ${project.nameOf(code)}`;
    if (box.textContent !== words) box.textContent = words;
  }

  #totals() {
    const { project, labelling } = this.#page;
    const { counts, classes } = project.data;
    byId("total").textContent = counts.distinct === undefined ? "" : `${count(project.labelled)} of ${count(counts.distinct)} labelled`;
    byId("train").hidden = classes.length < 2 || !classes.every((each) => project.count(each.id) >= A_FEW);
    const { stale } = labelling;
    byId("stale").hidden = stale === 0;
    byId("stale-words").textContent = stale === 1 ? "1 image no longer matches" : `${images(stale)} no longer match`;
  }

  saved() {
    const { outbox } = this.#page;
    const number = outbox.entries.length;
    const { trouble } = outbox;
    byId("saved").className = `saved ${number === 0 ? "all" : trouble ? "trouble" : "some"}`;
    byId("saved-words").textContent = number === 0 ? "Saved" : trouble ? `${count(number)} waiting` : "Saving";
    clearTimeout(this.#ticking);
    const failing = number > 0 && trouble !== null;
    if (byId("waiting").hidden === failing) byId("waiting").hidden = !failing;
    if (!failing) return;
    const clicks = number === 1 ? "1 click waits" : `${count(number)} clicks wait`;
    const kept = outbox.kept ? "Nothing is lost: the browser keeps what waits." : "Keep this page open: the browser does not let it keep what waits.";
    const words = `${clicks} to be saved. ${trouble.words} ${kept}`;
    // Written only when it changes, since it is read aloud.
    if (byId("waiting-words").textContent !== words) byId("waiting-words").textContent = words;
    // A server that answers and refuses again and again may refuse this one click for ever; the others must not wait for it.
    byId("discard").hidden = trouble.status === 0 || outbox.entries[0].tries < STUBBORN;
    const seconds = Math.max(0, Math.ceil((trouble.until - Date.now()) / 1000));
    byId("send-now").textContent = seconds > 1 ? `Try now (or in ${seconds} s)` : "Try now";
    this.#ticking = setTimeout(() => this.saved(), 1000);
  }

  selection() {
    const { selection, view, grid, project, filters } = this.#page;
    const number = selection.count;
    byId("selection").hidden = number === 0;
    if (number === 0) return;
    byId("selection-count").textContent = `${images(number)} selected`;
    byId("selection-hint").textContent = "Choose a class to label them.";
    byId("select-all").hidden = number >= view.total || selection.cluster !== null || selection.named !== null;
    byId("select-all").textContent = `All ${count(view.total)}`;
    const cluster = view.row(grid.focus)?.k ?? null;
    const known = project.data.clusters.find((each) => each.id === cluster);
    const size = known && filters.query === "" ? ` (${count(known.count)})` : "";
    byId("select-cluster").hidden = cluster === null || selection.cluster !== null;
    byId("select-cluster").textContent = `All in cluster ${cluster}${size}`;
    byId("similar").hidden = number !== 1 || !project.data.has.features;
  }
}
