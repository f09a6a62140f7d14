// Adding, naming, colouring, describing, ordering, merging and deleting classes. Each change is kept at once.

import { here, make, post } from "../base.js";
import { ask } from "./ask.js";
import { images } from "./codes.js";
import { icon } from "./icons.js";

const byId = (id) => document.getElementById(id);

export class ClassEditor {
  #project;
  #dialog = byId("classes-dialog");
  #rows = byId("class-rows");
  #dragged = null;

  /** `changed` is called after each change. */
  constructor(project, changed) {
    this.#project = project;
    this.changed = changed;
    byId("edit-classes").addEventListener("click", () => this.open());
    byId("classes-close").addEventListener("click", () => this.#dialog.close());
    byId("class-add").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add();
    });
    project.addEventListener("change", () => {
      if (this.#dialog.open) this.#fill();
    });
    this.#dialog.addEventListener("keydown", (event) => event.stopPropagation());
  }

  open() {
    byId("class-error").textContent = "";
    this.#fill();
    this.#dialog.showModal();
    if (this.#project.data.classes.length === 0) byId("class-add-name").focus();
  }

  async #change(body) {
    byId("class-error").textContent = "";
    try {
      this.#project.take(await post(here("api/classes"), body));
      this.changed();
      return true;
    } catch (error) {
      byId("class-error").textContent = error.message;
      this.#fill();
      return false;
    }
  }

  async #add() {
    const input = byId("class-add-name");
    const name = input.value.trim();
    if (name === "" || !(await this.#change({ op: "add", name }))) return;
    input.value = "";
    input.focus();
  }

  #fill() {
    const { classes } = this.#project.data;
    // Whoever is typing goes on typing where they are.
    const active = document.activeElement;
    const kept = this.#rows.contains(active) ? { row: active.closest("li")?.dataset.id, part: active.dataset.part } : null;
    this.#rows.replaceChildren(...classes.map((each, position) => this.#row(each, position)));
    if (kept) this.#rows.querySelector(`[data-id="${kept.row}"] [data-part="${kept.part}"]`)?.focus();
  }

  #row(each, position) {
    const { classes } = this.#project.data;
    const last = position === classes.length - 1;
    const row = make(
      "li", { draggable: false, "data-id": String(each.id) },
      make("span", { class: "grip", "aria-hidden": "true", title: "Drag to another place" }, icon("grip")),
      this.#field(each, "colour", "Colour", { type: "color", value: each.colour }),
      this.#field(each, "name", "Name", { value: each.name, maxLength: 80 }),
      this.#field(each, "description", "Description", { value: each.description ?? "", maxLength: 400, placeholder: "Description" }),
      make("span", { class: "class-count" }, images(this.#project.count(each.id))),
      make(
        "span", { class: "row-tools" },
        tool("up", `Move ${each.name} up`, () => this.#move(position, position - 1), icon("up"), position === 0),
        tool("down", `Move ${each.name} down`, () => this.#move(position, position + 1), icon("down"), last),
        this.#merge(each),
        tool("delete", `Delete ${each.name}`, () => this.#delete(each), "Delete"),
      ),
    );
    this.#draggable(row, position);
    return row;
  }

  /** A field for one part of a class, kept when it is left. */
  #field(each, part, words, properties) {
    const input = make("input", { ...properties, "aria-label": `${words} of ${each.name}`, "data-part": part, autocomplete: "off" });
    input.addEventListener("change", () => {
      const value = input.value.trim();
      if (part === "name" && value === "") input.value = each.name;
      else this.#change({ op: "change", id: each.id, [part]: value });
    });
    return input;
  }

  #move(from, to) {
    const ids = this.#project.data.classes.map((each) => each.id);
    ids.splice(to, 0, ...ids.splice(from, 1));
    return this.#change({ op: "reorder", ids });
  }

  #merge(each) {
    const others = this.#project.data.classes.filter((other) => other.id !== each.id);
    const options = others.map((other) => make("option", { value: String(other.id) }, other.name));
    const select = make(
      "select", { "aria-label": `Merge ${each.name} into another class`, "data-part": "merge", disabled: others.length === 0 },
      make("option", { value: "" }, "Merge into …"), ...options,
    );
    select.addEventListener("change", async () => {
      const into = others.find((other) => String(other.id) === select.value);
      select.value = "";
      const words = `${images(this.#project.count(each.id))} labelled “${each.name}” get the label “${into.name}”, and “${each.name}” is a class no longer.`;
      const title = `Merge “${each.name}” into “${into.name}”?`;
      if (await ask(title, words, "Merge")) this.#change({ op: "merge", from: each.id, into: into.id });
    });
    return select;
  }

  async #delete(each) {
    const number = this.#project.count(each.id);
    const words = number === 0 ? "No image has this label." : `${images(number)} lose this label and count as not labelled. The history keeps it.`;
    if (await ask(`Delete “${each.name}”?`, words, "Delete", { danger: true })) this.#change({ op: "delete", id: each.id });
  }

  /** Dragging starts at the grip only: in the fields one selects text. */
  #draggable(row, position) {
    row.querySelector(".grip").addEventListener("pointerdown", () => (row.draggable = true));
    row.addEventListener("dragstart", (event) => {
      this.#dragged = position;
      event.dataTransfer.effectAllowed = "move";
    });
    row.addEventListener("dragend", () => {
      row.draggable = false;
      this.#dragged = null;
    });
    row.addEventListener("dragover", (event) => {
      if (this.#dragged === null) return;
      event.preventDefault();
      row.classList.add("over");
    });
    row.addEventListener("dragleave", () => row.classList.remove("over"));
    row.addEventListener("drop", (event) => {
      event.preventDefault();
      row.classList.remove("over");
      if (this.#dragged !== null && this.#dragged !== position) this.#move(this.#dragged, position);
    });
  }
}

function tool(part, label, onclick, content, disabled = false) {
  return make("button", { type: "button", class: "slim quiet", disabled, onclick, "aria-label": label, title: label, "data-part": part }, content);
}
