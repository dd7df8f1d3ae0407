"""Several classes: the confusion matrix and what is averaged."""

from __future__ import annotations

import numpy as np
import pytest

from segdet.evaluation.multiclass import ClassScores, confusion


def test_confusion_counts_and_ignores() -> None:
    target = np.array([[0, 1, 2, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 2]], np.uint8)
    assert confusion(prediction, target, 2).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_background_never_enters_the_mean() -> None:
    target = np.zeros((10, 10), np.uint8)
    target[0, :4] = 1
    target[1, :2] = 2
    prediction = target.copy()
    prediction[0, :2] = 0  # half of class 1 missed; 98 % of all pixels are right
    scores = ClassScores(("a", "b", "absent"))
    scores.add(confusion(prediction, target, 3), "p")
    found = scores.scores()
    assert found["miou"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["pixel_accuracy"] == pytest.approx(0.98)
    assert set(found["classes"]) == {"a", "b"}
    assert found["classes"]["a"]["f1"] == pytest.approx(2 / 3)
    assert scores.iou_of_each().tolist() == [pytest.approx(0.75)]
