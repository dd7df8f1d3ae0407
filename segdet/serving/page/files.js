// What leaves the page: downloads and the clipboard.

import { thresholded } from "/page/panel.js";
import { BoxLayer } from "/page/viewer.js";

/** Offer a file for download. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** The table of all photographs as CSV. */
export function tableCsv(photos, model, threshold) {
  const cell = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; // a file name must not become a formula
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const unit = model.task === "detection" ? "boxes" : "share";
  const rows = [["image", "width", "height", "threshold", ...model.classes.map((name) => `${name} ${unit}`), "error"]];
  for (const photo of photos) {
    if (photo.status !== "done") {
      const reason = photo.status === "failed" ? photo.message : "not looked at yet";
      rows.push([photo.name, "", "", "", ...model.classes.map(() => ""), reason]);
      continue;
    }
    const { width, height } = photo.answer;
    const values = photo.counts.map((count) => (photo.layer instanceof BoxLayer ? count : (count / (width * height)).toFixed(6)));
    rows.push([photo.name, width, height, thresholded(model) ? threshold : "", ...values, ""]);
  }
  const text = rows.map((row) => row.map((value) => cell(String(value))).join(",") + "\n").join("");
  return new Blob([text], { type: "text/csv" });
}

/** Put text onto the clipboard. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // over plain http the clipboard is closed to pages; an old way is still open
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
