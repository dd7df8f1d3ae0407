"""Labels made on the stored picture where EXIF turns it: they then lie across the image they should fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from segdet.data.doctor.findings import Case, Finding
from segdet.data.doctor.scan import Facts
from segdet.data.images import read_image
from segdet.data.records import Dataset, Record, iterate

_BETTER = 1.3  # how much more contrast the other reading must find under the outlines

# Where a point (x, y) of the stored picture, as shares of its width and height, lies in the upright one.
_MOVES: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda p: np.stack([1 - p[:, 0], p[:, 1]], 1),
    3: lambda p: 1 - p,
    4: lambda p: np.stack([p[:, 0], 1 - p[:, 1]], 1),
    5: lambda p: p[:, ::-1],
    6: lambda p: np.stack([1 - p[:, 1], p[:, 0]], 1),
    7: lambda p: 1 - p[:, ::-1],
    8: lambda p: np.stack([p[:, 1], 1 - p[:, 0]], 1),
}


def check(dataset: Dataset, facts: Mapping[Path, Facts]) -> Iterator[Finding]:
    """Turned images whose labels lie on edges only when they are read as made on the unturned picture."""
    judged, wrong = 0, []
    for split, record in iterate(dataset):
        fact = facts.get(record.image)
        if fact is None or fact.header is None or fact.damage or fact.header.orientation < 2 or not record.instances:
            continue
        judged += 1
        ratio = stored_fits_better(record, fact.header.orientation)
        if ratio > _BETTER:
            wrong.append(
                Case(
                    (record.image,), f"EXIF {fact.header.orientation}: fits {ratio:.1f} times better unturned ({split})"
                )
            )
    if wrong:
        yield Finding(
            "labels-unturned",
            "error",
            f"labels of {len(wrong)} of {judged} EXIF-turned images fit the unturned picture",
            "The labelling tool ignored EXIF. Turn the pictures themselves (exiftran, jpegtran) and label again or convert.",
            len(wrong),
            tuple(wrong),
        )


def stored_fits_better(record: Record, orientation: int) -> float:
    """Contrast under the outlines read as made on the stored picture, over that under the outlines as they stand."""
    grey = cv2.cvtColor(read_image(record.image), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, 512 / max(grey.shape))
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    edges = cv2.dilate(
        np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)), np.ones((3, 3))
    )
    size = np.array([record.width, record.height])
    shares = np.concatenate([_outline(polygon) for polygon in _outlines(record)]) / size
    as_is, moved = _under(edges, shares), _under(edges, _MOVES[orientation](shares))
    return moved / max(as_is, 1e-6)


def _outlines(record: Record) -> list[np.ndarray]:
    found = [polygon for instance in record.instances for polygon in instance.polygons]
    boxes = [instance.box for instance in record.instances if not instance.polygons]
    return found + [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32) for x1, y1, x2, y2 in boxes]


def _outline(polygon: np.ndarray, steps: int = 8) -> np.ndarray:
    """Points along the outline, `steps` on each edge."""
    following = np.roll(polygon, -1, axis=0)
    t = (np.arange(steps) / steps)[:, None, None]
    return np.asarray((polygon * (1 - t) + following * t).reshape(-1, 2), np.float64)


def _under(edges: np.ndarray, shares: np.ndarray) -> float:
    height, width = edges.shape
    x = np.clip((shares[:, 0] * width).astype(int), 0, width - 1)
    y = np.clip((shares[:, 1] * height).astype(int), 0, height - 1)
    return float(edges[y, x].mean())
