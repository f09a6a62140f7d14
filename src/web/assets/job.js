// A job as it goes: on its own page, and in panels of other pages that start and watch one.

import { here, get, post, make, toast, count, project } from "./base.js";
import { curve } from "./curve.js";

const OVER = new Set(["done", "stopped", "failed"]);

/** Seconds as people say them: "4 s", "2 min 5 s", "3 h 20 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole / 60) % 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole / 3600) % 24)} h`;
}

/** A moment in the reader's own time, without what is the same today. */
export function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return text;
  const clock = time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const today = time.toDateString() === new Date().toDateString();
  return today ? `today, ${clock}` : `${time.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, ${clock}`;
}

/** Asks for a job again and again until it is over, slower while nobody looks; calls `show` with each answer. Returns a stop. */
export function follow(id, show, failed = () => {}) {
  let timer = 0;
  let ended = false;
  async function ask() {
    let wait = 1000;
    try {
      const job = await get(here(`api/jobs/${id}`));
      if (ended) return;
      show(job);
      if (OVER.has(job.state)) return;
      if (job.state === "waiting" || job.where === "slurm") wait = 3000;
    } catch (error) {
      if (ended) return;
      failed(error);
      if (error.status === 404) return;
      wait = 5000;
    }
    timer = setTimeout(ask, document.hidden ? wait * 5 : wait);
  }
  const seen = () => {
    if (document.hidden || ended) return;
    clearTimeout(timer);
    ask();
  };
  document.addEventListener("visibilitychange", seen);
  ask();
  return () => {
    ended = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  };
}

/** "1,200 of 4,000 · 35 a second · 1 min 20 s left" */
function amount({ position, total, rate, seconds_left }) {
  const parts = [];
  if (total > 0) parts.push(`${count(position)} of ${count(total)}`);
  else if (position > 0) parts.push(`${count(position)} done`);
  if (rate) parts.push(`${rate < 10 ? rate.toFixed(2) : count(Math.round(rate))} a second`);
  if (seconds_left !== null && seconds_left !== undefined && total > position) parts.push(`${duration(seconds_left)} left`);
  return parts.join(" · ");
}

/** Where a job stands in Slurm's queue. */
function queue({ position, waiting, words, start }) {
  const place = position ? `Place ${count(position)} of ${count(waiting)} in the queue: ` : "In the queue: ";
  return `${place}${words}.${start ? ` Slurm expects it to start ${moment(start)}.` : ""}`;
}

/** What a job does, how far it is, and what became of it: kept up to date by `update(job)`. */
function report() {
  const chip = make("span", { class: "state" });
  const words = make("strong", { class: "phase" });
  const bar = make("progress", { max: 1, "aria-label": "Progress of this part" });
  const far = make("p", { class: "muted far" });
  const wait = make("p", { class: "note", hidden: true });
  const trouble = make("p", { class: "note warn", hidden: true });
  const failure = make("div", { class: "note bad", hidden: true });
  // Read aloud when the state or phase changes, not every second.
  const said = make("p", { class: "visually-hidden", role: "status" });
  const root = make("div", { class: "job-report" }, make("p", { class: "job-line" }, chip, words), bar, far, wait, trouble, failure, said);
  const put = (element, text) => {
    element.hidden = !text;
    if (element.textContent !== text) element.textContent = text;
  };
  function update(job) {
    const progress = job.progress;
    chip.dataset.state = job.state;
    put(chip, job.state);
    // "Failed" once is enough.
    put(words, job.words.toLowerCase() === job.state ? "" : job.words);
    const going = job.state === "running" || job.state === "stopping";
    bar.hidden = !going;
    if (progress?.total > 0) bar.value = progress.position / progress.total;
    else bar.removeAttribute("value");
    const message = progress?.message ? ` ${progress.message}.` : "";
    put(far, going && progress ? `${amount(progress)}${amount(progress) && message ? "." : ""}${message}` : "");
    put(wait, job.queue ? queue(job.queue) : "");
    put(trouble, job.trouble ? `The cluster does not answer: ${job.trouble}` : "");
    failure.hidden = !job.failure;
    if (job.failure && failure.dataset.what !== job.failure.what) {
      failure.dataset.what = job.failure.what;
      const { what, next, go } = job.failure;
      const names = { label: "Label images", images: "Look at the images", train: "Set up a training" };
      failure.replaceChildren(
        make("p", {}, make("strong", {}, "What happened: "), what),
        make("p", {}, make("strong", {}, "What to do: "), next),
        go ? make("p", {}, make("a", { href: `p/${project}/${go}` }, names[go] ?? go)) : "",
      );
    }
    const line = `${job.title}: ${job.words}`;
    if (said.textContent !== line) said.textContent = line;
  }
  return { root, update };
}

