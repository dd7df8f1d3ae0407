"""What a segmentation is, and the forms it can be written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from segdet import drawing
from segdet.inference import forms, png, rle
from segdet.inference.regions import Region, regions_of


def areas(mask: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Pixels per class of a mask uint8 `[h, W]`."""
    if len(classes) == 1:
        return {classes[0]: cv2.countNonZero(mask)}
    counts = np.bincount(mask.ravel(), minlength=len(classes) + 1)
    return {name: int(counts[index]) for index, name in enumerate(classes, 1)}


@dataclass(frozen=True)
class SegmentationResult:
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

    def summary(self) -> dict[str, Any]:
        """Plain values: size, threshold, area and share per class."""
        return forms.mask_summary(self.size, self.threshold, self.areas)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the summary and the regions with their outlines."""
        return {**self.summary(), "regions": forms.region_rows(self.regions)}

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """COCO results, one a region: `segmentation` in run lengths, `bbox`, `area`, `score`, `category_id` from 1."""
        return forms.coco_regions(self.regions, self.size, image_id)

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection in pixels (x to the right, y down): a valid MultiPolygon for each region."""
        return forms.geojson_regions(self.regions)

    def to_yolo(self) -> str:
        """YOLO rows `class x1 y1 x2 y2 ...` in shares of the image, one for each 4-connected part (holes cut open)."""
        return forms.yolo_regions(self.regions, self.size)


@dataclass(frozen=True)
class Segments:
    """The answer for an image too large to be held whole: what remains once mask and overlay are on disk.

    size: (height, width). areas: pixels per class. regions: as in `SegmentationResult`; None when nobody asked for them.
    """

    size: tuple[int, int]
    areas: dict[str, int]
    regions: list[Region] | None
    classes: Sequence[str]
    threshold: float | None

    def summary(self) -> dict[str, Any]:
        """As `SegmentationResult.summary`."""
        return forms.mask_summary(self.size, self.threshold, self.areas)

    def to_dict(self) -> dict[str, Any]:
        """As `SegmentationResult.to_dict`."""
        return {**self.summary(), "regions": forms.region_rows(self.regions or [])}

    def to_coco(self, image_id: int | str = 0) -> list[dict[str, Any]]:
        """As `SegmentationResult.to_coco`."""
        return forms.coco_regions(self.regions or [], self.size, image_id)

    def to_geojson(self) -> dict[str, Any]:
        """As `SegmentationResult.to_geojson`."""
        return forms.geojson_regions(self.regions or [])

    def to_yolo(self) -> str:
        """As `SegmentationResult.to_yolo`."""
        return forms.yolo_regions(self.regions or [], self.size)
