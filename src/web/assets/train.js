// The page that trains: from choices to a script that is shown, may be changed, and is started as it is shown.

import { here, get, post, make, toast, url, project } from "./base.js";
import { moment, start } from "./job.js";

const form = document.getElementById("train");
const notes = document.getElementById("notes");
const box = document.getElementById("script");
const text = document.getElementById("script-text");
const reset = document.getElementById("reset-script");
const cluster = document.getElementById("cluster");
/** The script as it was planned, while somebody may have changed the one that is shown. */
let planned = null;

/** What was chosen, as the server wants it. */
function ask() {
  const data = new FormData(form);
  const settings = { set: {}, with_baseline: data.has("with_baseline") };
  const slurm = {};
  const numbers = new Set(["nodes", "gpus_per_node", "tasks_per_node", "cpus_per_task"]);
  for (const [key, raw] of data) {
    const value = String(raw).trim();
    if (!value || key === "with_baseline" || key === "where") continue;
    if (key === "from") settings.from = value;
    else if (key.startsWith("slurm.")) {
      const name = key.slice("slurm.".length);
      slurm[name] = numbers.has(name) ? whole(value) : value;
    } else settings.set[key] = value;
  }
  const place = data.get("where") ?? "here";
  return { kind: "train", settings, where: place, slurm: place === "slurm" ? slurm : {} };
}

/** A whole number; anything else is told by the server in its words. */
function whole(value) {
  return /^\d{1,6}$/.test(value) ? Number(value) : value;
}

const changed = () => planned !== null && text.value !== planned;

/** Shows what is wrong beside the choice that it is about. */
function complain(error) {
  const key = error.message.match(/`([a-z_]+\.[a-z_]+)`/)?.[1];
  const field = key && form.elements.namedItem(key);
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  notes.replaceChildren(make("p", { class: "note bad", role: "alert" }, error.message));
  if (field instanceof HTMLElement) {
    field.closest("details")?.setAttribute("open", "");
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

let planning = 0;
/** Asks what would be done; false if that makes no sense. */
async function plan() {
  const turn = ++planning;
  try {
    const { script, warnings } = await post(here("api/jobs/plan"), ask());
    if (turn !== planning) return true;
    for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    notes.replaceChildren(...warnings.map((words) => make("p", { class: "note warn" }, words)));
    if (!changed()) text.value = script;
    planned = script;
    reset.hidden = !changed();
    return true;
  } catch (error) {
    if (turn === planning) complain(error);
    return false;
  }
}

function where() {
  const place = new FormData(form).get("where");
  if (cluster) cluster.disabled = place !== "slurm";
}

let timer = 0;
form.addEventListener("input", (event) => {
  if (event.target === text) {
    reset.hidden = !changed();
    return;
  }
  where();
  clearTimeout(timer);
  timer = setTimeout(plan, 400);
});

document.getElementById("show-script").addEventListener("click", async (event) => {
  if (!(await plan())) return;
  box.hidden = !box.hidden;
  event.target.textContent = box.hidden ? "Show the script" : "Hide the script";
  if (!box.hidden) text.focus();
});

reset.addEventListener("click", () => {
  text.value = planned ?? "";
  reset.hidden = true;
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const id = await start(changed() ? { ...ask(), script: text.value } : ask());
    location.assign(here(`jobs/${id}`));
  } catch (error) {
    complain(error);
    button.disabled = false;
  }
});

/** Keeps the list of jobs up to date while any goes on. */
async function jobs() {
  const table = document.getElementById("jobs");
  const { jobs: all } = await get(here("api/jobs"));
  document.getElementById("no-jobs").hidden = all.length > 0;
  table.closest(".table").hidden = all.length === 0;
  table.tBodies[0].replaceChildren(
    ...all.map((job) =>
      make("tr", {},
        make("td", {}, make("a", { href: url(`p/${project}/jobs/${job.id}`).href }, job.title)),
        make("td", {}, state(job)),
        make("td", {}, job.where === "slurm" ? "cluster" : "this machine"),
        make("td", {}, make("time", { dateTime: job.created, title: job.created }, moment(job.created))),
        make("td", {}, job.who))),
  );
  return all.some((job) => !["done", "stopped", "failed"].includes(job.state));
}

function state(job) {
  const chip = make("span", { class: "state" }, job.words);
  chip.dataset.state = job.state;
  const { position, total } = job.progress ?? {};
  const share = job.state === "running" && total > 0 ? ` ${Math.floor((100 * position) / total)} %` : "";
  chip.append(share);
  return chip;
}

async function watch() {
  let going = true;
  try {
    if (!document.hidden) going = await jobs();
  } catch (error) {
    if (error.status) toast(error.message, "bad");
  }
  if (going) setTimeout(watch, 3000);
}

where();
plan();
if (document.querySelector("#jobs [data-state=running], #jobs [data-state=waiting], #jobs [data-state=stopping]")) watch();
