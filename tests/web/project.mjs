// From an empty list to a project whose images are looked at: by mouse, and once more by keys alone; then its first pages.
//
// node tests/web/project.mjs BASE_URL_WITH_TOKEN IMAGES_FOLDER OUT_DIR
//
// IMAGES_FOLDER lies in a folder that the server may use, beside which two projects are left behind.

import path from "node:path";
import { Session, until } from "./support.mjs";

const [base, images, out] = process.argv.slice(2);
if (!out) {
  console.error("use: node project.mjs BASE_URL_WITH_TOKEN IMAGES_FOLDER OUT_DIR");
  process.exit(2);
}
const session = await Session.start(base, out);
const claim = session.claim.bind(session);
const root = new URL(".", new URL(base)).href;
const stamp = Date.now().toString(36);
// Without motion: a colour on its way from light to dark has no contrast yet.
const page = await session.visitor({ reducedMotion: "reduce" });
const error = (id) => page.locator(`[id="${id}-error"]`).textContent();

// Signing in.

const stranger = await session.browser.newPage();
await stranger.goto(new URL("p/x/label", root).href);
claim("strangers are led to the sign-in page", stranger.url().includes("/login?next="), stranger.url());
await stranger.fill("#secret", "guess");
await stranger.press("#secret", "Enter");
claim("a wrong word is told beside its field", await until(async () => (await stranger.locator("#secret-error").textContent()).length > 10));
await session.accessible(stranger, "sign-in page");
await session.picture(stranger, "login");
await stranger.close();

// The list.

await page.goto(root);
claim("the list of projects is there", await until(async () => (await page.locator("h1").textContent()) === "Projects"));
await session.accessible(page, "list of projects");
await session.picture(page, "projects-before");

// A new one by mouse: first everything wrong, then right.

await page.locator("a.primary", { hasText: "New project" }).click();
await page.waitForSelector(".class-row");
await page.locator("[type=submit]").click();
await page.waitForSelector("#form-error:not([hidden])");
claim("every mistake is told beside its field", await until(async () => (await error("images")) && (await error("name")) && (await error("classes"))));
claim("the first wrong field has the focus", await until(() => page.evaluate(() => document.activeElement.id === "images")));
await session.picture(page, "new-wrong");
await page.locator("#choose-images").click();
await page.waitForSelector(".picker-list button");
await session.accessible(page, "picker of folders");
await session.picture(page, "picker");
for (const folder of await way(page)) {
  await page.locator(".picker-list button", { hasText: folder }).first().click();
  await page.waitForFunction((name) => document.querySelector(".picker-path code").textContent.endsWith(name), folder);
}
claim("the picker counts the images", await until(async () => /image/.test(await page.locator(".picker-path").textContent())), await page.locator(".picker-path").textContent());
await page.locator(".picker .primary").click();
claim("the folder is taken over", (await until(async () => (await page.inputValue("#images")) === images)) === true, await page.inputValue("#images"));
await page.fill("#name", `Mouse ${stamp}`);
claim("a folder for the project is proposed beside the images", await until(async () => (await page.inputValue("#folder")) === path.join(path.dirname(images), `mouse-${stamp}`)), await page.inputValue("#folder"));
await page.locator(".class-name").nth(0).fill("healthy");
await page.locator(".class-name").nth(1).fill("healthy");
await page.locator("summary").click();
await page.locator('[id="training.lr"]').fill("fast");
await page.locator("[type=submit]").click();
await page.waitForSelector("#form-error:not([hidden])");
claim("a name that is there twice is told at its class", await until(async () => (await error("classes.1")).includes("already")));
claim("a setting that makes no sense is told in its field", await until(async () => (await error("training.lr")).includes("number")), await error("training.lr"));
await session.accessible(page, "new project with mistakes");
await page.locator(".class-name").nth(1).fill("<b>rust</b>");
claim("the banner stays while something is wrong", await until(() => page.locator("#form-error").isVisible()));
await page.locator('[id="training.lr"]').fill("");
claim("and goes with the last mistake", await until(() => page.locator("#form-error").isHidden()));
await page.locator('[id="training.epochs"]').fill("3");
await session.picture(page, "new");
await page.locator("[type=submit]").click();
await page.waitForURL(/\/p\/[^/]+\/images$/);
claim("the images are looked at by themselves", await scanned());
await session.accessible(page, "what was found");
await session.picture(page, "images");

