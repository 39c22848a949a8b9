// The chosen model and its buttons.

import { element, setText } from "./elements.js";
import { ACTION_NAMES, places, seconds, use } from "./wording.js";

const EXPLAINED = {
  hold: "Keep it until the last",
  "let-go": "Treat it like any other model again",
  "to-ram": "Take it off the device between two prompts; its weights stay in RAM",
  drop: "Keep it no longer: its memory is free once nobody uses it",
  preload: "Read it into RAM now, and hold it",
};

export class Details {
  /** *act* is called with (action, row, options); *onLost* when the row goes while the focus is on its buttons. */
  constructor(act, onLost) {
    this.act = act;
    this.onLost = onLost;
    this.row = null;
    this.key = "";
    this.name = element("h4", { class: "kw-chosen-name" });
    this.facts = element("p", { class: "kw-more" });
    this.buttons = element("div", { class: "kw-buttons", role: "group" });
    this.box = element("div", { class: "kw-details" }, this.name, this.facts, this.buttons);
  }

  show(row, types, now) {
    this.row = row;
    if (row === null && this.box.contains(document.activeElement)) this.onLost();
    this.box.hidden = row === null;
    if (row === null) return;
    setText(this.name, row.name);
    const cost = row.reload_s ? [`reading it took ${seconds(row.reload_s)}`] : [];
    setText(this.facts, [row.kind, places(row), ...use(row, now), ...cost].join(" · "));
    const key = JSON.stringify([row.id, row.actions]);
    if (key !== this.key) this.offer(row, types);
    this.key = key;
  }

  /** Makes the buttons anew, and keeps the focus among them. */
  offer(row, types) {
    const hadFocus = this.buttons.contains(document.activeElement);
    this.buttons.setAttribute("aria-label", `What to do with ${row.name}`);
    const type = row.kind === "text_encoders" && types.length ? choice(types) : null;
    const made = row.actions.map((action) =>
      element(
        "button",
        { type: "button", class: "kw-button", title: EXPLAINED[action], "data-action": action, click: () => this.press(action, type) },
        ACTION_NAMES[action],
      ),
    );
    this.buttons.replaceChildren(...(type ? [element("label", {}, "Type ", type)] : []), ...made);
    if (hadFocus) this.focus();
  }

  press(action, type) {
    this.act(action, this.row, type ? { type: type.value } : {});
  }

  focus() {
    this.buttons.querySelector("select, button")?.focus();
  }
}

function choice(values) {
  return element("select", { class: "kw-input" }, ...values.map((value) => element("option", { value }, value)));
}
