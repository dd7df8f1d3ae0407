// The page: photographs in, what was found on top of them, sliders that act at once, downloads.

import { Refused, call, keyed, models, predict, query, useKey } from "/page/api.js";
import { copy, save, tableCsv } from "/page/files.js";
import { legendRow, share, tableRow, thresholded } from "/page/panel.js";
import { decode, looksLikeImage, maskLayer, picture, thumbnail } from "/page/photos.js";
import { BoxLayer, MaskLayer, Viewer } from "/page/viewer.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 2; // photographs sent at a time
const LOWEST = 0.02; // a detector is asked for boxes down to here, so that the slider has something to show

const state = {
  models: [],
  model: null,
  photos: [], // { file, name, status, message, bitmap, layer, answer, thumbnail }
  current: null,
  threshold: null, // null: the model's own
  off: new Set(), // classes that are not shown
  style: "fill",
  opacity: 0.55,
  hidden: false,
};
const viewer = new Viewer($("view"), (scale) => ($("zoom").textContent = `${Math.round(scale * 100)} %`));

// --- photographs ----------------------------------------------------------------------------------------------------

function add(files) {
  $("alert").hidden = true;
  const first = state.photos.length;
  for (const file of files) {
    const name = file.name || "pasted.png";
    if (looksLikeImage(file)) state.photos.push({ file, name, status: "waiting" });
    else fail(`${name}: not an image. Take a JPEG, PNG, WebP, TIFF or BMP.`);
  }
  if (state.photos.length === first) return;
  select(state.photos[first]);
  work();
}

let atWork = 0;
async function work() {
  while (atWork < AT_ONCE) {
    const photo = state.photos.find((candidate) => candidate.status === "waiting");
    if (!photo || !state.model) return;
    atWork++;
    photo.status = "working";
    process(photo).finally(() => {
      atWork--;
      work();
    });
  }
}

async function process(photo) {
  const model = state.model;
  photo.cancel = new AbortController();
  const { signal } = photo.cancel; // aborted when another model is chosen or the photograph is let go
  render();
  preview(photo);
  try {
    const detects = model.task === "detection";
    const options = {
      model: model.name,
      threshold: detects ? LOWEST : null,
      include: detects ? null : thresholded(model) ? "rle,confidence" : "rle",
      signal,
    };
    const busy = (seconds) => (photo.note = `the server is busy; trying again in ${seconds} s`);
    const answer = (await (await predict(photo.file, options, busy)).json()).images[0];
    const bitmap = await picture(photo, model, answer);
    const layer = detects ? new BoxLayer(model.classes, answer.detections) : await maskLayer(model, answer);
    signal.throwIfAborted(); // by now the photograph may belong to another model
    Object.assign(photo, { note: null, bitmap, layer, answer, model, status: "done" });
    photo.thumbnail ??= thumbnail(photo.bitmap);
    refresh(photo);
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) return askForKey(photo);
    photo.status = "failed";
    photo.message = error instanceof Refused ? error.message : `This page could not show it: ${error.message}`;
    fail(photo.message.startsWith(photo.name) ? photo.message : `${photo.name}: ${photo.message}`);
  }
  if (photo === state.current) show(photo);
  render();
}

/** The photograph itself at once, while the server is still looking. */
async function preview(photo) {
  const bitmap = await decode(photo.file);
  if (!bitmap || photo.bitmap || !state.photos.includes(photo)) return;
  photo.bitmap = bitmap;
  photo.thumbnail = thumbnail(bitmap);
  if (photo === state.current) show(photo);
  renderTable();
}

function startOver() {
  for (const photo of state.photos) photo.cancel?.abort();
  Object.assign(state, { photos: [], current: null });
  $("alert").hidden = true;
  viewer.show(null, null);
  render();
  $("sample").focus();
}

// --- what is shown --------------------------------------------------------------------------------------------------

function threshold() {
  return state.threshold ?? state.model?.threshold ?? 0.5;
}

