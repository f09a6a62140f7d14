// The page that trains and a job's own page, in a browser: what makes no sense is told beside the choice, the script is shown
// and changed, a training is watched, stopped, resumed and done.
//
// node tests/web/jobs.mjs BASE_URL_WITH_TOKEN PROJECT_KEY OUT_DIR
//
// Of each class of the project at least four images are labelled. Runs and jobs are left behind.

import { Session, until } from "./support.mjs";

const [base, key, out] = process.argv.slice(2);
if (!out) {
  console.error("use: node jobs.mjs BASE_URL_WITH_TOKEN PROJECT_KEY OUT_DIR");
  process.exit(2);
}
const session = await Session.start(base, out);
const page = await session.visitor();
const root = new URL(base);
root.search = "";
const at = (path) => new URL(`p/${key}/${path}`, root).href;
const small = { "model.name": "resnet8", "run.device": "cpu" };
const typed = { "model.image_size": "16", "training.steps": "2000", "training.batch": "2" };

/** The form with a training that is short, yet not done before it is looked at and stopped. */
async function choose() {
  await page.goto(at("train"));
  await page.locator('[name="with_baseline"]').uncheck();
  await page.getByText("Advanced", { exact: true }).click();
  for (const [key, value] of Object.entries(small)) await page.locator(`[name="${key}"]`).selectOption(value);
  for (const [key, value] of Object.entries(typed)) await page.locator(`[name="${key}"]`).fill(value);
}

await page.goto(at("train"));
await session.picture(page, "train");
await session.accessible(page, "the page that trains");
await choose();
await page.locator('[name="training.lr"]').fill("fast");
await page.getByRole("alert").waitFor();
session.claim("a wrong value is told", await until(async () => (await page.getByRole("alert").textContent()).includes("training.lr")));
session.claim("beside its field", await until(async () => (await page.locator('[name="training.lr"]').getAttribute("aria-invalid")) === "true"));
await session.picture(page, "train-wrong");
await page.locator('[name="training.lr"]').fill("");
await page.getByRole("alert").waitFor({ state: "detached" });
await page.getByRole("button", { name: "Show the script" }).click();
const script = page.getByLabel("The script");
await page.waitForFunction(() => document.getElementById("script-text").value.includes("resnet8"));
session.claim("the script is what is chosen", await until(async () => (await script.inputValue()).includes("training.steps=2000")));
await session.accessible(page, "the script");
await script.fill((await script.inputValue()).replace("restarts=0\n", "restarts=0\necho 'changed by hand'\n"));
session.claim("a change can be undone", await until(() => page.getByRole("button", { name: "Undo my changes" }).isVisible()));
await session.picture(page, "train-script");
await page.getByRole("button", { name: "Start training" }).click();

await page.waitForURL(/\/jobs\//);
await page.getByText("Learning from labelled and unlabelled images", { exact: true }).waitFor({ timeout: 60000 });
await page.waitForFunction(() => document.querySelector("#job progress").position > 0.1, null, { timeout: 60000 });
await page.locator(".curve").first().waitFor({ timeout: 60000 });
await session.picture(page, "job-running");
await session.accessible(page, "a running job");
await page.getByRole("button", { name: "Stop", exact: true }).click();
await page.locator(".state[data-state=stopped]").waitFor({ timeout: 60000 });
await session.picture(page, "job-stopped");
await page.getByRole("button", { name: "Resume" }).click();
await page.locator(".state[data-state=done]").waitFor({ timeout: 120000 });
session.claim("it leads to the results", await until(() => page.getByRole("link", { name: "See what the model is worth" }).isVisible()));
await page.getByText("Output", { exact: true }).click();
const log = await page.locator("pre.log").textContent();
session.claim("it went on from where it was", log.includes("going on after step"));
session.claim("the changed script ran", log.includes("changed by hand"));
await page.getByText("Script and details").click();
await page.getByText("labels, as they were when it was planned").waitFor();
await session.picture(page, "job-done");
await session.accessible(page, "a job that is done");

// One that fails.
await choose();
await page.getByRole("button", { name: "Show the script" }).click();
await page.waitForFunction(() => document.getElementById("script-text").value.includes("resnet8"));
await page.getByLabel("The script").fill("#!/bin/bash\necho 'error: cannot write `x` (the disk is full)' >&2\nexit 1\n");
await page.getByRole("button", { name: "Start training" }).click();
await page.waitForURL(/\/jobs\//);
await page.getByText("What to do:").waitFor({ timeout: 30000 });
session.claim("a failure is explained with a next step", await until(async () => (await page.locator(".note.bad").textContent()).includes("Free some space")));
await session.picture(page, "job-failed");
await session.accessible(page, "a job that failed");
await page.goto(at("train"));
await page.locator("#jobs tbody tr").nth(1).waitFor();
session.claim("both are in the list", await until(async () => (await page.locator("#jobs tbody tr").count()) >= 2));
await session.picture(page, "train-again");
await page.emulateMedia({ colorScheme: "dark" });
await session.picture(page, "train-dark");
await page.setViewportSize({ width: 390, height: 800 });
await session.picture(page, "train-narrow");
const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth + 1);
session.claim("nothing is wider than a telephone", !wide);
await session.end();
