"""What a detection is, and the forms it can be written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segdet import drawing


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

    def overlay(self) -> np.ndarray:
        """The photograph with named boxes: RGB uint8, of the image's size, or a whole multiple of it when it is small."""
        captions = [f"{self.classes[k]} {score:.2f}" for k, score in zip(self.labels, self.scores, strict=True)]
        colours = [drawing.colour_of(int(k)) for k in self.labels]
        return drawing.boxes(self.image, self.boxes, colours, captions)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: size, threshold, boxes per class, and every box (pixels to 1/100)."""
        height, width = self.size
        return {
            "width": width,
            "height": height,
            "threshold": self.threshold,
            "classes": self.counts,
            "detections": [
                {
                    "class": self.classes[label],
                    "label": label,
                    "score": round(score, 4),
                    "box": [round(value, 2) for value in box],
                }
                for label, score, box in zip(
                    self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True
                )
            ],
        }
