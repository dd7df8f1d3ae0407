"""Thin-structure scores against brute force, and what each is sensitive to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt
from skimage.morphology import skeletonize

from segdet.evaluation import thin
from tests.drawn import crack_mask


def _scores(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in thin.scores(thin.counts(prediction, target)).items()}


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_brute_force(seed: int) -> None:
    target, prediction = crack_mask(seed), crack_mask(seed + 10)
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
    mask, nothing = crack_mask(1), np.zeros((128, 128), bool)
    assert set(_scores(mask, mask).values()) == {1.0}
    assert set(_scores(nothing, nothing).values()) == {1.0}
    assert set(_scores(mask, nothing).values()) == {0.0}
    assert set(_scores(nothing, mask).values()) == {0.0}


def test_a_shift_of_one_pixel_hurts_iou_but_not_the_tolerant_score() -> None:
    """The lesson of the real crack set, where such a shift gives IoU 0.70 to 0.80: IoU of thin cracks measures label jitter."""
    targets = [crack_mask(seed, 160) for seed in range(12)]
    moved = {
        "shifted": [np.roll(target, (1, 1), axis=(0, 1)) for target in targets],
        "dilated": [binary_dilation(target, np.ones((3, 3), bool)) for target in targets],
        "lost": [target & (np.arange(160)[:, None] > 40) for target in targets],
    }
    found = {name: _pooled(masks, targets) for name, masks in moved.items()}
    assert 0.60 < found["shifted"]["iou"] < 0.80  # IoU loses a quarter ...
    assert found["shifted"]["f1_2px"] > 0.99 and found["shifted"]["cldice"] > 0.98  # ... for nothing a person would see
    assert found["dilated"]["iou"] < 0.75 and found["dilated"]["f1_2px"] > 0.99  # a label drawn a pixel wider
    assert (
        found["lost"]["f1_2px"] < 0.95 and found["lost"]["cldice"] < 0.95
    )  # a quarter of the crack missed is told by all


def _pooled(predictions: list[np.ndarray], targets: list[np.ndarray]) -> dict[str, float]:
    total = sum(thin.counts(p, t) for p, t in zip(predictions, targets, strict=True))
    hit = sum(int((p & t).sum()) for p, t in zip(predictions, targets, strict=True))
    either = sum(int((p | t).sum()) for p, t in zip(predictions, targets, strict=True))
    return {"iou": hit / either, **{name: float(value) for name, value in thin.scores(np.asarray(total)).items()}}


@pytest.mark.parametrize("seed", range(3))
def test_a_centre_line_does_not_depend_on_what_lies_around(seed: int) -> None:
    mask = np.zeros((150, 170), bool)
    mask[20:84, 30:94] = crack_mask(seed, 64)
    assert (thin.centre_line(mask) == skeletonize(mask)).all()
    assert (thin.centre_line(crack_mask(seed, 64)) == skeletonize(crack_mask(seed, 64))).all()  # reaches the border
    assert not thin.centre_line(np.zeros((5, 5), bool)).any()


def test_single_pixels_and_the_border() -> None:
    one = np.zeros((20, 20), bool)
    one[0, 0] = True
    other = np.zeros((20, 20), bool)
    other[0, 2] = True
    found = _scores(one, other)
    assert found["f1_2px"] == 1.0 and found["boundary_iou"] == 0.0
    other[0, 2], other[0, 3] = False, True
    assert _scores(one, other)["f1_2px"] == 0.0
