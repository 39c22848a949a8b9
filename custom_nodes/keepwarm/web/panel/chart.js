// Two small charts, a column pair per prompt: seconds saved and spent reading, with what was saved in all as a line; and node results that
// were there and that were computed.

import { drawn, element, setText } from "./elements.js";
import { plural, seconds } from "./wording.js";

const MOST = 40;
const HEIGHT = 44;
const STEP = 10;

export class Chart {
  constructor() {
    this.models = chart();
    this.results = chart();
    this.box = element("div", {}, this.models.box, this.results.box);
  }

  show(state) {
    const points = state.points.slice(-MOST);
    show(this.models, state.saved ? points : [], modelsText(state), (point) => [point.saved_s, point.read_s, modelsTitle(point)], true);
    show(this.results, points, resultsText(points), (point) => [point.cached_nodes, point.nodes - point.cached_nodes, resultsTitle(point)]);
  }
}

function chart() {
  const text = element("p", { class: "kw-more" });
  const picture = element("div", { class: "kw-chart" });
  return { text, picture, box: element("div", { class: "kw-charted" }, text, picture) };
}

/** *read* gives of a point: the good, the bad, and both in words. */
function show({ text, picture, box }, points, said, read, hasSum = false) {
  setText(text, said);
  box.hidden = said === "";
  picture.hidden = points.length === 0;
  if (points.length) picture.replaceChildren(columns(points.map(read), said, hasSum));
}

function columns(pairs, label, hasSum) {
  const top = Math.max(...pairs.map(([good, bad]) => Math.max(good, bad)), 1e-9);
  const total = pairs.reduce((sum, [good]) => sum + good, 0);
  let sum = 0;
  const line = [];
  const drawnPairs = pairs.flatMap(([good, bad, title], index) => {
    const x = index * STEP;
    sum += good;
    line.push(`${x + STEP / 2},${HEIGHT - scaled(sum, total || 1) - 2}`);
    return [column(x + 1, scaled(good, top), "kw-saved", title), column(x + 5, scaled(bad, top), "kw-read", title)];
  });
  return drawn(
    "svg",
    { viewBox: `0 0 ${MOST * STEP} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `By prompt: ${label}` },
    ...drawnPairs,
    hasSum && total ? drawn("polyline", { points: line.join(" "), class: "kw-line" }) : null,
  );
}

function scaled(value, most) {
  return (value / most) * (HEIGHT - 4);
}

function column(x, height, kind, title) {
  return drawn("rect", { x, y: HEIGHT - height, width: 4, height, class: kind }, drawn("title", {}, title));
}

function modelsText({ saved }) {
  if (!saved) return "";
  return `${seconds(saved.saved_s)} of reading saved since the start: ${plural(saved.hits, "model")} found, ${saved.misses} read`;
}

function modelsTitle(point) {
  return `${plural(point.hits, "model")} found, ${seconds(point.saved_s)} saved; ${point.reads} read in ${seconds(point.read_s)}`;
}

function resultsText(points) {
  if (!points.length) return "No prompt has ended yet";
  const found = points.reduce((sum, point) => sum + point.cached_nodes, 0);
  const all = points.reduce((sum, point) => sum + point.nodes, 0);
  return `${found} of ${plural(all, "node result")} of the last ${plural(points.length, "prompt")} were there already`;
}

function resultsTitle(point) {
  return `${point.cached_nodes} of ${plural(point.nodes, "node result")} were there`;
}
