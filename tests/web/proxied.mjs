// `harvest serve` behind a proxy in both styles, without a browser: signing in, the cookie, pages, scripts, events at once.
//
// node tests/web/proxied.mjs [HARVEST]     the program; target/release/harvest if none is named

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { freePort, prefix, startProxy } from "./proxy.mjs";

const program = path.resolve(process.argv[2] ?? "target/release/harvest");
const work = mkdtempSync(path.join(tmpdir(), "proxied-"));
const environment = { ...process.env, XDG_STATE_HOME: path.join(work, "state"), XDG_CONFIG_HOME: path.join(work, "none") };
let failed = 0;

function claim(words, holds, seen = "") {
  console.log(`${holds ? "ok  " : "FAIL"} ${words}${holds || seen === "" ? "" : ` (${seen})`}`);
  if (!holds) failed += 1;
}

// The smallest picture there is, so that there is something to show.
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
mkdirSync(path.join(work, "images"));
writeFileSync(path.join(work, "images", "one.png"), Buffer.from(PIXEL, "base64"));
const harvest = (...words) => execFileSync(program, words, { cwd: work, env: environment, stdio: "pipe" });
harvest("init", "project", "--images", "images", "--classes", "a,b");
harvest("scan", "--project", "project");

const target = await freePort();
const server = spawn(
  program,
  ["serve", "--project", "project", "--port", target, "--prefix", prefix("node", "n17", target), "--secret-file", "secret", "--ready-file", "ready"],
  { cwd: work, env: environment, stdio: ["ignore", "ignore", "inherit"] },
);
for (let tries = 0; tries < 600 && !ready(); tries += 1) await new Promise((resolve) => setTimeout(resolve, 50));
const secret = readFileSync(path.join(work, "secret"), "utf8").trim();
const proxy = await startProxy({ target });
const outside = new URL(proxy.kept).host;

function ready() {
  try {
    return readFileSync(path.join(work, "ready"), "utf8").trim() !== "";
  } catch {
    return false;
  }
}

/** Where a browser keeps a cookie that names no path: in the folder of the page that set it. */
const cookiePath = (address) => new URL(".", address).pathname;

async function check(style, base) {
  const ask = (address, options = {}) => fetch(new URL(address, base), { redirect: "manual", ...options });
  const stranger = await ask("p/x/label", { headers: { accept: "text/html" } });
  const led = new URL(stranger.headers.get("location"), new URL("p/x/label", base));
  claim(`${style}: strangers are led to the sign-in page below the prefix`, led.href.startsWith(new URL("login", base).href), led.href);
  const from = { origin: `http://${outside}`, "content-type": "application/x-www-form-urlencoded" };
  const entered = await ask("login", { method: "POST", headers: from, body: new URLSearchParams({ secret, name: "Ada" }) });
  claim(`${style}: the Connect button signs in`, entered.status === 303, entered.status);
  const cookie = entered.headers.get("set-cookie") ?? "";
  claim(`${style}: the cookie is kept to the prefix`, !/path=/i.test(cookie) && cookiePath(new URL("login", base)) === new URL(base).pathname, cookie);
  const headers = { cookie: cookie.split(";")[0], accept: "text/html" };
  const first = new URL(entered.headers.get("location"), new URL("login", base));
  claim(`${style}: one is led into the project`, first.href.startsWith(`${base}p/project-`), first.href);

  for (const part of ["", "images", "label", "train", "results", "take"]) {
    const address = new URL(part, first);
    const page = await ask(address, { headers });
    const text = await page.text();
    claim(`${style}: the page '${part}' opens`, page.status === 200, page.status);
    const root = new URL(/<base href="([^"]*)"/.exec(text)?.[1] ?? "nowhere", address);
    claim(`${style}: its addresses begin at the prefix`, root.href === base, root.href);
    const used = [...text.matchAll(/(?:src|href)="([^"#]+)"/g)].map((match) => match[1]).filter((each) => each.startsWith("assets/"));
    const answers = await Promise.all([...new Set(used)].map((each) => fetch(new URL(each, root))));
    claim(`${style}: its ${answers.length} scripts and styles are there and are kept for ever`, answers.length > 2 && answers.every((each) => each.status === 200 && each.headers.get("cache-control").includes("immutable")));
  }

  const write = (origin) => ask("api/name", { method: "POST", headers: { ...headers, origin, "content-type": "application/json" }, body: JSON.stringify({ name: "Ada" }) });
  claim(`${style}: its own pages may write`, (await write(`http://${outside}`)).status === 200);
  claim(`${style}: other pages may not`, (await write("https://evil.example")).status === 403);
  await events(style, new URL("api/events", first), headers, () => ask(new URL("api/classes", first), {
    method: "POST", headers: { ...headers, origin: `http://${outside}`, "content-type": "application/json" }, body: JSON.stringify({ op: "change", id: 0, description: `seen by ${style}` }),
  }));
  const out = await ask("logout", { method: "POST", headers: { ...headers, origin: `http://${outside}` } });
  const after = await ask("api/me", { headers: { cookie: headers.cookie } });
  claim(`${style}: signing out ends the session`, out.status === 303 && after.status === 401, `${out.status} ${after.status}`);
}

/** What happens is told at once: a proxy that waited for more of it would hold it back. */
async function events(style, address, headers, act) {
  const stop = new AbortController();
  const stream = await fetch(address, { headers, signal: stop.signal });
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
  const begun = Date.now();
  const changed = await act();
  claim(`${style}: a class is described`, changed.status === 200, `${changed.status} ${await changed.text()}`);
  let heard = "";
  const patience = setTimeout(() => stop.abort(), 5000);
  try {
    while (!heard.includes("classes")) heard += (await reader.read()).value ?? "";
  } catch {
    // Nothing came: the claim says so.
  }
  clearTimeout(patience);
  claim(`${style}: events come at once`, heard.includes("classes") && Date.now() - begun < 1500, `${Date.now() - begun} ms`);
  stop.abort();
}

try {
  await check("path kept", proxy.kept);
  await check("path taken", proxy.taken);
} finally {
  await proxy.stop();
  const ended = new Promise((resolve) => server.once("exit", resolve));
  server.kill("SIGTERM");
  claim("the server ends in order", (await ended) === 0);
  rmSync(work, { recursive: true, force: true });
}
console.log(failed === 0 ? "all claims hold" : `${failed} claims do not hold`);
process.exitCode = failed === 0 ? 0 : 1;
