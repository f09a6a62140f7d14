// The label page: its parts, and what passes between them.

import { toast } from "./base.js";
import { ClassEditor } from "./label/class_editor.js";
import { ClassList } from "./label/classes.js";
import { images, STATES, stateOf } from "./label/codes.js";
import { Commands } from "./label/commands.js";
import { Filters } from "./label/filters.js";
import { Grid } from "./label/grid.js";
import { History } from "./label/history.js";
import { Keys, KeysDialog } from "./label/keys.js";
import { Labelling } from "./label/labelling.js";
import { Live } from "./label/live.js";
import { ImageMap } from "./label/map.js";
import { Outbox } from "./label/outbox.js";
import { Pointing } from "./label/pointing.js";
import { Project } from "./label/project.js";
import { Selection } from "./label/selection.js";
import { Status } from "./label/status.js";
import { View } from "./label/view.js";
import { Viewer } from "./label/viewer.js";

const byId = (id) => document.getElementById(id);
const SIZE = "harvest:size";
const AGAIN_MS = 3000;
/** Browsers refuse to have the address changed very often. */
const REMEMBER_MS = 600;
const NARROW = matchMedia("(max-width: 760px)");

/** Storage of the browser, or null where it is forbidden. */
function storage() {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

const outbox = new Outbox(storage());
const project = new Project(() => outbox.differences());
const view = new View();
const filters = new Filters(project);
const labelling = new Labelling(project, view, outbox, (code) => filters.matches(code));
const selection = new Selection();
const keys = new Keys();
const live = new Live();

/** What the parts know of each other. `how`: `class` first or `image` first, and the class that clicks give. */
const page = { outbox, project, view, labelling, selection, keys, filters, how: { mode: "class", brush: undefined }, setMode, setBrush, resize };
const { how } = page;
const grid = new Grid({ element: byId("grid"), scroller: byId("scroller"), sizer: byId("sizer"), view, project, paint });
page.grid = grid;
const viewer = new Viewer(page);
page.viewer = viewer;
const status = new Status(page);
page.status = status;
page.keysDialog = new KeysDialog(keys, project);
page.editor = new ClassEditor(project, refresh);
const commands = new Commands(page);
const map = new ImageMap(project, filters, { open: goTo, select: (hashes) => selection.names(hashes) });
const history = new History(project, goTo);
const classList = new ClassList(project, keys, (code) => commands.choose(code));

function paint(index) {
  const row = view.row(index);
  const { code, saving } = labelling.labelAt(index);
  return { row, code, saving, selected: selection.has(index, row), who: row && labelling.whoLabelled(row.h) };
}

let refreshing = 0;

/** Shows everything that may have changed, once a frame. */
function refresh() {
  refreshing ||= requestAnimationFrame(() => {
    refreshing = 0;
    classList.show(how.mode === "class" ? how.brush : undefined);
    status.show();
    grid.refresh();
    viewer.refresh();
  });
}

// Views.

/** Where the view was, when it is made anew though nobody asked for another one. */
let place = null;

/** Asks for the images to show; `at` is the image to show first. */
async function open(at) {
  byId("desk").setAttribute("aria-busy", "true");
  clearTimeout(opening);
  try {
    if ((await view.open(filters.query)) && at) await goTo(at, { focus: false });
  } catch (error) {
    status.empty(error.message);
    // Filters that make no sense will make none later.
    if (error.status !== 400) opening = setTimeout(() => open(at), AGAIN_MS);
  } finally {
    byId("desk").removeAttribute("aria-busy");
  }
}

let opening = 0;

view.addEventListener("open", () => {
  selection.clear();
  const none = project.data.counts.images === 0
    ? "No images have been found yet. Scan the folder first, on the Images page."
    : "No images match these filters.";
  status.empty(view.total > 0 ? "" : none);
  grid.show(place ?? 0);
  place = null;
  if (viewer.open) viewer.show(grid.focus);
  refresh();
});
view.addEventListener("gone", () => (place = grid.focus));

let toldOfTrouble = -Infinity;
view.addEventListener("trouble", (event) => {
  // Tried again every few seconds, told now and then.
  if (performance.now() - toldOfTrouble < 15000) return;
  toldOfTrouble = performance.now();
  toast(event.detail.message, "bad");
});

/** Shows an image of the view, wherever it is. */
async function goTo(hash, { focus = true } = {}) {
  const at = await view.locate(hash).catch(() => null);
  if (at === null || at === undefined) toast("This image is not among those shown; remove the filters to see it.");
  else grid.go(at, { focus });
}

filters.addEventListener("change", () => {
  filters.remember({ at: null });
  map.draw();
  open();
});
byId("refresh").addEventListener("click", () => {
  place = grid.focus;
  open();
});

// How one labels.

function setBrush(code) {
  how.brush = code;
  filters.remember({ class: code });
  refresh();
}

function setMode(mode) {
  how.mode = mode;
  byId(`mode-${mode}`).checked = true;
  byId("desk").dataset.mode = mode;
  filters.remember({ mode: mode === "class" ? null : mode });
  refresh();
}

for (const mode of ["class", "image"]) byId(`mode-${mode}`).addEventListener("change", () => setMode(mode));

new Pointing(grid, byId("band"), {
  click(index, event) {
    grid.focus = index;
    if (event.shiftKey) selection.reach(index, event.ctrlKey || event.metaKey);
    else if (event.ctrlKey || event.metaKey) selection.toggle(index);
    else if (how.mode === "class") {
      selection.anchor = index;
      commands.mark(index);
    } else if (event.pointerType === "touch") selection.toggle(index);
    else selection.only(index);
    refresh();
  },
  double(index) {
    if (how.mode === "image") viewer.show(index);
  },
  open: (index) => viewer.show(index),
  toggle: (index) => selection.toggle(index),
  ranges: () => selection.ranges,
  select: (ranges) => selection.set(ranges),
});

function resize(by, to = Number(byId("size").value) + by) {
  const size = Math.min(320, Math.max(64, to));
  byId("size").value = String(size);
  grid.side = size;
  try {
    localStorage.setItem(SIZE, String(size));
  } catch {
    // Until the page is closed.
  }
}

const press = (id, action) => byId(id).addEventListener("click", action);
const failed = (error) => toast(error.message, "bad");
byId("size").addEventListener("input", () => resize(0));
press("undo", () => labelling.undo());
press("redo", () => labelling.redo());
press("send-now", () => outbox.now());
press("discard", () => outbox.discard());
press("one", () => viewer.show(grid.focus));
press("keys-button", () => page.keysDialog.open());
press("select-cluster", () => commands.selectCluster().catch(failed));
press("select-all", () => commands.selectAll());
press("similar", () => commands.similar());
press("unlabel", () => commands.labelSelection(null));
press("deselect", () => {
  selection.clear();
  grid.go(grid.focus);
});

// The panel beside the grid.

function showPanel(name) {
  byId("panel").hidden = !name;
  byId("desk").classList.toggle("with-panel", Boolean(name));
  byId("panel-title").textContent = name === "map" ? "Map" : "History";
  for (const each of ["map", "history"]) {
    byId(`${each}-panel`).hidden = name !== each;
    byId(`${each}-button`).setAttribute("aria-pressed", String(name === each));
  }
  filters.remember({ panel: name });
  if (name === "map") map.load().then(showFocus, failed);
  if (name === "history") history.load().catch(failed);
}

const panel = () => (byId("panel").hidden ? null : ["map", "history"].find((name) => !byId(`${name}-panel`).hidden));

for (const name of ["map", "history"]) press(`${name}-button`, () => showPanel(panel() === name ? null : name));
press("close-panel", () => {
  const name = panel();
  showPanel(null);
  byId(`${name}-button`).focus();
});

function showFocus() {
  const row = view.row(viewer.open ? viewer.index : grid.focus);
  if (row) map.focus(row.h);
}

// What passes between the parts.

let remembering = 0;
grid.addEventListener("focus", () => {
  showFocus();
  status.selection();
  clearTimeout(remembering);
  remembering = setTimeout(() => filters.remember({ at: view.row(grid.focus)?.h }), REMEMBER_MS);
});
viewer.addEventListener("show", showFocus);
viewer.addEventListener("close", () => grid.go(viewer.index));
selection.addEventListener("change", refresh);
keys.addEventListener("change", refresh);
labelling.addEventListener("change", refresh);
labelling.addEventListener("say", (event) => {
  const { words, bad } = event.detail;
  if (bad) toast(words, "bad");
  status.say(words);
});
outbox.addEventListener("change", () => {
  // At once: a page that waits for its next frame must not say "Saved" of a click that is not.
  status.saved();
  refresh();
});
outbox.addEventListener("done", (event) => {
  const { entry, answer } = event.detail;
  map.learn(entry.images ? entry.images.map((hash) => [hash, entry.label]) : answer.images ?? []);
  if (panel() === "history") history.load().catch(() => {});
});
project.addEventListener("change", () => {
  // A class that is gone is no longer chosen.
  if (how.brush !== undefined && !stateOf(how.brush) && !project.classOf(how.brush)) how.brush = undefined;
  how.brush ??= project.data.classes[0]?.id;
  refresh();
});

// Others.

live.addEventListener("labels", (event) => {
  const { who, version, images: pairs } = event.detail;
  labelling.learn(pairs, version, who);
  map.learn(pairs);
  project.refresh();
  if (who !== project.data.me) live.tell(who, pairs.length);
});
live.addEventListener("many_labels", (event) => {
  const { who, count } = event.detail;
  reload();
  if (who !== project.data.me) live.tell(who, count);
});
live.addEventListener("others", (event) => {
  for (const [who, number] of event.detail) toast(`${who} labelled ${images(number)}.`);
});
live.addEventListener("classes", () => project.load().catch(() => {}));
live.addEventListener("reload", reload);

/** Reads everything anew that is shown; the view stays as it is. */
async function reload() {
  view.forget();
  await project.load().catch(() => {});
  if (panel() === "map") map.load(true).catch(() => {});
  grid.refresh();
}

// The beginning.

async function start() {
  const address = new URL(location.href).searchParams;
  const brush = address.get("class");
  if (brush !== null) how.brush = STATES.some((each) => each.code === brush) ? brush : Number(brush);
  setMode(address.get("mode") === "image" ? "image" : "class");
  resize(0, Number(storage()?.getItem(SIZE)) || (NARROW.matches ? 104 : 148));
  try {
    await project.load();
  } catch (error) {
    status.empty(error.message);
    setTimeout(start, AGAIN_MS);
    return;
  }
  live.listen();
  const shown = address.get("panel");
  if (shown === "map" || shown === "history") showPanel(shown);
  await open(address.get("at"));
}

start();
