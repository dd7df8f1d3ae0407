"""Every kind of mistake, drawn by hand, is called by its name."""

from __future__ import annotations

import numpy as np
import pytest

from segdet.evaluation import mask_errors
from segdet.evaluation.mask_errors import MaskError
from segdet.evaluation.thin import centre_line
from tests.drawn import crack_mask


def _find(prediction: np.ndarray, target: np.ndarray) -> list[MaskError]:
    return mask_errors.find(prediction, target, (centre_line(prediction), centre_line(target)))


def _line(row: int, start: int, end: int, width: int = 5, side: int = 200) -> np.ndarray:
    """A horizontal line: rows around `row`, columns `start` to `end`."""
    mask = np.zeros((side, side), bool)
    mask[row - width // 2 : row - width // 2 + width, start:end] = True
    return mask


def _kinds(errors: list[MaskError]) -> list[str]:
    return sorted(error.kind for error in errors)


def test_equal_masks_and_a_shift_of_one_pixel_have_no_errors() -> None:
    for seed in range(4):
        mask = crack_mask(seed, 128)
        assert _find(mask, mask) == [] and _find(np.roll(mask, 1, axis=1), mask) == []
    nothing = np.zeros((20, 20), bool)
    assert _find(nothing, nothing) == []


def test_missed_and_false() -> None:
    target = _line(50, 10, 190) | _line(150, 10, 100)
    (missed,) = _find(_line(50, 10, 190), target)
    assert (missed.kind, missed.pixels, missed.box) == ("missed", 90 * 5, (10, 148, 100, 153))
    assert missed.length == pytest.approx(86, abs=4)
    (invented,) = _find(target, _line(50, 10, 190))
    assert (invented.kind, invented.pixels, invented.box) == ("false", 90 * 5, (10, 148, 100, 153))
    nothing = np.zeros_like(target)
    assert _kinds(_find(nothing, target)) == ["missed", "missed"] and _kinds(_find(target, nothing)) == [
        "false",
        "false",
    ]
    assert sum(error.pixels for error in _find(nothing, target)) == target.sum()


def test_an_end_that_is_lost_is_missed_and_a_gap_is_broken() -> None:
    target = _line(100, 10, 190)
    (end,) = _find(_line(100, 10, 120), target)
    assert end.kind == "missed" and 300 < end.pixels <= 350 and end.box[2] == 190
    (gap,) = _find(_line(100, 10, 80) | _line(100, 110, 190), target)
    assert gap.kind == "broken" and gap.box[0] >= 80 - 3 and gap.box[2] <= 110 + 3
    assert _find(_line(100, 10, 98) | _line(100, 101, 190), target) == []  # closed by the tolerance of two pixels
    # a ring that is cut once still holds together
    ring = np.zeros((200, 200), bool)
    ring[40:160, 40:160] = True
    ring[45:155, 45:155] = False
    cut = ring.copy()
    cut[90:110, 30:60] = False
    assert _kinds(_find(cut, ring)) == ["missed"]


def test_too_wide_and_too_thin() -> None:
    thin, wide = _line(100, 10, 190, 5), _line(100, 10, 190, 13)
    (error,) = _find(wide, thin)
    assert (error.kind, error.pixels) == ("too_wide", 180 * 8)
    (error,) = _find(thin, wide)
    assert (error.kind, error.pixels) == ("too_thin", 180 * 8)
    assert _find(_line(100, 10, 190, 7), thin) == []  # a pixel on either side is how labels differ
    assert _find(_line(100, 10, 190, 43), _line(100, 10, 190, 33)) == []  # less than 1.5 times as wide


def test_every_wrong_pixel_is_told_once_at_most() -> None:
    rng = np.random.default_rng(0)
    for seed in range(6):
        target, prediction = crack_mask(seed, 128), crack_mask(seed + 20, 128)
        prediction |= rng.random(prediction.shape) < 0.001
        errors = _find(prediction, target)
        assert 0 < sum(error.pixels for error in errors) <= (target ^ prediction).sum()
        for error in errors:
            x1, y1, x2, y2 = error.box
            assert 0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 128


def test_one_pixel_and_the_border() -> None:
    one, whole = np.zeros((40, 40), bool), np.ones((40, 40), bool)
    one[0, 0] = True
    assert _find(one, np.zeros_like(one)) == []  # under 30 pixels
    (error,) = _find(whole, np.zeros_like(one))
    assert (error.kind, error.pixels, error.box) == ("false", 1600, (0, 0, 40, 40))
    assert _find(whole, whole) == []


def test_summary_and_order() -> None:
    target = _line(50, 10, 190) | _line(150, 10, 100) | _line(180, 10, 40)
    errors = _find(_line(50, 10, 190), target)
    assert mask_errors.summary(errors)["missed"] == {"count": 2, "pixels": 600}
    assert mask_errors.summary([])["broken"] == {"count": 0, "pixels": 0}
    assert [error.pixels for error in mask_errors.largest(errors, "missed")] == [450, 150]
