// One image, large: its label, what the model says, and keys that label it and go on to the next.

import { count, get, here, make } from "../base.js";
import { ago, file, images, percent, STATES } from "./codes.js";
import { classButton, stateButton } from "./classes.js";
import { historyEntry } from "./history.js";
import { Zoom } from "./zoom.js";

const byId = (id) => document.getElementById(id);

export class Viewer extends EventTarget {
  index = 0;
  #page;
  #dialog = byId("viewer");
  #image = byId("viewer-image");
  #zoom;
  #shown = "";

  /** `page`: `{ view, project, labelling, keys, grid }`. */
  constructor(page) {
    super();
    this.#page = page;
    this.#zoom = new Zoom(byId("viewer-stage"), this.#image, (step) => this.step(step));
    byId("viewer-close").addEventListener("click", () => this.close());
    byId("viewer-before").addEventListener("click", () => this.step(-1));
    byId("viewer-after").addEventListener("click", () => this.step(1));
    byId("zoom-in").addEventListener("click", () => this.#zoom.by(1.5));
    byId("zoom-out").addEventListener("click", () => this.#zoom.by(1 / 1.5));
    byId("zoom-fit").addEventListener("click", () => this.#zoom.fit());
    byId("viewer-history-box").addEventListener("toggle", () => this.#history());
    this.#dialog.addEventListener("close", () => this.dispatchEvent(new Event("close")));
    this.#dialog.addEventListener("keydown", (event) => this.#keydown(event));
    page.view.addEventListener("rows", () => this.refresh());
  }

  get open() {
    return this.#dialog.open;
  }

  show(index) {
    this.index = Math.min(Math.max(0, index), Math.max(0, this.#page.view.total - 1));
    if (!this.open) {
      this.#dialog.showModal();
      byId("viewer-stage").focus();
    }
    this.#zoom.fit();
    this.#page.view.want(this.index - 1, this.index + 3);
    this.refresh();
    this.dispatchEvent(new Event("show"));
  }

  close() {
    this.#dialog.close();
  }

  step(by) {
    const index = this.index + by;
    if (index >= 0 && index < this.#page.view.total) this.show(index);
  }

  /** Labels the image and goes on. */
  label(code) {
    if (!this.#page.labelling.one(this.index, code, "page: large view")) return;
    if (this.index + 1 < this.#page.view.total) this.step(1);
    else this.refresh();
  }

  /** Shows what has changed. */
  refresh() {
    if (!this.open) return;
    const { view } = this.#page;
    const row = view.row(this.index);
    byId("viewer-at").textContent = `${count(this.index + 1)} of ${count(view.total)}`;
    byId("viewer-before").disabled = this.index === 0;
    byId("viewer-after").disabled = this.index + 1 >= view.total;
    if (!row) {
      byId("viewer-name").textContent = "Loading …";
      return;
    }
    if (this.#shown !== `${this.index} ${row.h}`) this.#picture(row);
    this.#words(row);
    this.#classes(row);
  }

  zoomBy(factor) {
    this.#zoom.by(factor);
  }

  #picture(row) {
    this.#shown = `${this.index} ${row.h}`;
    this.#image.alt = file(row.n);
    byId("viewer-name").textContent = file(row.n);
    // The thumbnail is there already; the picture takes its place when it has come.
    this.#image.src = here(`t/${row.h}.jpg`);
    const large = new Image();
    large.onload = () => {
      if (this.#shown.endsWith(row.h)) this.#image.src = large.src;
    };
    large.src = here(`i/${row.h}`);
    const next = this.#page.view.row(this.index + 1);
    if (next) new Image().src = here(`i/${next.h}`);
    const size = row.w ? `${row.w[0]} × ${row.w[1]} pixels` : null;
    const facts = [
      ["File", row.n], ["Size", size], ["Changed", row.t ? ago(row.t) : null],
      ["Cluster", row.k ?? null], ["Copies", row.d > 1 ? images(row.d) : null],
    ];
    byId("viewer-facts").replaceChildren(...facts.filter(([, value]) => value !== null).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
    byId("viewer-history").replaceChildren();
    this.#history();
  }

  #words(row) {
    const { project, labelling } = this.#page;
    const { code, saving } = labelling.labelAt(this.index);
    const who = labelling.whoLabelled(row.h);
    const by = who ? ` by ${who === project.data.me ? "you" : who}` : "";
    const words = code === null ? "Not labelled" : `Labelled ${project.nameOf(code)}${by}${saving ? ", saving" : ""}`;
    const label = byId("viewer-label");
    if (label.textContent !== words) label.textContent = words;
    const known = row.p !== null && row.p !== undefined;
    byId("viewer-guess").textContent = known ? `The model says ${project.nameOf(row.p)}, ${percent(row.c ?? 0)} sure.` : "";
  }

  #classes(row) {
    const { project, keys, labelling } = this.#page;
    const { code } = labelling.labelAt(this.index);
    const shared = { project, keys, plain: true };
    const buttons = [
      ...project.data.classes.map((each, position) => {
        const guess = row.p === each.id && code === null;
        return classButton(each, position, { ...shared, pressed: code === each.id, guess });
      }),
      ...STATES.map((each) => stateButton(each, { ...shared, pressed: code === each.code })),
    ];
    const list = byId("viewer-classes");
    const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
    for (const button of buttons) button.addEventListener("click", () => this.label(button.code));
    list.replaceChildren(...buttons.map((button) => make("li", {}, button)));
    if (focused >= 0) buttons[focused]?.focus();
  }

  async #history() {
    const row = this.#page.view.row(this.index);
    if (!row || !byId("viewer-history-box").open) return;
    const { entries } = await get(here(`api/history?image=${row.h}`)).catch(() => ({ entries: [] }));
    if (!this.#shown.endsWith(row.h)) return;
    const items = entries.map((entry) => historyEntry(entry, this.#page.project));
    byId("viewer-history").replaceChildren(...(items.length ? items : [make("li", { class: "muted" }, "No label yet.")]));
  }

  #keydown(event) {
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -1, PageDown: 1 };
    if (event.target.closest("summary, input, select")) return;
    if (event.shiftKey && event.key.startsWith("Arrow")) {
      const by = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
      this.#zoom.pan(...by);
    } else if (steps[event.key] && !event.ctrlKey && !event.altKey && !event.metaKey) this.step(steps[event.key]);
    else if (event.key === "Home") this.show(0);
    else if (event.key === "End") this.show(this.#page.view.total - 1);
    else return;
    event.preventDefault();
  }
}
