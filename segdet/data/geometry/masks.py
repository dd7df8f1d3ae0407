"""Run-length encoded masks (COCO's encoding): from arrays and back, all values of a label image in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

Rle = Mapping[str, Any]  # {"size": [H, W], "counts": bytes}


def encode(mask: np.ndarray) -> dict[str, Any]:
    """bool or 0/1 `[H, W]` -> run lengths."""
    return dict(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def decode(rle: Rle) -> np.ndarray:
    """Run lengths -> uint8 `[H, W]`, 0 or 1."""
    return np.asarray(coco_mask.decode(dict(rle)))


def pixels(rle: Rle) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the mask's pixels, int64 `[K]` each: for small objects in large images, where `decode` takes all of it."""
    text = np.frombuffer(rle["counts"], np.uint8).astype(np.int64) - 48  # five bits each; 32: more of the number follow
    last = np.flatnonzero(text < 32)
    first = np.concatenate([[0], last[:-1] + 1]) if len(last) else last
    digit = np.arange(len(text)) - np.repeat(first, last - first + 1)
    counts = np.add.reduceat((text & 31) << (5 * digit), first) if len(last) else last
    counts = counts - np.where(text[last] & 16, 1 << (5 * (last - first + 1)), 0)
    for start in (1, 2):  # each count is the difference to the one before the last
        counts[start::2] = counts[start::2].cumsum()
    edges = counts.cumsum()
    starts, lengths = edges[:-1:2], counts[1::2]
    flat = np.repeat(starts - (lengths.cumsum() - lengths), lengths) + np.arange(lengths.sum())
    columns, rows = np.divmod(flat, rle["size"][0])
    return rows, columns


def union(rles: Iterable[Rle]) -> dict[str, Any]:
    """One mask of the pixels of all."""
    return dict(coco_mask.merge([dict(rle) for rle in rles]))


def area(rle: Rle) -> int:
    """Pixels in the mask."""
    return int(coco_mask.area(dict(rle)))


def box(rle: Rle) -> tuple[float, float, float, float]:
    """Smallest (x1, y1, x2, y2) around the mask's pixels; all 0 when there are none."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(dict(rle)))
    return x, y, x + width, y + height


def regions(index: np.ndarray) -> dict[int, dict[str, Any]]:
    """Label image of whole numbers `[H, W]` -> the mask of every value in it, in one pass over the pixels however many there are."""
    height, width = index.shape
    flat = index.T.ravel()  # COCO's runs go down the columns
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.concatenate([starts[1:], [flat.size]])
    values = flat[starts]
    found = {}
    for value in np.unique(values):
        own = values == value
        edges = np.stack([starts[own], ends[own]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)
        runs = {"size": [height, width], "counts": (counts if counts[-1] else counts[:-1]).tolist()}
        found[int(value)] = coco_mask.frPyObjects(runs, height, width)
    return found
