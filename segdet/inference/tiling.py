"""Large images in overlapping tiles, blended so that no seam shows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segdet.inference.session import Session

TILE = 1024  # side of a tile, in pixels
MARGIN = 128  # overlap of neighbours: wide enough for the network to see what surrounds a pixel
WHOLE = 4_000_000  # pixels up to which an image is predicted whole


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
