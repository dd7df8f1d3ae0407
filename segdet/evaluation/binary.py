"""Scores of one foreground class, at every threshold at once.

For every image, probabilities are counted into `BINS` bins, apart for target and background pixels. From these counts
follow exactly: pooled and per-image scores at any threshold k / BINS, the threshold with the best F1, the oracle
scores, and bootstrap intervals. A pixel is foreground when its probability is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 1000


def binned(probability: np.ndarray) -> np.ndarray:
    """Probabilities 0..1 -> uint16 bins of the same shape; bin k holds those from k / BINS up to (k + 1) / BINS."""
    return np.minimum((probability * np.float32(BINS)).astype(np.uint16), BINS - 1)


def histogram(bins: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels per bin on and off the target: two int64 `[BINS]` from `binned` uint16 and bool, both `[H, W]`."""
    both = np.bincount((bins + BINS * target.astype(np.uint16)).ravel(), minlength=2 * BINS)
    return both[BINS:], both[:BINS]


@dataclass
class BinaryScores:
    """Collected counts: one row per image. `photographs` names the photograph of each, for the bootstrap."""

    on: list[np.ndarray] = field(default_factory=list)
    off: list[np.ndarray] = field(default_factory=list)
    photographs: list[str] = field(default_factory=list)

    def add(self, on: np.ndarray, off: np.ndarray, photograph: str) -> None:
        """Add one image's `histogram`."""
        self.on.append(on)
        self.off.append(off)
        self.photographs.append(photograph)

    def __len__(self) -> int:
        return len(self.on)

    def best_threshold(self) -> float:
        """The threshold k / BINS with the highest pooled F1, within 0.01 .. 0.99."""
        true, false, missed = _pooled(self.on, self.off)
        low, high = BINS // 100, BINS - BINS // 100
        return (low + int(np.argmax(f1(true, false, missed)[low : high + 1]))) / BINS

    def at(self, threshold: float) -> dict[str, Any]:
        """Pooled and per-image scores at a threshold, as in DESIGN 3 (`metrics.json`), with 95 % intervals."""
        counts = self.counts(threshold)  # [images, 3]
        pooled = counts.sum(axis=0)
        iou_of_each, f1_of_each = _iou(*counts.T), f1(*counts.T)
        return {
            **_named(pooled),
            "iou_per_image": float(iou_of_each.mean()),
            "f1_per_image": float(f1_of_each.mean()),
            "ci95": self._intervals(counts),
            "oracle": self._oracle(),
        }

    def counts(self, threshold: float) -> np.ndarray:
        """int64 `[images, 3]`: true positive, false positive and missed pixels of each image."""
        edge = round(threshold * BINS)
        return np.array(
            [[on[edge:].sum(), off[edge:].sum(), on[:edge].sum()] for on, off in zip(self.on, self.off, strict=True)]
        )

    def iou_of_each(self, threshold: float) -> np.ndarray:
        """float64 `[images]`; an empty image predicted empty counts 1."""
        return _iou(*self.counts(threshold).T)

    def curve(self) -> dict[str, np.ndarray]:
        """Pooled precision, recall, F1 and IoU, each float64 `[BINS]`, at thresholds k / BINS."""
        true, false, missed = _pooled(self.on, self.off)
        return {
            "threshold": np.arange(BINS) / BINS,
            "precision": share(true, true + false),
            "recall": share(true, true + missed),
            "f1": f1(true, false, missed),
            "iou": _iou(true, false, missed),
        }

    def _oracle(self) -> dict[str, float]:
        """Scores that look at the answers: one best threshold for the set (ODS), one for each image (OIS)."""
        best_of_each = [f1(*_pooled([on], [off])).max() for on, off in zip(self.on, self.off, strict=True)]
        return {"ods": float(f1(*_pooled(self.on, self.off)).max()), "ois": float(np.mean(best_of_each))}

    def _intervals(self, counts: np.ndarray) -> dict[str, list[float]]:
        """95 % percentile bootstrap over photographs, so that augmented copies of one do not count as many."""
        groups = group_sums(counts, self.photographs)
        samples = _named(resample(groups))
        return {name: [float(np.percentile(values, q)) for q in (2.5, 97.5)] for name, values in samples.items()}


def group_sums(counts: np.ndarray, photographs: Sequence[str]) -> np.ndarray:
    """Sum the rows of `[images, ...]` that belong to one photograph: `[photographs, ...]`."""
    _, inverse = np.unique(np.asarray(photographs), return_inverse=True)
    sums = np.zeros((inverse.max() + 1, *counts.shape[1:]), counts.dtype)
    np.add.at(sums, inverse, counts)
    return sums


def resample(groups: np.ndarray, rounds: int = 1000, seed: int = 0) -> np.ndarray:
    """Bootstrap sums: draw as many groups as there are, with replacement. `[G, C]` -> `[C, rounds]`."""
    return np.asarray((drawn(len(groups), rounds, seed) @ groups).T)


def drawn(count: int, rounds: int, seed: int = 0) -> np.ndarray:
    """How often each of `count` groups is drawn, with replacement, in each round: int64 `[rounds, count]`."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)


def _named(counts: np.ndarray) -> dict[str, Any]:
    true, false, missed = counts
    scores = {
        "iou": _iou(true, false, missed),
        "f1": f1(true, false, missed),
        "precision": share(true, true + false),
        "recall": share(true, true + missed),
    }
    return {name: float(value) if np.ndim(value) == 0 else value for name, value in scores.items()}


def _pooled(on: Sequence[np.ndarray], off: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positive, false positive and missed pixels, each `[BINS]`, at thresholds k / BINS."""
    positive, negative = np.sum(on, axis=0), np.sum(off, axis=0)
    true = positive[::-1].cumsum()[::-1]
    return true, negative[::-1].cumsum()[::-1], positive.sum() - true


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 1 where the whole is empty (nothing there, nothing wrong)."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def _iou(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    return share(true, true + false + missed)


def f1(true: np.ndarray, false: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """F1 from counts of right, wrong and missed; 1 where there is nothing to find and nothing found."""
    return share(2 * true, 2 * true + false + missed)
