"""Predictions as other tools read them: plain JSON, COCO results, GeoJSON, YOLO text, CSV rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segdet.data.geometry.regions import Region, inset

COLUMNS = ("image", "class", "score", "x1", "y1", "x2", "y2", "area")  # of the CSV
# The coordinates of GeoJSON files as GDAL reads them: an engineering system, which has no place on Earth.
PIXELS = (
    'ENGCRS["Image pixels (x right, y down)",EDATUM["Image"],CS[Cartesian,2],'
    'AXIS["x",unspecified],AXIS["y",unspecified],SCALEUNIT["pixel",1]]'
)


def mask_summary(size: tuple[int, int], threshold: float | None, areas: Mapping[str, int]) -> dict[str, Any]:
    """Size, threshold, and per class its pixels and share of the image."""
    height, width = size
    return {
        "width": width,
        "height": height,
        "threshold": threshold,
        "classes": {name: {"pixels": area, "share": area / (height * width)} for name, area in areas.items()},
    }


def region_rows(regions: Iterable[Region]) -> list[dict[str, Any]]:
    """Regions as plain values."""
    return [
        {
            "class": region.label,
            "box": list(region.box),
            "area": region.area,
            "confidence": round(region.confidence, 4),
            "polygons": [polygon.tolist() for polygon in region.polygons],
        }
        for region in regions
    ]


def coco_regions(regions: Iterable[Region], size: tuple[int, int], image_id: int | str) -> list[dict[str, Any]]:
    """COCO results of regions: `bbox` is x, y, width, height."""
    return [
        {
            "image_id": image_id,
            "category_id": region.index + 1,
            "segmentation": region.rle(*size),
            "bbox": _xywh(region.box),
            "area": region.area,
            "score": round(region.confidence, 4),
        }
        for region in regions
    ]


def coco_boxes(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, image_id: int | str) -> list[dict[str, Any]]:
    """COCO results of boxes (pixels to 1/100)."""
    return [
        {
            "image_id": image_id,
            "category_id": label + 1,
            "bbox": _xywh([round(v, 2) for v in box]),
            "score": round(score, 4),
        }
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]


def geojson_regions(regions: Iterable[Region]) -> dict[str, Any]:
    """One MultiPolygon a region; rings are closed and turn as RFC 7946 asks."""
    return collection(
        {
            "type": "Feature",
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [[_closed(inset(ring)) for ring in part] for part in region.parts],
            },
            "properties": {
                "class": region.label,
                "label": region.index,
                "score": round(region.confidence, 4),
                "area": region.area,
            },
        }
        for region in regions
    )


def geojson_boxes(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """One Polygon a box."""
    return collection(
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [_closed(np.round(corners, 2))]},
            "properties": {"class": classes[label], "label": label, "score": round(score, 4)},
        }
        for corners, score, label in zip(box_outlines(boxes), scores.tolist(), labels.tolist(), strict=True)
    )


def box_outlines(boxes: np.ndarray) -> list[np.ndarray]:
    """The four corners of each box, float64 `[4, 2]`."""
    x1, y1, x2, y2 = boxes.astype(np.float64).reshape(-1, 4).T
    return list(np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2))


def yolo_regions(regions: Iterable[Region], size: tuple[int, int]) -> str:
    """One row a 4-connected part; a hole is joined to the outline around it by a cut of no width, there and back."""
    rows = []
    for region in regions:
        for part in region.parts:
            outline = inset(part[0])
            for hole in part[1:]:
                outline = _joined(outline, inset(hole))
            shares = outline / [size[1], size[0]]
            rows.append(" ".join([str(region.index), *(f"{value:.7g}" for value in shares.ravel().tolist())]) + "\n")
    return "".join(rows)


def yolo_boxes(boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> str:
    """YOLO rows `class cx cy w h`, in shares of the image; an image without boxes has none.

    Readers of labels take exactly these columns: a score as the sixth makes them refuse the file.
    """
    height, width = size
    rows = []
    for label, (x1, y1, x2, y2) in zip(labels, boxes.astype(float), strict=True):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        rows.append(" ".join([str(int(label)), *(f"{share:.6f}" for share in shares)]) + "\n")
    return "".join(rows)


def csv_rows(image: Mapping[str, Any]) -> Iterable[list[Any]]:
    """Rows of `COLUMNS` for one image, given what its result's `to_dict` says and its name: one a region or box."""
    for found in image.get("regions", ()):
        yield [image["image"], found["class"], found["confidence"], *found["box"], found["area"]]
    for found in image.get("detections", ()):
        x1, y1, x2, y2 = found["box"]
        yield [image["image"], found["class"], found["score"], *found["box"], round((x2 - x1) * (y2 - y1), 2)]


def _xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def collection(features: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A FeatureCollection in pixels. Its `crs` keeps GDAL and QGIS from taking them for longitude and latitude."""
    crs = {"type": "name", "properties": {"name": PIXELS}}
    return {"type": "FeatureCollection", "crs": crs, "features": list(features)}


def _closed(ring: np.ndarray) -> list[list[float]]:
    points: list[list[float]] = ring.tolist()
    return [*points, points[0]]


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One outline that goes round, cuts over to the hole's leftmost corner from where it is nearest, round it, and back."""
    there = int(hole[:, 0].argmin())
    at = int(((outline - hole[there]) ** 2).sum(axis=1).argmin())
    turned = np.roll(hole, -there, axis=0)
    return np.concatenate([outline[: at + 1], turned, turned[:1], outline[at:]])
