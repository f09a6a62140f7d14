// The button that has a run's model look at every image: a job, watched on its own page.

import { here, toast } from "./base.js";
import { start } from "./job.js";

for (const button of document.querySelectorAll("[data-believe]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const id = await start({ kind: "label-all", settings: { run: button.dataset.believe } });
      location.assign(here(`jobs/${id}`));
    } catch (error) {
      button.disabled = false;
      toast(error.message, "bad");
    }
  });
}
