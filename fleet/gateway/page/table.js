// Tables whose cells are texts.

export function fill(id, items, cellsOf) {
  const body = document.querySelector(`#${id} tbody`);
  body.replaceChildren(...(items.length ? items.map((item) => row(cellsOf(item))) : [row([{ text: "none", kind: "none" }])]));
}

function row(cells) {
  const line = document.createElement("tr");
  line.append(...cells.map(cell));
  return line;
}

function cell(value) {
  const shown = document.createElement("td");
  if (typeof value === "string") {
    shown.textContent = value;
  } else {
    shown.textContent = value.text;
    shown.className = value.kind;
  }
  return shown;
}
