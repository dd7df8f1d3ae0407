"""What a prediction is, and the forms it can be written in."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segdet import drawing
from segdet.data import outlines


@dataclass(frozen=True)
class Region:
    """A connected part of one class.

    box: (x1, y1, x2, y2) in pixels, x2 and y2 exclusive. area: pixels. confidence: mean over them.
    polygons: outlines `[[x, y], ...]` in pixels (0, 0 is the image's corner), outer ones first, then holes.
    """

    label: str
    box: tuple[int, int, int, int]
    area: int
    confidence: float
    polygons: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Prediction:
    """The answer for one image, at the image's own size.

    image: RGB uint8 `[H, W, 3]`. mask: class indices uint8 `[H, W]`, 0 = background, k = `classes[k - 1]`.
    confidence: float32 `[H, W]`, the foreground's probability (one class) or the winning class's.
    """

    image: np.ndarray
    mask: np.ndarray
    confidence: np.ndarray
    classes: Sequence[str]
    threshold: float | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.mask.shape
        return height, width

    @cached_property
    def areas(self) -> dict[str, int]:
        """Pixels per class."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes) + 1)
        return {name: int(counts[index + 1]) for index, name in enumerate(self.classes)}

    @cached_property
    def regions(self) -> list[Region]:
        """Connected parts (8-neighbourhood) of every class, largest first."""
        found: list[Region] = []
        for value in (int(v) for v in np.unique(self.mask) if v):
            count, labels, stats, _ = cv2.connectedComponentsWithStats(
                (self.mask == value).astype(np.uint8), connectivity=8
            )
            for index in range(1, count):
                x, y, w, h, area = (int(number) for number in stats[index])
                inside = labels[y : y + h, x : x + w] == index
                sure = float(self.confidence[y : y + h, x : x + w][inside].mean())
                found.append(
                    Region(self.classes[value - 1], (x, y, x + w, y + h), area, sure, outlines.rings(inside, x, y))
                )
        return sorted(found, key=lambda region: -region.area)

    def overlay(self, opacity: float = 0.55) -> np.ndarray:
        """The photograph with coloured, outlined predictions: RGB uint8 `[H, W, 3]`."""
        return drawing.overlay(self.image, self.mask, opacity)

    def mask_png(self) -> bytes:
        """PNG whose pixel values are class indices and whose palette makes them visible."""
        picture = Image.fromarray(self.mask)
        colours = [0, 0, 0] + [channel for index in range(255) for channel in drawing.colour_of(index)]
        picture.putpalette(colours)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: size, threshold, area and share per class, and the regions."""
        height, width = self.size
        return {
            "width": width,
            "height": height,
            "threshold": self.threshold,
            "classes": {name: {"pixels": area, "share": area / (height * width)} for name, area in self.areas.items()},
            "regions": [
                {
                    "class": region.label,
                    "box": list(region.box),
                    "area": region.area,
                    "confidence": round(region.confidence, 4),
                    "polygons": [polygon.tolist() for polygon in region.polygons],
                }
                for region in self.regions
            ],
        }
