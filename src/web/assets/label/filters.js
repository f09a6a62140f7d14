// What is shown and in which order. It lives in the address, so that reloading and sharing give the same view.

import { count, make } from "../base.js";
import { file, STATES } from "./codes.js";

/** Everything that the server filters and sorts by. */
const PARTS = ["label", "predicted", "cluster", "folder", "min", "max", "copies", "part", "q", "order", "like", "run", "box"];

const ORDERS = [
  ["path", "Path"], ["unlabelled", "Not labelled first"], ["class", "Class"], ["folder", "Folder"], ["date", "Oldest first"],
  ["-date", "Newest first"], ["duplicates", "Duplicates first"],
  ["cluster", "Cluster", "clusters"], ["doubt", "What helps most", "predictions"], ["disagreement", "Model disagrees", "predictions"],
  ["confidence", "Model least sure first", "predictions"], ["-confidence", "Model most sure first", "predictions"],
  ["predicted", "Model’s class", "predictions"],
];

const SPLITS = [["train", "Trained on"], ["evaluation", "Evaluated on"], ["test", "Test"], ["unlabelled", "Unlabelled in training"]];

const COPIES = [["all", "every copy"], ["only", "only images with copies"]];

export class Filters extends EventTarget {
  /** Values by part; those that filter nothing are missing. */
  values = {};
  #project;
  #order = document.getElementById("order");
  #form = document.getElementById("filter-form");
  #button = document.getElementById("filter-button");
  #panel = document.getElementById("filter-panel");
  #chips = document.getElementById("chips");

