// The form of a new project.

import { chooseFolder } from "./folders.js";
import { make, post, toast, url } from "./base.js";

// Told apart by people with any colour vision, on light and on dark (Okabe and Ito, and darker and lighter ones of these).
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d1f", "#7a5195", "#f0e442", "#4d4d4d"];

const form = document.getElementById("new-project");
const rows = document.getElementById("class-rows");
const add = document.getElementById("add-class");
const byId = (id) => document.getElementById(id);

// --- The folders ---

let folderIsOurs = true;

function suggestFolder() {
  if (!folderIsOurs) return;
  const plain = byId("name").value.trim().toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
  byId("folder").value = plain ? `${beside()}/${plain}` : "";
}

/** Where the project's folder goes: beside the images, or in the first folder that the page may use. */
function beside() {
  const images = byId("images").value.trim().replace(/\/+$/, "");
  const first = form.dataset.beside.replace(/\/+$/, "");
  const parent = images.slice(0, images.lastIndexOf("/"));
  return parent.startsWith(first) ? parent : first;
}

byId("choose-images").addEventListener("click", async () => {
  const path = await chooseFolder({ title: "Folder of images", start: byId("images").value.trim() });
  if (path) takeImages(path);
  byId("choose-images").focus();
});

function takeImages(path) {
  byId("images").value = path;
  const name = byId("name");
  if (!name.value.trim()) name.value = path.split("/").filter(Boolean).pop() ?? "";
  wrong("images", "");
  suggestFolder();
}

byId("choose-folder").addEventListener("click", async () => {
  const path = await chooseFolder({ title: "Where to keep the project", start: beside(), use: "Keep it in this folder" });
  if (path) {
    const name = byId("folder").value.trim().split("/").filter(Boolean).pop() || "project";
    byId("folder").value = `${path}/${name}`;
    folderIsOurs = false;
  }
  byId("choose-folder").focus();
});
byId("images").addEventListener("change", (event) => takeImages(event.target.value.trim()));
byId("name").addEventListener("input", suggestFolder);
byId("folder").addEventListener("input", () => (folderIsOurs = false));

// --- The classes ---

const kind = () => form.elements.kind.value;

function addClass(name = "") {
  const colour = COLOURS[rows.children.length % COLOURS.length];
  const names = make("input", { class: "class-name", value: name, maxLength: 200, autocomplete: "off" });
  const row = make(
    "li",
    { class: "class-row" },
    make("input", { type: "color", value: colour, class: "class-colour" }),
    names,
    make("input", { class: "class-description", maxLength: 500, placeholder: "How to recognise it (may stay empty)", autocomplete: "off" }),
    make("button", { class: "quiet remove", type: "button", onclick: () => remove(row) }, "Remove"),
    make("p", { class: "error", role: "alert" }),
  );
  names.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    // Enter goes on to the next class, as in every list that is typed in; the last one gets a new one below.
    event.preventDefault();
    if (kind() === "categorical" && row === rows.lastElementChild && names.value.trim()) addClass();
    (row.nextElementSibling ?? row).querySelector(".class-name").focus();
  });
  names.addEventListener("paste", (event) => pasteMany(event, names));
  rows.append(row);
  number();
  return names;
}

/** Several lines pasted are several classes. */
function pasteMany(event, names) {
  const lines = event.clipboardData.getData("text").split(/[\n\r;]+/).map((line) => line.trim()).filter(Boolean);
  if (lines.length < 2 || kind() !== "categorical") return;
  event.preventDefault();
  names.value = lines[0];
  lines.slice(1).forEach((line) => addClass(line));
  rows.lastElementChild.querySelector(".class-name").focus();
}

function remove(row) {
  const near = row.nextElementSibling ?? row.previousElementSibling;
  row.remove();
  number();
  (near?.querySelector(".class-name") ?? add).focus();
}

