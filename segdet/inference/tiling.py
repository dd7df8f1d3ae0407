"""Large images in overlapping tiles: masks blended so that no seam shows, boxes merged so that nothing is told twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segdet.inference.session import Session

TILE = 1024  # side of a tile, in pixels
MARGIN = 128  # overlap of neighbours: wide enough for the network to see what surrounds a pixel
WHOLE = 4_000_000  # pixels up to which an image is predicted whole
SAME = 0.5  # IoU from which boxes of different tiles are one object
INSIDE = 0.6  # share of a cut box that lies in the box of another tile when both are one object
EDGE = 0.01  # share of a tile within which a box that ends at its border counts as cut, 2 pixels at least


def run_tiled(session: Session, image: np.ndarray, threshold: float, tile: int = TILE) -> tuple[np.ndarray, np.ndarray]:
    """As `Session.run` for one image uint8 `[H, W, 3]`, tile by tile -> (mask `[H, W]`, confidence `[H, W]`).

    Memory is that of one tile and of the answer. With one class, confidences are averaged with weights that fall
    towards a tile's edge; with several, the tile in which a pixel lies farthest from the edge decides.
    """
    one = len(session.metadata.classes) == 1
    height, width = image.shape[:2]
    margin = min(MARGIN, tile // 4)
    confidence = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    mask = np.zeros((height, width), np.uint8)
    for rows, columns in _windows(height, width, tile, margin):
        part_mask, part = (output[0] for output in session.run(image[None, rows, columns]))
        weight = _weight(rows, height, margin)[:, None] * _weight(columns, width, margin)
        if one:
            confidence[rows, columns] += part * weight
            weights[rows, columns] += weight
        else:
            nearer = weight > weights[rows, columns]
            for whole, new in ((mask, part_mask), (confidence, part), (weights, weight)):
                whole[rows, columns][nearer] = new[nearer]
    if one:
        confidence /= weights
        mask = (confidence >= np.float32(threshold)).astype(np.uint8)
    return mask, confidence


def detect_tiled(
    session: Session, image: np.ndarray, threshold: float, tile: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes float32 `[K, 4]`, falling scores float32 `[K]` and labels int64 `[K]` of one image, tile by tile.

    Within a tile nothing is dropped. Of two boxes of one class from different tiles one goes when they are the same
    object: at IoU `SAME` or more, or when a box that was cut by a tile's border lies to `INSIDE` or more in the other. Whole
    boxes stay before cut ones, then higher scores before lower ones. Neighbours overlap by a quarter of a tile or 256
    pixels, so an object larger than that may come out in parts: use larger tiles for it.
    """
    height, width = image.shape[:2]
    found: list[tuple[np.ndarray, ...]] = []
    for number, (rows, columns) in enumerate(_windows(height, width, tile, min(MARGIN, tile // 8))):
        boxes, scores, labels = (output[0] for output in session.run(np.ascontiguousarray(image[None, rows, columns])))
        kept = scores >= threshold
        corner = np.array([columns.start, rows.start] * 2, np.float32)
        inner = np.array([columns.start > 0, rows.start > 0, columns.stop < width, rows.stop < height])
        ends = np.array([0, 0, columns.stop - columns.start, rows.stop - rows.start], np.float32)
        cut = ((np.abs(boxes[kept] - ends) < max(2.0, EDGE * tile)) & inner).any(axis=1)
        found.append((boxes[kept] + corner, scores[kept], labels[kept], cut, np.full(int(kept.sum()), number)))
    boxes, scores, labels, cut, tiles = (np.concatenate(parts) for parts in zip(*found, strict=True))
    chosen = _merged(boxes, scores, labels, cut, tiles)
    return boxes[chosen], scores[chosen], labels[chosen]


def _merged(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, cut: np.ndarray, tiles: np.ndarray
) -> np.ndarray:
    """Indices of the boxes that stay, highest score first."""
    area = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)
    kept: list[int] = []
    for index in np.lexsort((-scores, cut)):
        rivals = [k for k in kept if labels[k] == labels[index] and tiles[k] != tiles[index]]
        low, high = np.maximum(boxes[rivals, :2], boxes[index, :2]), np.minimum(boxes[rivals, 2:], boxes[index, 2:])
        both = (high - low).clip(0).prod(axis=1)
        same = both >= SAME * np.maximum(area[rivals] + area[index] - both, 1e-9)
        inside = both >= INSIDE * max(float(area[index]), 1e-9)
        if not (same | (inside & bool(cut[index]))).any():
            kept.append(int(index))
    return np.array(sorted(kept, key=lambda k: -scores[k]), np.int64)


def _windows(height: int, width: int, tile: int, margin: int) -> Iterator[tuple[slice, slice]]:
    for top in _starts(height, tile, margin):
        for left in _starts(width, tile, margin):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _starts(length: int, tile: int, margin: int) -> list[int]:
    """Evenly spread tile starts, overlapping by at least `2 * margin`."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile - 2 * margin))) + 1
    return [round(start) for start in np.linspace(0, length - tile, count)]


def _weight(window: slice, length: int, margin: int) -> np.ndarray:
    """float32 `[window]`: 1 inside, falling to almost 0 over the margin at edges that are not the image's own."""
    size = window.stop - window.start
    distance = np.full(size, np.inf)
    if window.start > 0:
        distance = np.minimum(distance, np.arange(size) + 0.5)
    if window.stop < length:
        distance = np.minimum(distance, np.arange(size)[::-1] + 0.5)
    # The outermost half of the margin, where the network saw least, hardly counts.
    return np.clip((distance - margin / 2) / margin, 1e-3, 1.0).astype(np.float32)
