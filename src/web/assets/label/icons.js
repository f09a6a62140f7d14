// Small drawings made by scripts, since the same ones are needed for every image.

const PATHS = {
  check: "m3 8.5 3.2 3.2L13 5",
  saving: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  large: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  copies: "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3",
  up: "m4 10 4-4 4 4",
  down: "m4 6 4 4 4-4",
  grip: "M6 4h.01M10 4h.01M6 8h.01M10 8h.01M6 12h.01M10 12h.01",
};

const SVG = "http://www.w3.org/2000/svg";

/** A drawing; it is decoration, words say the same. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
