// The label page, driven as people do: by mouse, by keys, by touch, with the server away, and by two at once.
//
// node tests/web/label.mjs BASE_URL_WITH_TOKEN PROJECT_KEY OUT_DIR
//
// The project needs at least 60 images and two classes. Labels are left behind.

import { Session, until } from "./support.mjs";

const [base, key, out] = process.argv.slice(2);
if (!out) {
  console.error("use: node label.mjs BASE_URL_WITH_TOKEN PROJECT_KEY OUT_DIR");
  process.exit(2);
}
const session = await Session.start(base, out);
const claim = session.claim.bind(session);
const { root } = session;
const address = (query = "") => new URL(`p/${key}/label${query}`, root).href;

/** Opens the label page and waits for its images. */
async function open(page, query = "") {
  await page.goto(address(query));
  await page.waitForSelector(".cell:not(.loading)");
}

/** Asks the server, or tells it if there is a `body`, as the page's visitor. */
const api = (page, path, body) =>
  page.evaluate(
    async ([address, body]) => {
      const headers = { accept: "application/json", "content-type": "application/json" };
      const answer = await fetch(address, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
      return answer.json();
    },
    [new URL(`p/${key}/api/${path}`, root).href, body],
  );
const cell = (page, place) => page.locator(`.row[aria-rowindex] .cell`).nth(place);
const hashOf = (page, place) => cell(page, place).locator("img").getAttribute("src").then((src) => /t\/([0-9a-f]+)\.jpg/.exec(src)[1]);
const label = (page, place) => cell(page, place).getAttribute("aria-label");
const saved = (page) => page.waitForFunction(() => document.getElementById("saved").className === "saved all");
/** What the server says of an image, newest first. */
const labels = async (page, hash) => (await api(page, `history?image=${hash}`)).entries.map((entry) => entry.label);
/** A second click on the same image so soon would count as a trembling hand. */
const settle = (page, ms = 400) => page.waitForTimeout(ms);

const page = await session.visitor();

// Earlier runs have left labels.

await open(page);
const project = await api(page, "project");
const [first, second] = project.classes;
const view = await api(page, "view?");
const range = { view: view.view, from: 0, to: Math.min(view.total, 60) };
const cleared = await api(page, "label", { request: crypto.randomUUID(), ...range, label: null, how: "test" });
claim("labels of a range of the view can be removed", cleared.version > 0, JSON.stringify(cleared));

// What is in the page.

let started = Date.now();
await open(page);
claim("the first images are there within three seconds", Date.now() - started < 3000, `${Date.now() - started} ms`);
const grid = page.locator("#grid");
const rows = Number(await grid.getAttribute("aria-rowcount"));
const columns = Number(await grid.getAttribute("aria-colcount"));
claim("the grid tells its true size", (rows - 1) * columns < view.total && rows * columns >= view.total, `${rows} × ${columns} for ${view.total}`);
const made = await page.locator(".cell").count();
claim("only what is seen is in the page", made < 300 && made <= view.total, `${made} cells`);
claim("the grid is one tab stop", await until(async () => (await page.locator('#grid [tabindex="0"]').count()) === 1));
await page.waitForFunction(() => [...document.querySelectorAll(".cell img")].filter((each) => each.complete && each.naturalWidth > 0).length > 10);
await session.picture(page, "label-1440-light");
await session.accessible(page, "grid, light");

// Class first.

await page.locator("#class-list button").first().click();
const target = await hashOf(page, 1);
await cell(page, 1).click();
claim("a click shows its label at once", (await until(async () => (await label(page, 1)).includes(`labelled ${first.name} by you`), 300)) === true, await label(page, 1));
await saved(page);
claim("and the server has it when the page says saved", (await labels(page, target))[0] === first.id);
claim("what happened is said", (await until(async () => (await page.locator("#said").textContent()).startsWith(`1 image labelled ${first.name}.`))) === true, await page.locator("#said").textContent());
await settle(page);
await cell(page, 1).click();
await saved(page);
claim("a second click takes it away", (await labels(page, target))[0] === null);
await page.keyboard.press("Control+z");
claim("Ctrl-Z brings it back", (await until(async () => (await label(page, 1)).includes(`labelled ${first.name}`))) === true);
await saved(page);
await open(page);
await page.keyboard.press("Control+z");
claim("undo goes on after a reload", (await until(async () => (await label(page, 1)).includes("not labelled"))) === true, await label(page, 1));
await saved(page);
await page.keyboard.press("Control+Shift+z");
claim("Shift-Ctrl-Z does it again", (await until(async () => (await label(page, 1)).includes(`labelled ${first.name}`))) === true);
await saved(page);

// By keys only.

await cell(page, 0).focus();
await page.keyboard.press("2");
claim("a digit chooses the class", (await until(async () => (await page.locator("#class-list button").nth(1).getAttribute("aria-pressed")) === "true")) === true);
for (const press of ["ArrowRight", "ArrowDown", "ArrowLeft"]) await page.keyboard.press(press);
const focused = () => page.evaluate(() => [Number(document.activeElement.parentElement.getAttribute("aria-rowindex")), Number(document.activeElement.getAttribute("aria-colindex"))]);
claim("arrows move the focus", await until(async () => String(await focused()) === "2,1"), String(await focused()));
await page.keyboard.press("End");
claim("End goes to the end of the row", await until(async () => (await focused())[1] === columns));
const byKeys = await page.evaluate(() => document.activeElement.querySelector("img").src.split("/t/")[1].slice(0, -4));
await page.keyboard.press("Space");
await saved(page);
claim("Space labels the image in focus", (await labels(page, byKeys))[0] === second.id);
await page.keyboard.press("u");
await saved(page);
claim("U says not sure", (await labels(page, byKeys))[0] === "u");
// Asked before the page has had a moment to draw: whoever leaves on "Saved" must have lost nothing.
const told = await page.evaluate(() => {
  const saved = () => document.getElementById("saved").className;
  const before = saved();
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: "x", bubbles: true, cancelable: true }));
  return [before, saved()].join(", then ");
});
claim("the page says at once that a key is not saved yet", told === "saved all, then saved some", told);
await page.keyboard.press("b");
await saved(page);
claim("X and B too, in order", JSON.stringify((await labels(page, byKeys)).slice(0, 2)) === '["b","x"]');
await page.keyboard.press("Control+End");
claim("Ctrl-End goes to the last image", (await until(async () => (await focused())[0] === rows)) === true);
await page.keyboard.press("Control+Home");
claim("Ctrl-Home to the first", await until(async () => String(await focused()) === "1,1"));

