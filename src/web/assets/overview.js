// Jobs that go on, on a project's first page.

import { get, here, make, url, project } from "./base.js";

const list = document.getElementById("jobs");
const over = ["done", "stopped", "failed"];
let seen = false;

function row(job) {
  const share = job.progress?.total > 0 ? job.progress.position / job.progress.total : null;
  return make("li", { class: "next" },
    make("span", { class: "mark", "aria-hidden": "true" }, "…"),
    make("h2", {}, job.title),
    make("p", {}, job.words),
    make("span", { class: "do" }, make("a", { class: "button", href: url(`p/${project}/jobs/${job.id}`).href }, "Watch")),
    share === null ? null : make("progress", { max: 1, value: share, "aria-label": `${job.title}: how far` }));
}

async function look() {
  let jobs = [];
  try {
    ({ jobs } = await get(here("api/jobs?count=20")));
  } catch {
    // The server is away for a moment; the next look tells.
    return;
  }
  const going = jobs.filter((job) => !over.includes(job.state));
  list.replaceChildren(...going.map(row));
  list.hidden = going.length === 0;
  // Something has come to its end: the steps below stand elsewhere now.
  if (seen && going.length === 0) location.reload();
  seen = going.length > 0;
}

await look();
setInterval(look, 4000);
