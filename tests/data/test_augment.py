"""Augmentation: the same seed gives the same sample, and the target stays on what is seen."""

from __future__ import annotations

import numpy as np
import pytest

from segdet.data.geometry.rasterize import IGNORE
from segdet.data.loading.augment import SegmentationAugment, Strength
from tests.drawn import crack_picture

SIZES = [(300, 220), (96, 96), (40, 50), (200, 17), (7, 300)]
TINY = [(1, 1), (1, 30), (30, 1), (2, 2), (3, 5)]


def shape(height: int, width: int) -> np.ndarray:
    """A target without any symmetry: an L, a dot and a frame part, uint8 `[height, width]`, 0 or 255."""
    y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None, :] + 0.5) / width
    upright = (x > 0.15) & (x < 0.35) & (y > 0.1) & (y < 0.9)
    foot = (x > 0.15) & (x < 0.8) & (y > 0.7) & (y < 0.9)
    dot = (x > 0.6) & (x < 0.75) & (y > 0.2) & (y < 0.35)
    return np.where(upright | foot | dot, 255, 0).astype(np.uint8)


def correlation(image: np.ndarray, target: np.ndarray) -> float:
    return float(np.corrcoef(image.mean(axis=2).ravel(), target.ravel())[0, 1])


@pytest.mark.parametrize("quarter_turns", [True, False])
@pytest.mark.parametrize("soft", [True, False])
def test_the_same_seed_gives_the_same_sample_whatever_came_before(soft: bool, quarter_turns: bool) -> None:
    augment = SegmentationAugment(64, quarter_turns, soft)
    image, target = crack_picture(3)[0], shape(96, 96)
    first = [augment(image, target, [0, 1, index]) for index in range(12)]
    for index in reversed(range(12)):
        again = SegmentationAugment(64, quarter_turns, soft)(image, target, [0, 1, index])
        assert (again[0] == first[index][0]).all() and (again[1] == first[index][1]).all()


def test_other_seeds_epochs_and_records_give_other_samples() -> None:
    augment = SegmentationAugment(64)
    image, target = crack_picture(3)[0], shape(96, 96)
    seeds = [[seed, epoch, index] for seed in range(3) for epoch in range(3) for index in range(3)]
    assert len({augment(image, target, seed)[0].tobytes() for seed in seeds}) == len(seeds)


def test_the_originals_are_left_alone() -> None:
    image, target = crack_picture(3)[0], shape(96, 96)
    before = image.copy(), target.copy()
    for seed in range(10):
        SegmentationAugment(96)(image, target, [seed])
        SegmentationAugment(32, soft=False)(image, target, [seed])
    assert (image == before[0]).all() and (target == before[1]).all()


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("size", SIZES + TINY)
def test_samples_have_the_size_that_was_asked_for(size: tuple[int, int], soft: bool) -> None:
    rng = np.random.default_rng(0)
    image, target = rng.integers(0, 256, (*size, 3), np.uint8), shape(*size)
    for side in (32, 64, 97):
        for seed in range(8):
            out, labels = SegmentationAugment(side, soft=soft)(image, target, [seed])
            assert out.shape == (side, side, 3) and labels.shape == (side, side)
            assert out.dtype == labels.dtype == np.uint8
            assert out.flags.c_contiguous and labels.flags.c_contiguous


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_image_and_target_stay_aligned(size: tuple[int, int], soft: bool) -> None:
    """The picture shows its own target, so after any change both must still be the same drawing."""
    target = shape(*size)
    image = np.repeat(target[..., None], 3, axis=2)
    augment = SegmentationAugment(64, soft=soft)
    scores = []
    for seed in range(40):
        out, labels = augment(image, target, [seed])
        if 0.1 < (labels > 127).mean() < 0.9:
            scores.append(correlation(out, labels))
    assert len(scores) > 15
    # Shadow, blur and noise take a little, and so does growing (smooth against stepped); a flip or a shift takes a lot.
    assert min(scores) > (0.7 if min(size) >= 40 else 0.4) and np.median(scores) > (0.97 if min(size) >= 40 else 0.9)


def test_the_measure_of_alignment_notices_a_shift_and_a_flip() -> None:
    target = shape(64, 64)
    image = np.repeat(target[..., None], 3, axis=2)
    assert correlation(image, target) == pytest.approx(1)
    assert correlation(image[:, ::-1], target) < 0.7
    assert correlation(np.roll(image, 8, axis=0), target) < 0.7


def test_class_indices_are_never_mixed_into_others() -> None:
    rng = np.random.default_rng(0)
    target = rng.choice(np.array([0, 1, 7, 200, IGNORE], np.uint8), (90, 120))
    image = rng.integers(0, 256, (90, 120, 3), np.uint8)
    seen: set[int] = set()
    for seed in range(20):
        _, labels = SegmentationAugment(48, soft=False)(image, target, [seed])
        seen |= set(np.unique(labels).tolist())
    assert seen == {0, 1, 7, 200, IGNORE}


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("size", [*TINY, (20, 20), (200, 30)])
def test_small_images_are_continued_not_framed(size: tuple[int, int], soft: bool) -> None:
    """A wall that is all crack stays all crack: no border of background appears around it."""
    image, target = np.full((*size, 3), 180, np.uint8), np.full(size, 255, np.uint8)
    for seed in range(10):
        out, labels = SegmentationAugment(64, soft=soft)(image, target, [seed])
        assert (labels == 255).all()
        assert out.min() > 20


