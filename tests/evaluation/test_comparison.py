"""Comparing two measurements: the paired bootstrap, its sentences, and what is kept of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segdet.errors import InputError
from segdet.evaluation import bootstrap, comparison
from segdet.evaluation import tally as tallies
from segdet.evaluation.detection import DetectionEvaluation
from segdet.evaluation.tally import BoxTally, MaskTally, Tally
from tests.drawn import boxed_records, found_near


def _masks(seed: int, better: float = 0.0, images: int = 60, photographs: int = 60) -> MaskTally:
    """Counts of a made-up model: how hard an image is depends on the image, `better` is what this model gains everywhere."""
    labelled = 400 + np.arange(images) * 7 % 300
    ease = np.random.default_rng(1).uniform(0.4, 0.9, images)
    found = np.clip(ease + better + np.random.default_rng(seed).normal(0, 0.02, images), 0, 1)
    hit = (labelled * found).astype(np.int64)
    counts = np.zeros((images, 1, 15), np.int64)
    counts[:, 0, 0], counts[:, 0, 1], counts[:, 0, 2] = hit, 100, labelled - hit
    for k in range(3):
        counts[:, 0, 3 + 4 * k : 7 + 4 * k] = np.stack([hit, hit + 100, hit, labelled], axis=1)
    names = [f"{n:03d}.jpg" for n in range(images)]
    return MaskTally(
        ["crack"], names, [str(n % photographs) for n in range(images)], 0.5, np.full(images, 10_000), counts
    )


def _boxes(seed: int) -> BoxTally:
    records = boxed_records(0, 30, 3, crowds=True)
    result = DetectionEvaluation([f"class {k}" for k in range(3)], records)
    for index, one in enumerate(found_near(records, 3, seed)):
        result.add(index, one)
    return result.tally(0.4)


def test_the_paired_bootstrap_is_the_plain_one_done_by_hand() -> None:
    first, second = _masks(2, 0.05, photographs=20), _masks(3, photographs=20)
    found = bootstrap.differences(first, second)["iou"]

    def iou(tally: MaskTally, chosen: np.ndarray) -> float:
        hit, extra, missed = tally.counts[chosen, 0, :3].sum(axis=0)
        return hit / (hit + extra + missed)

    rng = np.random.default_rng(9)
    members = [np.arange(60)[np.arange(60) % 20 == p] for p in range(20)]
    samples = []
    for _ in range(4000):
        chosen = np.concatenate([members[p] for p in rng.integers(0, 20, 20)])
        samples.append(iou(first, chosen) - iou(second, chosen))
    every = np.arange(60)
    assert found.value == pytest.approx(iou(first, every) - iou(second, every))
    assert (found.low, found.high) == pytest.approx(np.percentile(samples, [2.5, 97.5]), abs=0.002)


def test_a_paired_interval_is_much_narrower_than_two_apart() -> None:
    """Images differ more than models: only on the same images a small difference is seen."""
    first, second = _masks(2, 0.03), _masks(3)
    paired = bootstrap.differences(first, second)["iou"]
    apart = [bootstrap.intervals(tally)["iou"] for tally in (first, second)]
    assert apart[0] is not None and apart[1] is not None and apart[0][0] < apart[1][1]  # overlap
    assert paired.certain and paired.high - paired.low < 0.4 * (apart[0][1] - apart[0][0])


def test_what_is_said() -> None:
    tallies_of = {"a": _masks(2), "b": _masks(3, 0.04), "c": _masks(2), "d": _masks(4)}
    rows = {(row["first"], row["second"]): row for row in comparison.pairs(tallies_of)}
    assert len(rows) == 6 and comparison.ranked(tallies_of)[0] == "b"
    said = rows["b", "a"]["sentence"]
    assert said.startswith("b is better than a by ") and "IoU points (95 % CI " in said
    low, high = (float(x) for x in said.split("CI ")[1].rstrip(")").split(" to "))
    assert 0 < low < high
    same = rows["a", "c"]
    assert (
        same["sentence"].startswith("no difference between a and c") and same["scores"]["cldice"]["verdict"] == "same"
    )
    pair = rows.get(("a", "d")) or rows["d", "a"]
    assert (
        pair["sentence"].startswith("these images show no difference")
        and pair["scores"]["iou"]["verdict"] == "not shown"
    )


def test_a_worse_first_is_told_the_right_way_round() -> None:
    difference = bootstrap.Difference(-0.02, -0.03, -0.01, same=False)
    assert (
        comparison.sentence("a", "b", "iou", difference) == "b is better than a by 2.0 IoU points (95 % CI 1.0 to 3.0)"
    )
    assert "no object is labelled" in comparison.sentence("a", "b", "ap", None)


def test_detectors_are_compared_by_ap() -> None:
    first, second = _boxes(0), _boxes(1)
    found = bootstrap.differences(first, second)
    assert set(found) == {"ap", "ap50", "f1", "precision", "recall"}
    for name, one in found.items():
        value = float(first.scores()[name][0] - second.scores()[name][0])
        assert one.value == pytest.approx(value) and one.low <= value <= one.high
    same = bootstrap.differences(first, _boxes(0))
    assert all(one.same for one in same.values())


@pytest.mark.parametrize("tally", [_masks(0), _boxes(0)], ids=["masks", "boxes"])
def test_a_tally_comes_back_from_disk(tally: Tally, tmp_path: Path) -> None:
    file = tmp_path / "run" / tallies.FILE
    tallies.save(tally, file)
    again = tallies.load(file)
    assert (
        type(again) is type(tally) and again.threshold == tally.threshold and list(again.images) == list(tally.images)
    )
    ours, theirs = again.scores(), tally.scores()
    assert all(ours[name] == theirs[name] for name in theirs)
    assert all(one.same for one in bootstrap.differences(again, tally).values())
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"per_image\.npz: cannot be read"):
        tallies.load(file)


def test_only_the_same_images_and_labels_are_compared() -> None:
    one = _masks(0)
    comparison.check_alike({"a": one, "b": _masks(1)})
    with pytest.raises(InputError, match="a and b were not measured on the same images"):
        comparison.check_alike({"a": one, "b": _masks(1, images=59)})
    moved = MaskTally(one.classes, one.images, one.photographs, 0.5, one.pixels, one.counts + 1)
    with pytest.raises(InputError, match="with the same labels"):
        comparison.check_alike({"a": one, "b": moved})


def test_folds_are_summed_up() -> None:
    whole = _masks(5)
    parts = {
        f"{k + 1}/3": MaskTally(
            ["crack"], whole.images[k::3], whole.photographs[k::3], 0.4 + k / 10, whole.pixels[k::3], whole.counts[k::3]
        )
        for k in range(3)
    }
    found = comparison.summary(parts)
    each = [float(part.scores()["iou"][0]) for part in parts.values()]
    assert found["spread"]["iou"] == pytest.approx(
        {"mean": np.mean(each), "sd": np.std(each, ddof=1), "min": min(each), "max": max(each)}
    )
    assert found["pooled"]["iou"] == pytest.approx(float(whole.scores()["iou"][0]))
    assert found["ci95"]["iou"] == bootstrap.intervals(whole)["iou"]
    assert bootstrap.spread([0.5])["sd"] is None
    assert "pooled" not in comparison.summary({"1/2": _boxes(0), "2/2": _boxes(1)})
