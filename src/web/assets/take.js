// Uploads: pictures go to the server in small parcels, and each answer is shown as it comes.

import { Failed, count, here, make, post, project, toast, url } from "./base.js";
import "./believe.js";

const find = (id) => document.getElementById(id);
const drop = find("drop");
const run = drop?.dataset.run ?? "";

// A parcel is small enough that its answers begin soon, and large enough that the network has a full batch.
const PARCEL_FILES = 32;
const PARCEL_BYTES = 48 * 2 ** 20;

/** All answers of this visit, for the table to take away. */
let answers = [];
let working = null;

/** Parcels of files; an archive is one by itself. */
function parcels(files) {
  const all = [];
  let parcel = [];
  let bytes = 0;
  const close = () => {
    if (parcel.length > 0) all.push(parcel);
    parcel = [];
    bytes = 0;
  };
  for (const file of files) {
    if (/\.zip$/i.test(file.name)) {
      all.push([file]);
      continue;
    }
    if (parcel.length === PARCEL_FILES || bytes + file.size > PARCEL_BYTES) close();
    parcel.push(file);
    bytes += file.size;
  }
  close();
  return all;
}

/** Lines of an answer as they come. */
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    rest += value;
    const parts = rest.split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

async function send(parcel, signal, tell) {
  const form = new FormData();
  for (const file of parcel) form.append("file", file, file.webkitRelativePath || file.name);
  let response;
  try {
    response = await fetch(here(`api/take/${run}/predict`), {
      method: "POST", body: form, signal, headers: { accept: "application/json" },
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Failed("The server cannot be reached, or refused the size of the upload.", 0);
  }
  if (response.status === 401) {
    location.assign(url("login"));
    throw new Failed("You are no longer signed in.", 401);
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Failed(body.error ?? `The server answered ${response.status}.`, response.status);
  }
  let complete = false;
  for await (const line of lines(response.body)) {
    if (line.failed) throw new Failed(line.failed, 500);
    complete ||= "done" in line;
    tell(line);
  }
  if (!complete) throw new Failed("The answer broke off; send these pictures again.", 500);
}

function sure(line) {
  const percent = line.confidence < 1 ? Math.min(99.9, line.confidence * 100) : 100;
  const words = percent > 99 ? percent.toFixed(1) : percent.toFixed(0);
  return make("span", { class: "sure" },
    make("meter", { min: 0, max: 1, value: line.confidence, "aria-hidden": "true" }),
    `${words} %`);
}

function row(line) {
  if (line.error) {
    return make("tr", {}, make("td", {}), make("td", { class: "name" }, line.name),
      make("td", { class: "why", colSpan: 3 }, `Not used: ${line.error}`));
  }
  const picture = line.little ? make("img", { src: line.little, alt: "", width: 56, height: 56 }) : "";
  const verdict = line.abstained
    ? [make("span", { class: "muted" }, "not sure, perhaps "), line.class]
    : [make("strong", {}, line.class)];
  return make("tr", {}, make("td", {}, picture), make("td", { class: "name" }, line.name), make("td", {}, ...verdict),
    make("td", {}, sure(line)),
    make("td", { class: "muted" }, `${line.second} ${Math.round(line.second_confidence * 100)} %`));
}

function show(line) {
  if (!("name" in line)) return;
  answers.push(line);
  find("answers").hidden = false;
  find("after").hidden = false;
  find("answers").querySelector("tbody").append(row(line));
}

function words(text) {
  find("words").textContent = text;
}

/** Classifies files and shows how far it is. */
async function classify(files) {
  if (working || files.length === 0) return;
  working = new AbortController();
  find("progress").hidden = false;
  const all = parcels(files);
  let sent = 0;
  const before = answers.length;
  const progress = () => {
    const seen = answers.length - before;
    // Of an archive nobody knows how many pictures it holds.
    find("bar").value = Math.min(1, Math.max(sent / all.length, seen / Math.max(files.length, seen + 1)));
    words(`${count(seen)} of ${all.some((parcel) => /\.zip$/i.test(parcel[0].name)) ? "?" : count(files.length)} pictures`);
  };
  try {
    words("Sending…");
    for (const parcel of all) {
      await send(parcel, working.signal, (line) => {
        if (line.waiting) words(line.waiting === 1 ? "One upload is before yours…" : `${line.waiting} uploads are before yours…`);
        else if (line.loading) words("The model is being loaded…");
        else {
          show(line);
          progress();
        }
      });
      sent += 1;
      progress();
    }
    const refused = answers.slice(before).filter((line) => line.error).length;
    const unsure = answers.slice(before).filter((line) => line.abstained).length;
    const parts = [`${count(answers.length - before - refused)} pictures classified`];
    if (unsure > 0) parts.push(`${count(unsure)} of them not surely`);
    if (refused > 0) parts.push(`${count(refused)} could not be used`);
    words(`${parts.join(", ")}.`);
    find("bar").value = 1;
  } catch (error) {
    if (working.signal.aborted) words("Stopped.");
    else {
      words("");
      toast(error.message, "bad");
    }
  } finally {
    working = null;
    find("stop").hidden = true;
  }
}

function begin(files) {
  find("stop").hidden = false;
  classify([...files]);
}

// Folders are dropped as entries; browsers without them give the files alone.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      files.push(await new Promise((give, refuse) => entry.file(give, refuse)));
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((give, refuse) => reader.readEntries(give, refuse));
      if (some.length === 0) break;
      for (const each of some) await walk(each);
    }
  };
  for (const entry of entries) await walk(entry);
  return files.filter((file) => !file.name.startsWith("."));
}

/** A cell that no spreadsheet computes, as the server writes them too. */
function cell(text) {
  const value = String(text);
  const harmless = /^'*[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

function table() {
  const rows = answers.filter((line) => !line.error).map((line) =>
    [cell(line.name), cell(line.class), line.confidence.toFixed(6), line.abstained].join(","));
  const text = `path,class,confidence,abstained\r\n${rows.join("\r\n")}\r\n`;
  const link = make("a", {
    href: URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" })),
    download: `${project}-predictions.csv`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

if (drop) {
  find("files").addEventListener("change", (event) => {
    begin(event.target.files);
    event.target.value = "";
  });
  // Wherever on the page a picture is let go, it must not replace the page.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => event.preventDefault());
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, () => drop.classList.add("over"));
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => begin(await dropped(event.dataTransfer)));
  drop.addEventListener("submit", (event) => event.preventDefault());
  find("stop").addEventListener("click", () => working?.abort());
  find("table").addEventListener("click", table);
  find("clear").addEventListener("click", () => {
    answers = [];
    find("answers").querySelector("tbody").replaceChildren();
    for (const id of ["answers", "after", "progress"]) find(id).hidden = true;
    find("files").focus();
  });
}

// What is made when it is asked for may take a minute: say so, and download when it is there.
for (const link of document.querySelectorAll("a[data-make]")) {
  link.addEventListener("click", async (event) => {
    event.preventDefault();
    if (link.ariaBusy === "true") return;
    link.ariaBusy = "true";
    const name = link.textContent;
    link.textContent = "preparing…";
    try {
      await post(here(`api/take/${run}/model`), { int8: link.dataset.make === "true" });
      const ready = make("a", { href: link.href, download: "" });
      ready.click();
    } catch (error) {
      toast(error.message, "bad");
    } finally {
      link.textContent = name;
      link.ariaBusy = "false";
    }
  });
}

const choice = find("run");
choice?.addEventListener("change", () => choice.form.submit());