  constructor(project) {
    super();
    this.#project = project;
    this.#read();
    project.addEventListener("change", () => this.fill());
    addEventListener("popstate", () => {
      this.#read();
      this.#changed();
    });
    this.#order.addEventListener("change", () => this.set({ order: this.#order.value, like: undefined }));
    this.#button.addEventListener("click", () => this.toggle());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
      this.toggle(false);
    });
    this.#form.addEventListener("change", () => this.#submit());
    this.#panel.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.toggle(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!this.#panel.hidden && !this.#panel.contains(event.target) && !this.#button.contains(event.target)) this.toggle(false);
    });
  }

  /** As the server reads it. */
  get query() {
    const query = new URLSearchParams();
    for (const part of PARTS) if (this.values[part] !== undefined) query.set(part, this.values[part]);
    return query.toString();
  }

  /** Whether an image of that label belongs to what is shown. */
  matches(code) {
    const { label } = this.values;
    if (!label) return true;
    return label.split(",").some((each) => {
      if (each === "none") return code === null;
      if (each === "any") return typeof code === "number";
      return each === String(code);
    });
  }

  /** Changes some parts; undefined removes one. */
  set(changes) {
    const before = this.query;
    for (const [part, value] of Object.entries(changes)) {
      if (value === undefined || value === "" || (part === "order" && value === "path")) delete this.values[part];
      else this.values[part] = String(value);
    }
    if (this.query === before) return;
    history.pushState(null, "", this.#address(this.values));
    this.#changed();
  }

  /** Everything that is shown is shown without filters. */
  clear() {
    this.set(Object.fromEntries(PARTS.filter((part) => part !== "order").map((part) => [part, undefined])));
  }

  /** Keeps something beside the filters in the address; the step back stays as it was. */
  remember(changes) {
    const address = new URL(location.href);
    for (const [name, value] of Object.entries(changes)) {
      if (value === undefined || value === null) address.searchParams.delete(name);
      else address.searchParams.set(name, value);
    }
    if (address.href !== location.href) history.replaceState(null, "", address);
  }

  /** Opens or closes the form. */
  toggle(open = this.#panel.hidden) {
    this.#panel.hidden = !open;
    this.#button.setAttribute("aria-expanded", String(open));
    if (open) this.#form.querySelector("input, select").focus();
    else if (this.#panel.contains(document.activeElement) || document.activeElement === document.body) this.#button.focus();
  }

  /** Fills the form with what there is to choose from. */
  fill() {
    this.#fillOrder();
    const { data } = this.#project;
    const codes = [
      ["none", "No label"], ["any", "Some class"],
      ...data.classes.map((each) => [each.id, each.name]), ...STATES.map((each) => [each.code, capital(each.name)]),
    ];
    const rows = [
      this.#text("q", "Name contains"),
      this.#choice("label", "Label", codes),
      data.has.predictions && this.#choice("predicted", "Model says", data.classes.map((each) => [each.id, each.name])),
      data.has.predictions && this.#between(),
      data.clusters.length > 0 && this.#choice("cluster", "Cluster", data.clusters.map((each) => [each.id, `${each.id} (${count(each.count)})`])),
      data.folders.length > 1 && this.#choice("folder", "Folder", data.folders.map((each) => [each.name, `${each.name} (${count(each.count)})`])),
      data.has.predictions && this.#choice("part", "Part of the run", SPLITS),
      this.#choice("copies", "Duplicates", COPIES, "each image once"),
    ].filter(Boolean);
    const clear = make("button", { type: "button", class: "slim", onclick: () => this.clear() }, "Show all");
    const done = make("button", { type: "submit", class: "slim primary" }, "Done");
    const active = document.activeElement?.name;
    this.#form.replaceChildren(...rows, make("div", { class: "filter-end" }, clear, done));
    if (active && !this.#panel.hidden) this.#form.elements[active]?.focus();
    this.#fillChips();
  }

  #address(values) {
    const address = new URL(location.href);
    for (const part of PARTS) {
      if (values[part] === undefined) address.searchParams.delete(part);
      else address.searchParams.set(part, values[part]);
    }
    return address;
  }

  #read() {
    const query = new URL(location.href).searchParams;
    this.values = Object.fromEntries(PARTS.filter((part) => query.get(part)).map((part) => [part, query.get(part)]));
  }

  #changed() {
    this.fill();
    this.dispatchEvent(new Event("change"));
  }

  #fillOrder() {
    const { data } = this.#project;
    const can = { clusters: data.clusters.length > 0, predictions: data.has.predictions };
    const options = ORDERS.map(([value, words, needs]) => make("option", { value, disabled: Boolean(needs) && !can[needs] }, words));
    if (this.values.order === "similar") options.push(make("option", { value: "similar" }, "Most similar first"));
    this.#order.replaceChildren(...options);
    this.#order.value = this.values.order ?? "path";
  }

  #field(words, ...controls) {
    return make("label", { class: "filter-field" }, make("span", {}, words), ...controls);
  }

  #text(name, words) {
    return this.#field(words, make("input", { name, type: "search", value: this.values[name] ?? "", autocomplete: "off" }));
  }

  #choice(name, words, options, without = "all") {
    const value = this.values[name] ?? "";
    const known = value === "" || options.some(([each]) => String(each) === value);
    const select = make(
      "select", { name },
      make("option", { value: "" }, without),
      ...options.map(([each, text]) => make("option", { value: String(each) }, text)),
      known ? null : make("option", { value }, this.#words(name)),
    );
    select.value = value;
    return this.#field(words, select);
  }

  #between() {
    const number = (name, words) => {
      const value = this.values[name] === undefined ? "" : Math.round(this.values[name] * 100);
      return make("input", { name, type: "number", min: 0, max: 100, step: 1, value: String(value), "aria-label": words, placeholder: name === "min" ? "0" : "100" });
    };
    const fields = make("span", { class: "between" }, number("min", "Model at least so sure, in percent"), "to", number("max", "Model at most so sure, in percent"), "%");
    return make("div", { class: "filter-field" }, make("span", {}, "Model is sure"), fields);
  }

  #submit() {
    const form = new FormData(this.#form);
    const changes = {};
    for (const control of this.#form.elements) {
      if (!control.name) continue;
      const value = form.get(control.name) ?? "";
      const share = control.name === "min" || control.name === "max";
      changes[control.name] = value === "" ? undefined : share ? Number(value) / 100 : value;
    }
    this.set(changes);
  }

  #fillChips() {
    const used = Object.keys(this.values).filter((part) => part !== "order");
    this.#button.lastElementChild.textContent = used.length ? `Filter (${used.length})` : "Filter";
    this.#chips.replaceChildren(...used.map((part) => {
      const words = this.#words(part);
      const remove = make("button", { type: "button", class: "chip", title: words, onclick: () => this.#remove(part) }, make("span", {}, words), "×");
      remove.setAttribute("aria-label", `Remove filter: ${words}`);
      return make("li", {}, remove);
    }));
  }

  #remove(part) {
    this.set(part === "like" ? { like: undefined, order: undefined } : { [part]: undefined });
    this.#button.focus();
  }

  #words(part) {
    const value = this.values[part];
    const codes = () => value.split(",").map((code) => {
      if (code === "none") return "no label";
      if (code === "any") return "some class";
      return this.#project.nameOf(/^\d+$/.test(code) ? Number(code) : code);
    }).join(" or ");
    switch (part) {
      case "label": return codes();
      case "predicted": return `model says ${codes()}`;
      case "cluster": return `cluster ${value}`;
      case "folder": return `in ${value}`;
      case "min": return `at least ${Math.round(value * 100)} % sure`;
      case "max": return `at most ${Math.round(value * 100)} % sure`;
      case "copies": return COPIES.find(([name]) => name === value)?.[1] ?? value;
      case "part": return SPLITS.find(([name]) => name === value)?.[1].toLowerCase() ?? value;
      case "q": return `“${value}”`;
      case "like": return `like ${this.likeName ?? "one image"}`;
      case "run": return `run ${value}`;
      case "box": return "area of the map";
      default: return file(value);
    }
  }
}

const capital = (words) => words[0].toUpperCase() + words.slice(1);
