// What the server said of its models, kept up to date by its messages.

const MOST_POINTS = 100;
const ORDER = { vram: 0, ram: 1, "in use": 2, store: 3, disk: 4 };

export class ModelState {
  constructor() {
    this.revision = 0;
    this.rows = new Map();
    this.bars = { vram: null, ram: null, disk: null };
    this.prompt = { id: null, running: false, receipts: [] };
    this.points = [];
    this.providers = [];
    this.saved = null;
    this.types = [];
  }

  /** Takes everything anew. */
  load(snapshot) {
    this.revision = snapshot.rev;
    this.rows = new Map(snapshot.rows.map((row) => [row.id, row]));
    this.types = snapshot.text_encoder_types;
    for (const name of ["bars", "prompt", "points", "providers", "saved"]) this[name] = snapshot[name];
  }

  /** Takes one message; false where one is missing before it, so that everything must be loaded anew. Older ones change nothing. */
  apply(change) {
    if (change.rev <= this.revision) return true;
    if (change.rev !== this.revision + 1 || change.all) return false;
    this.revision = change.rev;
    for (const id of change.gone ?? []) this.rows.delete(id);
    for (const row of change.rows ?? []) this.rows.set(row.id, row);
    if (change.points) this.points = [...this.points, ...change.points].slice(-MOST_POINTS);
    if (change.prompt) {
      const { from, ...prompt } = change.prompt;
      this.prompt = { ...prompt, receipts: [...(from ? this.prompt.receipts.slice(0, from) : []), ...prompt.receipts] };
    }
    for (const name of ["bars", "providers", "saved"]) if (name in change) this[name] = change[name];
    return true;
  }

  /** Rows in memory, the fastest place and the largest first; then files by name, without those that are in memory unless *tier* asks. */
  listed(search, tier) {
    const wanted = search.trim().toLowerCase();
    const loaded = new Set();
    for (const row of this.rows.values()) if (row.tier !== "disk") for (const file of row.files) loaded.add(file.join("/"));
    const found = [];
    for (const row of this.rows.values()) {
      if (tier !== "all" && !isIn(row, tier)) continue;
      if (tier === "all" && row.tier === "disk" && row.files.some((file) => loaded.has(file.join("/")))) continue;
      if (wanted && !`${row.name} ${row.kind}`.toLowerCase().includes(wanted)) continue;
      found.push(row);
    }
    return found.sort((a, b) => ORDER[a.tier] - ORDER[b.tier] || bySize(a, b) || compare(a.name, b.name) || compare(a.id, b.id));
  }
}

function isIn(row, tier) {
  if (tier === "vram") return row.vram_bytes > 0;
  return tier === "ram" ? row.tier !== "disk" && row.ram_bytes > 0 : row.tier === tier;
}

function bySize(a, b) {
  return a.tier === "disk" ? 0 : b.vram_bytes - a.vram_bytes || b.ram_bytes - a.ram_bytes;
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}
