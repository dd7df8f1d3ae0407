"""One foreground class at every threshold at once.

For every image, probabilities are counted into `BINS` bins, apart for target and background pixels. From these counts
follow exactly: pooled and per-image counts at any threshold k / BINS, the curve of precision and recall and the area under it, the
threshold with the best F1, and the oracle scores. A pixel is foreground when its probability is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segdet.evaluation.ratios import f1, iou, share

BINS = 1000
_TOGETHER = 2**18  # pixels counted at a time: counting needs 8 bytes for each, which then stay in the processor's cache


def binned(probability: np.ndarray) -> np.ndarray:
    """Probabilities 0..1 -> uint16 bins of the same shape; bin k holds those from k / BINS up to (k + 1) / BINS."""
    return np.minimum((probability * np.float32(BINS)).astype(np.uint16), BINS - 1)


def histogram(bins: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels per bin on and off the target: two int64 `[BINS]` from `binned` uint16 and bool, both `[H, W]`."""
    every, labelled = bins.ravel(), target.ravel()
    both = np.zeros(2 * BINS, np.int64)
    for start in range(0, len(every), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        both += np.bincount(every[part] + BINS * labelled[part].astype(np.uint16), minlength=2 * BINS)
    return both[BINS:], both[:BINS]


@dataclass
class BinaryScores:
    """Collected counts: one row per image."""

    on: list[np.ndarray] = field(default_factory=list)
    off: list[np.ndarray] = field(default_factory=list)

    def add(self, on: np.ndarray, off: np.ndarray) -> None:
        """Add one image's `histogram`."""
        self.on.append(on)
        self.off.append(off)

    def __len__(self) -> int:
        return len(self.on)

    @property
    def labelled(self) -> bool:
        """Whether any pixel is labelled."""
        return any(on.any() for on in self.on)

    def best_threshold(self) -> float:
        """The threshold k / BINS with the highest pooled F1, within 0.01 .. 0.99."""
        true, false, missed = _pooled(self.on, self.off)
        low, high = BINS // 100, BINS - BINS // 100
        return (low + int(np.argmax(f1(true, false, missed)[low : high + 1]))) / BINS

    def counts(self, threshold: float) -> np.ndarray:
        """int64 `[images, 3]`: true positive, false positive and missed pixels of each image."""
        edge = round(threshold * BINS)
        return np.array(
            [[on[edge:].sum(), off[edge:].sum(), on[:edge].sum()] for on, off in zip(self.on, self.off, strict=True)]
        )

    def curve(self) -> dict[str, np.ndarray]:
        """Pooled precision, recall, F1 and IoU, each float64 `[BINS]`, at thresholds k / BINS."""
        true, false, missed = _pooled(self.on, self.off)
        return {
            "threshold": np.arange(BINS) / BINS,
            "precision": share(true, true + false),
            "recall": share(true, true + missed),
            "f1": f1(true, false, missed),
            "iou": iou(true, false, missed),
        }

    def average_precision(self) -> float | None:
        """Area under precision against recall of all pixels together, in steps (as scikit-learn); None without object."""
        true, false, missed = _pooled(self.on, self.off)
        if true[0] == 0:
            return None
        recall = np.append(true / (true + missed), 0.0)
        return float((-np.diff(recall) * share(true, true + false)).sum())

    def oracle(self) -> dict[str, float]:
        """Scores that look at the answers: one best threshold for the set (ODS), one for each image (OIS)."""
        best_of_each = [f1(*_pooled([on], [off])).max() for on, off in zip(self.on, self.off, strict=True)]
        return {"ods": float(f1(*_pooled(self.on, self.off)).max()), "ois": float(np.mean(best_of_each))}


def _pooled(on: Sequence[np.ndarray], off: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positive, false positive and missed pixels, each `[BINS]`, at thresholds k / BINS."""
    positive, negative = np.sum(on, axis=0), np.sum(off, axis=0)
    true = positive[::-1].cumsum()[::-1]
    return true, negative[::-1].cumsum()[::-1], positive.sum() - true
