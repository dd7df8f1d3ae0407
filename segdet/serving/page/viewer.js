// The photograph, what was found on top of it, zoom and pan.

/** Where each class is, at a threshold; one byte a pixel, 0 = nothing, k = class k - 1. */
export class MaskLayer {
  constructor(width, height, classes, exact, confidence, ownThreshold) {
    Object.assign(this, { width, height, classes, exact, confidence, ownThreshold });
    this.mask = exact;
    this.canvas = new OffscreenCanvas(width, height);
  }

  /** Decide anew. At the model's own threshold the server's mask holds to the pixel. */
  cut(threshold) {
    if (!this.confidence || Math.abs(threshold - this.ownThreshold) < 1e-9) {
      this.mask = this.exact;
      return;
    }
    const limit = threshold * 255;
    const { confidence } = this;
    const mask = new Uint8Array(confidence.length);
    for (let i = 0; i < mask.length; i++) mask[i] = confidence[i] >= limit ? 1 : 0;
    this.mask = mask;
  }

  /** Pixels of each class. */
  counts() {
    const found = new Array(this.classes.length + 1).fill(0);
    for (const value of this.mask) found[value]++;
    return found.slice(1);
  }

  /** Paint the layer; colours: [r, g, b] of each class or null. style: fill, outline or both. Opacity comes when drawing. */
  paint(colours, style) {
    const { width, height, mask } = this;
    const picture = new ImageData(width, height);
    const out = new Uint32Array(picture.data.buffer);
    const fill = { fill: 255, outline: 0, both: 120 }[style];
    const inner = new Uint32Array(256), border = new Uint32Array(256);
    colours.forEach((colour, index) => {
      if (!colour) return;
      const rgb = colour[0] | (colour[1] << 8) | (colour[2] << 16);
      inner[index + 1] = fill ? (rgb | (fill << 24)) >>> 0 : 0;
      border[index + 1] = (rgb | (255 << 24)) >>> 0;
    });
    const reach = Math.max(1, Math.round(Math.max(width, height) / 1000));
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const value = mask[i];
        if (!value) continue;
        const edge = style !== "fill" && (
          (x >= reach && mask[i - reach] !== value) || (x + reach < width && mask[i + reach] !== value) ||
          (y >= reach && mask[i - reach * width] !== value) || (y + reach < height && mask[i + reach * width] !== value));
        out[i] = edge ? border[value] : inner[value];
      }
    }
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }
}

/** Boxes with names. */
export class BoxLayer {
  constructor(classes, detections) {
    this.classes = classes;
    this.all = detections;
    this.shown = detections;
  }

  cut(threshold) {
    this.shown = this.all.filter((found) => found.score >= threshold);
  }

  counts() {
    const found = new Array(this.classes.length).fill(0);
    for (const { label } of this.shown) found[label]++;
    return found;
  }
}

export class Viewer {
  constructor(canvas, onZoom) {
    this.canvas = canvas;
    this.onZoom = onZoom;
    this.image = null;
    this.layer = null;
    this.look = { colours: [], style: "fill", opacity: 0.55, hidden: false };
    this.scale = 1;
    this.x = this.y = 0; // where the photograph's corner stands, in screen pixels
    this.fitted = true;
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    });
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("dblclick", (event) => (this.fitted ? this.zoom(4, event.offsetX, event.offsetY) : this.fit()));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(image, layer) {
    const same = this.image === image;
    this.image = image;
    this.layer = layer;
    if (!same) this.fit();
    else this.draw();
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.offsetX, event.offsetY];
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    if (others.length === 1) {
      const [, other] = others[0];
      const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
      this.zoom(distance(now, other) / distance(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
    this.move((now[0] - before[0]) / (others.length + 1), (now[1] - before[1]) / (others.length + 1));
    this.pointers.set(event.pointerId, now);
  }

  move(dx, dy) {
    if (!this.image) return;
    const { clientWidth, clientHeight } = this.canvas;
    const margin = 40; // of the photograph that stays in sight
    this.x = Math.min(clientWidth - margin, Math.max(margin - this.image.width * this.scale, this.x + dx));
    this.y = Math.min(clientHeight - margin, Math.max(margin - this.image.height * this.scale, this.y + dy));
    if (dx || dy) this.fitted = false;
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    if (!this.image) return;
    const scale = Math.min(40, Math.max(Math.min(0.05, this.fitScale()), this.scale * factor));
    this.x = x - (x - this.x) * (scale / this.scale);
    this.y = y - (y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.fitted = false;
    this.move(0, 0);
  }

  fitScale() {
    const { clientWidth, clientHeight } = this.canvas;
    return Math.min(clientWidth / this.image.width, clientHeight / this.image.height) || 1;
  }

  fit() {
    if (!this.image) return this.draw();
    this.scale = this.fitScale();
    this.x = (this.canvas.clientWidth - this.image.width * this.scale) / 2;
    this.y = (this.canvas.clientHeight - this.image.height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (this.fitted) this.fit();
    else this.draw();
  }

  /** Once a frame at most. */
  draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.drawNow();
    });
  }

  drawNow() {
    const pen = this.canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.image) return;
    pen.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    pen.imageSmoothingEnabled = this.scale * ratio < 3; // from there on single pixels are looked at
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.image, 0, 0);
    if (this.layer instanceof MaskLayer && !this.look.hidden) {
      pen.globalAlpha = this.look.opacity;
      pen.drawImage(this.layer.canvas, 0, 0);
      pen.globalAlpha = 1;
    }
    if (this.layer instanceof BoxLayer && !this.look.hidden) this.drawBoxes(pen, ratio);
    this.onZoom(this.scale);
  }

  drawBoxes(pen, ratio) {
    const { colours, style, opacity } = this.look;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0); // lines and letters keep their size
    pen.font = "600 13px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const found of [...this.layer.shown].reverse()) {
      const colour = colours[found.label];
      if (!colour) continue;
      const [x1, y1, x2, y2] = found.box.map((value, i) => value * this.scale + (i % 2 ? this.y : this.x));
      pen.fillStyle = pen.strokeStyle = `rgb(${colour.join(" ")})`;
      if (style !== "outline") {
        pen.globalAlpha = opacity * 0.5;
        pen.fillRect(x1, y1, x2 - x1, y2 - y1);
      }
      pen.globalAlpha = style === "fill" ? opacity : Math.max(0.2, opacity);
      pen.lineWidth = 2;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      const text = `${this.layer.classes[found.label]} ${found.score.toFixed(2)}`;
      const width = pen.measureText(text).width + 10;
      const top = Math.max(0, y1 - 20), left = Math.max(0, Math.min(x1 - 1, this.canvas.clientWidth - width));
      pen.globalAlpha = 1;
      pen.fillRect(left, top, width, 20);
      pen.fillStyle = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140 ? "#000" : "#fff";
      pen.fillText(text, left + 5, top + 10.5);
    }
    pen.globalAlpha = 1;
  }
}
