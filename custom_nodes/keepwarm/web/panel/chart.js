// Seconds saved and seconds spent reading, a column per prompt, and the sum of what was saved as a line.

import { drawn, element } from "./elements.js";
import { plural, seconds } from "./wording.js";

const MOST = 40;
const HEIGHT = 56;
const STEP = 10;

export class Chart {
  constructor() {
    this.text = element("p", { class: "kw-more" });
    this.picture = element("div", { class: "kw-chart" });
    this.box = element("div", {}, this.picture, this.text);
  }

  show(state) {
    const points = state.points.slice(-MOST);
    this.text.textContent = summary(state, points);
    this.picture.hidden = points.length === 0;
    if (points.length) this.picture.replaceChildren(picture(points, summary(state, points)));
  }
}

function summary({ saved }, points) {
  const nodes = points.reduce((sum, point) => sum + point.cached_nodes, 0);
  const results = `${plural(nodes, "node result")} were there already in the last ${plural(points.length, "prompt")}.`;
  if (!points.length) return "No prompt has ended yet.";
  if (!saved) return results;
  return `${seconds(saved.saved_s)} saved since the start: ${plural(saved.hits, "model")} found, ${saved.misses} read. ${results}`;
}

function picture(points, label) {
  const width = MOST * STEP;
  const top = Math.max(...points.map((point) => Math.max(point.saved_s, point.read_s)), 1e-9);
  const total = points.reduce((sum, point) => sum + point.saved_s, 0);
  const scaled = (value, most) => (value / most) * (HEIGHT - 4);
  const line = [];
  let sum = 0;
  const columns = points.flatMap((point, index) => {
    const x = index * STEP;
    sum += point.saved_s;
    if (total) line.push(`${x + STEP / 2},${HEIGHT - scaled(sum, total) - 2}`);
    return [column(x + 1, scaled(point.saved_s, top), "kw-saved", point), column(x + 5, scaled(point.read_s, top), "kw-read", point)];
  });
  return drawn(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `Seconds saved and spent reading, by prompt. ${label}` },
    ...columns,
    total ? drawn("polyline", { points: line.join(" "), class: "kw-line" }) : null,
  );
}

function column(x, height, kind, point) {
  const title = `${plural(point.hits, "model")} found, ${seconds(point.saved_s)} saved; ${point.reads} read in ${seconds(point.read_s)}`;
  return drawn("rect", { x, y: HEIGHT - height, width: 4, height, class: kind }, drawn("title", {}, title));
}
