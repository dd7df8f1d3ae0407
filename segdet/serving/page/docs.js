// The API described from /openapi.json, with calls that can be tried.

import { call, useKey } from "/page/api.js";

const $ = (id) => document.getElementById(id);
const make = (tag, text, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};

function type(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(type).filter((name) => name !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  const limits = [schema.minimum !== undefined && `from ${schema.minimum}`, schema.maximum !== undefined && `to ${schema.maximum}`];
  return [schema.type ?? "any", ...limits.filter(Boolean)].join(" ");
}

function rows(entries) {
  const table = document.createElement("table");
  for (const cells of entries) {
    const row = table.insertRow();
    for (const text of cells) row.insertCell().textContent = text;
  }
  return table;
}

function article(path, method, route) {
  const title = make("h3");
  title.append(make("b", method.toUpperCase()), path);
  const parts = [title, make("p", route.summary ?? "")];
  if (route.description) {
    for (const paragraph of route.description.trimEnd().split("\n\n")) { // indented ones are commands
      const code = paragraph.startsWith("    ");
      parts.push(make(code ? "pre" : "p", paragraph.replaceAll(/^ {4}/gm, "").replaceAll("http://127.0.0.1:8000", location.origin)));
    }
  }
  if (route.parameters) parts.push(rows(route.parameters.map((p) => [p.name, type(p.schema), p.description ?? p.schema?.description ?? ""])));
  if (route.requestBody) parts.push(make("p", `Body: ${Object.keys(route.requestBody.content).join(", ")}`));
  parts.push(rows(Object.entries(route.responses).map(([code, told]) =>
    [code, told.description ?? "", Object.keys(told.content ?? {}).join(", ")])));
  return make("article", null, ...parts);
}

async function attempt(format) {
  $("answer").replaceChildren(make("p", "working …"));
  try {
    const body = new FormData();
    body.append("image", await (await call("/page/sample.jpg")).blob(), "sample.jpg");
    const parameters = format === "json" ? "include=polygons" : `format=${format}`;
    const answer = await call(`/v1/predict?${parameters}`, { method: "POST", body });
    const line = make("pre", `curl -F image=@sample.jpg '${location.origin}/v1/predict?${parameters}'`);
    if (answer.headers.get("Content-Type").startsWith("image/")) {
      const image = make("img");
      image.alt = `The sample photograph: ${format}`;
      image.src = URL.createObjectURL(await answer.blob());
      $("answer").replaceChildren(line, image);
    } else {
      let text = await answer.text();
      if (text.startsWith("{") || text.startsWith("[")) text = JSON.stringify(JSON.parse(text), null, 1);
      $("answer").replaceChildren(line, make("pre", text.length > 6000 ? `${text.slice(0, 6000)}\n…` : text));
    }
  } catch (error) {
    $("answer").replaceChildren(make("p", error.message));
  }
}

async function start() {
  try {
    const described = await (await call("/openapi.json")).json();
    $("key-form").hidden = $("alert").hidden = true;
    $("about").textContent = `${described.info.description.replaceAll("`", "")} Version ${described.info.version}.`;
    const articles = Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, route]) => article(path, method, route)));
    $("routes").replaceChildren(...articles);
  } catch (error) {
    $("key-form").hidden = error.status !== 401;
    $("alert").hidden = error.status === 401;
    $("alert").textContent = error.message;
  }
}

for (const format of ["json", "mask", "overlay", "geojson", "coco", "csv"]) {
  const button = make("button", format);
  button.type = "button";
  button.addEventListener("click", () => attempt(format));
  $("tries").append(button);
}
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value);
  start();
});
start();
