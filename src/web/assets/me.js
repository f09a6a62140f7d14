// One's own name in the bar: labels are kept with it.

import { get, make, post, toast, url } from "./base.js";

const button = document.getElementById("me");

function show(name) {
  button.textContent = name;
  button.title = "Your name; change it or sign out";
  button.setAttribute("aria-label", `Signed in as ${name}`);
  button.hidden = false;
}

function ask(name) {
  const input = make("input", { id: "my-name", value: name, maxLength: 60, autocomplete: "name", required: true });
  const form = make(
    "form",
    { method: "dialog", onsubmit: rename },
    make("h2", {}, "Your name"),
    make("div", { class: "field" },
      make("label", { htmlFor: "my-name" }, "Name"),
      input,
      make("small", {}, "Everybody in a project sees who gave a label. What you labelled before keeps its name.")),
    make("div", { class: "actions" },
      make("button", { class: "primary", type: "submit" }, "Save"),
      make("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      make("button", { class: "quiet", type: "button", onclick: leave }, "Sign out")),
  );
  const dialog = make("dialog", { "aria-label": "Your name", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
  input.select();

  async function rename(event) {
    event.preventDefault();
    try {
      show((await post(url("api/name"), { name: input.value })).name);
      dialog.close();
      button.focus();
    } catch (failed) {
      toast(failed.message, "bad");
    }
  }
}

async function leave() {
  await fetch(url("logout"), { method: "POST", redirect: "manual" });
  location.assign(url("login"));
}

if (button) {
  const me = await get(url("api/me"));
  show(me.name);
  button.addEventListener("click", () => ask(button.textContent));
}
