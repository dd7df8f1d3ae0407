"""Several classes: confusion matrices; background is a row of them, never part of an average."""

from __future__ import annotations

import numpy as np

from segdet.data.geometry.rasterize import IGNORE


def confusion(prediction: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """int64 `[classes + 1, classes + 1]` from class-index masks uint8 `[H, W]`: rows are targets, columns predictions."""
    known = target != IGNORE
    size = classes + 1
    index = target[known].astype(np.int64) * size + prediction[known]
    return np.bincount(index, minlength=size * size).reshape(size, size)


def counts_of(matrices: np.ndarray) -> np.ndarray:
    """int64 `[N, classes, 3]` (hit, extra, missed) of each class but the background, from confusion matrices `[N, K + 1, K + 1]`."""
    hit = np.diagonal(matrices, axis1=1, axis2=2)[:, 1:]
    return np.stack([hit, matrices.sum(axis=1)[:, 1:] - hit, matrices.sum(axis=2)[:, 1:] - hit], axis=-1)


def binary_matrix(counts: np.ndarray, pixels: int) -> np.ndarray:
    """The confusion matrix `[2, 2]` of one class from its (hit, extra, missed) and the number of all pixels."""
    hit, extra, missed = (int(value) for value in counts)
    return np.array([[pixels - hit - extra - missed, extra], [missed, hit]])