/** Buttons that stop, resume and forget; `changed` is called with the job's new state, or nothing once it is forgotten. */
function actions(id, changed) {
  const act = async (button, verb) => {
    button.disabled = true;
    try {
      changed(await post(here(`api/jobs/${id}/${verb}`)), verb);
    } catch (error) {
      toast(error.message, "bad");
    }
    button.disabled = false;
  };
  const button = (words, verb, kind) => make("button", { type: "button", class: kind, hidden: true, onclick: (event) => act(event.currentTarget, verb) }, words);
  const stop = button("Stop", "stop", "danger");
  const resume = button("Resume", "resume", "primary");
  const forget = button("Forget this job", "forget", "quiet");
  const root = make("div", { class: "actions" }, resume, stop, forget);
  function update(job) {
    stop.hidden = !job.can.stop;
    stop.textContent = job.state === "stopping" && job.where === "here" ? "Stop at once, without saving" : "Stop";
    resume.hidden = !job.can.resume;
    forget.hidden = !job.can.forget;
  }
  return { root, update };
}

const NUMBERS = [
  ["images_per_second", "Images a second", (value) => count(Math.round(value))],
  ["loss", "Loss", (value) => value.toPrecision(3)],
  ["evaluation_accuracy", "Right, of the images kept aside", (value) => `${(100 * value).toFixed(1)} %`],
  ["mask_ratio", "Unlabelled images used", (value) => `${(100 * value).toFixed(0)} %`],
];

/** The latest numbers of a training. */
function numbers(list, scalars) {
  const known = NUMBERS.filter(([key]) => scalars[key] !== undefined);
  list.hidden = known.length === 0;
  list.replaceChildren(...known.map(([key, name, words]) => make("div", {}, make("dt", {}, name), make("dd", {}, words(scalars[key])))));
}

const CURVES = [
  ["accuracy", "Images kept aside that it gets right", true],
  ["loss", "Loss: how far off it is", false],
  ["used", "Share of the unlabelled images used", true],
];

/** A job's own page. */
function page(root) {
  const id = root.dataset.job;
  const shown = report();
  const facts = make("dl", { class: "facts" });
  const curves = make("div", { class: "curves" });
  const done = make("p", { class: "note", hidden: true });
  const log = make("pre", { class: "log", tabIndex: 0, "aria-label": "The last lines of its output" });
  const about = make("div", {});
  const more = make("details", { ontoggle: () => more.open && details(id, about) }, make("summary", {}, "Script and details"), about);
  const logs = make("details", {}, make("summary", {}, "Output"), log);
  const buttons = actions(id, (job, verb) => {
    if (verb === "forget") {
      location.assign(here("train"));
      return;
    }
    show(job);
    if (verb === "resume") watch();
  });
  const meta = make("p", { class: "muted" });
  root.replaceChildren(meta, shown.root, done, buttons.root, facts, curves, logs, more);
  let drawn = 0;
  let stop = () => {};

  async function draw(last) {
    if (root.dataset.kind !== "train" || (!last && Date.now() - drawn < 3000)) return;
    drawn = Date.now();
    const all = await get(here(`api/jobs/${id}/curves`)).catch(() => ({}));
    const known = CURVES.filter(([key]) => all[key]?.length > 1);
    curves.replaceChildren(...known.map(([key, title, percent]) => curve(title, all[key], percent)));
  }

  function show(job) {
    document.title = `${job.state === "running" ? job.words : job.state} · ${job.title} · HARVEST`;
    shown.update(job);
    buttons.update(job);
    const where = job.where === "slurm" ? job.handle : job.handle || "this machine";
    meta.textContent = `Started ${moment(job.created)} by ${job.who}${where ? `, ${where}` : ""}${job.nodes && job.where === "slurm" ? ` on ${job.nodes}` : ""}${job.ended ? `; ended ${moment(job.ended)}` : ""}`;
    numbers(facts, job.progress?.scalars ?? {});
    done.hidden = job.state !== "done";
    if (job.state === "done") finished(done, job);
    const low = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    if (log.textContent !== job.log) {
      log.textContent = job.log || "Nothing yet.";
      if (low) log.scrollTop = log.scrollHeight;
    }
    if (job.state === "failed") logs.open = true;
    draw(OVER.has(job.state));
  }
  function watch() {
    stop();
    stop = follow(id, show, (error) => toast(error.message, "bad"));
  }
  watch();
}

