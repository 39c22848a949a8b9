// The tab: puts the parts together, and hands them what has changed.

import { Bars } from "./bars.js";
import { Chart } from "./chart.js";
import { Details } from "./details.js";
import { element, setText } from "./elements.js";
import { ModelList } from "./model_list.js";
import { provider, receipt } from "./wording.js";

const CLOCK_MS = 5000;
const FILTERS = { all: "All", vram: "VRAM", ram: "RAM", disk: "Disk" };

export class PanelView {
  constructor(container, models) {
    this.models = models;
    this.bars = new Bars();
    this.chart = new Chart();
    this.details = new Details(
      (action, row, options) => this.act(() => models.act(action, row.id, options), row.name),
      () => this.list.box.focus(),
    );
    this.list = new ModelList(
      () => this.draw(),
      () => this.details.focus(),
    );
    this.search = element("input", { type: "search", class: "kw-input", placeholder: "Search models", "aria-label": "Search models" });
    this.tier = element(
      "select",
      { class: "kw-input", "aria-label": "Where" },
      ...Object.entries(FILTERS).map(([value, name]) => element("option", { value }, name)),
    );
    this.search.addEventListener("input", () => this.draw());
    this.tier.addEventListener("change", () => this.draw());
    this.count = element("p", { class: "kw-more" });
    this.said = element("p", { class: "kw-said", role: "status" });
    this.prompt = element("h3", {});
    this.receipts = element("ul", { class: "kw-lines" });
    this.providers = element("ul", { class: "kw-lines" });
    this.providersPart = part("Where results are shared", this.providers);
    this.toRam = button("Move all to RAM", () => this.act(() => models.moveAllToRam(), ""));
    this.details.box.addEventListener("keydown", (event) => this.leaveDetails(event));
    this.root = this.layout();
    container.replaceChildren(this.root);
    this.onChanged = () => this.drawSoon();
    this.onFailed = (event) => setText(this.said, event.detail);
    this.drawing = 0;
  }

  layout() {
    const tools = element("div", { class: "kw-tools" }, this.search, this.tier);
    const count = element("div", { class: "kw-count" }, this.count, this.toRam);
    return element(
      "div",
      { class: "kw-panel", role: "region", "aria-label": "Keepwarm" },
      element("h2", {}, "Keepwarm"),
      this.bars.box,
      part("Models", tools, count, this.list.box, this.details.box, this.said),
      element("section", { class: "kw-part" }, this.prompt, this.receipts),
      part("Saved", this.chart.box),
      this.providersPart,
    );
  }

  open() {
    this.models.addEventListener("changed", this.onChanged);
    this.models.addEventListener("failed", this.onFailed);
    this.clock = setInterval(() => this.draw(), CLOCK_MS);
    this.draw();
    this.models.open();
  }

  close() {
    this.models.removeEventListener("changed", this.onChanged);
    this.models.removeEventListener("failed", this.onFailed);
    clearInterval(this.clock);
    cancelAnimationFrame(this.drawing);
    this.list.close();
    this.root.remove();
    this.models.close();
  }

  drawSoon() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const { state } = this.models;
    const rows = state.listed(this.search.value, this.tier.value);
    this.list.show(rows);
    const chosen = this.list.chosen;
    setText(this.count, rows.length === 1 ? "1 model" : `${rows.length} models`);
    this.details.show(chosen, state.types, Date.now() / 1000);
    this.bars.show(state, chosen?.id);
    this.toRam.hidden = !state.bars.vram;
    this.chart.show(state);
    setText(this.prompt, state.prompt.running ? "Running prompt" : "Last prompt");
    lines(this.receipts, state.prompt.receipts, (one) => [one.model, receipt(one)], noReceipts(state));
    this.providersPart.hidden = state.providers.length === 0;
    lines(this.providers, state.providers, (one) => [one.name, provider(one)], "");
  }

  /** Has something done, and says what came of it. */
  async act(begin, name) {
    setText(this.said, name ? `${name}: …` : "…");
    try {
      const said = await begin();
      setText(this.said, name ? `${name}: ${said}` : said);
    } catch (error) {
      setText(this.said, name ? `${name}: ${error.message}` : error.message);
    }
  }

  leaveDetails(event) {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.list.box.focus();
  }
}

function noReceipts({ prompt, saved }) {
  if (prompt.id === null) return "None has run yet.";
  return saved ? "No model was asked for: results were there, or no loader has run." : "This server keeps no receipts.";
}

function part(title, ...children) {
  return element("section", { class: "kw-part", "aria-label": title }, element("h3", {}, title), ...children);
}

function button(text, press) {
  return element("button", { type: "button", class: "kw-button", click: press }, text);
}

/** A line per item: its name, and what there is to say of it. Lines that are right already stay. */
function lines(list, items, said, otherwise) {
  const texts = items.length ? items.map(said) : [["", otherwise]];
  while (list.children.length > texts.length) list.lastChild.remove();
  texts.forEach(([name, text], index) => {
    const line = list.children[index] ?? list.appendChild(element("li", {}, element("strong"), " ", element("span")));
    setText(line.firstChild, name);
    setText(line.lastChild, text);
  });
}
