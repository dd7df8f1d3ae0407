"""What a prediction is, and the forms it can be written in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from segdet import drawing
from segdet.data.geometry import rle
from segdet.data.geometry.regions import Region, regions_of
from segdet.inference.io import png, serialize


def areas(mask: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Pixels per class of a mask uint8 `[h, W]`."""
    if len(classes) == 1:
        return {classes[0]: cv2.countNonZero(mask)}
    counts = np.bincount(mask.ravel(), minlength=len(classes) + 1)
    return {name: int(counts[index]) for index, name in enumerate(classes, 1)}


class Result(ABC):
    """The answer for one image, in the image's own pixels, and the forms it can be written in.

    Attributes:
        classes: names; label k is `classes[k]`.
        threshold: at or above which a pixel or box counts; None for segmentation of several classes.
    """

    classes: Sequence[str]
    threshold: float | None

    if TYPE_CHECKING:  # some results have it as a field, others compute it

        @property
        def size(self) -> tuple[int, int]:
            """(height, width)."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Plain values: size, threshold, and how much there is of each class."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the summary and every region or box."""

    @abstractmethod
    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO results, one for each region or box; `category_id` counts the classes from 1."""

    @abstractmethod
    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection in pixels (x to the right, y down)."""

    @abstractmethod
    def to_yolo(self) -> str:
        """YOLO rows, in fractions of the image's size."""


class _Regions(Result):
    """Results that consist of connected parts of classes: they share how they are written.

    Attributes:
        areas: pixels of each class.
        regions: connected parts; None when nothing that needs them is written.
    """

    if TYPE_CHECKING:

        @property
        def areas(self) -> dict[str, int]: ...

        @property
        def regions(self) -> list[Region] | None: ...

    def summary(self) -> dict[str, Any]:
        """Plain values: size, threshold, area and share of each class."""
        return serialize.mask_summary(self.size, self.threshold, self.areas)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the summary and the regions with their outlines."""
        return {**self.summary(), "regions": serialize.region_rows(self.regions or [])}

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO results, one a region: `segmentation` in run lengths, `bbox`, `area`, `score`, `category_id` from 1."""
        return serialize.coco_regions(self.regions or [], self.size, image_id)

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection in pixels (x to the right, y down): a valid MultiPolygon for each region."""
        return serialize.geojson_regions(self.regions or [])

    def to_yolo(self) -> str:
        """YOLO rows `class x1 y1 x2 y2 ...`, one for each 4-connected part (holes cut open)."""
        return serialize.yolo_regions(self.regions or [], self.size)


@dataclass(frozen=True)
class SegmentationResult(_Regions):
    """The answer for one image, at the image's own size.

    image: RGB uint8 `[H, W, 3]`. mask: class indices uint8 `[H, W]`, 0 = background, k = `classes[k - 1]`.
    confidence: float32 `[H, W]`, the foreground's probability (one class) or the winning class's.

    `boxes`, `scores`, `labels` and `polygons` have one entry for each of `regions`, like a detector's.
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
        return areas(self.mask, self.classes)

    @cached_property
    def regions(self) -> list[Region]:
        """Connected parts (8-neighbourhood) of every class, largest first."""
        return regions_of(self.mask, self.confidence, self.classes)

    @property
    def boxes(self) -> np.ndarray:
        """float32 `[K, 4]`: x1, y1, x2, y2 in pixels."""
        return np.array([region.box for region in self.regions], np.float32).reshape(-1, 4)

    @property
    def scores(self) -> np.ndarray:
        """float32 `[K]`: mean confidence of each region."""
        return np.array([region.confidence for region in self.regions], np.float32)

    @property
    def labels(self) -> np.ndarray:
        """int64 `[K]`: index into `classes`."""
        return np.array([region.index for region in self.regions], np.int64)

    @property
    def polygons(self) -> list[tuple[np.ndarray, ...]]:
        """Outlines of each region, float64 `[P, 2]` in pixels: outer ones first, then holes."""
        return [region.polygons for region in self.regions]

    @cached_property
    def rle(self) -> dict[str, dict[str, Any]]:
        """Each class's whole mask in COCO's run lengths (`{"size": [H, W], "counts": text}`)."""
        return {name: rle.from_mask(self.mask == index) for index, name in enumerate(self.classes, 1)}

    def overlay(self, opacity: float = 0.55) -> np.ndarray:
        """The photograph with coloured, outlined predictions: RGB uint8 `[H, W, 3]`."""
        return drawing.overlay(self.image, self.mask, opacity)

    def mask_png(self) -> bytes:
        """PNG whose pixel values are class indices and whose palette makes them visible."""
        return png.encode_mask(self.mask, len(self.classes))

    def confidence_png(self) -> bytes:
        """Grey PNG of the confidence, 0..255."""
        return png.encode_grey((self.confidence * np.float32(255) + np.float32(0.5)).astype(np.uint8))


@dataclass(frozen=True)
class LargeSegmentationResult(_Regions):
    """The answer for an image too large to be held whole: what remains once mask and overlay are on disk.

    size: (height, width). areas: pixels per class. regions: as in `SegmentationResult`; None when no output needs them.
    """

    size: tuple[int, int]
    areas: dict[str, int]
    regions: list[Region] | None
    classes: Sequence[str]
    threshold: float | None


@dataclass(frozen=True)
class DetectionResult(Result):
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
        return serialize.box_outlines(self.boxes)

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
        return serialize.coco_boxes(self.boxes, self.scores, self.labels, image_id)

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection in pixels (x to the right, y down): a Polygon for each box."""
        return serialize.geojson_boxes(self.boxes, self.scores, self.labels, self.classes)

    def to_yolo(self) -> str:
        """YOLO rows `class cx cy w h` in shares of the image."""
        return serialize.yolo_boxes(self.boxes, self.labels, self.size)
