"""What a detection is, and the forms it can be written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segdet import drawing
from segdet.inference import forms


@dataclass(frozen=True)
class DetectionResult:
    """The answer for one image, in the image's own pixels.

    image: RGB uint8 `[H, W, 3]`. boxes: float32 `[K, 4]` (x1, y1, x2, y2), within the image. scores: float32 `[K]`, falling,
    none under `threshold`. labels: int64 `[K]`, index into `classes`.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    threshold: float

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.image.shape[:2]
        return height, width

    @cached_property
    def counts(self) -> dict[str, int]:
        """Boxes per class."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(counts[index]) for index, name in enumerate(self.classes)}

    @cached_property
    def areas(self) -> dict[str, int]:
        """Pixels per class that lie in at least one of its boxes."""
        covered = np.zeros(self.size, bool)
        found = {}
        for index, name in enumerate(self.classes):
            corners = np.round(self.boxes[self.labels == index]).astype(int).tolist()
            for x1, y1, x2, y2 in corners:
                covered[y1:y2, x1:x2] = True
            found[name] = int(covered.sum()) if corners else 0
            if corners:
                covered[:] = False
        return found

    @property
    def polygons(self) -> list[np.ndarray]:
        """The corners of each box, float64 `[4, 2]` (x, y)."""
        return forms.box_outlines(self.boxes)

    def overlay(self) -> np.ndarray:
        """The photograph with named boxes: RGB uint8, of the image's size, or a whole multiple of it when it is small."""
        captions = [f"{self.classes[k]} {score:.2f}" for k, score in zip(self.labels, self.scores, strict=True)]
        colours = [drawing.colour_of(int(k)) for k in self.labels]
        return drawing.boxes(self.image, self.boxes, colours, captions)

    def summary(self) -> dict[str, Any]:
        """Plain values: size, threshold, boxes per class."""
        height, width = self.size
        return {"width": width, "height": height, "threshold": self.threshold, "classes": self.counts}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the summary and every box (pixels to 1/100)."""
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        found = [
            {
                "class": self.classes[label],
                "label": label,
                "score": round(score, 4),
                "box": [round(value, 2) for value in box],
            }
            for label, score, box in rows
        ]
        return {**self.summary(), "detections": found}

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO results, one a box; `category_id` counts the classes from 1."""
        return forms.coco_boxes(self.boxes, self.scores, self.labels, image_id)

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection in pixels (x to the right, y down): a Polygon for each box."""
        return forms.geojson_boxes(self.boxes, self.scores, self.labels, self.classes)

    def to_yolo(self) -> str:
        """YOLO rows `class cx cy w h` in shares of the image."""
        return forms.yolo_boxes(self.boxes, self.labels, self.size)
