// The list of classes beside the grid: their colours, keys and how many images each has.

import { make } from "../base.js";
import { STATES } from "./codes.js";
import { keyName } from "./keys.js";

/** What the keys of the states are called in the key map. */
const ACTIONS = { u: "unsure", x: "none", b: "bad" };

/** A button for a class. `pressed` if it is chosen, `plain` without counts, `guess` if the model says so. */
export function classButton(each, position, { project, keys, pressed = false, plain = false, guess = false }) {
  const swatch = make("span", { class: "swatch" });
  swatch.style.setProperty("--swatch", each.colour);
  const key = keys.ofClass(position);
  const parts = [swatch, make("span", { class: "class-name" }, each.name)];
  if (guess) parts.push(make("span", { class: "muted guess" }, "model"));
  if (!plain) parts.push(make("span", { class: "class-count" }, project.progressOf(each.id)));
  const button = finish(parts, key, pressed);
  if (each.description) button.title = each.description;
  if (!plain && project.data.target) {
    button.append(bar(project.count(each.id) / project.data.target));
    button.classList.toggle("full", project.count(each.id) >= project.data.target);
  }
  button.code = each.id;
  return button;
}

/** A button for "not sure" and its like. */
export function stateButton(state, { project, keys, pressed = false, plain = false }) {
  const parts = [make("span", { class: "state-mark" }, state.mark), make("span", { class: "class-name" }, state.name)];
  if (!plain) parts.push(make("span", { class: "class-count" }, project.progressOf(state.code)));
  const button = finish(parts, keys.on ? keys.keysOf(ACTIONS[state.code])[0] : undefined, pressed);
  button.code = state.code;
  return button;
}

function finish(parts, key, pressed) {
  const button = make("button", { type: "button", class: "class-button", "aria-pressed": String(pressed) }, ...parts);
  if (key) {
    button.append(make("kbd", { "aria-hidden": "true" }, keyName(key)));
    button.setAttribute("aria-keyshortcuts", key);
  }
  return button;
}

/** Decoration beside the numbers. */
function bar(share) {
  const fill = make("span", {});
  fill.style.width = `${Math.min(1, share) * 100}%`;
  return make("span", { class: "class-bar", "aria-hidden": "true" }, fill);
}

/** The list beside the grid. `choose(code)` is called for the class pressed. */
export class ClassList {
  #project;
  #keys;
  #choose;
  #shown = "";

  constructor(project, keys, choose) {
    this.#project = project;
    this.#keys = keys;
    this.#choose = choose;
  }

  /** Shows it; `brush` is the class that clicks give, or undefined. */
  show(brush) {
    const { data } = this.#project;
    const state = JSON.stringify([
      data.classes.map((each, position) => [each, this.#project.count(each.id), this.#keys.ofClass(position)]),
      STATES.map(({ code }) => this.#project.count(code)), brush, data.target, this.#keys.on,
    ]);
    if (state === this.#shown) return;
    this.#shown = state;
    const shared = { project: this.#project, keys: this.#keys };
    fill("class-list", data.classes.map((each, position) => classButton(each, position, { ...shared, pressed: each.id === brush })), this.#choose);
    fill("state-list", STATES.map((each) => stateButton(each, { ...shared, pressed: each.code === brush })), this.#choose);
  }
}

function fill(id, buttons, choose) {
  const list = document.getElementById(id);
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  for (const button of buttons) button.addEventListener("click", () => choose(button.code));
  list.replaceChildren(...buttons.map((button) => make("li", {}, button)));
  if (focused >= 0) buttons[focused]?.focus();
}
