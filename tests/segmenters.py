"""A segmentation model small enough to follow by hand: what is dark is a crack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from segdet.metadata import KEY, DataSource, Metadata

_GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
dark (uint8[N,H,W,3] image, float threshold) => (uint8[N,H,W] mask, float[N,H,W] confidence)
<float threshold = {0.5}> {
  channels = Constant<value = int64[1] {3}>()
  white = Constant<value = float {255.0}>()
  one = Constant<value = float {1.0}>()
  bright = Cast<to = 1>(image)
  mean = ReduceMean<keepdims = 0>(bright, channels)
  share = Div(mean, white)
  confidence = Sub(one, share)
  crack = GreaterOrEqual(confidence, threshold)
  mask = Cast<to = 2>(crack)
}
"""
_CLASSES_GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
channels (uint8[N,H,W,3] image) => (uint8[N,H,W] mask, float[N,H,W] confidence) {
  last = Constant<value = int64[1] {3}>()
  white = Constant<value = float {255.0}>()
  bright = Cast<to = 1>(image)
  brightest = ReduceMax<keepdims = 0>(bright, last)
  confidence = Div(brightest, white)
  which = ArgMax<axis = 3, keepdims = 0>(image)
  mask = Cast<to = 2>(which)
}
"""


_THIN_GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
thin (uint8[N,H,W,3] image, float threshold) => (uint8[N,H,W] mask, float[N,H,W] confidence)
<float threshold = {0.5}> {
  channels = Constant<value = int64[1] {3}>()
  one = Constant<value = int64[1] {1}>()
  white = Constant<value = float {255.0}>()
  bright = Cast<to = 1>(image)
  mean = ReduceMean<keepdims = 0>(bright, channels)
  share = Div(mean, white)
  grey = Unsqueeze(share, one)
  wide = MaxPool<kernel_shape = [9, 9], pads = [4, 4, 4, 4]>(grey)
  negative = Neg(wide)
  back = MaxPool<kernel_shape = [9, 9], pads = [4, 4, 4, 4]>(negative)
  closed = Neg(back)
  depth = Sub(closed, grey)
  confidence = Squeeze(depth, one)
  crack = GreaterOrEqual(confidence, threshold)
  mask = Cast<to = 2>(crack)
}
"""


def thin_model(path: Path, down_to: int | None = None) -> Path:
    """What is dark and thinner than 9 pixels is a crack: wider ones show only in smaller copies of the image."""
    return _saved(path, _THIN_GRAPH, ["crack"], 0.5, down_to)


def dark_model(path: Path, threshold: float = 0.5, precision: str | None = None) -> Path:
    """Confidence is 1 - brightness; `precision` is only what the file says about itself."""
    return _saved(path, _GRAPH, ["crack"], threshold, precision=precision)


def channel_model(path: Path) -> Path:
    """The brightest channel is the class: red = background, green = "moss", blue = "stain"."""
    return _saved(path, _CLASSES_GRAPH, ["moss", "stain"], None)


def _saved(
    path: Path,
    graph: str,
    classes: list[str],
    threshold: float | None,
    down_to: int | None = None,
    precision: str | None = None,
) -> Path:
    model = onnx.parser.parse_model(graph)
    onnx.checker.check_model(model, full_check=True)
    entry = model.metadata_props.add()
    about = Metadata(
        schema=1, task="segmentation", arch="dark", backbone="none", classes=classes, imgsz=64, mean=[0.5] * 3,
        std=[0.5] * 3, threshold=threshold, data=DataSource(name="dark", sha256="0" * 64), version="0",
        down_to=down_to, precision=precision,
    )  # fmt: skip
    entry.key, entry.value = KEY, about.to_json()
    onnx.save(model, path)
    return path


def blots(seed: int, height: int, width: int) -> np.ndarray:
    """RGB uint8 `[H, W, 3]`: light grey with dark discs, lines and single pixels."""
    import cv2

    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 200, np.uint8)
    for _ in range(max(3, height * width // 20_000)):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(image, (x, y), int(rng.integers(1, 12)), (40, 40, 40), -1)
        cv2.line(
            image, (x, y), (int(rng.integers(width)), int(rng.integers(height))), (30, 30, 30), int(rng.integers(1, 4))
        )
        image[int(rng.integers(height)), int(rng.integers(width))] = 10
    return image
