// Somebody who follows a link from elsewhere seems to be signed out, because browsers hold the cookie back then. They are not.

import { url } from "./base.js";

const form = document.querySelector("form[data-next]");
const wrong = document.getElementById("secret-error")?.textContent;
if (form && !wrong) {
  const answer = await fetch(url("api/me"), { headers: { accept: "application/json" } }).catch(() => null);
  if (answer?.ok) location.replace(url(form.dataset.next));
}
