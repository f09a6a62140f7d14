// The whole loop as somebody goes through it: new project, scan, groups, labels, training, results, correction, files to take
// away, predictions for new pictures. On real photographs, with the real program; nothing is set up behind the page's back.
//
// node tests/web/flow.mjs BASE_URL FOLDER OUT_DIR mouse|keys
//
// BASE_URL may carry a one-time token; else SECRET signs in. FOLDER holds what pictures.mjs wrote: `images`, `new`, and
// `truth.json`, which tells what each shows. It must lie below a root of the server, which gets the project too.

import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Session, until } from "./support.mjs";

const [base, folder, out, how] = process.argv.slice(2);
if (!["mouse", "keys"].includes(how)) {
  console.error("use: node flow.mjs BASE_URL FOLDER OUT_DIR mouse|keys");
  process.exit(2);
}
/** Labels of each class. */
const EACH = 10;
const MINUTE = 60_000;

const session = await Session.start(base, out);
const claim = session.claim.bind(session);
const truth = JSON.parse(readFileSync(path.join(folder, "truth.json"), "utf8"));
const names = [...new Set(Object.values(truth))].sort();
const root = new URL(base);
root.search = "";
root.pathname = root.pathname.replace(/login$/, "");

// Without motion: a colour on its way from light to dark has no contrast yet.
const page = await session.visitor({ acceptDownloads: true, reducedMotion: "reduce" });
page.setDefaultTimeout(30_000);
if (await page.locator("input#secret").count()) {
  await session.picture(page, "sign-in");
  await session.accessible(page, "sign in");
  await page.locator("#secret").fill(process.env.SECRET ?? "");
  await page.locator("#name").fill("Flora");
  await page.getByRole("button", { name: "Sign in" }).click();
}
await page.waitForSelector("main h1");
claim("one has come in", !page.url().includes("login"), page.url());

const at = (address) => new URL(address, root).href;
const api = (address) => page.evaluate((url) => fetch(url, { headers: { accept: "application/json" } }).then((answer) => answer.json()), at(address));
let key = "";
const projectFolder = path.join(folder, `project-${how}-${Date.now()}`);
const here = (address) => at(`p/${key}/${address}`);

const cells = () => page.locator(".row[aria-rowindex] .cell");
const saved = () => page.waitForFunction(() => document.getElementById("saved").className === "saved all");
/** What the image in a cell shows, by the name at the beginning of its words. */
const shown = (words) => truth[words.split(",")[0].split("/").pop()];

/** A page as it is: on a large screen, a telephone, and in the dark. */
async function look(name, words) {
  await session.picture(page, name);
  await session.accessible(page, words);
  await page.emulateMedia({ colorScheme: "dark" });
  await session.accessible(page, `${words}, in the dark`);
  await session.picture(page, `${name}-dark`);
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 360, height: 740 });
  await session.picture(page, `${name}-360`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  claim(`nothing sticks out on a narrow screen: ${words}`, wide <= 1, `${wide} px`);
  await page.setViewportSize({ width: 1440, height: 900 });
  // Rows are drawn anew a moment later, and a focus goes with the old ones.
  await page.waitForTimeout(400);
}

/** Waits for a job to end, from its kind; tells how. */
async function job(kind, minutes) {
  const latest = async () => (await api(`p/${key}/api/jobs`)).jobs.find((each) => each.kind === kind);
  const over = await until(async () => {
    const found = await latest();
    return found && ["done", "stopped", "failed"].includes(found.state) && found;
  }, minutes * MINUTE);
  const last = over ?? (await latest());
  claim(`the job ends well: ${kind}`, last?.state === "done", last?.state === "done" ? "" : JSON.stringify(last)?.slice(0, 800));
  if (last?.state !== "done") await session.end();
  if (last?.state !== "done") process.exit(1);
  return last;
}

await newProject();
await images();
await label();
await train();
await results();
await correct();
await takeAway();
await projects();
await session.end();

