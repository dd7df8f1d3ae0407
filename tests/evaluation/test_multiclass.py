"""Several classes: the confusion matrix, what is averaged, and what is ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from segdet.data.geometry import masks, rasterize
from segdet.data.loading.datasets import Batch
from segdet.data.records import Instance, Record
from segdet.evaluation import segmentation, thin
from segdet.evaluation.multiclass import confusion, counts_of
from segdet.evaluation.segmentation import Judged
from tests.drawn import crack_mask

CLASSES = ("a", "b", "absent")


def _record(name: str, target: np.ndarray) -> Record:
    """A record whose class-index mask is `target` uint8 `[H, W]` (255 = ignored)."""
    instances = tuple(
        Instance(int(value) - 1, (), masks.box(rle), rle)
        for value, rle in masks.regions(target).items()
        if value not in (0, rasterize.IGNORE)
    )
    ignored = target == rasterize.IGNORE
    ignore = masks.encode(ignored) if ignored.any() else None
    return Record(Path(f"{name}.png"), target.shape[1], target.shape[0], instances, name, ignore)


def _judged(pairs: list[tuple[np.ndarray, np.ndarray]], confidence: float = 0.9) -> Judged:
    """Measure (prediction, target) pairs through the public way."""
    records = [_record(f"p{number}", target) for number, (_, target) in enumerate(pairs)]
    batches = [
        Batch(torch.zeros(1, 1, 1, 3), torch.from_numpy(target)[None], [k]) for k, (_, target) in enumerate(pairs)
    ]

    def predict(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        mask = pairs[batch.indices[0]][0][None]
        return mask, np.full(mask.shape, confidence, np.float32)

    result = segmentation.evaluate(predict, batches, records, CLASSES, keep=True)
    return segmentation.judge(result, "val")


def _drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two drawn cracks of different classes, partly ignored, and a prediction that is off by a pixel and confuses some."""
    rng = np.random.default_rng(seed)
    target = crack_mask(seed, 80).astype(np.uint8)
    target[crack_mask(seed + 7, 80)] = 2
    target[:10] = rasterize.IGNORE
    prediction = np.roll(np.where(target == rasterize.IGNORE, 1, target), 1, axis=1)
    prediction[rng.random(target.shape) < 0.03] = 2
    return prediction.astype(np.uint8), target


def test_confusion_counts_and_ignores() -> None:
    target = np.array([[0, 1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 2]], np.uint8)
    matrix = confusion(prediction, target, 2)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert counts_of(matrix[None]).tolist() == [[[1, 1, 0], [0, 0, 1]]]


def test_scores_and_confusion_are_scikit_learns() -> None:
    pairs = [_drawn(seed) for seed in range(4)]
    found = _judged(pairs).metrics
    known = [target != rasterize.IGNORE for _, target in pairs]
    target = np.concatenate([t[k] for (_, t), k in zip(pairs, known, strict=True)])
    predicted = np.concatenate([p[k] for (p, _), k in zip(pairs, known, strict=True)])
    assert found["confusion"]["labels"] == ["background", *CLASSES]
    assert np.array(found["confusion"]["matrix"])[:3, :3].tolist() == sk.confusion_matrix(target, predicted).tolist()
    for name, theirs in (
        ("iou", sk.jaccard_score), ("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)
    ):  # fmt: skip
        each = theirs(target, predicted, labels=[1, 2], average=None)
        assert found[name] == pytest.approx(each.mean()), name
        assert [found["classes"][k][name] for k in ("a", "b")] == pytest.approx(each.tolist())
    assert found["miou"] == found["iou"] and found["pixel_accuracy"] == pytest.approx(
        sk.accuracy_score(target, predicted)
    )
    assert set(found["classes"]) == {"a", "b"} and found["threshold"] is None
    assert found["calibration"]["ece"] == pytest.approx(abs(found["pixel_accuracy"] - 0.9), abs=1e-6)


def test_thin_scores_of_each_class_leave_ignored_pixels_out() -> None:
    pairs = [_drawn(seed) for seed in range(3)]
    found = _judged(pairs).metrics
    for label, name in ((1, "a"), (2, "b")):
        total = np.zeros((3, 4), np.int64)
        for prediction, target in pairs:
            known = target != rasterize.IGNORE
            total += thin.counts((prediction == label) & known, target == label)
        for score, value in thin.scores(total).items():
            assert found["classes"][name][score] == pytest.approx(float(value))
    assert found["cldice"] == pytest.approx(np.mean([found["classes"][k]["cldice"] for k in ("a", "b")]))
    # what is predicted on ignored pixels does not matter
    changed = []
    for prediction, target in pairs:
        prediction = prediction.copy()
        prediction[target == rasterize.IGNORE] = 2
        changed.append((prediction, target))
    again = _judged(changed).metrics
    for key in ("iou", "f1_2px", "cldice", "boundary_iou", "confusion", "errors", "negatives", "ci95"):
        assert again[key] == found[key], key


def test_background_never_enters_the_mean() -> None:
    target = np.zeros((10, 10), np.uint8)
    target[0, :4] = 1
    target[1, :2] = 2
    prediction = target.copy()
    prediction[0, :2] = 0  # half of class 1 missed; 98 % of all pixels are right
    judged = _judged([(prediction, target)])
    assert judged.metrics["miou"] == pytest.approx((0.5 + 1.0) / 2)
    assert judged.metrics["pixel_accuracy"] == pytest.approx(0.98)
    assert judged.metrics["classes"]["a"]["f1"] == pytest.approx(2 / 3)
    assert judged.tally.of_each().tolist() == [pytest.approx(0.75)]


def test_false_alarms_are_counted_where_a_class_is_not() -> None:
    target = np.zeros((2, 10, 10), np.uint8)
    target[0, 0, :4] = 1
    prediction = target.copy()
    prediction[1, 5, :3] = 2  # on an empty image
    prediction[0, 9, :2] = 2  # on one that shows another class
    found = _judged([(prediction[k], target[k]) for k in range(2)]).metrics
    assert found["negatives"] == {
        "images": 1, "false_positive_images": 1, "false_positive_rate": 1.0, "false_positive_area": 0.03,
    }  # fmt: skip
    assert found["classes"]["b"]["negatives"] == {
        "images": 2, "false_positive_images": 2, "false_positive_rate": 1.0, "false_positive_area": 0.025,
    }  # fmt: skip
    assert found["classes"]["b"]["precision"] == found["classes"]["b"]["recall"] == 0.0


def test_nothing_labelled_and_nothing_marked() -> None:
    empty = np.zeros((8, 8), np.uint8)
    found = _judged([(empty, empty)]).metrics
    assert found["iou"] is None and found["cldice"] is None and found["ci95"]["iou"] is None
    assert found["iou_per_image"] == 1.0 and found["classes"] == {} and found["labelled_images"] == 0
    ignored = np.full((8, 8), rasterize.IGNORE, np.uint8)
    assert _judged([(empty, ignored)]).metrics["iou"] is None
