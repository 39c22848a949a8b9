// The extension: a tab in the sidebar, and badges on nodes that name model files. The only module here that does anything on import.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Badges } from "./panel/badges.js";
import { LiveModels } from "./panel/live_models.js";
import { PanelView } from "./panel/panel_view.js";

const models = new LiveModels(api);
const badges = new Badges(app, api, models);
let view = null;

function addStyles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./panel/panel.css", import.meta.url).href;
  document.head.append(link);
}

app.registerExtension({
  name: "Keepwarm.Panel",

  nodeCreated(node) {
    badges.attach(node);
  },

  afterConfigureGraph() {
    badges.refreshSoon();
  },

  setup() {
    addStyles();
    badges.start();
    app.extensionManager.registerSidebarTab({
      id: "keepwarm",
      icon: "pi pi-database",
      title: "Keepwarm",
      tooltip: "Keepwarm: models in VRAM, RAM and on disk",
      type: "custom",
      render(container) {
        view?.close();
        view = new PanelView(container, models);
        view.open();
      },
      destroy() {
        view?.close();
        view = null;
      },
    });
  },
});
