"""Scores of one class against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from segdet.evaluation.binary import BINS, BinaryScores, binned, group_sums, histogram, resample


def _images(count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    out = []
    for _ in range(count):
        target = rng.random((30, 40)) < 0.2
        probability = np.clip(target * 0.4 + rng.random((30, 40)) * 0.6, 0, 1).astype(np.float32)
        out.append((probability, target))
    return out


def _scores(images: list[tuple[np.ndarray, np.ndarray]], names: list[str] | None = None) -> BinaryScores:
    scores = BinaryScores()
    for number, (probability, target) in enumerate(images):
        scores.add(*histogram(binned(probability), target), (names or [str(n) for n in range(len(images))])[number])
    return scores


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.873])
def test_pooled_scores_equal_counting_pixels(threshold: float) -> None:
    images = _images()
    edge = round(threshold * BINS)
    predicted = np.concatenate([(binned(p) >= edge).ravel() for p, _ in images])
    target = np.concatenate([t.ravel() for _, t in images])
    hit = (predicted & target).sum()
    found = _scores(images).at(threshold)
    assert found["iou"] == pytest.approx(hit / (predicted | target).sum())
    assert found["f1"] == pytest.approx(2 * hit / (predicted.sum() + target.sum()))
    assert found["precision"] == pytest.approx(hit / predicted.sum())
    assert found["recall"] == pytest.approx(hit / target.sum())


def test_bins_are_the_threshold_rule() -> None:
    """A pixel at exactly the threshold is foreground; just below, it is not."""
    probability = np.array([[0.0, 0.4999, 0.5, 0.5001, 1.0]], np.float32)
    assert (binned(probability) >= 500).tolist() == [[False, False, True, True, True]]


def test_best_threshold_beats_every_other() -> None:
    scores = _scores(_images())
    best = scores.best_threshold()
    f1 = scores.at(best)["f1"]
    assert all(scores.at(k / 100)["f1"] <= f1 + 1e-12 for k in range(1, 100))


def test_per_image_scores_count_an_empty_image_left_empty_as_one() -> None:
    nothing = (np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    wrong = (np.ones((4, 4), np.float32), np.zeros((4, 4), bool))
    assert _scores([nothing]).at(0.5)["iou_per_image"] == 1.0
    assert _scores([nothing, wrong]).at(0.5)["iou_per_image"] == 0.5
    assert _scores([wrong]).at(0.5)["iou"] == 0.0


def test_oracle_is_never_worse_than_one_threshold() -> None:
    scores = _scores(_images())
    chosen = scores.at(scores.best_threshold())
    assert chosen["oracle"]["ods"] >= chosen["f1"] - 1e-12
    assert chosen["oracle"]["ois"] >= chosen["f1_per_image"] - 1e-12


def test_intervals_hold_the_score_and_widen_when_images_share_a_photograph() -> None:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        target = rng.random((20, 20)) < 0.3
        noise = rng.random((20, 20)) * rng.uniform(0.2, 1.5)
        images.append((np.clip(target * 0.5 + noise * 0.5, 0, 1).astype(np.float32), target))
    tripled = [image for image in images for _ in range(3)]
    apart = _scores(tripled).at(0.5)
    together = _scores(tripled, [str(n // 3) for n in range(24)]).at(0.5)
    assert apart["iou"] == together["iou"]
    for found in (apart, together):
        low, high = found["ci95"]["iou"]
        assert low < found["iou"] < high
    width = [found["ci95"]["iou"][1] - found["ci95"]["iou"][0] for found in (apart, together)]
    assert width[1] > 1.4 * width[0]  # copies carry no information: the honest interval is about sqrt(3) wider


def test_group_sums_and_resampling_keep_totals() -> None:
    counts = np.arange(12).reshape(4, 3)
    groups = group_sums(counts, ["a", "b", "a", "c"])
    assert groups.tolist() == [[6, 8, 10], [3, 4, 5], [9, 10, 11]]
    rounds = resample(np.ones((5, 2), np.int64), rounds=50)
    assert rounds.shape == (2, 50) and (rounds == 5).all()
