// Which key does what. Keys can be changed and switched off (WCAG 2.1.4); the browser remembers that.

import { make } from "../base.js";

const KEPT = "harvest:keys";
/** Classes that can have a key; the first ten have one from the beginning. */
const CLASSES = 20;

/** Each action with its words and its keys. Keys with `Ctrl+` mean the command key too. */
const ACTIONS = [
  ...Array.from({ length: CLASSES }, (_, i) => ({ name: `class-${i + 1}`, words: `Class ${i + 1}`, keys: i < 10 ? [String((i + 1) % 10)] : [] })),
  { name: "unsure", words: "Not sure", keys: ["u"] },
  { name: "none", words: "None of these classes", keys: ["x"] },
  { name: "bad", words: "Bad image", keys: ["b"] },
  { name: "unlabel", words: "Remove the label", keys: ["Delete", "Backspace"] },
  { name: "mark", words: "Label with the chosen class, or select", keys: [" "] },
  { name: "open", words: "Large view", keys: ["Enter"] },
  { name: "undo", words: "Undo", keys: ["Ctrl+z"] },
  { name: "redo", words: "Redo", keys: ["Ctrl+Shift+z", "Ctrl+y"] },
  { name: "all", words: "Select all of this view", keys: ["Ctrl+a"] },
  { name: "clear", words: "Select nothing, close", keys: ["Escape"] },
  { name: "mode", words: "Class first or image first", keys: ["m"] },
  { name: "similar", words: "Show similar images", keys: ["s"] },
  { name: "filter", words: "Filter", keys: ["f"] },
  { name: "larger", words: "Larger", keys: ["+", "="] },
  { name: "smaller", words: "Smaller", keys: ["-"] },
  { name: "help", words: "This list", keys: ["?"] },
];

/** What arrows do is not to be changed. */
const FIXED = [
  ["Arrows", "To the next image"], ["Shift + arrows", "Select along the way"], ["Home, End", "First and last of the row"],
  ["Ctrl + Home, End", "First and last of the view"], ["Page up, down", "A screen further"],
];

/** Work without single keys too. */
const ALWAYS = ["mark", "open", "clear"];

const NAMES = { " ": "Space", Escape: "Esc", Delete: "Del", ArrowUp: "↑", ArrowDown: "↓" };

/** A key as people call it. */
export const keyName = (key) => key.split("+").map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" + ") || "+";

function pressed(event) {
  const modifiers = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "");
  const { key } = event;
  if (key.length !== 1) return modifiers + (event.shiftKey ? "Shift+" : "") + key;
  // Shift is part of a character (`?`, `+`), but not beside Ctrl and letters.
  return modifiers + (event.shiftKey && modifiers ? "Shift+" : "") + key.toLowerCase();
}

export class Keys extends EventTarget {
  on = true;
  #own = {};

  constructor() {
    super();
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
      this.on = kept.on !== false;
      this.#own = kept.own ?? {};
    } catch {
      // Not readable: as it was at first.
    }
  }

  /** The keys of an action. */
  keysOf(name) {
    return this.#own[name] ?? ACTIONS.find((action) => action.name === name)?.keys ?? [];
  }

  /** The key to show for the class at a position in the list, if it has one. */
  ofClass(position) {
    return this.on ? this.keysOf(`class-${position + 1}`)[0] : undefined;
  }

  /** The action of a key press, or undefined. */
  actionOf(event) {
    const key = pressed(event);
    const action = ACTIONS.find(({ name }) => this.keysOf(name).includes(key));
    if (!action) return undefined;
    return this.on || key.startsWith("Ctrl+") || ALWAYS.includes(action.name) ? action.name : undefined;
  }

  switch(on) {
    this.on = on;
    this.#keep();
  }

  /** Gives an action another key, and tells which action has lost it. */
  set(name, key) {
    const other = ACTIONS.find((action) => action.name !== name && this.keysOf(action.name).includes(key));
    if (other) this.#own[other.name] = this.keysOf(other.name).filter((each) => each !== key);
    this.#own[name] = key ? [key] : [];
    this.#keep();
    return other;
  }

  reset() {
    this.#own = {};
    this.on = true;
    this.#keep();
  }

  #keep() {
    try {
      localStorage.setItem(KEPT, JSON.stringify({ on: this.on, own: this.#own }));
    } catch {
      // Kept until the page is closed.
    }
    this.dispatchEvent(new Event("change"));
  }
}

/** The list of keys, where they are changed. */
export class KeysDialog {
  #keys;
  #project;
  #dialog = document.getElementById("keys-dialog");
  #table = document.getElementById("keys-table");
  #error = document.getElementById("keys-error");
  #on = document.getElementById("keys-on");
  #waiting = null;

  constructor(keys, project) {
    this.#keys = keys;
    this.#project = project;
    document.getElementById("keys-close").addEventListener("click", () => this.#dialog.close());
    document.getElementById("keys-reset").addEventListener("click", () => keys.reset());
    this.#on.addEventListener("change", () => keys.switch(this.#on.checked));
    this.#dialog.addEventListener("keydown", (event) => this.#keydown(event), true);
    keys.addEventListener("change", () => this.#fill());
  }

  open() {
    this.#error.textContent = "";
    this.#waiting = null;
    this.#fill();
    this.#dialog.showModal();
  }

  #fill() {
    this.#on.checked = this.#keys.on;
    const { classes } = this.#project.data;
    const rows = ACTIONS.flatMap(({ name, words }) => {
      const number = /^class-(\d+)$/.exec(name)?.[1];
      if (number && number > Math.max(classes.length, 10)) return [];
      const label = number && classes[number - 1] ? classes[number - 1].name : words;
      return [this.#row(name, label)];
    });
    const fixed = FIXED.map(([key, words]) => make("div", { class: "keys-row" }, make("span", {}, words), make("span", { class: "muted" }, key)));
    this.#table.replaceChildren(...rows, ...fixed);
  }

  #row(name, words) {
    const keys = this.#keys.keysOf(name);
    const shown = this.#waiting === name ? [make("span", { class: "muted" }, "press a key …")] : keys.flatMap((key) => [make("kbd", {}, keyName(key)), " "]);
    const button = make("button", { type: "button", class: "slim quiet", onclick: () => this.#ask(name) }, ...(shown.length ? shown : ["none"]));
    button.setAttribute("aria-label", `${words}: ${keys.map(keyName).join(" ") || "none"}. Change`);
    button.dataset.action = name;
    return make("div", { class: "keys-row" }, make("span", {}, words), button);
  }

  #ask(name) {
    this.#waiting = name;
    this.#error.textContent = "";
    this.#fill();
    this.#table.querySelector(`[data-action="${name}"]`).focus();
  }

  #keydown(event) {
    const name = this.#waiting;
    if (!name || ["Shift", "Control", "Alt", "Meta", "Tab"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#waiting = null;
    if (event.key !== "Escape") {
      const lost = this.#keys.set(name, pressed(event));
      this.#error.textContent = lost ? `“${lost.words}” has no key of that name any more.` : "";
    }
    this.#fill();
    this.#table.querySelector(`[data-action="${name}"]`).focus();
  }
}
