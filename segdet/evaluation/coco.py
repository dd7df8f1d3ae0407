"""The official COCO numbers, counted by faster-coco-eval (pycocotools' protocol in C++)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from segdet.data.geometry.boxes import area_of, boxes_of, objects
from segdet.data.records import Record

IOUS = np.linspace(0.5, 0.95, 10)  # IoU thresholds, as in pycocotools
RECALLS = np.linspace(0.0, 1.0, 101)  # recall values at which precision is read
MOST = 100  # detections of one class in one image that count for AP: the highest scores

TWELVE = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip


@dataclass(frozen=True)
class Detections:
    """What was found in one image, in its own pixels.

    boxes: float32 `[Q, 4]` (x1, y1, x2, y2). scores: float32 `[Q]`, falling. labels: int64 `[Q]`, index into the classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class CocoScores:
    """twelve: the numbers by name; None where no object is there to be found (pycocotools says -1).

    precision: float64 `[10, 101, classes]` at `IOUS` and `RECALLS`, objects of all sizes; -1 for classes without object.
    """

    twelve: dict[str, float | None]
    precision: np.ndarray


def official(records: Sequence[Record], found: Sequence[Detections], classes: int) -> CocoScores:
    """Score what was `found` in each record. Crowd regions are never missed, and detections in them are never wrong."""
    truth = _collection(len(records), classes, ground_truth(records))
    answers = _collection(len(records), classes, detections(found))
    counted = COCOeval_faster(truth, answers, "bbox")
    counted.params.maxDets = [1, 10, MOST]
    counted.run()
    values = (float(value) for value in counted.stats)
    return CocoScores(
        {name: None if value < 0 else value for name, value in zip(TWELVE, values, strict=True)},
        np.asarray(counted.eval["precision"], np.float64).reshape(len(IOUS), len(RECALLS), classes, 4, 3)[..., 0, -1],
    )


def ground_truth(records: Sequence[Record]) -> list[dict[str, Any]]:
    """COCO annotations of all labelled objects; `image_id` is the position in `records`, `category_id` the label."""
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        boxes = sides(boxes_of(record)[0]).tolist()
        for instance, box in zip(objects(record), boxes, strict=True):
            row = _row(len(rows), number, instance.label, box, area_of(instance))
            rows.append({**row, "iscrowd": int(instance.crowd)})
    return rows


def detections(found: Sequence[Detections]) -> list[dict[str, Any]]:
    """COCO results of all detections, numbered as in `ground_truth`."""
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(found):
        boxes, scores, labels = sides(one.boxes).tolist(), one.scores.tolist(), one.labels.tolist()
        for box, score, label in zip(boxes, scores, labels, strict=True):
            row = _row(len(rows), number, label, box, box[2] * box[3])
            rows.append({**row, "iscrowd": 0, "score": score})
    return rows


def sides(boxes: np.ndarray) -> np.ndarray:
    """(x1, y1, x2, y2) -> COCO's (x, y, width, height), float64 `[K, 4]`; a box turned inside out has no size.

    COCO would leave a detection of negative area out instead of calling it wrong.
    """
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], np.maximum(0.0, boxes[:, 2:] - boxes[:, :2])], axis=1)


def _row(count: int, image: int, label: int, box: list[float], size: float) -> dict[str, Any]:
    # Ids start at 1: the protocol marks what has no match with 0.
    return {"id": count + 1, "image_id": image, "category_id": label, "bbox": box, "area": size}


def _collection(images: int, classes: int, rows: list[dict[str, Any]]) -> COCO:
    made = COCO()
    made.dataset = {
        "images": [{"id": number} for number in range(images)],
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
        "annotations": rows,
    }
    made.createIndex()
    return made