/** What to do next after a job that went well. */
function finished(note, job) {
  const links = {
    train: job.run ? [`p/${project}/results/${job.run}`, "See what the model is worth"] : [`p/${project}/results`, "See the results"],
    scan: [`p/${project}/images`, "See what was found"],
    cluster: [`p/${project}/label`, "Label group by group"],
    "label-all": [`p/${project}/take`, "Take the labels away"],
  };
  const [address, words] = links[job.kind] ?? [`p/${project}/`, "Go on"];
  note.replaceChildren("It is done. ", make("a", { href: address }, words), ".");
}

/** The script, and all that Slurm tells. */
async function details(id, about) {
  try {
    const { script, slurm, labels, folder } = await get(here(`api/jobs/${id}/details`));
    about.replaceChildren(
      make("p", { class: "muted" }, `Its folder is ${folder}.`, labels === null ? "" : ` It goes by ${count(labels)} labels, as they were when it was planned.`),
      make("pre", { tabIndex: 0, "aria-label": "Script" }, script),
      slurm ? make("pre", { tabIndex: 0, "aria-label": "What Slurm tells" }, slurm) : "",
    );
  } catch (error) {
    about.textContent = error.message;
  }
}

/** Starts a job; returns its name. */
export async function start(ask) {
  return (await post(here("api/jobs"), ask)).id;
}

/** Panels that start a job of one kind and watch it. `ended(job)` is called when one ends while the page is open. */
export function watchPanels(ended = () => {}, root = document) {
  for (const panel of root.querySelectorAll(".job-panel")) onePanel(panel, ended);
}

function onePanel(panel, ended) {
  const now = panel.querySelector(".job-now");
  const form = panel.querySelector(".job-start");
  let stop = () => {};
  function watch(id, fresh) {
    stop();
    const shown = report();
    const buttons = actions(id, (job, verb) => {
      if (verb === "forget") {
        now.hidden = true;
        form.hidden = false;
        return;
      }
      watch(id, true);
    });
    const link = make("p", {}, make("a", { href: `p/${project}/jobs/${id}` }, "More about this job"));
    now.replaceChildren(shown.root, buttons.root, link);
    let was = fresh ? "running" : "";
    stop = follow(id, (job) => {
      // A job of long ago that went well is not news.
      now.hidden = job.state === "done" && was === "";
      form.hidden = !OVER.has(job.state);
      shown.update(job);
      buttons.update(job);
      if (OVER.has(job.state) && was && !OVER.has(was)) ended(job);
      was = job.state;
    });
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const set = {};
    for (const [key, value] of new FormData(form)) if (String(value).trim()) set[key] = String(value).trim();
    const button = form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      watch(await start({ kind: panel.dataset.kind, settings: { set } }), true);
    } catch (error) {
      toast(error.message, "bad");
    }
    button.disabled = false;
  });
  if (panel.dataset.job && panel.dataset.state !== "done") watch(panel.dataset.job, !OVER.has(panel.dataset.state));
}

const own = document.getElementById("job");
if (own) page(own);
for (const time of document.querySelectorAll("time[datetime]")) {
  time.title = time.dateTime;
  time.textContent = moment(time.dateTime);
}
