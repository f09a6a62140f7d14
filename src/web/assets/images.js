// The jobs of the page of images: once one is done, what it found is shown.

import { watchPanels } from "./job.js";

watchPanels((job) => {
  // The server reads the new list in this moment.
  if (job.state === "done") setTimeout(() => location.reload(), 1200);
});
