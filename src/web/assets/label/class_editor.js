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
    const button = (part, label, disabled, onclick, ...content) =>
      make("button", { type: "button", class: "slim quiet", disabled, onclick, "aria-label": label, title: label, "data-part": part }, ...content);
    const row = make(
      "li", { draggable: false, "data-id": String(each.id) },
      make("span", { class: "grip", "aria-hidden": "true", title: "Drag to another place" }, icon("grip")),
      make("input", { type: "color", value: each.colour, "aria-label": `Colour of ${each.name}`, "data-part": "colour", onchange: (event) => this.#change({ op: "change", id: each.id, colour: event.target.value }) }),
      make("input", { value: each.name, maxLength: 80, "aria-label": `Name of ${each.name}`, "data-part": "name", autocomplete: "off", onchange: (event) => this.#rename(each, event.target) }),
      make("input", { value: each.description ?? "", maxLength: 400, placeholder: "Description", "aria-label": `Description of ${each.name}`, "data-part": "description", onchange: (event) => this.#change({ op: "change", id: each.id, description: event.target.value }) }),
      make("span", { class: "class-count" }, images(this.#project.count(each.id))),
      make(
        "span", { class: "row-tools" },
        button("up", `Move ${each.name} up`, position === 0, () => this.#move(position, position - 1), icon("up")),
        button("down", `Move ${each.name} down`, last, () => this.#move(position, position + 1), icon("down")),
        this.#merge(each),
        button("delete", `Delete ${each.name}`, false, () => this.#delete(each), "Delete"),
      ),
    );
    this.#draggable(row, position);
    return row;
  }

  #rename(each, input) {
    const name = input.value.trim();
    if (name === "" || name === each.name) input.value = each.name;
    else this.#change({ op: "change", id: each.id, name });
  }

  #move(from, to) {
    const ids = this.#project.data.classes.map((each) => each.id);
    ids.splice(to, 0, ...ids.splice(from, 1));
    return this.#change({ op: "reorder", ids });
  }

  #merge(each) {
    const others = this.#project.data.classes.filter((other) => other.id !== each.id);
    const select = make("select", { "aria-label": `Merge ${each.name} into another class`, "data-part": "merge", disabled: others.length === 0 },
      make("option", { value: "" }, "Merge into …"), ...others.map((other) => make("option", { value: String(other.id) }, other.name)));
    select.addEventListener("change", async () => {
      const into = others.find((other) => String(other.id) === select.value);
      select.value = "";
      const number = images(this.#project.count(each.id));
      const words = `${number} labelled “${each.name}” get the label “${into.name}”, and “${each.name}” is a class no longer.`;
      if (into && (await ask(`Merge “${each.name}” into “${into.name}”?`, words, "Merge"))) this.#change({ op: "merge", from: each.id, into: into.id });
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