// Image first.

await page.keyboard.press("m");
claim("M changes to image first", await until(() => page.locator("#mode-image").isChecked()));
await cell(page, 3).click();
await cell(page, 6).click({ modifiers: ["Shift"] });
await cell(page, 8).click({ modifiers: ["Control"] });
claim("click, Shift and Ctrl select", (await until(async () => (await page.locator("#selection-count").textContent()) === "5 images selected")) === true);
await session.picture(page, "label-selection");
await session.accessible(page, "selection");
const chosen = await Promise.all([3, 4, 5, 6, 8].map((place) => hashOf(page, place)));
await page.keyboard.press("1");
await saved(page);
claim("a class key labels them all", (await Promise.all(chosen.map((hash) => labels(page, hash)))).every(([newest]) => newest === first.id));
const [from, to] = [await cell(page, columns).boundingBox(), await cell(page, 2 * columns + 2).boundingBox()];
await page.mouse.move(from.x + 5, from.y + 5);
await page.mouse.down();
await page.mouse.move(to.x + 20, to.y + 20, { steps: 8 });
await page.mouse.up();
claim("a rubber band selects what it touches", (await until(async () => (await page.locator(".cell.selected").count()) === 6)) === true);
await page.keyboard.press("Escape");
claim("Escape selects nothing", (await until(() => page.locator("#selection").isHidden())) === true);
await cell(page, 0).focus();
await page.keyboard.press("Control+a");
const all = `${view.total.toLocaleString("en")} images selected`;
claim("Ctrl-A selects the view", (await until(async () => (await page.locator("#selection-count").textContent()) === all)) === true, all);
if (view.total > 200) {
  await page.keyboard.press("2");
  await page.waitForSelector("dialog.ask");
  claim("many are asked about first", await until(() => page.locator("dialog.ask").isVisible()), await page.locator("dialog.ask p").textContent());
  await session.accessible(page, "question");
  await page.getByRole("button", { name: "Cancel" }).click();
}
await page.keyboard.press("Escape");
await page.locator("#deselect").click({ timeout: 1000 }).catch(() => {});

