// What clicks and keys do.

import { get, here } from "../base.js";
import { file, images } from "./codes.js";

const byId = (id) => document.getElementById(id);

export class Commands {
  #page;

  /** Moves that arrows and their like make: from a place to a place. */
  #moves = {
    ArrowLeft: (at) => at - 1,
    ArrowRight: (at) => at + 1,
    ArrowUp: (at) => at - this.#page.grid.columns,
    ArrowDown: (at) => at + this.#page.grid.columns,
    PageUp: (at) => Math.max(0, at - this.#page.grid.columns * this.#page.grid.rowsSeen),
    PageDown: (at) => Math.min(this.#page.view.total - 1, at + this.#page.grid.columns * this.#page.grid.rowsSeen),
    Home: (at, whole) => (whole ? 0 : at - (at % this.#page.grid.columns)),
    End: (at, whole) => (whole ? this.#page.view.total - 1 : Math.min(this.#page.view.total, at - (at % this.#page.grid.columns) + this.#page.grid.columns) - 1),
  };

  /** By the names of the key map. */
  #actions = {
    unsure: () => this.label("u"),
    none: () => this.label("x"),
    bad: () => this.label("b"),
    unlabel: () => this.label(null),
    mark: () => this.#markFocused(),
    open: () => (this.#page.viewer.open ? this.#page.viewer.close() : this.#page.viewer.show(this.#page.grid.focus)),
    undo: () => this.#page.labelling.undo(),
    redo: () => this.#page.labelling.redo(),
    all: () => this.#page.viewer.open || this.selectAll(),
    clear: () => (this.#page.viewer.open ? this.#page.viewer.close() : this.#page.selection.clear()),
    mode: () => this.#page.setMode(this.#page.how.mode === "class" ? "image" : "class"),
    similar: () => this.similar(),
    filter: () => this.#page.viewer.open || this.#page.filters.toggle(true),
    larger: () => (this.#page.viewer.open ? this.#page.viewer.zoomBy(1.5) : this.#page.resize(24)),
    smaller: () => (this.#page.viewer.open ? this.#page.viewer.zoomBy(1 / 1.5) : this.#page.resize(-24)),
    help: () => this.#page.keysDialog.open(),
  };

  constructor(page) {
    this.#page = page;
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  /** A class was chosen, in the list or by its key. */
  choose(code) {
    const { viewer, selection, how } = this.#page;
    if (viewer.open || selection.count > 0 || how.mode === "image") this.label(code);
    else this.#page.setBrush(code);
  }

  /** Labels the large image, else what is selected, else the image in focus. */
  label(code) {
    const { viewer, selection, labelling, grid, view, how } = this.#page;
    if (viewer.open) viewer.label(code);
    else if (selection.count > 0) this.labelSelection(code);
    else if (labelling.one(grid.focus, code, "page: grid") && how.mode === "image" && grid.focus + 1 < view.total) grid.go(grid.focus + 1);
  }

  async labelSelection(code) {
    const { selection, labelling } = this.#page;
    if (await labelling.selection(selection, code, "page: selection")) selection.clear();
  }

  /** Class first: gives an image the chosen class, or takes it away again. */
  mark(index) {
    const { how, labelling, project, status } = this.#page;
    if (how.brush === undefined) {
      status.say(project.data.classes.length ? "Choose a class first." : "Add a class first.");
      if (project.data.classes.length === 0) this.#page.editor.open();
      return;
    }
    const { code } = labelling.labelAt(index);
    labelling.one(index, code === how.brush ? null : how.brush, "page: class first");
  }

  selectAll() {
    const { selection, view, status } = this.#page;
    selection.all(view.total);
    status.say(`All ${images(view.total)} selected.`);
  }

  /** Selects what is shown of the cluster of the image in focus. */
  async selectCluster() {
    const { view, grid, filters, selection, status } = this.#page;
    const cluster = view.row(grid.focus)?.k;
    if (cluster === undefined || cluster === null) return;
    const query = new URLSearchParams(filters.query);
    query.set("cluster", cluster);
    const found = await get(here(`api/view?${query}`));
    selection.wholeCluster(cluster, found.view, found.total);
    status.say(`All ${images(found.total)} of cluster ${cluster} selected.`);
  }

  similar() {
    const { view, viewer, grid, project, filters, status } = this.#page;
    const row = view.row(viewer.open ? viewer.index : grid.focus);
    if (!row) return;
    if (!project.data.has.features) {
      status.say("Which images are similar is known once they have been clustered.");
      return;
    }
    if (viewer.open) viewer.close();
    filters.likeName = file(row.n);
    filters.set({ like: row.h, order: "similar" });
  }

  #markFocused() {
    const { viewer, how, selection, grid } = this.#page;
    if (viewer.open) {
      if (how.mode === "class" && how.brush !== undefined) viewer.label(how.brush);
    } else if (how.mode === "class" && selection.count === 0) this.mark(grid.focus);
    else selection.toggle(grid.focus);
  }

  #key(event) {
    if (event.defaultPrevented || taken(event)) return;
    const { keys, viewer, project } = this.#page;
    if (!viewer.open && this.#move(event)) {
      event.preventDefault();
      return;
    }
    const action = keys.actionOf(event);
    if (!action) return;
    // Where no image has the focus, Space scrolls as everywhere.
    if (["mark", "open"].includes(action) && !viewer.open && !byId("grid").contains(event.target)) return;
    event.preventDefault();
    const number = /^class-(\d+)$/.exec(action)?.[1];
    if (!number) this.#actions[action]();
    else if (project.data.classes[number - 1]) this.choose(project.data.classes[number - 1].id);
  }

  /** Whether the key was an arrow or its like. */
  #move(event) {
    const { grid, view, selection } = this.#page;
    const step = this.#moves[event.key];
    if (!step || event.altKey || !byId("grid").contains(event.target)) return false;
    const from = grid.focus;
    const to = step(from, event.ctrlKey || event.metaKey);
    if (to < 0 || to >= view.total) return true;
    grid.go(to);
    if (event.shiftKey) {
      if (selection.count === 0 || selection.anchor === null) selection.anchor = from;
      selection.reach(to);
    }
    return true;
  }
}

/** Single keys must not act while somebody types or walks through a list; Space and Enter press what has the focus. */
function taken(event) {
  const { target } = event;
  if (!(target instanceof Element)) return false;
  if (target.closest("input:not([type=radio], [type=checkbox], [type=range]), textarea, dialog:not(.viewer)")) return true;
  const single = !event.ctrlKey && !event.metaKey;
  if (single && target.closest("select, input[type=range], input[type=radio]")) return true;
  return [" ", "Enter"].includes(event.key) && target.closest("button, a, input, select, summary") !== null;
}
