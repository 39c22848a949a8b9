// A badge on every node that names a model file: where that model is.

const MODEL_FILE = /\.(safetensors|sft|ckpt|pt|pt2|pth|bin|pkl|gguf|onnx)$/i;
const DELAY_MS = 300;
const ORDER = ["vram", "ram", "in use", "disk"];
const TEXTS = { vram: "VRAM", ram: "RAM", "in use": "in use", disk: "disk" };
const COLOURS = { vram: "#1c4f80", ram: "#1d5c3a", "in use": "#6b4a12", disk: "#3f434a" };
const TOLD = "keepwarmPlaces";
const ON_DISK = { tier: "disk", held: false };
const EVENTS = ["status", "execution_success", "execution_error", "execution_interrupted", "reconnected"];

export class Badges {
  constructor(app, api, models) {
    this.app = app;
    this.api = api;
    this.models = models;
    this.places = new Map();
    this.key = "";
    this.timer = 0;
    this.made = new Map();
  }

  /** Looks now and whenever the queue moves; while the panel is open its messages tell. */
  start() {
    for (const event of EVENTS) this.api.addEventListener(event, () => this.refreshSoon());
    this.models.addEventListener("changed", () => this.take([...this.models.state.rows.values()].filter((row) => row.tier !== "disk")));
    this.refreshSoon();
  }

  /** Gives *node* a badge, which shows nothing as long as no widget of it names a model file. */
  attach(node) {
    if (window.LGraphBadge && Array.isArray(node.badges)) node.badges.push(() => this.badge(node));
  }

  refreshSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), DELAY_MS);
  }

  async refresh() {
    if (this.models.isOpen) return;
    try {
      const answer = await this.api.fetchApi("/keepwarm/models?in=memory");
      if (answer.ok) this.take((await answer.json()).rows);
    } catch {
      // The server is away; "reconnected" brings the next look.
    }
  }

  take(rows) {
    const places = new Map();
    for (const row of rows) {
      for (const [, name] of row.files) {
        const before = places.get(name);
        const isFaster = !before || ORDER.indexOf(row.tier) < ORDER.indexOf(before.tier);
        places.set(name, { tier: isFaster ? row.tier : before.tier, held: row.held || Boolean(before?.held) });
      }
    }
    const key = JSON.stringify([...places]);
    if (key === this.key) return;
    this.key = key;
    this.places = places;
    // The page's new nodes look at badges again when something reactive changes that they read: its extension manager is.
    this.app.extensionManager[TOLD] = key;
    this.app.graph?.setDirtyCanvas(true, true);
  }

  /** Where the model is that the first such widget of *node* names; null where none names a file. */
  place(node) {
    for (const { value } of node.widgets ?? []) {
      if (typeof value === "string" && MODEL_FILE.test(value)) return this.places.get(value) ?? ON_DISK;
    }
    return null;
  }

  /** The badge to draw, "RAM · held"; the same object for the same text, for this is asked at every frame. */
  badge(node) {
    void this.app.extensionManager[TOLD];
    const place = this.place(node);
    const text = place ? `${TEXTS[place.tier]}${place.held ? " · held" : ""}` : "";
    let badge = this.made.get(text);
    if (!badge) {
      badge = new window.LGraphBadge({ text, fgColor: "#ffffff", bgColor: COLOURS[place?.tier ?? "disk"] });
      this.made.set(text, badge);
    }
    return badge;
  }
}