def test_all_eight_ways_appear_and_only_two_without_quarter_turns() -> None:
    target = shape(80, 80)
    image = np.repeat(target[..., None], 3, axis=2)
    ways = {
        (turns, flip): np.rot90(target[:, ::-1] if flip else target, turns) for turns in range(4) for flip in (0, 1)
    }

    def seen(quarter_turns: bool) -> set[tuple[int, int]]:
        augment = SegmentationAugment(80, quarter_turns, scale=(1.0, 1.0), stretch=0.0)
        found = set()
        for seed in range(60):
            _, labels = augment(image, target, [seed])
            found |= {way for way, turned in ways.items() if (labels == turned).all()}
        return found

    assert seen(True) == set(ways)
    assert seen(False) == {(0, 0), (0, 1)}


def test_scales_vary_within_bounds() -> None:
    """A disc of known area tells the scale: a crop at scale s shows it s * s times as large."""
    y, x = np.mgrid[:400, :400]
    disc = np.where((y - 200) ** 2 + (x - 200) ** 2 < 20**2, 255, 0).astype(np.uint8)
    image = np.repeat(disc[..., None], 3, axis=2)
    augment = SegmentationAugment(240, stretch=0.0)
    ratios = []
    for seed in range(80):
        _, labels = augment(image, disc, [seed])
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        if labels.any() and not rim.any():
            ratios.append(np.sqrt((labels > 127).sum() / (disc > 127).sum()))
    assert 0.68 < min(ratios) < 0.82 and 1.25 < max(ratios) < 1.43


def test_robust_is_harder_on_light_and_sharpness_and_moves_labels_alike() -> None:
    """Both kinds leave labels alone but for the geometry; the robust one leaves less light and less detail."""
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(90, 220, (120, 120, 1), dtype=np.uint8), 3, axis=2)
    image[50:60] = 30
    target = np.zeros((120, 120), np.uint8)
    target[50:60] = 255
    darkest, detail = {}, {}
    for name in ("standard", "robust"):
        augment = SegmentationAugment.named(name, 96, True, True)
        light, edges, shares = [], [], []
        for seed in range(80):
            out, labels = augment(image, target, [seed])
            light.append(float(np.median(out)))
            edges.append(float(np.abs(np.diff(out[..., 0].astype(float), axis=0)).mean()))
            shares.append((labels > 127).mean())
        assert 0.04 < np.mean(shares) < 0.14
        darkest[name], detail[name] = np.quantile(light, 0.1), np.quantile(edges, 0.2)
    assert darkest["robust"] < darkest["standard"] - 15 and detail["robust"] < 0.8 * detail["standard"]


@pytest.mark.parametrize(("enlarge", "largest"), [(None, 1.4), (4.0, 4.0)])
def test_samples_are_enlarged_so_far_and_no_further(enlarge: float | None, largest: float) -> None:
    image = np.full((400, 400, 3), 160, np.uint8)
    target = np.zeros((400, 400), np.uint8)
    target[:, ::40] = 255  # lines 40 px apart
    augment = SegmentationAugment.named("standard", 320, quarter_turns=False, soft=True, enlarge=enlarge)
    widths = []
    for seed in range(60):
        lines = np.flatnonzero(np.diff((augment(image, target, [seed])[1][160] > 25).astype(int)) == 1)
        widths.append(np.diff(lines).max() / 40)
    # Sides may also be stretched against each other by five per cent.
    assert 0.85 * largest < max(widths) < 1.08 * largest and min(widths) < 1


def test_none_only_cuts_a_part_out() -> None:
    rng = np.random.default_rng(0)
    image, target = rng.integers(0, 256, (90, 130, 3), dtype=np.uint8), np.zeros((90, 130), np.uint8)
    target[20:30] = 255
    augment = SegmentationAugment.named("none", 64, quarter_turns=True, soft=True)
    for seed in range(5):
        out, labels = augment(image, target, [seed])
        found = [(y, x) for y in range(27) for x in range(67) if np.array_equal(image[y : y + 64, x : x + 64], out)]
        assert len(found) == 1
        y, x = found[0]
        assert np.array_equal(target[y : y + 64, x : x + 64], labels)


@pytest.mark.parametrize("strength", ["standard", "robust"])
def test_calm_samples_are_turned_and_nothing_else(strength: Strength) -> None:
    image, target = crack_picture(3)[0], shape(96, 96)
    turns = {
        np.ascontiguousarray(np.rot90(image[:, ::flip], quarter)).tobytes(): np.rot90(target[:, ::flip], quarter)
        for flip in (1, -1)
        for quarter in range(4)
    }
    calm = SegmentationAugment.named(strength, 96, True, True, calm=1.0)
    seen = set()
    for seed in range(40):
        found, mask = calm(image, target, [seed])
        assert (turns[found.tobytes()] == mask).all()
        seen.add(found.tobytes())
    assert len(seen) == 8
    some = SegmentationAugment.named(strength, 96, True, True, calm=0.5)
    assert 10 <= sum(some(image, target, [seed])[0].tobytes() in turns for seed in range(40)) <= 30
