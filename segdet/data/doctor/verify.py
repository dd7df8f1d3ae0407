"""Whether two pictures really show the same: their keypoints must agree on one affine map (RANSAC, Fischler 1981)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from segdet.data.doctor.features import MIRROR, Features, rooted

# On the crack set 10,222 pairs were tried: the 41 with 8 points or more are all true (by eye), chance reaches 6.
_AGREE = 8
_RATIO = 0.85  # the best match must be this much nearer than the second best (Lowe 2004, who takes 0.8)
_OFF = 4 / 416  # how far a point may lie from where the map takes it, as a share of the picture's longer side
_SCALES = (0.28, 3.5)  # how much smaller or larger the same thing may be
_SKEW = 3.0  # how much more in one direction than in the other: stretched exports and slanted views


@dataclass(frozen=True)
class Match:
    """points: matched keypoints that agree. transform: float64 `[2, 3]`, first picture's pixels to the second's."""

    points: int
    transform: np.ndarray
    mirrored: bool


def same_place(first: Features, second: Features, size: tuple[int, int]) -> Match | None:
    """The map between two pictures that show the same, or None.

    Args:
        size: (height, width) of the second picture in pixels.
    """
    values = rooted(first.descriptors), rooted(second.descriptors)
    found = [_aligned(first, second, values, size, mirrored) for mirrored in (False, True)]
    return max((match for match in found if match is not None), key=lambda match: match.points, default=None)


def _aligned(
    first: Features, second: Features, values: tuple[np.ndarray, np.ndarray], size: tuple[int, int], mirrored: bool
) -> Match | None:
    a, b = _matches(values[0], values[1][:, MIRROR] if mirrored else values[1])
    if len(a) < _AGREE:
        return None
    source, target = first.points[a], second.points[b]
    off = max(1.0, _OFF * max(size))
    cv2.setRNGSeed(0)  # the same answer every time
    transform, agrees = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=off, maxIters=1000, confidence=0.99
    )
    if transform is None or not np.isfinite(transform).all():
        return None
    large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
    if large > _SCALES[1] or small < _SCALES[0] or large > _SKEW * small:
        return None
    if (np.linalg.det(transform[:, :2]) < 0) != mirrored:
        return None
    inside = agrees.ravel() > 0
    # Several keypoints on one spot are one witness, on either side.
    spots = min(len(np.unique(np.round(points[inside] / (2 * off)), axis=0)) for points in (source, target))
    return Match(spots, transform, mirrored) if spots >= _AGREE else None


def _matches(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of rooted descriptors that are each other's nearest, and clearly nearer than the next."""
    none = np.zeros(0, np.intp)
    if min(len(first), len(second)) < 2:
        return none, none
    likeness = first @ second.T
    nearest, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    rows = np.arange(len(first))
    best = likeness[rows, nearest]
    likeness[rows, nearest] = -1
    next_best = likeness.max(axis=1)
    best, next_best = (np.sqrt(np.maximum(2 - 2 * value, 0)) for value in (best, next_best))  # distances
    kept = (best < _RATIO * next_best) & (back[nearest] == rows)
    return rows[kept], nearest[kept]