/** Names of the fields of each row, for those who hear them. */
function number() {
  const binary = kind() === "binary";
  const roles = ["Absent", "Present"];
  [...rows.children].forEach((row, index) => {
    const which = binary ? roles[index] : `Class ${index + 1}`;
    const names = row.querySelector(".class-name");
    names.setAttribute("aria-label", `${which}: name`);
    names.placeholder = binary ? ["not infected", "infected"][index] : `${which}`;
    row.querySelector(".class-colour").setAttribute("aria-label", `${which}: colour`);
    row.querySelector(".class-description").setAttribute("aria-label", `${which}: description`);
    const button = row.querySelector(".remove");
    button.setAttribute("aria-label", `Remove ${which.toLowerCase()}`);
    button.hidden = binary || rows.children.length <= 2;
    const error = row.querySelector(".error");
    error.id = `classes.${index}-error`;
    names.setAttribute("aria-describedby", error.id);
    names.id = `classes.${index}`;
  });
}

function changeKind() {
  byId("class-list").hidden = kind() === "percentage";
  byId("bins-field").hidden = kind() !== "percentage";
  add.hidden = kind() === "binary";
  if (kind() === "binary") while (rows.children.length > 2) rows.lastElementChild.remove();
  while (rows.children.length < 2) addClass();
  number();
}

add.addEventListener("click", () => addClass().focus());
for (const radio of form.elements.kind) radio.addEventListener("change", changeKind);

// --- Sending ---

function read() {
  const value = (row, name) => row.querySelector(name).value;
  const changed = (field) => field.value !== (field.dataset.usual ?? "");
  return {
    images: byId("images").value,
    folder: byId("folder").value,
    name: byId("name").value,
    kind: kind(),
    bins: byId("bins").value,
    classes: kind() === "percentage" ? [] : [...rows.children].map((row) => ({
      name: value(row, ".class-name"), colour: value(row, ".class-colour"), description: value(row, ".class-description"),
    })),
    // What is as usual is left out, so that it follows when the usual changes.
    settings: Object.fromEntries([...form.querySelectorAll("[data-setting]")].filter(changed).map((field) => [field.dataset.setting, field.value])),
  };
}

/** Words beside a field; tells whether there is such a field. */
function wrong(id, words) {
  const error = byId(`${id}-error`);
  const field = byId(id);
  if (error) error.textContent = sentence(words);
  if (words) field?.setAttribute("aria-invalid", "true");
  else field?.removeAttribute("aria-invalid");
  return Boolean(error);
}

/** Words of the server as a sentence of their own. */
function sentence(words) {
  return words && `${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}

// What is being put right is not called wrong any more.
form.addEventListener("input", (event) => {
  if (!event.target.hasAttribute("aria-invalid")) return;
  wrong(event.target.id, "");
  if (!form.querySelector("[aria-invalid]")) byId("form-error").hidden = true;
});

function clear() {
  byId("form-error").hidden = true;
  for (const error of form.querySelectorAll(".error")) error.textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

function show(failed) {
  const fields = Object.entries(failed.body?.fields ?? {});
  const rest = fields.filter(([id, words]) => !wrong(id, words)).map(([id, words]) => `${id} ${words}`);
  const banner = byId("form-error");
  banner.textContent = fields.length && !rest.length ? "Something is missing or wrong; it is marked below." : [failed.message, ...rest].join(" ");
  banner.hidden = false;
  if (fields.some(([id]) => byId(id)?.closest("#advanced"))) byId("advanced").open = true;
  const first = form.querySelector("[aria-invalid]");
  (first ?? banner).focus();
  (first ?? banner).scrollIntoView({ block: "center" });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clear();
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const { key } = await post(url("api/projects"), read());
    await begin(key);
    location.assign(url(`p/${key}/images`));
  } catch (failed) {
    show(failed);
    button.disabled = false;
  }
});

/** The images are looked at at once; if that cannot begin, its page offers it again. */
async function begin(key) {
  try {
    await post(url(`p/${key}/api/jobs`), { kind: "scan", settings: {}, where: "here" });
  } catch (failed) {
    toast(failed.message, "bad");
  }
}

changeKind();
byId("images").focus();