async function newProject() {
  await look("projects-before", "projects");
  await page.getByRole("link", { name: /new project/i }).first().click();
  await page.waitForSelector("#new-project");
  await page.locator("#choose-images").click();
  await page.waitForSelector("dialog.picker li button");
  await session.picture(page, "folder-picker");
  await session.accessible(page, "picker of folders");
  await page.keyboard.press("Escape");
  await page.locator("#images").fill("/etc");
  await page.keyboard.press("Tab");
  await page.locator("#name").fill("Clothes <b>");
  for (const [place, name] of names.entries()) {
    if ((await page.locator(".class-row").count()) <= place) await page.locator("#add-class").click();
    await page.locator(".class-name").nth(place).fill(name);
  }
  await page.locator("#folder").fill(projectFolder);
  await page.locator("#advanced summary").click();
  await page.locator('[id="model.name"]').selectOption("resnet8");
  await page.locator("#new-project [type=submit]").click();
  claim("a folder outside of the roots is refused, in words", (await until(async () => (await page.locator("#images-error").textContent()).length > 10)) === true, await page.locator("#images-error").textContent());
  await session.picture(page, "new-project-refused");
  await page.locator("#images").fill(path.join(folder, "images"));
  await look("new-project", "new project");
  await page.locator("#new-project [type=submit]").click();
  await page.waitForURL(/\/p\/[^/]+\/images/);
  key = /\/p\/([^/]+)\//.exec(page.url())[1];
  writeFileSync(path.join(out, "key.txt"), key);
  claim("the project is made", existsSync(path.join(projectFolder, "harvest.toml")));
}

async function images() {
  await session.picture(page, "images-scanning");
  await job("scan", 3);
  await page.goto(here("images"));
  const text = await page.locator("main").innerText();
  const count = readdirSync(path.join(folder, "images")).length;
  claim("the scan tells how many images there are", text.includes((count - 1).toLocaleString("en")), `${count} files`);
  claim("a broken file is set aside with its reason", await until(async () => /Set aside/.test(text) && (await page.getByText("broken.png").count()) > 0));
  claim("the copy is found", await until(async () => (await page.getByText("copy of the first.png").count()) > 0));
  await look("images", "what was found");
  await page.goto(here(""));
  await look("overview-begin", "overview");
  // Few passes, so that this check ends today; the file is made for people to edit.
  const settings = path.join(projectFolder, "harvest.toml");
  const clustering = "\n[clustering.simclr]\nepochs = 3\n[clustering.scan]\nepochs = 3\nself_label_epochs = 0\n";
  writeFileSync(settings, `${readFileSync(settings, "utf8")}${clustering}`);
  await page.goto(here("images"));
  await page.locator('.job-panel[data-kind="cluster"] [type=submit]').click();
  await until(() => page.locator('.job-panel[data-kind="cluster"] .job-now').isVisible());
  await session.picture(page, "images-grouping");
  await job("cluster", 6);
  // The page hears of the job's end a moment later than we do.
  await until(async () => (await api(`p/${key}/api/project`)).has.clusters, 10_000);
  await page.goto(here("images"));
  claim("groups of like images are shown", await until(async () => (await page.locator(".clusters li").count()) >= 2), `${await page.locator(".clusters li").count()}`);
  await look("images-groups", "groups");
}

async function label() {
  await page.goto(here("label"));
  await page.waitForSelector(".cell:not(.loading)");
  if (how === "mouse") await labelByMouse();
  else await labelByKeys();
  await saved();
  const { classes } = await api(`p/${key}/api/project`);
  claim(`${EACH} images of each class are labelled`, classes.every((each) => each.count === EACH), classes.map((each) => `${each.name} ${each.count}`).join(", "));
  await look("label", "label page");
}

async function labelByMouse() {
  for (const name of names) {
    const chosen = page.locator("#class-list button", { hasText: name });
    await chosen.click();
    for (let done = 0; done < EACH; done++) {
      const words = await page.locator(".row[aria-rowindex] .cell").evaluateAll((all) => all.map((cell) => cell.getAttribute("aria-label")));
      // A click may move the rows, so each is looked for anew.
      const place = words.findIndex((each) => shown(each) === name && each.includes("not labelled"));
      if (place < 0) {
        claim(`enough images of ${name} are in sight`, false, `${done}`);
        return;
      }
      await cells().nth(place).click();
      // Until it shows, the image would be found once more, and a second click so soon is taken for a trembling hand.
      await until(async () => (await chosen.textContent()).includes(`${done + 1} of`));
    }
  }
}

