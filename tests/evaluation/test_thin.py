"""Thin-structure scores against brute force, and what each is sensitive to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from segdet.data.rasterize import binary, coverage
from segdet.evaluation import thin
from tests.drawn import crack_picture


def _mask(seed: int, size: int = 128) -> np.ndarray:
    _, polygons = crack_picture(seed, size, size)
    return binary(coverage(polygons, size, size))


def _scores(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    return thin.scores(thin.counts(prediction, target))


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_brute_force(seed: int) -> None:
    target, prediction = _mask(seed), _mask(seed + 10)
    near_target = distance_transform_edt(~target) <= 2
    near_prediction = distance_transform_edt(~prediction) <= 2
    precision, recall = near_target[prediction].mean(), near_prediction[target].mean()
    found = _scores(prediction, target)
    assert found["f1_2px"] == pytest.approx(
        0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    )
    lines = target[skeletonize(prediction)].mean(), prediction[skeletonize(target)].mean()
    assert found["cldice"] == pytest.approx(0 if sum(lines) == 0 else 2 * lines[0] * lines[1] / sum(lines))
    # within 2 % of the diagonal (4 px here, in the chessboard metric of erosion) of the outside, the border being outside
    rims = []
    for mask in (prediction, target):
        padded = np.pad(mask, 1)
        outside = np.argwhere(~padded)
        inside = np.argwhere(mask) + 1
        depth = np.array([np.abs(outside - point).max(axis=1).min() for point in inside])
        rim = np.zeros_like(mask)
        rim[tuple((inside[depth <= 4] - 1).T)] = True
        rims.append(rim)
    assert found["boundary_iou"] == pytest.approx((rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum())


def test_equal_masks_score_one_and_empty_ones_too() -> None:
    mask, nothing = _mask(1), np.zeros((128, 128), bool)
    assert set(_scores(mask, mask).values()) == {1.0}
    assert set(_scores(nothing, nothing).values()) == {1.0}
    assert set(_scores(mask, nothing).values()) == {0.0}
    assert set(_scores(nothing, mask).values()) == {0.0}


def test_a_shift_of_one_pixel_hurts_iou_but_not_the_tolerant_score() -> None:
    """The lesson of the real crack set, where such a shift gives IoU .70: IoU of thin cracks measures label jitter."""
    target = _mask(2)
    shifted = np.roll(target, 1, axis=1)
    iou = (target & shifted).sum() / (target | shifted).sum()
    assert iou < 0.85
    assert _scores(shifted, target)["f1_2px"] > 0.99


def test_single_pixels_and_the_border() -> None:
    one = np.zeros((20, 20), bool)
    one[0, 0] = True
    other = np.zeros((20, 20), bool)
    other[0, 2] = True
    found = _scores(one, other)
    assert found["f1_2px"] == 1.0 and found["boundary_iou"] == 0.0
    other[0, 2], other[0, 3] = False, True
    assert _scores(one, other)["f1_2px"] == 0.0
