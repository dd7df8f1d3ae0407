"""Do probabilities mean what they say? Expected calibration error and the bins behind it (Guo et al. 2017, arXiv 1706.04599)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

BINS = 20  # of equal width
_TOGETHER = (
    2**18
)  # pixels counted at a time: counting needs 16 bytes for each, which then stay in the processor's cache


def _zeros() -> np.ndarray:
    return np.zeros(BINS)


@dataclass
class Calibration:
    """Pooled over pixels: how many fall into each bin of confidence, the sum of their confidence, and how many are right.

    With one class, confidence is the probability of the object and "right" is labelled; with several, the probability of the
    class that was chosen, and "right" is that the label agrees. Each float64 `[BINS]`.
    """

    pixels: np.ndarray = field(default_factory=_zeros)
    confidence: np.ndarray = field(default_factory=_zeros)
    right: np.ndarray = field(default_factory=_zeros)

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Add pixels: float32 0..1 and bool of one shape."""
        every, agreed = confidence.ravel(), right.ravel()
        for start in range(0, len(every), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            chosen = np.minimum((every[part] * np.float32(BINS)).astype(np.uint8), BINS - 1).astype(np.intp)
            self.pixels += np.bincount(chosen, minlength=BINS)
            self.confidence += np.bincount(chosen, every[part], BINS)
            self.right += np.bincount(chosen[agreed[part]], minlength=BINS)

    def merge(self, other: Calibration) -> None:
        """Add what another process counted."""
        self.pixels += other.pixels
        self.confidence += other.confidence
        self.right += other.right

    def result(self) -> dict[str, Any] | None:
        """None before any pixel was added.

        Returns:
            "ece": mean over all pixels of |confidence - share that is right|, bin by bin. "ece_candidates": the same without
            the lowest bin, in which nearly all background lies (None when nothing else is there). "bins": rows of "from",
            "to", "pixels", "confidence" and "right" (means; bins without pixel are left out).
        """
        if not self.pixels.sum():
            return None
        gap = np.abs(self.confidence - self.right)
        above = self.pixels[1:].sum()
        return {
            "ece": float(gap.sum() / self.pixels.sum()),
            "ece_candidates": float(gap[1:].sum() / above) if above else None,
            "bins": [
                {
                    "from": k / BINS,
                    "to": (k + 1) / BINS,
                    "pixels": int(self.pixels[k]),
                    "confidence": float(self.confidence[k] / self.pixels[k]),
                    "right": float(self.right[k] / self.pixels[k]),
                }
                for k in np.flatnonzero(self.pixels)
            ],
        }