// Its first page.

await page.locator(".bar nav a").first().click();
await page.waitForSelector("ol.loop");
const next = page.locator('.loop [aria-current="step"]');
claim("there is one next step: to label", await until(async () => (await next.count()) === 1 && (await next.textContent()).includes("Label")), await next.textContent());
claim("names with markup are text", await until(async () => (await page.locator(".class-counts").textContent()).includes("<b>rust</b>")));
await session.accessible(page, "overview");
await session.picture(page, "overview");

// Another one by keys alone.

await page.goto(new URL("new", root).href);
await page.waitForFunction(() => document.activeElement?.id === "images");
const keys = async (...all) => {
  for (const key of all) await page.keyboard.press(key);
};
await page.keyboard.type(images);
await keys("Tab", "Tab");
await page.keyboard.press("Control+A");
await page.keyboard.type(`Keys ${stamp}`);
await keys("Tab", "Tab", "Tab");
claim("the kinds of classes are the next stop", await until(() => page.evaluate(() => document.activeElement.name === "kind")));
await keys("Tab", "Tab");
await page.keyboard.type("one");
await keys("Enter");
await page.keyboard.type("two");
await keys("Enter");
await page.keyboard.type("three");
claim("Enter goes on to the next class", await until(async () => (await page.locator(".class-row").count()) === 3));
await session.picture(page, "new-by-keys");
await keys("Control+Home");
await page.locator(".class-name").nth(2).focus();
for (let tries = 0; tries < 12; tries += 1) {
  await keys("Tab");
  if (await page.evaluate(() => document.activeElement.type === "submit")) break;
}
await keys("Enter");
await page.waitForURL(/\/p\/[^/]+\/images$/);
claim("a project is made by keys alone", await scanned());

// The list again, dark, small and large.

await page.goto(root);
claim("both are on the list", await until(async () => (await page.locator(".projects h2", { hasText: stamp }).count()) === 2));
await session.picture(page, "projects");
await page.emulateMedia({ colorScheme: "dark" });
await session.accessible(page, "list of projects, dark");
await session.picture(page, "projects-dark");
await page.goto(new URL("new", root).href);
await page.waitForSelector(".class-row");
await session.accessible(page, "new project, dark");
await session.picture(page, "new-dark");
await page.setViewportSize({ width: 360, height: 740 });
const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
claim("nothing is wider than a small screen", wide <= 0, `${wide} px`);
await session.picture(page, "new-small");

// One's name.

await page.locator("#me").click();
await page.fill("#my-name", "Ada <Lovelace>");
await page.keyboard.press("Enter");
claim("one's name can be changed", await until(async () => (await page.locator("#me").textContent()) === "Ada <Lovelace>"));
await session.end();

/** Names of the folders from the one shown first to the images. */
async function way() {
  const listed = await page.locator(".picker-path code").textContent();
  if (listed.startsWith("/")) return path.relative(listed, images).split("/").filter(Boolean);
  const roots = await page.locator(".picker-name").allTextContents();
  const first = roots.find((each) => images.startsWith(`${each}/`));
  return [first, ...path.relative(first, images).split("/").filter(Boolean)];
}

/** Whether the page shows what a scan has found. */
function scanned() {
  return until(async () => {
    const facts = await page.locator("dl.facts").first().textContent().catch(() => "");
    return facts.includes("Images");
  }, 60000);
}
