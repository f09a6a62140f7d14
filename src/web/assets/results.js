// The page of a run: labels that may be wrong are kept or changed in place.

import { here, post, project, toast } from "./base.js";
import "./believe.js";

const run = document.querySelector("[data-run]")?.dataset.run ?? "";

// Which labels somebody here has looked at and kept; remembered by this browser alone.
const memory = `harvest kept ${project} ${run}`;

function kept() {
  try {
    return new Set(JSON.parse(localStorage.getItem(memory) ?? "[]"));
  } catch {
    return new Set();
  }
}

function remember(image) {
  const images = kept().add(image);
  try {
    localStorage.setItem(memory, JSON.stringify([...images].slice(-2000)));
  } catch {
    // Without storage the image is shown again the next time.
  }
}

/** A random UUID; `crypto.randomUUID` is not there on pages without TLS. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Marks a tile as dealt with, and goes on with the next one for those who use keys. */
function settle(tile, words) {
  tile.classList.add("done");
  const choice = tile.querySelector(".choice");
  const hadFocus = choice.contains(document.activeElement);
  const note = document.createElement("p");
  note.className = "hint";
  note.textContent = words;
  choice.replaceWith(note);
  if (hadFocus) document.querySelector("[data-suspicious] .tile:not(.done) button")?.focus();
}

async function relabel(tile, button) {
  const buttons = tile.querySelectorAll("button");
  for (const each of buttons) each.disabled = true;
  try {
    await post(here("api/label"), {
      request: uuid(),
      images: [tile.dataset.image],
      label: Number(button.dataset.relabel),
      how: "page: results",
    });
    settle(tile, `Now ${button.dataset.name}. Ctrl-Z in the grid takes it back.`);
  } catch (failed) {
    for (const each of buttons) each.disabled = false;
    toast(failed.message, "bad");
  }
}

document.querySelector("[data-suspicious]")?.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const tile = event.target.closest(".tile");
  if (!button || !tile) return;
  if ("relabel" in button.dataset) {
    relabel(tile, button);
  } else {
    remember(tile.dataset.image);
    settle(tile, "Kept.");
  }
});

for (const tile of document.querySelectorAll("[data-suspicious] .tile")) {
  if (kept().has(tile.dataset.image)) settle(tile, "Kept earlier.");
}

// Fragments do not work under `<base>`.
for (const link of document.querySelectorAll("[data-scroll]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const target = document.getElementById(link.dataset.scroll);
    target.tabIndex = -1;
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  });
}
