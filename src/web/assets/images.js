// The jobs of the page of images: once one is done, what it found is shown.

import { watchPanels } from "./job.js";

watchPanels();
