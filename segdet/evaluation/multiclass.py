"""Scores of several classes from one confusion matrix; background is a row of it, never part of the averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segdet.data.rasterize import IGNORE
from segdet.evaluation.binary import group_sums, resample


def confusion(prediction: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """int64 `[classes + 1, classes + 1]` from class-index masks uint8 `[H, W]`: rows are targets, columns predictions."""
    known = target != IGNORE
    size = classes + 1
    index = target[known].astype(np.int64) * size + prediction[known]
    return np.bincount(index, minlength=size * size).reshape(size, size)


@dataclass
class ClassScores:
    """Collected confusion matrices: one per image."""

    classes: Sequence[str]
    matrices: list[np.ndarray] = field(default_factory=list)
    photographs: list[str] = field(default_factory=list)

    def add(self, matrix: np.ndarray, photograph: str) -> None:
        """Add one image's `confusion`."""
        self.matrices.append(matrix)
        self.photographs.append(photograph)

    def __len__(self) -> int:
        return len(self.matrices)

    def scores(self) -> dict[str, Any]:
        """Mean IoU over the classes that occur (in target or prediction), pixel accuracy, and a row per class."""
        stack = np.array(self.matrices)
        total = stack.sum(axis=0)
        iou, f1, present = _per_class(total)
        rounds = resample(group_sums(stack.reshape(len(stack), -1), self.photographs)).T.reshape(-1, *total.shape)
        means = np.array([_mean(*_per_class(matrix)[::2]) for matrix in rounds])
        return {
            "iou": _mean(iou, present),
            "f1": _mean(f1, present),
            "miou": _mean(iou, present),
            "pixel_accuracy": float(np.trace(total) / max(1, total.sum())),
            "ci95": {"iou": [float(np.percentile(means, q)) for q in (2.5, 97.5)]},
            "classes": {
                name: {"iou": float(iou[i]), "f1": float(f1[i]), "pixels": int(total[i + 1].sum())}
                for i, name in enumerate(self.classes)
                if present[i]
            },
        }

    def iou_of_each(self) -> np.ndarray:
        """float64 `[images]`: mean IoU over the classes that occur in each image; nothing there, nothing found: 1."""
        return np.array([_mean(*_per_class(matrix)[::2]) for matrix in self.matrices])


def _per_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU, F1 and presence of every class but the background."""
    hit = np.diag(matrix)[1:].astype(np.float64)
    either = matrix.sum(axis=0)[1:] + matrix.sum(axis=1)[1:]
    present = either > 0
    iou = np.divide(hit, either - hit, out=np.zeros_like(hit), where=present)
    return iou, np.divide(2 * hit, either, out=np.zeros_like(hit), where=present), present


def _mean(values: np.ndarray, present: np.ndarray) -> float:
    return float(values[present].mean()) if present.any() else 1.0
