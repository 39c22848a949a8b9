// The list of models: a listbox that has only the rows in sight in the page, however many there are.

import { element, setText } from "./elements.js";
import { TIER_NAMES, facts } from "./wording.js";

const ROW_PX = 44;
const MARGIN_ROWS = 4;

export class ModelList {
  /** *onChoose* is called with the id of the row that was chosen, *onEnter* when Enter is pressed on it. */
  constructor(onChoose, onEnter) {
    this.rows = [];
    this.chosenId = null;
    this.now = () => Date.now() / 1000;
    this.onChoose = onChoose;
    this.onEnter = onEnter;
    this.shown = new Map();
    this.spare = [];
    this.drawing = 0;
    this.space = element("div", { class: "kw-space", role: "presentation" });
    this.box = element(
      "div",
      {
        class: "kw-list",
        role: "listbox",
        tabindex: 0,
        "aria-label": "Models",
        scroll: () => this.drawSoon(),
        keydown: (event) => this.press(event),
        click: (event) => this.click(event),
      },
      this.space,
    );
    this.resized = new ResizeObserver(() => this.drawSoon());
    this.resized.observe(this.box);
  }

  close() {
    this.resized.disconnect();
    cancelAnimationFrame(this.drawing);
  }

  show(rows) {
    this.rows = rows;
    this.space.style.height = `${rows.length * ROW_PX}px`;
    this.box.style.setProperty("--kw-rows", rows.length);
    if (!rows.some((row) => row.id === this.chosenId)) this.chosenId = null;
    this.draw();
  }

  get chosen() {
    return this.rows.find((row) => row.id === this.chosenId) ?? null;
  }

  drawSoon() {
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  /** Puts the rows in sight into the page, and the chosen one, which the box's aria-activedescendant names. */
  draw() {
    const top = this.box.scrollTop;
    const first = Math.max(0, Math.floor(top / ROW_PX) - MARGIN_ROWS);
    const last = Math.min(this.rows.length, Math.ceil((top + this.box.clientHeight) / ROW_PX) + MARGIN_ROWS);
    const chosen = this.rows.findIndex((row) => row.id === this.chosenId);
    const wanted = new Set(chosen < 0 ? [] : [chosen]);
    for (let index = first; index < last; index += 1) wanted.add(index);
    for (const [index, line] of this.shown) {
      if (wanted.has(index)) continue;
      line.remove();
      this.spare.push(line);
      this.shown.delete(index);
    }
    const now = this.now();
    for (const index of wanted) this.fill(index, now);
    if (chosen < 0) this.box.removeAttribute("aria-activedescendant");
    else this.box.setAttribute("aria-activedescendant", this.shown.get(chosen).id);
  }

  fill(index, now) {
    const row = this.rows[index];
    const isNew = !this.shown.has(index);
    const line = this.shown.get(index) ?? this.spare.pop() ?? newLine();
    this.shown.set(index, line);
    line.id = `kw-row-${index}`;
    line.dataset.id = row.id;
    line.style.transform = `translateY(${index * ROW_PX}px)`;
    line.setAttribute("aria-posinset", index + 1);
    line.setAttribute("aria-setsize", this.rows.length);
    line.setAttribute("aria-selected", row.id === this.chosenId);
    line.title = row.name;
    const [name, tier, more] = line.parts;
    setText(name, row.name);
    setText(tier, TIER_NAMES[row.tier] ?? row.tier);
    setText(more, facts(row, now));
    tier.dataset.tier = row.tier;
    if (isNew) this.space.append(line);
  }

  choose(index) {
    const row = this.rows[index];
    if (!row) return;
    this.chosenId = row.id;
    const top = index * ROW_PX;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + ROW_PX > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW_PX - this.box.clientHeight;
    this.draw();
    this.onChoose(row.id);
  }

  click(event) {
    const line = event.target.closest("[role=option]");
    if (line) this.choose(this.rows.findIndex((row) => row.id === line.dataset.id));
  }

  press(event) {
    const at = this.rows.findIndex((row) => row.id === this.chosenId);
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_PX) - 1);
    const last = this.rows.length - 1;
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.max(at, 0) + page, PageUp: at - page };
    const steps = { ...moves, Home: 0, End: last };
    if (event.key === "Enter" && at >= 0) this.onEnter();
    else if (event.key in steps) this.choose(Math.min(Math.max(steps[event.key], 0), last));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

function newLine() {
  const name = element("span", { class: "kw-name" });
  const tier = element("span", { class: "kw-tier" });
  const more = element("span", { class: "kw-more" });
  const line = element("div", { class: "kw-row", role: "option" }, name, tier, more);
  line.parts = [name, tier, more];
  return line;
}
