// A question before something large or final.

import { make } from "../base.js";

/** Asks, and answers whether to go on. `danger` where something ends. */
export function ask(title, words, yes, { danger = false } = {}) {
  return new Promise((resolve) => {
    const no = make("button", { type: "button", onclick: () => dialog.close("") }, "Cancel");
    const go = make("button", { type: "button", class: danger ? "danger" : "primary", onclick: () => dialog.close("yes") }, yes);
    const id = `ask-${Math.random().toString(36).slice(2)}`;
    const dialog = make(
      "dialog", { class: "ask", "aria-labelledby": id },
      make("h2", { id }, title), make("p", {}, words), make("div", { class: "actions" }, go, no),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    document.body.append(dialog);
    dialog.showModal();
    // Enter must not do what nobody has read.
    (danger ? no : go).focus();
  });
}
