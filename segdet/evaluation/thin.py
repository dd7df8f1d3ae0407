"""Scores that judge thin structures fairly, from binary masks at the image's own resolution.

Each function returns pixel counts that are summed over images before a ratio is taken (pooled), so that an image with
more crack weighs more, as for `iou` and `f1`.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from skimage.morphology import skeletonize

TOLERANCE = 2  # pixels, for f1_2px
_BOUNDARY = 0.02  # of the image diagonal, for boundary_iou

NAMES = ("f1_2px", "cldice", "boundary_iou")


def counts(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """int64 `[3, 4]` for bool `[H, W]` masks: for each of `NAMES`, (hit, all) of the prediction and (hit, all) of the target."""
    return np.array([_tolerant(prediction, target), _centre_lines(prediction, target), _boundaries(prediction, target)])


def scores(total: np.ndarray) -> dict[str, float]:
    """The three scores from summed `counts`."""
    tolerant, lines, boundary = total.astype(np.float64)
    return {
        "f1_2px": _harmonic(*tolerant),
        "cldice": _harmonic(*lines),
        # |A and B| / |A or B| from (intersection, |A|, intersection, |B|)
        "boundary_iou": 1.0
        if boundary[1] + boundary[3] == 0
        else float(boundary[0] / (boundary[1] + boundary[3] - boundary[0])),
    }


def _tolerant(prediction: np.ndarray, target: np.ndarray) -> Iterable[int]:
    """A pixel is right when the other mask has one within `TOLERANCE` pixels (Euclidean)."""
    reach = np.arange(-TOLERANCE, TOLERANCE + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= TOLERANCE**2).astype(np.uint8)
    near_target = cv2.dilate(target.astype(np.uint8), disk).astype(bool)
    near_prediction = cv2.dilate(prediction.astype(np.uint8), disk).astype(bool)
    return (prediction & near_target).sum(), prediction.sum(), (target & near_prediction).sum(), target.sum()


def _centre_lines(prediction: np.ndarray, target: np.ndarray) -> Iterable[int]:
    """clDice (Shit et al. 2021, arXiv 2003.07311): how much of each centre line lies in the other mask."""
    predicted, true = skeletonize(prediction), skeletonize(target)
    return (predicted & target).sum(), predicted.sum(), (true & prediction).sum(), true.sum()


def _boundaries(prediction: np.ndarray, target: np.ndarray) -> Iterable[int]:
    """Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): the parts of both masks within 2 % of the diagonal of their edge."""
    distance = max(1, round(_BOUNDARY * float(np.hypot(*target.shape))))
    inner_prediction, inner_target = _rim(prediction, distance), _rim(target, distance)
    both = (inner_prediction & inner_target).sum()
    return both, inner_prediction.sum(), both, inner_target.sum()


def _rim(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of the mask within `distance` of its outside; the image's border is outside, as published."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    kept = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return np.asarray(mask & (kept == 0))


def _harmonic(hit_p: float, all_p: float, hit_t: float, all_t: float) -> float:
    """F1 of precision hit_p / all_p and recall hit_t / all_t; both masks empty counts 1."""
    if all_p == 0 or all_t == 0:
        return 1.0 if all_p == all_t else 0.0
    precision, recall = hit_p / all_p, hit_t / all_t
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))
