"""A detector small enough to follow by hand: it boxes everything red, everything green and everything blue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from segdet.metadata import KEY, DataSource, Metadata

COLOURS = ("red", "green", "blue")
SCORES = (0.9, 0.8, 0.7)
BRIGHT = 200  # a pixel is of a colour from this value of its channel on

_GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
blobs (uint8[N,H,W,3] image) => (float[N,3,4] boxes, float[N,3] scores, int64[N,3] labels) {
  limit = Constant<value = uint8 {199}>()
  one = Constant<value = float {1.0}>()
  start = Constant<value = int64 {0}>()
  step = Constant<value = int64 {1}>()
  axis_h = Constant<value = int64[1] {1}>()
  axis_w = Constant<value = int64[1] {2}>()
  last = Constant<value = int64[1] {-1}>()
  three = Constant<value = int64[1] {3}>()
  sure = Constant<value = float[3] {0.9, 0.8, 0.7}>()
  above = Greater(image, limit)
  bright = Cast<to = 1>(above)
  columns = ReduceMax<keepdims = 0>(bright, axis_h)
  rows = ReduceMax<keepdims = 0>(bright, axis_w)
  shape = Shape(image)
  h = Gather(shape, axis_h)
  w = Gather(shape, axis_w)
  hs = Squeeze(h)
  ws = Squeeze(w)
  hf = Cast<to = 1>(hs)
  wf = Cast<to = 1>(ws)
  xi = Range(start, ws, step)
  yi = Range(start, hs, step)
  xf = Cast<to = 1>(xi)
  yf = Cast<to = 1>(yi)
  x = Unsqueeze(xf, last)
  y = Unsqueeze(yf, last)
  x_end = Add(x, one)
  y_end = Add(y, one)
  x_left = Sub(wf, x)
  y_left = Sub(hf, y)
  cx2 = Mul(columns, x_end)
  cy2 = Mul(rows, y_end)
  cx1 = Mul(columns, x_left)
  cy1 = Mul(rows, y_left)
  x2 = ReduceMax<keepdims = 0>(cx2, axis_h)
  y2 = ReduceMax<keepdims = 0>(cy2, axis_h)
  mx = ReduceMax<keepdims = 0>(cx1, axis_h)
  my = ReduceMax<keepdims = 0>(cy1, axis_h)
  x1 = Sub(wf, mx)
  y1 = Sub(hf, my)
  a = Unsqueeze(x1, last)
  b = Unsqueeze(y1, last)
  c = Unsqueeze(x2, last)
  d = Unsqueeze(y2, last)
  every = Concat<axis = -1>(a, b, c, d)
  there = ReduceMax<keepdims = 0>(columns, axis_h)
  raw = Mul(there, sure)
  scores, labels = TopK(raw, three)
  places = Unsqueeze(labels, last)
  size = Shape(every)
  index = Expand(places, size)
  boxes = GatherElements<axis = 1>(every, index)
}
"""


def blob_metadata(threshold: float = 0.5, task: str = "detection") -> Metadata:
    """What the detector says about itself."""
    return Metadata(
        schema=1, task=task, arch="detr", backbone="none", classes=list(COLOURS), imgsz=64, mean=[0.5] * 3,
        std=[0.5] * 3, threshold=threshold, data=DataSource(name="blobs", sha256="0" * 64), version="0",
    )  # fmt: skip


def blob_model(path: Path, threshold: float = 0.5, graph: str = _GRAPH, task: str = "detection") -> Path:
    """Write the detector as an ONNX file of the contract."""
    model = onnx.parser.parse_model(graph)
    onnx.checker.check_model(model, full_check=True)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, blob_metadata(threshold, task).to_json()
    onnx.save(model, path)
    return path


def blob_picture(rectangles: dict[str, tuple[int, int, int, int]], height: int = 100, width: int = 200) -> np.ndarray:
    """RGB uint8: rectangles (x1, y1, x2, y2) on grey, each in its own channel, so that they may overlap."""
    image = np.full((height, width, 3), 90, np.uint8)
    for name, (x1, y1, x2, y2) in rectangles.items():
        image[y1:y2, x1:x2, COLOURS.index(name)] = 240
    return image


def blob_dataset(root: Path, count: int = 4, seed: int = 0) -> Path:
    """A YOLO dataset of boxes: pictures of different sizes with one rectangle of some colours, all found by the detector."""
    rng = np.random.default_rng(seed)
    for split in ("train", "val"):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            height, width = int(rng.integers(80, 140)), int(rng.integers(80, 240))
            rectangles, rows = {}, []
            for label in range(number % 4):
                x1, y1 = int(rng.integers(0, 40)) + 10 * label, int(rng.integers(0, 40))
                x2, y2 = x1 + int(rng.integers(8, 20)), y1 + int(rng.integers(8, 30))
                rectangles[COLOURS[label]] = (x1, y1, x2, y2)
                cx, cy, w, h = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                rows.append(f"{label} {cx:.9f} {cy:.9f} {w:.9f} {h:.9f}")
            Image.fromarray(blob_picture(rectangles, height, width)).save(images / f"{split}-{number}.png")
            (labels / f"{split}-{number}.txt").write_text("\n".join(rows))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {list(COLOURS)}\n")
    return root
