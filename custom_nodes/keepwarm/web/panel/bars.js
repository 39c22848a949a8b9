// A bar per tier: its whole width is the tier's room, and each model's piece is to that scale.

import { element } from "./elements.js";
import { bytes, plural } from "./wording.js";

const MOST_PIECES = 60;
const LEAST_SHARE = 0.006; // of the width: two pixels or so
const TIERS = [
  ["vram", "VRAM", (row) => row.vram_bytes],
  ["ram", "RAM", (row) => (row.tier === "disk" ? 0 : row.ram_bytes)],
  ["store", "Store", (row) => row.store_bytes ?? 0],
  ["disk", "Disk", (row) => row.disk_bytes ?? 0],
];

export class Bars {
  constructor() {
    this.box = element("div", { class: "kw-bars" });
  }

  show(state, selectedId) {
    const loaded = new Set();
    for (const row of state.rows.values()) if (row.tier !== "disk") for (const file of row.files) loaded.add(file.join("/"));
    this.box.replaceChildren(
      ...TIERS.filter(([tier]) => state.bars[tier]).map(([tier, name, size]) => {
        const rows = (tier === "store" ? stores(state.bars.store) : [...state.rows.values()]).filter((row) => size(row) > 0);
        const isLoaded = (row) => row.files.some((file) => loaded.has(file.join("/")));
        return bar(tier, name, state.bars[tier], rows, size, selectedId, isLoaded);
      }),
    );
  }
}

function bar(tier, name, room, rows, size, selectedId, isLoaded) {
  const said = tier === "disk" ? diskText(room) : `${bytes(room.used_bytes)} of ${bytes(room.room_bytes)}`;
  const count = tier === "store" ? "node results" : plural(rows.length, "model");
  const more = tier === "disk" ? `, ${plural(room.files, "file")}` : `, ${count}; ${bytes(room.free_bytes)} of ${name} free`;
  const scale = Math.max(room.room_bytes, room.used_bytes, 1);
  rows.sort((a, b) => size(b) - size(a));
  const isDrawn = (row, index) => row.id === selectedId || (index < MOST_PIECES && size(row) >= LEAST_SHARE * scale);
  const pieces = rows.filter(isDrawn).map((row) => {
    const kind = tier === "disk" && !isLoaded(row) ? "kw-idle" : `kw-${tier}`;
    const marks = `${row.held ? " kw-held" : ""}${row.id === selectedId ? " kw-chosen" : ""}`;
    const title = `${row.name} (${row.kind}): ${bytes(size(row))}${row.held ? ", held" : ""}`;
    return element("span", { class: `kw-piece ${kind}${marks}`, style: width(size(row), scale), title });
  });
  const small = rows.filter((row, index) => !isDrawn(row, index));
  const rest = small.reduce((sum, row) => sum + size(row), 0);
  if (rest) {
    const title = `${plural(small.length, "small one")} together: ${bytes(rest)}`;
    pieces.push(element("span", { class: `kw-piece ${tier === "disk" ? "kw-idle" : `kw-${tier}`}`, style: width(rest, scale), title }));
  }
  return element(
    "div",
    { class: "kw-bar", "data-tier": tier, "data-used": room.used_bytes },
    element("div", { class: "kw-bar-text" }, element("strong", {}, name), element("span", {}, said)),
    element("div", { class: "kw-track", role: "img", "aria-label": `${name}: ${said}${more}` }, ...pieces),
  );
}

function stores(room) {
  return room.parts.map((part) => ({ id: part.name, name: part.name, kind: "node results", store_bytes: part.used_bytes, files: [] }));
}

function diskText(room) {
  return `${bytes(room.used_bytes)} of ${bytes(room.room_bytes)} in memory`;
}

function width(count, scale) {
  return `width: ${((100 * count) / scale).toFixed(3)}%`;
}
