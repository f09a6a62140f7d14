// The picker of folders on the server: what the page may use, and how many images each folder seems to hold.

import { count, get, make, url } from "./base.js";

/** Lets one choose a folder; the promise holds its path, or `null`. `start`: where to begin. */
export function chooseFolder({ title, start = "", use = "Use this folder" }) {
  return new Promise((done) => {
    let chosen = null;
    const trail = make("p", { class: "picker-path", "aria-live": "polite" });
    const list = make("ul", { class: "picker-list", "aria-label": "Folders" });
    const wrong = make("p", { class: "error", role: "alert" });
    const take = make("button", { class: "primary", type: "button", onclick: () => dialog.close("use") }, use);
    const cancel = make("button", { type: "button", onclick: () => dialog.close("") }, "Cancel");
    const dialog = make(
      "dialog",
      { class: "picker", "aria-label": title },
      make("h2", {}, title), trail, wrong, list,
      make("div", { class: "actions" }, take, cancel),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue === "use" ? chosen : null);
    });
    list.addEventListener("keydown", move);

    async function show(path, focus = true) {
      wrong.textContent = "";
      list.setAttribute("aria-busy", "true");
      let listing;
      try {
        const address = url("api/folders");
        if (path) address.searchParams.set("path", path);
        listing = await get(address);
      } catch (failed) {
        wrong.textContent = failed.message;
        // A folder that is not there, or not for us: begin at the top instead.
        if (path) return show("", focus);
        return;
      } finally {
        list.removeAttribute("aria-busy");
      }
      chosen = listing.path;
      take.disabled = !chosen;
      trail.replaceChildren(make("code", {}, chosen ?? "Folders that this page may use"), chosen ? ` · ${images(listing.images)}` : "");
      list.replaceChildren(...rows(listing));
      if (focus) list.querySelector("button")?.focus();
    }

    function rows(listing) {
      const up = listing.top ? [] : [row("↑ One folder up", "", listing.parent ?? "")];
      const found = listing.folders.map((folder) =>
        row(folder.name, folder.project ? "a project" : images(folder.images), folder.path));
      const none = found.length ? [] : [make("li", { class: "muted" }, "No folders in here.")];
      const more = listing.more ? [make("li", { class: "muted" }, "There are more; type the path into the form.")] : [];
      return [...up, ...found, ...none, ...more];
    }

    function row(name, about, path) {
      return make("li", {}, make("button", { class: "quiet", type: "button", onclick: () => show(path) },
        make("span", { class: "picker-name" }, name), make("span", { class: "muted" }, about)));
    }

    document.body.append(dialog);
    dialog.showModal();
    show(start);
  });
}

function images({ count: number, more }) {
  if (number === 0) return more ? "no images so far" : "no images";
  return `${more ? "more than " : ""}${count(number)} ${number === 1 ? "image" : "images"}`;
}

// Up and down go through the list, as in every list of files.
function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const buttons = [...event.currentTarget.querySelectorAll("button")];
  const next = buttons[buttons.indexOf(document.activeElement) + step];
  if (next) next.focus();
  event.preventDefault();
}
