"""What kind of mistakes a detector makes at its working point, after TIDE (Bolya et al. 2020, arXiv 2008.08115)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segdet.data.geometry.boxes import boxes_of
from segdet.data.records import Record
from segdet.evaluation.coco import Detections
from segdet.evaluation.matching import overlaps, pair

NEAR, HIT = 0.1, 0.5  # IoU from which a box is about an object at all, and from which it is right

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")


def count(records: Sequence[Record], found: Sequence[Detections], threshold: float) -> dict[str, int]:
    """Objects "correct", and mistakes by kind, over detections with at least this score.

    A wrong detection is, in this order: "localisation" (its class, IoU 0.1 to 0.5), "classification" (IoU of 0.5 or more
    with an object of another class), "duplicate" (an object that a detection with a higher score has taken), "background" (no IoU over
    0.1), or "both" (another class, IoU 0.1 to 0.5). An object is "missed" when nothing matches it and no
    misclassified or misplaced detection is about it. What lies in crowd regions is not counted.
    """
    total = dict.fromkeys(("correct", *KINDS), 0)
    for record, one in zip(records, found, strict=True):
        kept = one.scores >= threshold
        for kind, number in _image(record, one.boxes[kept], one.labels[kept]).items():
            total[kind] += number
    return total


def judge(record: Record, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which object each box (most certain first) is at IoU 0.5: int64 `[D]`; -1 = wrong, -2 = inside a crowd region."""
    truth, true_labels, crowd = boxes_of(record)
    if not len(truth):
        return np.full(len(boxes), -1, np.int64)
    return pair(overlaps(boxes, truth, crowd), labels[:, None] == true_labels, crowd, np.array([HIT]))[0]


def _image(record: Record, boxes: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    truth, true_labels, crowd = boxes_of(record)
    taken = judge(record, boxes, labels)
    matched = np.zeros(len(truth), bool)
    matched[taken[taken >= 0]] = True
    explained = matched | crowd
    out = dict.fromkeys(("correct", *KINDS), 0)
    out["correct"] = int(matched.sum())
    iou = np.where(crowd, 0.0, overlaps(boxes, truth, crowd))
    same = labels[:, None] == true_labels
    for d in np.flatnonzero(taken == -1):
        kind, about = _kind(iou[d], same[d], matched)
        out[kind] += 1
        if about is not None:
            explained[about] = True
    out["missed"] = int((~explained).sum())
    return out


def _kind(iou: np.ndarray, same: np.ndarray, matched: np.ndarray) -> tuple[str, int | None]:
    """The mistake of a wrong detection, and the object it is about where that excuses a miss."""
    own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    if own.max(initial=0) >= NEAR and own.max() < HIT:
        return "localisation", int(own.argmax())
    if other.max(initial=0) >= HIT:
        return "classification", int(other.argmax())
    if np.where(matched, own, 0.0).max(initial=0) >= HIT:
        return "duplicate", None
    if iou.max(initial=0) <= NEAR:
        return "background", None
    return "both", None
