"""Scores that judge thin structures fairly, from binary masks at the image's own resolution.

Each function returns pixel counts that are summed over images before a ratio is taken (pooled), so that an image with
more crack weighs more, as for `iou` and `f1`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from skimage.morphology import skeletonize

from segdet.evaluation.ratios import harmonic, share

TOLERANCE = 2  # pixels, for f1_2px
_BOUNDARY = 0.02  # of the image diagonal, for boundary_iou
_PIECES = 2000  # from which the overhead of each piece is more than what it spares

NAMES = ("f1_2px", "cldice", "boundary_iou")


def counts(
    prediction: np.ndarray, target: np.ndarray, lines: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """int64 `[3, 4]` for bool `[H, W]` masks: for each of `NAMES`, (hit, all) of the prediction and (hit, all) of the target.

    Args:
        lines: the `centre_line` of both, where they are known already.
    """
    rim = max(1, round(_BOUNDARY * float(np.hypot(*target.shape))))
    held = held_by(prediction | target)
    if held is None:
        return np.zeros((len(NAMES), 4), np.int64)
    predicted, true = lines or (centre_line(prediction), centre_line(target))
    ours, theirs = prediction[held], target[held]
    return np.array(
        [_tolerant(ours, theirs), _followed(ours, theirs, predicted[held], true[held]), _boundaries(ours, theirs, rim)]
    )


def centre_line(mask: np.ndarray) -> np.ndarray:
    """The skeleton of a mask, bool `[H, W]`, one pixel wide and connected like the mask (Zhang & Suen 1984)."""
    out = np.zeros_like(mask)
    for part, piece in pieces(mask):
        out[part] |= skeletonize(piece)
    return out


def pieces(mask: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """The connected pieces of a mask (8-neighbourhood), each with the part of the image that it just fits into: bool `[h, w]`.

    Skeletons, depths and rims of a piece do not depend on the others, and in a large image most of the pixels lie around
    small pieces. Many pieces, or some that are spread over the whole, come as one.
    """
    whole = held_by(mask)
    if whole is None:
        return
    rows, columns = whole
    inner = np.ascontiguousarray(mask[whole]).view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inner, connectivity=8)
    boxes = stats[1:, :4].astype(np.int64)
    if 1 < count <= _PIECES + 1 and 2 * boxes[:, 2:].prod(axis=1).sum() < inner.size:
        for number, (x, y, width, height) in enumerate(boxes.tolist(), 1):
            part = slice(rows.start + y, rows.start + y + height), slice(columns.start + x, columns.start + x + width)
            yield part, labels[y : y + height, x : x + width] == number
    else:
        yield whole, mask[whole]


def held_by(mask: np.ndarray) -> tuple[slice, slice] | None:
    """The smallest part of the image that holds the mask; None without a pixel."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def scores(total: np.ndarray) -> dict[str, np.ndarray]:
    """The three scores from summed `counts` int64 `[..., 3, 4]`: each float64 `[...]`."""
    tolerant, lines, boundary = (np.moveaxis(total[..., k, :], -1, 0) for k in range(len(NAMES)))
    inside, predicted, _, true = boundary
    return {
        "f1_2px": harmonic(*tolerant),
        "cldice": harmonic(*lines),
        "boundary_iou": share(inside, predicted + true - inside),
    }


def _tolerant(prediction: np.ndarray, target: np.ndarray) -> Iterable[int]:
    """A pixel is right when the other mask has one within `TOLERANCE` pixels (Euclidean)."""
    reach = np.arange(-TOLERANCE, TOLERANCE + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= TOLERANCE**2).astype(np.uint8)
    near_target = cv2.dilate(target.astype(np.uint8), disk).astype(bool)
    near_prediction = cv2.dilate(prediction.astype(np.uint8), disk).astype(bool)
    return (prediction & near_target).sum(), prediction.sum(), (target & near_prediction).sum(), target.sum()


def _followed(prediction: np.ndarray, target: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> Iterable[int]:
    """clDice (Shit et al. 2021, arXiv 2003.07311): how much of each centre line lies in the other mask."""
    return (predicted & target).sum(), predicted.sum(), (true & prediction).sum(), true.sum()


def _boundaries(prediction: np.ndarray, target: np.ndarray, distance: int) -> Iterable[int]:
    """Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): the parts of both masks within `distance` pixels of their edge.

    As published it is 2 % of the image's diagonal.
    """
    inner_prediction, inner_target = _rim(prediction, distance), _rim(target, distance)
    both = (inner_prediction & inner_target).sum()
    return both, inner_prediction.sum(), both, inner_target.sum()


def _rim(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of the mask within `distance` of its outside; the image's border is outside, as published."""
    rim, held = mask.copy(), held_by(mask)
    if held is None or min(side.stop - side.start for side in held) <= 2 * distance:
        return rim
    for part, piece in pieces(mask):
        if min(piece.shape) > 2 * distance:  # else nothing of it lies farther inside
            padded = cv2.copyMakeBorder(piece.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            kept = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
            rim[part] &= kept == 0
    return rim
