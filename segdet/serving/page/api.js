// The server's API, as this page uses it.

let key = null; // kept in memory only

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function useKey(text) {
  key = text;
}

/** Whether the server wants a key. */
export function keyed() {
  return Boolean(key);
}

/** fetch, with the key, the server's own words as the error, and patience while it is overloaded. */
export async function call(path, options = {}, onWait = () => {}) {
  const headers = { ...(options.headers ?? {}), ...(key ? { "X-API-Key": key } : {}) };
  for (let attempt = 0; ; attempt++) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 503 && attempt < 20) {
      const seconds = Number(answer.headers.get("Retry-After")) || 1;
      onWait(seconds);
      await new Promise((resolve) => setTimeout(resolve, seconds * (700 + 600 * Math.random())));
      continue;
    }
    const told = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, told.error ?? `The server answered ${answer.status}.`);
  }
}

export async function models() {
  return (await (await call("/v1/models")).json()).models;
}

/** The parameters of a prediction that the page, its downloads and its curl line share. */
export function query({ model, threshold, classes, format, include }) {
  const parameters = new URLSearchParams();
  if (model) parameters.set("model", model);
  if (threshold !== null && threshold !== undefined) parameters.set("threshold", String(threshold));
  if (classes) parameters.set("classes", classes.join(","));
  if (format) parameters.set("format", format);
  if (include) parameters.set("include", include);
  return parameters.toString();
}

export function predict(file, options, onWait) {
  const body = new FormData();
  body.append("image", file, file.name || "image");
  return call(`/v1/predict?${query(options)}`, { method: "POST", body, signal: options.signal }, onWait);
}

/** Put `value` where COCO's compressed run lengths say into `mask`, a Uint8Array row by row. */
export function decodeRle({ size: [height, width], counts }, mask, value) {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let run = 0, shift = 0, more = true;
    while (more) {
      const code = counts.charCodeAt(at++) - 48;
      run += (code & 31) * 2 ** shift;
      more = (code & 32) !== 0;
      shift += 5;
      if (!more && code & 16) run -= 2 ** shift;
    }
    if (runs.length > 2) run += runs[runs.length - 2];
    runs.push(run);
  }
  let position = 0;
  runs.forEach((length, index) => {
    if (index % 2) {
      for (let p = position; p < position + length; p++) mask[(p % height) * width + Math.floor(p / height)] = value;
    }
    position += length;
  });
}

/** A grey PNG in base64 -> a Uint8Array of its values. */
export async function decodeGrey(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
  const grey = new Uint8Array(pixels.length);
  for (let i = 0; i < grey.length; i++) grey[i] = pixels[i] & 255;
  return grey;
}
