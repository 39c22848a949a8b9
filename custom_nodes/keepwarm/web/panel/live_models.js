// The server's models, live while somebody looks at them: the server sends nothing before `open` and nothing after `close`.

import { ModelState } from "./model_state.js";

const EVENT = "keepwarm.models";

export class LiveModels extends EventTarget {
  constructor(api) {
    super();
    this.api = api;
    this.state = new ModelState();
    this.isOpen = false;
    this.loading = null;
    this.early = null;
    this.turn = Promise.resolve();
    this.onMessage = (event) => this.take(event.detail);
    this.onReturn = () => this.watch();
    this.onVisibility = () => (document.hidden ? this.unwatch() : this.watch());
  }

  /** Begins to listen; resolves once everything is there. */
  async open() {
    if (this.isOpen) return;
    this.isOpen = true;
    this.api.addEventListener(EVENT, this.onMessage);
    this.api.addEventListener("reconnected", this.onReturn);
    document.addEventListener("visibilitychange", this.onVisibility);
    await this.watch();
  }

  /** Ends listening. */
  async close() {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.api.removeEventListener(EVENT, this.onMessage);
    this.api.removeEventListener("reconnected", this.onReturn);
    document.removeEventListener("visibilitychange", this.onVisibility);
    await this.unwatch();
  }

  /** Asks the server to do *action* to the row; gives what it says. Throws what it refuses. */
  async act(action, id, options = {}) {
    return (await this.post(`/keepwarm/models/${action}`, { id, ...options })).said;
  }

  /** Has all models moved off all devices, by ComfyUI's own route. */
  async moveAllToRam() {
    await this.post("/free", { unload_models: true });
    return "All models move to RAM when no prompt runs.";
  }

  watch() {
    return this.inTurn(async () => {
      try {
        await this.post("/keepwarm/watch", { client_id: this.api.clientId, watching: true });
        await this.load();
      } catch (error) {
        this.tell("failed", String(error.message ?? error));
      }
    });
  }

  unwatch() {
    return this.inTurn(async () => {
      try {
        await this.post("/keepwarm/watch", { client_id: this.api.clientId, watching: false });
      } catch {
        // A server that is gone sends nothing either.
      }
    });
  }

  /** One after the other: what was asked last is what holds, however fast the tab is opened and shut. */
  inTurn(step) {
    this.turn = this.turn.then(step);
    return this.turn;
  }

  /** Loads everything; messages that come meanwhile are applied afterwards. */
  load() {
    this.loading ??= this.loadOnce().finally(() => (this.loading = null));
    return this.loading;
  }

  async loadOnce() {
    this.early = [];
    try {
      const answer = await this.api.fetchApi("/keepwarm/models");
      if (!answer.ok) throw new Error(`The server answered ${answer.status} to /keepwarm/models.`);
      this.state.load(await answer.json());
    } finally {
      const early = this.early;
      this.early = null;
      early.forEach((change) => this.state.apply(change));
    }
    this.tell("changed");
  }

  take(change) {
    if (this.early) this.early.push(change);
    else if (this.state.apply(change)) this.tell("changed");
    else this.load().catch((error) => this.tell("failed", String(error.message ?? error)));
  }

  async post(route, body) {
    const headers = { "Content-Type": "application/json" };
    const answer = await this.api.fetchApi(route, { method: "POST", headers, body: JSON.stringify(body) });
    const text = await answer.text();
    const said = text.startsWith("{") ? JSON.parse(text) : {};
    if (!answer.ok) throw new Error(said.error ?? `The server answered ${answer.status}.`);
    return said;
  }

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
