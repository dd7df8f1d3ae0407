"""Scores of one class against brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from segdet.evaluation import bootstrap
from segdet.evaluation.binary import BINS, BinaryScores, binned, histogram
from segdet.evaluation.calibration import Calibration
from segdet.evaluation.tally import MaskTally
from tests.drawn import crack_mask

Image = tuple[np.ndarray, np.ndarray]  # probability float32, target bool


def _images(count: int = 5) -> list[Image]:
    """Drawn cracks and a middling model of them: blurred, noisy, blind in places."""
    rng = np.random.default_rng(3)
    out = []
    for number in range(count):
        target = crack_mask(number, 64)
        logit = 6 * target - 3.5 + rng.normal(0, 1.5, target.shape)
        out.append(((1 / (1 + np.exp(-logit))).astype(np.float32), target))
    return out


def _scores(images: list[Image]) -> BinaryScores:
    scores = BinaryScores()
    for probability, target in images:
        scores.add(*histogram(binned(probability), target))
    return scores


def _at(images: list[Image], threshold: float, photographs: list[str] | None = None) -> MaskTally:
    names = [str(number) for number in range(len(images))]
    pixels = np.array([target.size for _, target in images])
    return MaskTally(
        ["crack"], names, photographs or names, threshold, pixels, _scores(images).counts(threshold)[:, None]
    )


def _numbers(tally: MaskTally) -> dict[str, float]:
    return {name: float(value[0]) for name, value in tally.scores().items()}


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.873])
def test_pooled_scores_are_scikit_learns(threshold: float) -> None:
    images = _images()
    predicted = np.concatenate([(binned(p) >= round(threshold * BINS)).ravel() for p, _ in images])
    target = np.concatenate([t.ravel() for _, t in images])
    found = _numbers(_at(images, threshold))
    for name, theirs in (
        ("iou", sk.jaccard_score), ("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)
    ):  # fmt: skip
        assert found[name] == pytest.approx(theirs(target, predicted)), name
    each = [sk.f1_score(t.ravel(), (binned(p) >= round(threshold * BINS)).ravel()) for p, t in images]
    assert found["f1_per_image"] == pytest.approx(np.mean(each))


def test_the_curve_and_the_area_under_it_are_scikit_learns() -> None:
    images = _images()
    target = np.concatenate([t.ravel() for _, t in images])
    exact = np.concatenate([p.ravel() for p, _ in images])
    rounded = binned(exact) / BINS
    scores, curve = _scores(images), _scores(images).curve()
    assert scores.average_precision() == pytest.approx(sk.average_precision_score(target, rounded), abs=1e-12)
    assert scores.average_precision() == pytest.approx(sk.average_precision_score(target, exact), abs=1e-3)
    precision, recall, thresholds = sk.precision_recall_curve(target, rounded)
    place = np.round(thresholds * BINS).astype(int)
    assert curve["precision"][place] == pytest.approx(precision[:-1])
    assert curve["recall"][place] == pytest.approx(recall[:-1])


def test_calibration_is_scikit_learns() -> None:
    counted = Calibration()
    images = _images()
    for probability, target in images[:3]:
        counted.add(probability, target)
    other = Calibration()
    for probability, target in images[3:]:
        other.add(probability, target)
    counted.merge(other)
    found = counted.result()
    assert found is not None
    target = np.concatenate([t.ravel() for _, t in images])
    probability = np.concatenate([p.ravel() for p, _ in images])
    right, confidence = calibration_curve(target, probability, n_bins=20)
    assert [row["right"] for row in found["bins"]] == pytest.approx(right.tolist())
    assert [row["confidence"] for row in found["bins"]] == pytest.approx(confidence.tolist(), abs=1e-6)
    pixels = np.array([row["pixels"] for row in found["bins"]])
    assert pixels.sum() == target.size
    assert found["ece"] == pytest.approx((pixels * np.abs(right - confidence)).sum() / target.size, abs=1e-6)
    assert Calibration().result() is None


def test_true_probabilities_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random((400, 500), dtype=np.float32)
    honest, boasting = Calibration(), Calibration()
    honest.add(probability, rng.random(probability.shape) < probability)
    boasting.add(probability, rng.random(probability.shape) < 0.5 * probability)
    found, worse = honest.result(), boasting.result()
    assert found is not None and worse is not None
    assert found["ece"] < 0.01 and worse["ece"] == pytest.approx(0.25, abs=0.01)


def test_bins_are_the_threshold_rule() -> None:
    """A pixel at exactly the threshold is foreground; just below, it is not."""
    probability = np.array([[0.0, 0.4999, 0.5, 0.5001, 1.0]], np.float32)
    assert (binned(probability) >= 500).tolist() == [[False, False, True, True, True]]


def test_best_threshold_beats_every_other() -> None:
    images = _images()
    best = _numbers(_at(images, _scores(images).best_threshold()))["f1"]
    assert all(_numbers(_at(images, k / 100))["f1"] <= best + 1e-12 for k in range(1, 100))


def test_empty_images() -> None:
    nothing = (np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    wrong = (np.ones((4, 4), np.float32), np.zeros((4, 4), bool))
    blind = (np.zeros((4, 4), np.float32), np.ones((4, 4), bool))
    pooled, each = ("iou", "f1", "precision", "recall"), ("iou_per_image", "f1_per_image")
    for images, score in (([nothing], 1.0), ([wrong], 0.0)):
        found = _numbers(_at(images, 0.5))
        assert np.isnan([found[name] for name in pooled]).all()  # nothing is labelled: nothing to measure by
        assert [found[name] for name in each] == [score] * 2
    assert [_numbers(_at([blind], 0.5))[name] for name in (*pooled, *each)] == [0.0] * 6
    assert _numbers(_at([nothing, wrong], 0.5))["iou_per_image"] == 0.5
    assert _scores([nothing]).average_precision() is None
    alarms = _at([nothing, wrong, blind], 0.5).negatives()
    assert alarms == {"images": 2, "false_positive_images": 1, "false_positive_rate": 0.5, "false_positive_area": 0.5}
    assert _at([blind], 0.5).negatives()["false_positive_rate"] is None


def test_oracle_is_never_worse_than_one_threshold() -> None:
    images = _images()
    chosen, oracle = _numbers(_at(images, _scores(images).best_threshold())), _scores(images).oracle()
    assert oracle["ods"] >= chosen["f1"] - 1e-12 and oracle["ois"] >= chosen["f1_per_image"] - 1e-12


def test_intervals_hold_the_score_and_widen_when_images_share_a_photograph() -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in range(8):
        target = crack_mask(number, 48)
        noise = rng.random(target.shape) * rng.uniform(0.2, 1.5)
        images.append((np.clip(target * 0.4 + noise * 0.6, 0, 1).astype(np.float32), target))
    tripled = [image for image in images for _ in range(3)]
    apart, together = _at(tripled, 0.5), _at(tripled, 0.5, [str(n // 3) for n in range(24)])
    score = _numbers(apart)["iou"]
    assert score == _numbers(together)["iou"]
    widths = []
    for tally in (apart, together):
        found = bootstrap.intervals(tally)["iou"]
        assert found is not None and found[0] < score < found[1]
        widths.append(found[1] - found[0])
    assert widths[1] > 1.4 * widths[0]  # copies carry no information: the honest interval is about sqrt(3) wider


def test_drawing_photographs_draws_all_their_images() -> None:
    times = bootstrap.drawn(["a", "b", "a", "c"], 50)
    assert times.shape == (50, 4) and (times[:, 0] == times[:, 2]).all()
    assert (times[:, [0, 1, 3]].sum(axis=1) == 3).all()
