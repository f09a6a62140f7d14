// One image of the grid. A label is shown by words, a check mark and a colour; what is not saved yet by a turning mark.

import { here, make } from "../base.js";
import { file, percent, stateOf } from "./codes.js";
import { icon } from "./icons.js";

/** An empty cell. */
export function makeCell() {
  const image = make("img", { alt: "", decoding: "async", draggable: false });
  const large = make("button", { class: "cell-large", type: "button", tabIndex: -1, title: "Large view" }, icon("large"));
  large.setAttribute("aria-label", "Large view");
  const words = make("span", { class: "cell-words" });
  const mark = make("span", { class: "cell-mark" });
  // The cell's own name says all of it, in better order.
  const label = make("span", { class: "cell-label", "aria-hidden": "true" }, mark, words);
  const tick = make("span", { class: "cell-tick" }, icon("check"));
  const copies = make("span", { class: "cell-copies", "aria-hidden": "true" });
  const cell = make("div", { class: "cell", role: "gridcell", tabIndex: -1 }, image, label, copies, tick, large);
  cell.parts = { image, mark, words, copies };
  image.addEventListener("error", () => cell.classList.add("broken"));
  image.addEventListener("load", () => cell.classList.remove("broken"));
  return cell;
}

/** Stops loading a picture that nobody will see. */
export function dropCell(cell) {
  const { image } = cell.parts;
  if (!image.complete) image.removeAttribute("src");
  cell.remove();
}

/**
 * Shows an image: `row` as the server sends it or undefined while it loads, `code` its label, `saving` whether that waits,
 * `selected`, `who` gave it if known.
 */
export function paintCell(cell, { row, code, saving, selected, who }, project) {
  // Most cells stay as they are when something changes.
  const state = row ? `${row.h} ${code} ${saving} ${selected} ${row.p} ${row.c} ${row.d} ${who} ${project.colourOf(code)} ${project.nameOf(code)}` : "";
  if (cell.shown === state) return;
  cell.shown = state;
  cell.setAttribute("aria-selected", String(selected));
  cell.classList.toggle("selected", selected);
  cell.classList.toggle("loading", !row);
  if (!row) {
    cell.setAttribute("aria-label", "loading");
    return;
  }
  paintPicture(cell, row);
  paintLabel(cell, row, code, saving, project);
  cell.setAttribute("aria-label", describe(row, code, who, project));
}

function paintPicture(cell, row) {
  const { image, copies } = cell.parts;
  if (cell.hash !== row.h) {
    cell.hash = row.h;
    image.src = here(`t/${row.h}.jpg`);
    cell.title = row.n;
  }
  // Drawn by the style: what is read aloud says "3 copies".
  if (row.d > 1) copies.dataset.copies = `×${row.d}`;
  else delete copies.dataset.copies;
}

function paintLabel(cell, row, code, saving, project) {
  const { mark, words } = cell.parts;
  const labelled = code !== null && code !== undefined;
  const guessed = !labelled && row.p !== null && row.p !== undefined;
  cell.classList.toggle("labelled", labelled);
  cell.classList.toggle("state", labelled && stateOf(code) !== undefined);
  cell.classList.toggle("guessed", guessed);
  cell.classList.toggle("saving", saving);
  cell.style.setProperty("--class", project.colourOf(labelled ? code : row.p) ?? "var(--line-strong)");
  mark.replaceChildren(...(labelled ? [icon(saving ? "saving" : "check")] : saving ? [icon("saving")] : []));
  words.textContent = labelled ? project.nameOf(code) : guessed ? guess(row, project) : "";
}

const sureness = (row) => (typeof row.c === "number" ? percent(row.c) : "");

const guess = (row, project) => `${project.nameOf(row.p)}? ${sureness(row)}`;

/** "IMG_0012.jpg, labelled rust by you", "IMG_0013.jpg, not labelled, model says mildew, 63 %". */
export function describe(row, code, who, project) {
  const parts = [file(row.n)];
  if (code === null || code === undefined) parts.push("not labelled");
  else parts.push(`labelled ${project.nameOf(code)}${who ? ` by ${who === project.data.me ? "you" : who}` : ""}`);
  if (row.p !== null && row.p !== undefined) parts.push(`model says ${project.nameOf(row.p)}, ${sureness(row)}`);
  if (row.d > 1) parts.push(`${row.d} copies`);
  return parts.join(", ");
}
