// Label codes, as the server writes them: a class's number, "u", "x", "b", or null.

/** What a label can be besides a class. */
export const STATES = [
  { code: "u", name: "not sure", mark: "?" },
  { code: "x", name: "none of these", mark: "×" },
  { code: "b", name: "bad image", mark: "!" },
];

const state = new Map(STATES.map((each) => [each.code, each]));

/** The state of that code, or undefined for a class. */
export const stateOf = (code) => state.get(code);

/** "1 image", "12,000 images". */
export function images(number) {
  return `${number.toLocaleString("en")} ${number === 1 ? "image" : "images"}`;
}

/** 0.634 as "63 %", the parts not to be torn apart. Never 100 % unless it is: a model that is nearly sure is not sure. */
export function percent(share) {
  const rounded = Math.round(share * 100);
  return `${rounded === 100 && share < 1 ? 99 : rounded}\u00a0%`;
}

/** The last part of a path. */
export const file = (path) => path.slice(path.lastIndexOf("/") + 1);

/** "just now", "5 min ago", "3 Dec, 14:05". `at` is in seconds or an ISO date. */
export function ago(at) {
  const when = new Date(typeof at === "number" ? at * 1000 : at);
  const minutes = (Date.now() - when.getTime()) / 60000;
  if (Number.isNaN(minutes)) return String(at);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${Math.floor(minutes)} min ago`;
  if (minutes < 60 * 12) return `${Math.floor(minutes / 60)} h ago`;
  return when.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}