if (project.clusters.length > 0) {
  await cell(page, 0).click();
  await page.locator("#select-cluster").click();
  const cluster = (await page.locator("#select-cluster").textContent()).match(/cluster (\d+)/)[1];
  const inCluster = await api(page, `view?cluster=${cluster}`);
  const words = `${inCluster.total.toLocaleString("en")} images selected`;
  claim("all in a cluster can be selected, with their number", (await until(async () => (await page.locator("#selection-count").textContent()) === words)) === true, words);
  await page.locator("#deselect").click();
}

// One at a time.

await cell(page, 10).focus();
const large = await Promise.all([10, 11].map((place) => hashOf(page, place)));
await page.keyboard.press("Enter");
claim("Enter shows the image large", await until(() => page.locator("#viewer").isVisible()));
await page.waitForFunction(() => document.getElementById("viewer-image").naturalWidth > 0);
await page.keyboard.press("+");
claim("plus makes it larger", await until(async () => (await page.locator("#viewer-image").evaluate((image) => image.style.transform)).includes("scale(1.5)")));
await page.keyboard.press("2");
await page.keyboard.press("1");
await saved(page);
claim("class keys label and go on", (await labels(page, large[0]))[0] === second.id && (await labels(page, large[1]))[0] === first.id);
claim("and the third image is shown", await until(async () => (await page.locator("#viewer-at").textContent()).startsWith("13 of")), await page.locator("#viewer-at").textContent());
await session.picture(page, "label-viewer");
await session.accessible(page, "large view");
await page.keyboard.press("Escape");
// The browser first gives the focus back to where it was; the page hears of the end after that.
claim("Escape goes back to the image in the grid", (await until(async () => (await page.evaluate(() => document.activeElement.index)) === 12)) === true, String(await page.evaluate(() => document.activeElement.index)));

// What is shown lives in the address.

await open(page, "?label=none&mode=image");
const unlabelled = await api(page, "view?label=none");
claim("the address filters", await until(async () => Number(await grid.getAttribute("aria-rowcount")) === Math.ceil(unlabelled.total / columns)));
await cell(page, 0).focus();
await page.keyboard.press("2");
claim("what no longer matches stays, and is told", (await until(() => page.locator("#stale").isVisible())) === true, await page.locator("#stale-words").textContent());
await saved(page);
await page.locator("#refresh").click();
claim("refresh makes the view anew", (await until(() => page.locator("#stale").isHidden())) === true);
await page.locator("#order").selectOption("-date");
claim("an order is in the address", page.url().includes("order=-date"));
await page.goBack();
claim("and the way back leads back", await until(async () => !page.url().includes("order") && (await page.locator("#order").inputValue()) === "path"));
await page.locator("#filter-button").click();
await session.picture(page, "label-filter");
await session.accessible(page, "filter");
await page.keyboard.press("Escape");

// The server is away.

await open(page);
await page.locator("#class-list button").nth(1).click();
await page.route("**/api/label", (route) => route.abort());
const waiting = await Promise.all([14, 15, 16].map((place) => hashOf(page, place)));
for (const place of [14, 15, 16]) await cell(page, place).click();
claim("clicks are shown while the server is away", (await until(async () => (await label(page, 16)).includes(`, labelled ${second.name}`))) === true);
claim("the page says how many wait", (await until(async () => (await page.locator("#waiting-words").textContent()).startsWith("3 clicks wait"))) === true, await page.locator("#waiting-words").textContent());
await session.picture(page, "label-waiting");
await session.accessible(page, "clicks wait");
let warned = false;
page.once("dialog", (dialog) => {
  warned = dialog.type() === "beforeunload";
  dialog.accept();
});
await open(page);
claim("leaving is warned of", warned);
claim("clicks that wait are still shown after a reload", (await label(page, 14)).includes(`labelled ${second.name}`), await label(page, 14));
await page.unroute("**/api/label");
await page.locator("#send-now").click({ timeout: 2000 }).catch(() => {});
await saved(page);
claim("and are saved when the server is back", (await Promise.all(waiting.map((hash) => labels(page, hash)))).every(([newest]) => newest === second.id));
claim("nothing is left in the browser", (await page.evaluate(() => Object.keys(localStorage).filter((name) => name.includes(":waiting:")).length)) === 0);

// Two at once.

const other = await session.visitor();
await open(other);
await other.locator("#class-list button").first().click();
const shared = await hashOf(other, 20);
await cell(other, 20).click();
claim("what one labels the other sees", (await until(async () => (await label(page, 20)).includes(`labelled ${first.name}`))) === true, await label(page, 20));
claim("it is the same image", await until(async () => (await hashOf(page, 20)) === shared));