function colours(model) {
  return model.colours.map((hex, index) =>
    state.off.has(model.classes[index]) ? null : [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
}

/** Decide and paint one photograph anew. */
function refresh(photo) {
  if (!photo.layer) return;
  if (thresholded(photo.model)) photo.layer.cut(threshold());
  photo.counts = photo.layer.counts();
  if (photo.layer instanceof MaskLayer) photo.layer.paint(colours(photo.model), state.style);
}

function select(photo) {
  state.current = photo;
  show(photo);
  render();
}

function show(photo) {
  if (photo.layer && photo.dirty) {
    refresh(photo);
    photo.dirty = false;
  }
  look();
  viewer.show(photo.bitmap ?? null, photo.layer ?? null);
}

function look() {
  const model = state.current?.model ?? state.model;
  if (model) Object.assign(viewer.look, { colours: colours(model), style: state.style, opacity: state.opacity, hidden: state.hidden });
}

/** Something about what is shown has changed: the current photograph at once, the others when they are looked at. */
let planned = null;
function changed() {
  for (const photo of state.photos) photo.dirty = true;
  planned ??= requestAnimationFrame(() => {
    planned = null;
    if (state.current) show(state.current);
    renderLegend();
    renderCurl();
    later();
  });
}

let timer = null;
function later() { // the table of all photographs can wait for the slider to rest
  clearTimeout(timer);
  timer = setTimeout(() => {
    for (const photo of state.photos) if (photo.dirty && photo.layer) { refresh(photo); photo.dirty = false; }
    renderTable();
    describe();
  }, 150);
}

// --- the page around it ---------------------------------------------------------------------------------------------

function render() {
  const any = state.photos.length > 0;
  $("start").hidden = any;
  $("work").hidden = !any;
  const photo = state.current;
  if (photo) {
    $("name").textContent = photo.name;
    $("facts").textContent = facts(photo);
    $("busy").hidden = photo.status === "done" || photo.status === "failed";
    $("busy-text").textContent = photo.note ?? (photo.status === "working" ? "looking" : "waiting");
    for (const button of $("downloads").children) {
      button.disabled = photo.status !== "done" || (photo.model?.task === "detection" && button.dataset.format === "mask");
    }
  }
  renderLegend();
  renderSliders();
  renderCurl();
  renderTable();
  describe();
}

function facts(photo) {
  if (photo.status === "failed") return photo.message;
  if (!photo.answer) return "";
  const { width, height, timing } = photo.answer;
  const milliseconds = Object.values(timing).reduce((sum, value) => sum + value, 0);
  return `${width} × ${height} pixels, ${milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`}`;
}

function renderLegend() {
  const photo = state.current;
  const body = $("legend").tBodies[0];
  const model = photo?.model ?? state.model;
  if (!model) return;
  const many = model.classes.length > 12; // then only what there is
  const rows = model.classes.map((name, index) => ({ name, index }))
    .filter(({ index }) => !many || !photo?.counts || photo.counts[index] > 0);
  const known = [...body.rows].map((row) => row.dataset.name).join("\n");
  if (known !== rows.map(({ name }) => name).join("\n")) {
    body.replaceChildren(...rows.map(({ name, index }) => legendRow(model, index, !state.off.has(name), showClass)));
  }
  rows.forEach(({ index }, at) => {
    const told = photo?.counts ? share(photo, index) : { count: "", share: "" };
    body.rows[at].cells[1].textContent = told.count;
    body.rows[at].cells[2].textContent = told.share;
  });
}

function showClass(name, shown) {
  if (shown) state.off.delete(name);
  else state.off.add(name);
  changed();
}

function renderSliders() {
  const model = state.model;
  const has = model ? thresholded(model) : true;
  $("threshold-row").hidden = !has;
  $("threshold-none").hidden = has;
  $("threshold").value = threshold();
  $("threshold-out").textContent = threshold().toFixed(2);
  $("threshold-reset").hidden = state.threshold === null;
  $("opacity-out").textContent = `${Math.round(state.opacity * 100)} %`;
}

function options(format) {
  const model = state.current?.model ?? state.model;
  const shown = model.classes.filter((name) => !state.off.has(name));
  return {
    model: state.models.length > 1 ? model.name : null,
    threshold: thresholded(model) && state.threshold !== null ? Number(threshold().toFixed(3)) : null,
    classes: shown.length < model.classes.length ? shown : null,
    format,
  };
}

function renderCurl() {
  if (!state.model || !state.current) return;
  const text = query(options(null));
  const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;
  const header = keyed() ? "-H 'X-API-Key: ...' " : ""; // the key itself is not for showing and copying around
  $("curl").textContent = `curl ${header}-F ${quoted(`image=@${state.current.name}`)} ${quoted(`${location.origin}/v1/predict${text ? `?${text}` : ""}`)}`;
}

function renderTable() {
  $("list").hidden = state.photos.length < 2;
  const model = state.photos.find((photo) => photo.model)?.model ?? state.model;
  if (!model) return;
  const columns = model.classes.map((name, index) => ({ name, index })).slice(0, 8);
  const head = document.createElement("tr");
  for (const title of ["", "Name", "Pixels", ...columns.map(({ name }) => name)]) {
    head.append(Object.assign(document.createElement("th"), { textContent: title, scope: "col" }));
  }
  head.querySelectorAll("th").forEach((cell, at) => at > 1 && cell.classList.add("n"));
  $("table").tHead.replaceChildren(head);
  $("table").tBodies[0].replaceChildren(...state.photos.map((photo) => tableRow(photo, columns, photo === state.current, selectFromTable)));
}

function selectFromTable(photo) {
  select(photo);
  $("view").scrollIntoView({ block: "nearest" });
}

/** For screen readers: what is seen, in words. */
function describe() {
  const photo = state.current;
  if (!photo) return;
  let text = `${photo.name}: ${photo.status}`;
  if (photo.status === "done") {
    const model = photo.model;
    const found = model.classes.map((name, index) => `${name} ${share(photo, index).share}`).slice(0, 12);
    text = `${photo.name}: ${found.join(", ")}`;
  }
  $("view").setAttribute("aria-label", text);
  if ($("status").textContent !== text) $("status").textContent = text;
}

function fail(message) {
  const before = $("alert").hidden ? [] : $("alert-text").textContent.split("\n").slice(-4);
  $("alert").hidden = false;
  $("alert-text").textContent = [...before.filter((line) => line !== message), message].join("\n");
}

function askForKey(photo) {
  if (photo) photo.status = "waiting";
  $("key-form").hidden = false;
  $("key").focus();
}

// --- downloads ------------------------------------------------------------------------------------------------------

async function download(button) {
  const photo = state.current;
  const { format, ending } = button.dataset;
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const answer = await predict(photo.file, options(format));
    save(await answer.blob(), photo.name.replace(/\.[^.]*$/, "") + ending);
  } catch (error) {
    fail(`${photo.name}: ${error.message}`);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

// --- start and events -----------------------------------------------------------------------------------------------

async function start() {
  try {
    state.models = await models();
  } catch (error) {
    if (error.status === 401) return askForKey(null);
    return fail(error.message);
  }
  $("key-form").hidden = true;
  $("model").replaceChildren(...state.models.map(({ name }) => new Option(name, name)));
  $("model").disabled = state.models.length < 2;
  choose(state.models[0]);
}

function choose(model) {
  state.model = model;
  state.threshold = null;
  state.off.clear();
  $("threshold-mark").replaceChildren(new Option("", model.threshold ?? 0.5));
  const licence = model.data.licence ? `; data: ${model.data.licence}` : "";
  $("about").textContent = `${model.arch} on ${model.backbone} finds ${model.classes.slice(0, 4).join(", ")}${model.classes.length > 4 ? " and more" : ""}${licence}`;
  for (const photo of state.photos) {
    photo.cancel?.abort();
    Object.assign(photo, { status: "waiting", layer: null, answer: null, counts: null });
  }
  if (state.current) show(state.current);
  render();
  work();
}

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme-name").textContent = `Theme: ${name}`;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // private windows may forbid it
  }
}

$("files").addEventListener("change", () => {
  add([...$("files").files]);
  $("files").value = "";
});
$("sample").addEventListener("click", async () => {
  try {
    const blob = await (await call("/page/sample.jpg")).blob();
    add([new File([blob], "sample.jpg", { type: "image/jpeg" })]);
  } catch (error) {
    fail(error.message);
  }
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) event.preventDefault();
  add(files);
});
let inside = 0;
document.addEventListener("dragenter", (event) => {
  inside++;
  $("veil").hidden = !event.dataTransfer?.types.includes("Files");
});
document.addEventListener("dragleave", () => ($("veil").hidden = --inside <= 0 || $("veil").hidden));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("veil").hidden = true;
  add([...(event.dataTransfer?.files ?? [])]);
});

$("model").addEventListener("change", () => choose(state.models.find(({ name }) => name === $("model").value)));
$("threshold").addEventListener("input", () => {
  state.threshold = Number($("threshold").value);
  renderSliders();
  changed();
});
$("threshold-reset").addEventListener("click", () => {
  state.threshold = null;
  renderSliders();
  changed();
  $("threshold").focus();
});
$("opacity").addEventListener("input", () => {
  state.opacity = Number($("opacity").value) / 100;
  $("opacity-out").textContent = `${$("opacity").value} %`;
  look();
  viewer.draw();
});
$("style").addEventListener("change", (event) => {
  state.style = event.target.value;
  changed();
});
for (const button of $("downloads").children) button.addEventListener("click", () => download(button));
$("table-csv").addEventListener("click", () => save(tableCsv(state.photos, state.model, threshold()), "photographs.csv"));
$("copy").addEventListener("click", async () => {
  await copy($("curl").textContent);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});
$("alert-close").addEventListener("click", () => ($("alert").hidden = true));
$("clear").addEventListener("click", startOver);
$("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
$("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
$("fit").addEventListener("click", () => viewer.fit());
$("actual").addEventListener("click", () => viewer.zoom(1 / viewer.scale));
$("hide").addEventListener("click", hide);
function hide() {
  state.hidden = !state.hidden;
  $("hide").setAttribute("aria-pressed", String(state.hidden));
  look();
  viewer.draw();
}
function step(by) {
  const at = state.photos.indexOf(state.current) + by;
  if (state.photos[at]) select(state.photos[at]);
}
$("view").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    "+": () => viewer.zoom(1.25), "=": () => viewer.zoom(1.25), "-": () => viewer.zoom(0.8),
    0: () => viewer.fit(), 1: () => viewer.zoom(1 / viewer.scale), o: hide,
    ArrowLeft: () => viewer.move(60, 0), ArrowRight: () => viewer.move(-60, 0),
    ArrowUp: () => viewer.move(0, 60), ArrowDown: () => viewer.move(0, -60),
    ",": () => step(-1), ".": () => step(1),
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value);
  start();
});
$("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  theme(order[(order.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3]);
});
try {
  theme(localStorage.getItem("theme") ?? "system");
} catch {
  // as above
}
start();
