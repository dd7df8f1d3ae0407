"""From masks to outlines that the rasteriser draws back as the same mask."""

from __future__ import annotations

import cv2
import numpy as np


def rings(inside: np.ndarray, x: int = 0, y: int = 0) -> tuple[np.ndarray, ...]:
    """Outlines of a bool `[h, w]` part that lies at (x, y): float64 `[P, 2]` each, outer ones first, then holes.

    Contours run through pixel centres, which would shrink a thin crack to a line; at doubled size they run a quarter
    of a pixel inside its edge, and the rasteriser gives the same mask back.
    """
    contours, hierarchy = _contours(inside)
    order = sorted(range(len(contours)), key=lambda i: hierarchy[i][3] >= 0)  # outer ones have no parent
    return tuple(_placed(contours[i], x, y) for i in order)


def polygons(inside: np.ndarray, x: int = 0, y: int = 0) -> tuple[np.ndarray, ...]:
    """The same part as outlines without holes: one float64 `[P, 2]` per connected part (8-neighbourhood).

    A hole is joined to the outline around it by a cut of no width, there and back, for formats that know no holes.
    """
    contours, hierarchy = _contours(inside)
    found = []
    for i, contour in enumerate(contours):
        if hierarchy[i][3] < 0:
            outline = _placed(contour, x, y)
            child = hierarchy[i][2]
            while child >= 0:
                outline = _joined(outline, _placed(contours[child], x, y))
                child = hierarchy[child][0]
            found.append(outline)
    return tuple(found)


def _contours(inside: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Contours `[P, 1, 2]` at doubled size, and cv2's hierarchy `[n, 4]`: next, previous, first child, parent."""
    double = np.repeat(np.repeat(inside.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return list(contours), np.zeros((0, 4), int) if hierarchy is None else hierarchy[0]


def _placed(contour: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.asarray((contour[:, 0, :] + 0.5) / 2 + [x, y])


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One outline that goes round, cuts over to the hole where the two are nearest, round it, and back."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
    at, there = np.unravel_index(int(distances.argmin()), distances.shape)
    return np.concatenate(
        [outline[: at + 1], np.roll(hole, -int(there), axis=0), hole[there : there + 1], outline[at:]]
    )