// History and map.

await page.locator("#history-button").click();
claim("the history tells who and what", (await until(async () => (await page.locator("#history-list li").count()) > 5)) === true, await page.locator("#history-list li").first().textContent());
await session.picture(page, "label-history");
await session.accessible(page, "history");
if (project.has.map) {
  await page.locator("#map-button").click();
  await page.waitForFunction(() => document.getElementById("map-note").textContent.includes("images"));
  const canvas = await page.locator("#map").boundingBox();
  await page.mouse.move(canvas.x + canvas.width * 0.2, canvas.y + canvas.height * 0.25);
  await page.mouse.down();
  await page.mouse.move(canvas.x + canvas.width * 0.7, canvas.y + canvas.height * 0.7, { steps: 5 });
  await page.mouse.up();
  claim("a box on the map filters the grid", (await until(() => page.url().includes("box="))) === true);
  await page.locator("label[for=map-lasso]").click();
  await page.mouse.move(canvas.x + canvas.width * 0.3, canvas.y + canvas.height * 0.3);
  await page.mouse.down();
  for (const [x, y] of [[0.9, 0.3], [0.9, 0.6], [0.5, 0.8], [0.2, 0.6]]) await page.mouse.move(canvas.x + canvas.width * x, canvas.y + canvas.height * y, { steps: 3 });
  await session.picture(page, "label-lasso");
  await page.mouse.up();
  claim("a lasso on the map selects", (await until(() => page.locator("#selection").isVisible())) === true, await page.locator("#selection-count").textContent());
  await settle(page);
  await session.picture(page, "label-map");
  await session.accessible(page, "map");
}
await page.locator("#close-panel").click();

// Classes change.

await open(page);
await page.locator("#edit-classes").click();
const name = `class ${Date.now()}`;
await page.locator("#class-add-name").fill(name);
await page.keyboard.press("Enter");
const named = () => page.locator(`#class-rows input[value="${name}"]`).count();
claim("a class is added", (await until(async () => (await api(page, "project")).classes.some((each) => each.name === name))) === true);
await until(named);
await session.picture(page, "label-classes");
await session.accessible(page, "classes");
await page.getByLabel(`Name of ${name}`).fill(`${name} b`);
await page.keyboard.press("Tab");
claim("and renamed", (await until(async () => (await api(page, "project")).classes.some((each) => each.name === `${name} b`))) === true);
await page.getByLabel(`Move ${name} b up`).click();
claim("and moved up by a button", (await until(async () => (await api(page, "project")).classes.at(-2).name === `${name} b`)) === true);
const row = page.locator("#class-rows li", { has: page.getByLabel(`Name of ${name} b`) });
await row.locator(".grip").hover();
await page.mouse.down();
await page.locator("#class-rows li").first().hover();
await page.locator("#class-rows li").first().hover({ position: { x: 30, y: 5 } });
await page.mouse.up();
claim("and to the top by dragging", (await until(async () => (await api(page, "project")).classes[0].name === `${name} b`)) === true);
await page.getByLabel(`Colour of ${name} b`).fill("#123456");
claim("and recoloured", (await until(async () => (await api(page, "project")).classes.some((each) => each.colour.toLowerCase() === "#123456"))) === true);
await page.locator("#classes-close").click();
await page.locator("#class-list button", { hasText: `${name} b` }).click();
const merged = await hashOf(page, 24);
await cell(page, 24).click();
await saved(page);
await page.locator("#edit-classes").click();
await page.getByLabel(`Merge ${name} b into another class`).selectOption({ label: second.name });
claim("merging tells how many images move", await until(async () => (await page.locator("dialog.ask p").textContent()).startsWith("1 image ")), await page.locator("dialog.ask p").textContent());
await page.locator("dialog.ask .primary").click();
claim("and moves them", (await until(async () => (await labels(page, merged))[0] === second.id)) === true);
claim("and the class is gone", await until(async () => !(await api(page, "project")).classes.some((each) => each.name.startsWith(name))));
await page.locator("#class-add-name").fill(name);
await page.keyboard.press("Enter");
await until(named);
await page.getByLabel(`Delete ${name}`).click();
claim("deleting tells how many labels are lost", await until(async () => (await page.locator("dialog.ask p").textContent()).includes("No image has this label")));
await page.locator("dialog.ask .danger").click();
claim("and deletes", (await until(async () => !(await api(page, "project")).classes.some((each) => each.name.startsWith(name)))) === true);
await page.locator("#classes-close").click();

