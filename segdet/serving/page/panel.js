// Rows of the legend and of the table.

import { BoxLayer } from "/page/viewer.js";

/** Whether a threshold means something to a model. */
export function thresholded(model) {
  return model.task === "detection" || model.classes.length === 1;
}

/** How much of a photograph is of a class, in words. */
export function share(photo, index) {
  const count = photo.counts[index];
  if (photo.layer instanceof BoxLayer) return { count: "", share: `${count} ${count === 1 ? "box" : "boxes"}` };
  return { count: `${count.toLocaleString("en")} px`, share: percent(count / (photo.answer.width * photo.answer.height)) };
}

function percent(value) {
  return value > 0 && value < 0.0001 ? "< 0.01 %" : `${(value * 100).toFixed(2)} %`;
}

/** A class with its colour and a box that shows or hides it. */
export function legendRow(model, index, shown, onChange) {
  const name = model.classes[index];
  const row = document.createElement("tr");
  row.dataset.name = name;
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: shown });
  box.addEventListener("change", () => onChange(name, box.checked));
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.background = model.colours[index];
  const label = document.createElement("label");
  label.append(box, swatch, name);
  row.insertCell().append(label);
  row.insertCell();
  row.insertCell();
  return row;
}

/** A photograph in the table. columns: the classes it shows. */
export function tableRow(photo, columns, current, onSelect) {
  const row = document.createElement("tr");
  if (current) row.setAttribute("aria-current", "true");
  const image = document.createElement("img");
  image.alt = "";
  const shown = row.insertCell();
  if (photo.thumbnail) {
    image.src = photo.thumbnail;
    shown.append(image);
  }
  const button = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: photo.name });
  button.addEventListener("click", () => onSelect(photo));
  row.insertCell().append(button);
  if (photo.status !== "done") {
    const cell = row.insertCell();
    cell.colSpan = columns.length + 1;
    cell.textContent = photo.status === "failed" ? photo.message : `${photo.status} …`;
    cell.className = photo.status === "failed" ? "bad" : "soft";
    return row;
  }
  for (const text of [`${photo.answer.width} × ${photo.answer.height}`, ...columns.map(({ index }) => share(photo, index).share)]) {
    const cell = row.insertCell();
    cell.className = "n";
    cell.textContent = text;
  }
  return row;
}