/** Never touches the mouse: Tab into the grid, arrows through it, a digit for the class, Space. */
async function labelByKeys() {
  const order = (await api(`p/${key}/api/project`)).classes.map((each) => each.name);
  const focused = () => page.evaluate(() => {
    const cell = document.activeElement.closest?.('[role="gridcell"]');
    return cell && { words: cell.getAttribute("aria-label"), row: cell.parentElement.getAttribute("aria-rowindex"), column: cell.getAttribute("aria-colindex") };
  });
  let presses = 0;
  while (!(await focused()) && presses < 60) {
    await page.keyboard.press("Tab");
    presses += 1;
  }
  claim("Tab leads to the grid", await until(async () => Boolean(await focused())), `${presses} presses`);
  const left = new Map(order.map((name) => [name, EACH]));
  for (let step = 0; step < 300 && [...left.values()].some((count) => count > 0); step++) {
    const cell = await until(async () => {
      const now = await focused();
      return now && shown(now.words) && now;
    });
    const name = cell && shown(cell.words);
    if (name && left.get(name) > 0) {
      await page.keyboard.press(String(order.indexOf(name) + 1));
      await page.keyboard.press("Space");
      left.set(name, left.get(name) - 1);
    }
    await page.keyboard.press("ArrowRight");
    const next = await focused();
    if (next && cell && next.row === cell.row && next.column === cell.column) {
      await page.keyboard.press("Home");
      await page.keyboard.press("ArrowDown");
    }
  }
}

