// What the page knows of its project: classes, counts, who asks. Counts hold what still waits to be saved.

import { get, here } from "../base.js";
import { stateOf } from "./codes.js";

/** Long enough that a burst of clicks asks once, and asked even if the burst goes on. */
const SETTLE_MS = 1200;

export class Project extends EventTarget {
  /** As `api/project` says. */
  data = { classes: [], counts: {}, has: {}, clusters: [], folders: [], target: 0, version: 0, me: "" };
  #counts = new Map();
  #waiting = () => new Map();
  #timer = 0;

  /** `waiting` tells by how much each code's count changes once all is saved. */
  constructor(waiting) {
    super();
    this.#waiting = waiting;
  }

  async load() {
    this.take(await get(here("api/project")));
  }

  /** Takes an answer of the server in. */
  take(data) {
    this.data = data;
    const counts = data.counts;
    this.#counts = new Map(data.classes.map((each) => [each.id, each.count]));
    for (const [code, number] of [["u", counts.not_sure], ["x", counts.none], ["b", counts.bad], [null, counts.unlabelled]]) {
      this.#counts.set(code, number ?? 0);
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Reads the counts again, soon. */
  refresh() {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.load().catch(() => {});
    }, SETTLE_MS);
  }

  /** One image has another label, as the server said in `version`. */
  move(from, to, version) {
    if (from === to || version <= this.data.version) return;
    this.#counts.set(from, (this.#counts.get(from) ?? 0) - 1);
    this.#counts.set(to, (this.#counts.get(to) ?? 0) + 1);
  }

  /** Images of a label; those without for null. */
  count(code) {
    return Math.max(0, (this.#counts.get(code) ?? 0) + (this.#waiting().get(code) ?? 0));
  }

  /** Images that have some class. */
  get labelled() {
    return this.data.classes.reduce((sum, each) => sum + this.count(each.id), 0);
  }

  classOf(code) {
    return typeof code === "number" ? this.data.classes.find((each) => each.id === code) : undefined;
  }

  /** What a label is called. */
  nameOf(code) {
    if (code === null || code === undefined) return "no label";
    return this.classOf(code)?.name ?? stateOf(code)?.name ?? `class ${code}`;
  }

  colourOf(code) {
    return this.classOf(code)?.colour ?? null;
  }

  /** "17 of 25", or "17" where no number is wanted. */
  progressOf(code) {
    const number = this.count(code).toLocaleString("en");
    return this.data.target && typeof code === "number" ? `${number} of ${this.data.target.toLocaleString("en")}` : number;
  }
}
