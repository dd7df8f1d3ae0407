"""Scores as ratios of counts, and what they are when there is nothing to divide by (docs/metrics.md).

Arrays of any one shape go in, float64 of that shape comes out.
"""

from __future__ import annotations

import numpy as np


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 1 where the whole is empty (nothing there, nothing wrong)."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def precision(hit: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """hit / (hit + extra); with nothing marked 1 where nothing is labelled either, else 0 (as scikit-learn)."""
    return np.where(np.asarray(hit + extra + missed) > 0, _ratio(hit, hit + extra), 1.0)


def recall(hit: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """hit / (hit + missed); with nothing labelled 1 where nothing is marked either, else 0."""
    return precision(hit, missed, extra)


def f1(hit: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """F1 (Dice) from counts; 1 where nothing is labelled and nothing marked."""
    return share(2 * hit, 2 * hit + extra + missed)


def iou(hit: np.ndarray, extra: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """IoU from counts; 1 where nothing is labelled and nothing marked."""
    return share(hit, hit + extra + missed)


def harmonic(hit_p: np.ndarray, all_p: np.ndarray, hit_t: np.ndarray, all_t: np.ndarray) -> np.ndarray:
    """F1 of precision hit_p / all_p and recall hit_t / all_t; 1 where both masks are empty, 0 where one is."""
    p, r = _ratio(hit_p, all_p), _ratio(hit_t, all_t)
    return np.where((np.asarray(all_p) == 0) & (np.asarray(all_t) == 0), 1.0, _ratio(2 * p * r, p + r))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
