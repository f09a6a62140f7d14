// What tests of the page share: a browser, claims that are printed, an accessibility run, screenshots.

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** A browser, what it complained of, and claims about what it shows. */
export class Session {
  /** Claims that did not hold. */
  failed = [];
  /** Errors of scripts and refusals of the security policy. */
  complaints = [];

  static async start(base, out) {
    const session = new Session();
    mkdirSync(out, { recursive: true });
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    session.browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
    // Signing in and the root lie beside each other, whatever prefix a proxy puts before them.
    Object.assign(session, { base, out, root: new URL("./", base) });
    return session;
  }

  /** A browser of its own. The first comes in by the address, which may be good once; the others are the same person. */
  async visitor(options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
    if (this.cookies) await context.addCookies(this.cookies);
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    page.on("pageerror", (error) => this.complaints.push(error.message));
    page.on("console", (message) => {
      const text = message.text();
      // What tests cut off on purpose is no fault of the page.
      if (message.type() === "error" && !/Failed to load resource|ERR_FAILED|net::/.test(text)) this.complaints.push(text);
    });
    await page.goto(this.cookies ? this.root.href : this.base);
    this.cookies ??= await context.cookies();
    return page;
  }

  /** States something; prints whether it holds. */
  claim(words, holds, seen = "") {
    console.log(`${holds ? "ok  " : "FAIL"} ${words}${seen === "" ? "" : ` (${seen})`}`);
    if (!holds) this.failed.push(words);
  }

  /** No serious finding of axe, and which there are if there are any. */
  async accessible(page, words) {
    // The policy of the page allows no scripts of others; the debugger's way in does not ask it.
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    const serious = violations.filter((each) => ["serious", "critical"].includes(each.impact));
    const seen = serious.map((each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`);
    this.claim(`axe finds nothing serious: ${words}`, serious.length === 0, seen.join("; "));
  }

  async picture(page, name) {
    await page.screenshot({ path: path.join(this.out, `${name}.png`) });
  }

  /** Ends the browser; the exit code tells whether all held. */
  async end() {
    this.claim("scripts and security policy complain of nothing", this.complaints.length === 0, this.complaints.slice(0, 5).join("; "));
    await this.browser.close();
    console.log(this.failed.length === 0 ? "all claims hold" : `${this.failed.length} claims do not hold`);
    process.exitCode = this.failed.length === 0 ? 0 : 1;
  }
}

/** Waits until `check` answers something true, and gives it; undefined after `ms`. */
export async function until(check, ms = 5000) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    const found = await check();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return undefined;
}
