// What every page needs: addresses, requests, words for what went wrong, and short messages.

/** An address below the application's root, wherever a proxy puts that. */
export function url(path) {
  return new URL(path, document.baseURI);
}

/** Key of the page's project; empty on pages without one. */
export const project = document.body.dataset.project ?? "";

/** An address below the page's project. */
export function here(path) {
  return url(`p/${project}/${path}`);
}

/** A request that failed, in words for people. `status` is 0 if the server cannot be reached; `body` is what it answered. */
export class Failed extends Error {
  constructor(words, status, body = null) {
    super(words);
    this.status = status;
    this.body = body;
  }
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Failed("The server cannot be reached.", 0);
  }
  if (response.status === 401) {
    const login = url("login");
    login.searchParams.set("next", location.href.slice(document.baseURI.length));
    location.assign(login);
    throw new Failed("You are no longer signed in.", 401);
  }
  const kind = response.headers.get("content-type") ?? "";
  const body = kind.includes("json") ? await response.json() : await response.text();
  if (!response.ok) throw new Failed(body.error ?? `The server answered ${response.status}.`, response.status, body);
  return body;
}

/** Reads JSON. */
export function get(address, options = {}) {
  return answer(fetch(address, { headers: { accept: "application/json" }, ...options }));
}

/** Sends JSON, reads JSON. */
export function post(address, body = {}, options = {}) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  return answer(fetch(address, { method: "POST", headers, body: JSON.stringify(body), ...options }));
}

/** A short message in the corner, read aloud too. */
export function toast(words, kind = "") {
  const item = document.createElement("div");
  item.className = `toast ${kind}`;
  item.textContent = words;
  document.getElementById("toasts").append(item);
  setTimeout(() => item.remove(), kind === "bad" ? 10000 : 4000);
}

/** An element with properties and children: `make("a", { href }, "text")`. Text is never read as HTML. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.startsWith("aria")) element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** 12345 as `12,345`. */
export const count = (number) => number.toLocaleString("en");

// Colours of classes: styles in a page are not allowed, styles from scripts are.
export function colour(root = document) {
  for (const swatch of root.querySelectorAll("[data-colour]")) {
    swatch.style.setProperty("--swatch", swatch.dataset.colour);
  }
}
colour();

// Where the parts of a project do not fit beside each other, ours is in sight.
document.querySelector(".bar nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A fragment would lead to the root, where `<base>` points.
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});

// Light, dark, or as the system has it.
const THEME = "harvest:theme";
const THEMES = [["", "◐", "as the system"], ["light", "○", "light"], ["dark", "●", "dark"]];

function themeButton() {
  const bar = document.querySelector(".bar");
  if (!bar) return;
  const now = () => THEMES.findIndex(([name]) => name === (document.documentElement.dataset.theme ?? ""));
  const button = make("button", { class: "quiet theme", type: "button" });
  const show = () => {
    const [, mark, words] = THEMES[now()];
    button.textContent = mark;
    button.title = `Colours: ${words}`;
    button.setAttribute("aria-label", `Colours: ${words}. Change`);
  };
  button.addEventListener("click", () => {
    const [next] = THEMES[(now() + 1) % THEMES.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem(THEME, next);
    } catch {
      // Until the page is closed.
    }
    show();
    document.dispatchEvent(new Event("themechange"));
  });
  show();
  bar.append(button);
}
themeButton();
