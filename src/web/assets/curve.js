// A curve over training steps, drawn in the page's own colours.

const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM] = [420, 200, 48, 12, 12, 30];

function part(name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** 1, 2 or 5 times a power of ten, so that about `wanted` ticks fit into `span`. */
function distance(span, wanted) {
  const rough = Math.max(span / wanted, Number.MIN_VALUE);
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
}

function ends(values, [low, high]) {
  const [min, max] = [Math.min(...values, low), Math.max(...values, high)];
  return min < max ? [min, max] : [min - 0.5, max + 0.5];
}

/** A figure of `points`, `[step, value]` each. The same is told in words to whoever does not see it. */
export function curve(title, points, percent) {
  const [x0, x1] = ends(points.map(([x]) => x), [0, 0]);
  const [low, high] = percent ? [0, 1] : ends(points.map(([, y]) => y), [0, 0]);
  const x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const words = (value) => (percent ? `${(100 * value).toFixed(0)} %` : Number(value.toPrecision(3)).toString());
  const [first, last] = [points[0], points[points.length - 1]];
  const told = `${title}: ${words(first[1])} at step ${Math.round(first[0])}, ${words(last[1])} at step ${Math.round(last[0])}.`;
  const svg = part("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": told, class: "curve" });
  const vertical = distance(high - low, 4);
  for (let tick = Math.ceil(low / vertical) * vertical; tick <= high + vertical * 1e-6; tick += vertical) {
    svg.append(part("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }));
    svg.append(part("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, words(tick)));
  }
  const across = Math.max(distance(x1 - x0, 5), 1);
  for (let tick = Math.ceil(x0 / across) * across; tick <= x1; tick += across) {
    svg.append(part("text", { x: x(tick), y: HEIGHT - 8, "text-anchor": "middle" }, Math.round(tick).toLocaleString("en")));
  }
  const line = points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  svg.append(part("polyline", { points: line, class: "line" }));
  svg.append(part("circle", { cx: x(last[0]), cy: y(last[1]), r: 3.5, class: "dot" }));
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const now = document.createElement("strong");
  now.textContent = words(last[1]);
  caption.append(`${title} `, now);
  figure.append(caption, svg);
  return figure;
}
