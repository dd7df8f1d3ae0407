// From files to pictures and layers.

import { decodeGrey, decodeRle, predict } from "/page/api.js";
import { MaskLayer } from "/page/viewer.js";

/** Judged by type and ending; the server looks into the file. */
export function looksLikeImage(file) {
  return file.type ? file.type.startsWith("image/") && file.type !== "image/svg+xml" : /\.(jpe?g|jfif|png|webp|bmp|tiff?|gif|mpo)$/i.test(file.name);
}

/** The photograph as the browser reads it, upright; null where it cannot. */
export function decode(file) {
  return createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
}

/** The photograph upright; by the server where the browser cannot read it, or reads it in another size (TIFF, odd EXIF). */
export async function picture(photo, model, { width, height }) {
  const bitmap = photo.bitmap ?? (await decode(photo.file));
  if (bitmap && bitmap.width === width && bitmap.height === height) return bitmap;
  const answer = await predict(photo.file, { model: model.name, format: "picture" });
  return createImageBitmap(await answer.blob());
}

export async function maskLayer(model, { width, height, rle, confidence, threshold }) {
  const exact = new Uint8Array(width * height);
  model.classes.forEach((name, index) => {
    if (rle[name]) decodeRle(rle[name], exact, index + 1);
  });
  return new MaskLayer(width, height, model.classes, exact, confidence ? await decodeGrey(confidence) : null, threshold);
}

export function thumbnail(bitmap) {
  const scale = 128 / Math.max(bitmap.width, bitmap.height);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}