// Keys can be changed and switched off.

await page.keyboard.press("?");
claim("a question mark lists the keys", await until(() => page.locator("#keys-dialog").isVisible()));
await session.picture(page, "label-keys");
await session.accessible(page, "keys");
await page.locator('[data-action="unsure"]').click();
await page.keyboard.press("q");
await page.locator("#keys-on").uncheck();
await page.locator("#keys-close").click();
await page.reload();
await page.waitForSelector(".cell:not(.loading)");
const untouched = await hashOf(page, 22);
await cell(page, 22).focus();
const before = JSON.stringify(await labels(page, untouched));
await page.keyboard.press("q");
await page.keyboard.press("u");
await settle(page, 300);
claim("switched off, single keys do nothing", JSON.stringify(await labels(page, untouched)) === before);
await page.locator("#keys-button").click();
await page.locator("#keys-on").check();
await page.locator("#keys-close").click();
await cell(page, 22).focus();
await page.keyboard.press("q");
await saved(page);
claim("a changed key does what the old one did", (await labels(page, untouched))[0] === "u");

// Jumps.

const jumps = [];
for (const share of [0.5, 0.03, 0.97, 0.31, 0.77, 1]) {
  started = Date.now();
  await page.locator("#scroller").evaluate((scroller, share) => (scroller.scrollTop = (scroller.scrollHeight - scroller.clientHeight) * share), share);
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await page.waitForFunction(() => {
    const view = document.getElementById("scroller").getBoundingClientRect();
    const seen = [...document.querySelectorAll(".cell")].filter((each) => { const box = each.getBoundingClientRect(); return box.bottom > view.top && box.top < view.bottom; });
    return seen.length > 0 && seen.every((each) => !each.classList.contains("loading") && each.querySelector("img").complete);
  });
  jumps.push(Date.now() - started);
}
jumps.sort((a, b) => a - b);
claim("a jump anywhere shows its pictures within a second", jumps[jumps.length >> 1] < 1000, `${jumps.join(", ")} ms`);
const last = await page.evaluate(() => Math.max(...[...document.querySelectorAll(".row")].map((row) => Number(row.getAttribute("aria-rowindex")))));
claim("the end of the bar is the end of the images", await until(async () => last === Number(await grid.getAttribute("aria-rowcount"))));

// Dark, narrow, large, by finger.

await page.emulateMedia({ colorScheme: "dark" });
await open(page, "?mode=image");
await settle(page);
await session.picture(page, "label-1440-dark");
await session.accessible(page, "grid, dark");
await page.locator("#edit-classes").click();
await session.accessible(page, "classes, dark");
await page.locator("#classes-close").click();
await cell(page, 0).focus();
await page.keyboard.press("Enter");
await session.accessible(page, "large view, dark");
await page.keyboard.press("Escape");
await page.emulateMedia({ colorScheme: "light", forcedColors: "active" });
await session.picture(page, "label-forced-colours");
await page.emulateMedia({ forcedColors: "none" });
await page.locator(".theme").click();
await page.locator(".theme").click();
claim("the theme can be chosen", await until(async () => (await page.evaluate(() => document.documentElement.dataset.theme)) === "dark"));
for (const [width, height, words] of [[768, 1024, "768"], [360, 740, "360"], [320, 568, "320"], [720, 450, "at 200 %"]]) {
  await page.setViewportSize({ width, height });
  await open(page);
  await settle(page);
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  claim(`nothing is cut off sideways: ${words}`, over <= 0, `${over} px`);
  await session.picture(page, `label-${width}`);
  await session.accessible(page, `grid, ${words}`);
}
const finger = await session.visitor({ viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
await open(finger);
await finger.locator("#class-list button").first().tap();
const tapped = await hashOf(finger, 4);
const wasLabelled = (await labels(finger, tapped))[0] === first.id;
await cell(finger, 4).tap();
await saved(finger);
claim("a tap labels", ((await labels(finger, tapped))[0] === first.id) !== wasLabelled);
await settle(finger);
const press = await cell(finger, 3).boundingBox();
const touch = await finger.context().newCDPSession(finger);
await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [{ x: press.x + 30, y: press.y + 30 }] });
await settle(finger, 700);
await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
claim("a long press selects", (await until(() => finger.locator("#selection").isVisible(), 2000)) === true);
await session.picture(finger, "label-touch");

await session.end();
