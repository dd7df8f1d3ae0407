"""From polygons to masks: the one rasteriser used for training, validation and reports.

Rasterisers disagree by up to 20 IoU points on thin cracks, so every score names this one: "4x-coverage-0.5".
Each pixel is split into 4x4; a sub-pixel counts when the outline touches it (OpenCV's filled polygon with 1/16
sub-pixel vertices), a pixel's coverage is the share of its sub-pixels, and it belongs to the mask from one half on.
On the crack set this draws 4 % more area than the outline encloses (0.1 px along each edge; a fill at 1x draws
17 % more) and, unlike run-length rasterisers, does not break thin cracks apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segdet.data.records import Instance, Record

NAME = "4x-coverage-0.5"
IGNORE = 255  # label of pixels that count neither for nor against, in class-index masks

_SCALE = 4
_SHIFT = 4  # fillPoly's fixed-point bits: vertices are rounded to 1/16 of a sub-pixel
_BAND = 256  # rows rasterised at once, so that memory stays small for huge images
_HALF = 128  # 8-bit coverage that stands for one half: round(255 * 8 / 16)


def coverage(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """How much of each pixel the union of `polygons` covers.

    Args:
        polygons: outlines, each `[P, 2]` (x, y) in pixels, finite and within the image (`records.clean_polygon`).
        height, width: of the image, in pixels.

    Returns:
        uint8 `[H, W]`, 0 = outside, 255 = fully inside, in steps of 1/16.
    """
    out = np.zeros((height, width), np.uint8)
    if not polygons:
        return out
    # Sub-pixel k covers [k/4, (k+1)/4), so its centre is at (k + 0.5) / 4.
    scaled = [np.round((np.asarray(p, np.float64) * _SCALE - 0.5) * (1 << _SHIFT)).astype(np.int32) for p in polygons]
    tops = [int(np.floor(p[:, 1].min())) - 1 for p in polygons]
    bottoms = [int(np.ceil(p[:, 1].max())) + 1 for p in polygons]
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        inside = [p for p, y1, y2 in zip(scaled, tops, bottoms, strict=True) if y1 < bottom and y2 > top]
        if not inside:
            continue
        fine = np.zeros(((bottom - top) * _SCALE, width * _SCALE), np.uint8)
        for polygon in inside:  # one call each: together they would cancel out where they overlap
            moved = polygon - np.array([0, top * _SCALE << _SHIFT], np.int32)
            cv2.fillPoly(fine, [moved], 255, shift=_SHIFT)
        out[top:bottom] = cv2.resize(fine, (width, bottom - top), interpolation=cv2.INTER_AREA)
    return out


def binary(cover: np.ndarray) -> np.ndarray:
    """Coverage uint8 `[H, W]` -> bool `[H, W]`: true where at least half of the pixel is covered."""
    return np.asarray(cover >= _HALF)


def foreground(record: Record) -> np.ndarray:
    """Coverage of everything outlined in `record`, any class: uint8 `[H, W]`, 0..255. Objects with only a box add nothing."""
    return _instances_coverage(record.instances, record.height, record.width)


def class_index(record: Record) -> np.ndarray:
    """Class-index mask: uint8 `[H, W]`, 0 = background, k = `classes[k - 1]`, 255 = ignore (crowd regions).

    Where objects overlap the smaller one wins, so that a part on top of a whole is kept.
    """
    out = np.zeros(record.size, np.uint8)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (instance.box for instance in record.instances)]
    for index in sorted(range(len(areas)), key=lambda i: (not record.instances[i].crowd, -areas[i])):
        instance = record.instances[index]
        out[binary(_instances_coverage((instance,), *record.size))] = IGNORE if instance.crowd else instance.label + 1
    return out


def _instances_coverage(instances: Iterable[Instance], height: int, width: int) -> np.ndarray:
    polygons: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for instance in instances:
        if instance.rle is not None:
            masks.append(coco_mask.decode(dict(instance.rle)) * np.uint8(255))
        polygons.extend(instance.polygons)
    cover = coverage(polygons, height, width)
    for mask in masks:
        np.maximum(cover, mask, out=cover)
    return cover
