// Charts over time, drawn as SVG. Text and shapes are set as such, never parsed: names come from
// the network.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 640;
const HEIGHT = 190;
const LEFT = 76;
const BOTTOM = 18;

/** An SVG element with attributes and, where given, text. */
export function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Sets properties of style one by one: the page's policy allows no style attributes. */
export function paint(element, style) {
  for (const [key, value] of Object.entries(style)) element.style.setProperty(key, value);
  return element;
}

/** An HTML element with a class and, where given, text or children. */
export function tag(name, kind, ...content) {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  element.append(...content.filter((part) => part !== undefined && part !== null));
  return element;
}

/** The next round number at or above `value`. */
function ceiling(value, base) {
  if (!(value > 0)) return 1;
  let unit = 1;
  while (unit * base <= value) unit *= base;
  const steps = base === 1024 ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : [1, 2, 5, 10];
  return unit * steps.find((step) => unit * step >= value);
}

/**
 * Draws `series` ({label, colour, values}) over the moments `times` (milliseconds); stacked, or as
 * lines. `format` writes a value, `base` is 1024 for bytes.
 */
export function chart(place, times, series, { stacked, format, base }) {
  const count = times.length;
  const tops = times.map((_, at) =>
    stacked
      ? series.reduce((sum, one) => sum + one.values[at], 0)
      : Math.max(...series.map((one) => one.values[at])));
  const top = ceiling(Math.max(0, ...tops), base);
  const first = times[0] ?? 0;
  const span = Math.max(1, (times[count - 1] ?? 1) - first);
  const x = (at) => LEFT + ((WIDTH - LEFT - 4) * (times[at] - first)) / span;
  const y = (value) => 6 + (HEIGHT - BOTTOM - 6) * (1 - value / top);
  const latest = series.map((one) => `${one.label} ${format(one.values[count - 1] ?? 0)}`);
  const svg = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": count ? `now: ${latest.join(", ")}` : "no data yet",
  });
  for (const part of [0, 0.5, 1]) {
    const level = y(top * part);
    svg.append(shape("line", { class: "rule", x1: LEFT, x2: WIDTH - 4, y1: level, y2: level }));
    const at = { x: LEFT - 8, y: level + 4, "text-anchor": "end" };
    svg.append(shape("text", at, format(top * part)));
  }
  if (count > 1) {
    draw(svg, series, { stacked, x, y, count });
    const ago = Math.round(span / 1000);
    svg.append(shape("text", { x: LEFT, y: HEIGHT - 3 }, `${ago} s ago`));
    const now = { x: WIDTH - 4, y: HEIGHT - 3, "text-anchor": "end" };
    svg.append(shape("text", now, "now"));
  } else {
    const at = { x: (LEFT + WIDTH) / 2, y: HEIGHT / 2, "text-anchor": "middle" };
    svg.append(shape("text", at, "gathering …"));
  }
  const legend = tag("ul", "legend");
  for (const [at, one] of series.entries()) {
    const item = tag("li", "", latest[at]);
    legend.append(paint(item, { "--mark": `var(${one.colour})` }));
  }
  place.replaceChildren(svg, legend);
}

function draw(svg, series, { stacked, x, y, count }) {
  const floor = new Array(count).fill(0);
  for (const { colour, values } of series) {
    const upper = values.map((value, at) => (stacked ? floor[at] + value : value));
    const path = upper.map((value, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
    const style = stacked
      ? { fill: `var(${colour})`, "fill-opacity": 0.75 }
      : { fill: "none", stroke: `var(${colour})`, "stroke-width": 2 };
    if (stacked) {
      for (let at = count - 1; at >= 0; at -= 1) {
        path.push(`L${x(at).toFixed(1)} ${y(floor[at]).toFixed(1)}`);
        floor[at] = upper[at];
      }
      path.push("Z");
    }
    const line = shape("path", { d: path.join(""), "vector-effect": "non-scaling-stroke" });
    svg.append(paint(line, style));
  }
}