async function train() {
  await page.goto(here("train"));
  await page.locator("#advanced summary").click();
  await page.locator('[id="training.steps"]').fill("150");
  await page.locator('[id="training.batch"]').fill("8");
  await page.locator('[id="training.lr"]').fill("fast");
  claim("a setting that makes no sense is told where it is", (await until(async () => (await page.locator("#notes").textContent()).includes("training.lr"))) === true, await page.locator("#notes").textContent());
  await page.locator('[id="training.lr"]').fill("");
  await until(async () => !(await page.locator("#notes").textContent()).includes("training.lr"));
  await page.locator("#show-script").click();
  claim("the script is shown before it is started", (await until(async () => (await page.locator("#script-text").inputValue()).includes("harvest"))) === true);
  await look("train", "training form");
  await page.locator("#train [type=submit]").click();
  await page.waitForURL(/\/jobs\//);
  claim("it says in words what it does", (await until(async () => /[a-z]{4}/.test(await page.locator(".phase").first().textContent()), MINUTE)) === true, await page.locator(".phase").first().textContent());
  const curve = await until(async () => (await page.locator(".curves svg").count()) > 0, 3 * MINUTE);
  claim("curves are drawn while it runs", curve === true);
  await look("train-live", "training, live");
  const done = await job("train", 8);
  await until(() => page.getByRole("link", { name: "See what the model is worth" }).isVisible(), 20_000);
  await look("train-done", "training, at its end");
  claim("the job names its run", Boolean(done.run), done.run);
  await page.getByRole("link", { name: "See what the model is worth" }).click();
}

async function results() {
  await page.waitForURL(/\/results\//);
  const text = await page.locator("main").innerText();
  claim("the accuracy has its interval", /95 % certainty/.test(text));
  claim("it stands beside the one of the labels alone", /labelled images alone/.test(text));
  await look("results", "results");
  const cell = page.locator("table.confusion td a").first();
  const count = Number(await cell.textContent());
  await cell.click();
  await page.waitForSelector(".cell:not(.loading)");
  const query = new URL(page.url()).search;
  const view = await api(`p/${key}/api/view${query}`);
  claim("a cell of the confusion matrix leads to its images", view.total === count, `${count}, ${view.total}`);
  await page.goto(here("results"));
}

async function correct() {
  const doubt = page.getByRole("link", { name: "Show me what you doubt" });
  await doubt.click();
  await page.waitForSelector(".cell:not(.loading)");
  claim("what the model doubts opens", page.url().includes("order=doubt"), page.url());
  const words = await cells().first().getAttribute("aria-label");
  claim("with what the model says of each", /model says/.test(words), words);
  await look("label-doubt", "label page, by doubt");
  await cells().first().focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("#viewer:not([hidden])");
  const order = (await api(`p/${key}/api/project`)).classes.map((each) => each.name);
  const before = (await api(`p/${key}/api/project`)).counts.labelled;
  for (let image = 0; image < 3; image++) {
    const words = await page.locator("#viewer").innerText();
    const file = /(?:IMG_\d+|copy of the first)\.png/.exec(words)?.[0];
    await page.keyboard.press(String(order.indexOf(truth[file]) + 1));
    await page.waitForTimeout(250);
  }
  await session.picture(page, "viewer");
  await page.keyboard.press("Escape");
  await saved();
  const after = (await api(`p/${key}/api/project`)).counts.labelled;
  claim("three of them are labelled, one at a time", after === before + 3, `${before}, ${after}`);
  await page.goto(here("train"));
  const again = page.locator("#train [name=from]");
  claim("training can go on from the last model", await until(async () => (await again.count()) === 1));
}

async function takeAway() {
  await page.goto(here("take"));
  await look("take", "take away");
  const get = async (name) => {
    const coming = page.waitForEvent("download", { timeout: 2 * MINUTE });
    await page.getByRole("link", { name, exact: true }).click();
    const file = path.join(out, name);
    await (await coming).saveAs(file);
    return file;
  };
  mkdirSync(out, { recursive: true });
  const labels = readFileSync(await get("labels.csv"), "utf8").trim().split("\n");
  const distinct = (await api(`p/${key}/api/project`)).counts.images;
  claim("there is a label for every image", labels.length - 1 === distinct, `${labels.length - 1}`);
  const right = labels.slice(1).filter((line) => truth[line.split(",")[0].split("/").pop()] === line.split(",")[1]).length;
  claim("most of them are right", right / (labels.length - 1) > 0.6, `${right} of ${labels.length - 1}`);
  for (const name of ["labels.parquet", "lists.zip", "model.zip", "onnx.zip", "labels-by-people.csv"]) {
    claim(`there is ${name}`, statSync(await get(name)).size > 200);
  }
  const fresh = readdirSync(path.join(folder, "new")).sort().map((name) => path.join(folder, "new", name));
  await page.locator("#files").setInputFiles(fresh);
  claim("uploads are classified", (await until(async () => (await page.locator("#answers tbody tr").count()) === fresh.length, MINUTE)) === true, `${await page.locator("#answers tbody tr").count()} of ${fresh.length}`);
  const rows = await page.locator("#answers tbody tr").allInnerTexts();
  const hits = rows.filter((row) => fresh.some((file) => row.includes(path.basename(file)) && row.includes(truth[path.basename(file)]))).length;
  claim("and most of them right", hits > fresh.length / 2, `${hits} of ${fresh.length}`);
  await look("take-predictions", "predictions");
  await page.locator("#files").setInputFiles({ name: "no picture.png", mimeType: "image/png", buffer: Buffer.from("hello") });
  claim("what is no picture is told", (await until(async () => (await page.locator("#answers").innerText()).includes("no picture.png"), 20_000)) === true);
}

async function projects() {
  await page.goto(here(""));
  await look("overview", "overview, at the end");
  await page.goto(root.href);
  claim("names are text, not HTML", await until(async () => (await page.getByText("Clothes <b>").count()) > 0));
  await look("projects", "projects");
  const missing = await page.goto(here("results/no-such-run"));
  claim("a page that is not there says so", await until(async () => missing.status() === 404 && (await page.locator("main").innerText()).length > 20));
  await session.picture(page, "missing");
}
