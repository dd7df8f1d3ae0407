"""Shapes that labelling tools draw and records do not have: circles, ellipses and turned boxes, as outlines."""

from __future__ import annotations

import math

import numpy as np


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> np.ndarray:
    """float64 `[P, 2]`: an outline around (x, y) with these radii, within 0.05 px of the curve; NaN stays NaN."""
    finite = math.isfinite(across) and math.isfinite(down)
    radius = min(max(abs(across), abs(down)), 1e6) if finite else 1.0
    count = int(np.clip(math.pi / math.acos(1 - min(0.05 / max(radius, 0.1), 0.5)), 12, 720))
    angles = np.arange(count) * (2 * math.pi / count)
    return turned(np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1), x, y, degrees)


def turned(points: np.ndarray, x: float, y: float, degrees: float) -> np.ndarray:
    """float64 `[P, 2]`: points turned around (x, y), clockwise as seen in the image."""
    if not degrees:
        return points
    angle = math.radians(degrees) if math.isfinite(degrees) else math.nan
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray((points - [x, y]) @ turn + [x, y])


def within(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Points of a round outline moved to the image's edge where they lie beyond it; NaN stays NaN."""
    return np.clip(points, 0, [width, height])
