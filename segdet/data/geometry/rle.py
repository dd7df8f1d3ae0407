"""COCO's run-length masks without pycocotools, which prediction does not need otherwise.

Pixels are counted down the columns; counts alternate between outside and inside, starting outside, and are packed into
text five bits at a time, each from the third on as the difference to the one before the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def from_mask(mask: np.ndarray) -> dict[str, object]:
    """bool or 0/1 `[H, W]` -> `{"size": [H, W], "counts": text}`, as pycocotools encodes it."""
    height, width = mask.shape
    flat = np.asarray(mask, bool).T.ravel()
    return _packed(np.flatnonzero(np.diff(flat, prepend=False)), height, width)


def from_rings(rings: Sequence[np.ndarray], height: int, width: int) -> dict[str, object]:
    """Closed outlines along pixel edges, int `[P, 2]` (x, y) each -> the mask of what they enclose."""
    starts, ends, rows = [], [], []
    for ring in rings:
        after = np.roll(ring, -1, axis=0)
        level = ring[:, 1] == after[:, 1]
        starts.append(np.minimum(ring[level, 0], after[level, 0]))
        ends.append(np.maximum(ring[level, 0], after[level, 0]))
        rows.append(ring[level, 1])
    start, end, row = (np.concatenate(parts).astype(np.int64) for parts in (starts, ends, rows))
    length = end - start
    # Column by column, every horizontal line is a change between outside and inside.
    column = np.repeat(start, length) + np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    changes = np.sort(column * height + np.repeat(row, length))
    # A part that ends with a column and one that starts with the next leave two changes at one place: none.
    place, count = np.unique(changes, return_counts=True)
    return _packed(place[count % 2 == 1], height, width)


def _packed(changes: np.ndarray, height: int, width: int) -> dict[str, object]:
    total = height * width
    counts = np.diff(changes[changes < total], prepend=0, append=total)
    return {"size": [height, width], "counts": _text(counts)}


def _text(counts: np.ndarray) -> str:
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    letters = np.zeros((len(values), 13), np.uint8)  # 13 * 5 bits hold any 64-bit number
    used = np.zeros((len(values), 13), bool)
    going = np.ones(len(values), bool)
    for place in range(13):
        bits = values & 31
        values >>= 5
        more = np.where(bits & 16, values != -1, values != 0)
        letters[:, place] = bits + 32 * more + 48
        used[:, place] = going
        going = going & more
        if not going.any():
            break
    return letters[used].tobytes().decode("ascii")
