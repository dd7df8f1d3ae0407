"""Which detection is which object: COCO's greedy matching, kept per detection so that scores can be recounted.

From the matches follow precision, recall and F1 at any confidence, and AP of any resampling of the images without
matching again: a detection's fate depends on its own image only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from segdet.data.geometry.boxes import boxes_of
from segdet.data.records import Record
from segdet.evaluation.coco import IOUS, MOST, RECALLS, Detections, sides
from segdet.evaluation.ratios import f1, share

STEPS = 1000  # thresholds are looked for among k / STEPS
_LIMIT = 20_000_000  # numbers held at once while resampling


@dataclass(frozen=True)
class Matches:
    """Every detection of every image, highest score first (ties in the order of the images).

    image: int64 `[D]`, position of its image. label: int64 `[D]`. score: float64 `[D]`. rank: int64 `[D]`, its place among
    those of its class and image. right: bool `[10, D]`, whether it is an object's match at each of `IOUS`. void: bool
    `[10, D]`, whether it counts neither for nor against (it lies in a crowd region). objects: int64 `[images, classes]`.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    right: np.ndarray
    void: np.ndarray
    objects: np.ndarray

    def at(self, threshold: float) -> np.ndarray:
        """int64 `[images, 3]` at IoU 0.5: right, wrong and missed, counting detections of at least this score."""
        counted = (self.score >= threshold) & ~self.void[0]
        images = len(self.objects)
        right = np.bincount(self.image[counted & self.right[0]], minlength=images)
        every = np.bincount(self.image[counted], minlength=images)
        return np.stack([right, every - right, self.objects.sum(axis=1) - right], axis=1)

    def curve(self) -> dict[str, np.ndarray]:
        """Precision, recall and F1 at IoU 0.5 over all classes together, float64 `[STEPS + 1]`, at scores k / STEPS."""
        thresholds = np.arange(STEPS + 1) / STEPS
        counted = ~self.void[0]
        rising = self.score[counted][::-1]
        below = np.searchsorted(rising, thresholds, side="left")  # those that do not reach the threshold
        right = self.right[0][counted][::-1]
        left_over = np.concatenate([np.cumsum(right[::-1])[::-1], [0]])[below]
        wrong = len(rising) - below - left_over
        missed = int(self.objects.sum()) - left_over
        return {
            "threshold": thresholds,
            "precision": share(left_over, left_over + wrong),
            "recall": share(left_over, left_over + missed),
            "f1": f1(left_over, wrong, missed),
        }

    def best_threshold(self) -> float:
        """The score k / STEPS with the best F1, within 0.01 .. 0.99; of equally good neighbours the middle one.

        The middle keeps the choice away from any detection's own score, which another runtime gives only to 1e-3.
        """
        margin = STEPS // 100
        scores = self.curve()["f1"][margin : STEPS - margin + 1]
        first = int(np.argmax(scores))
        worse = np.flatnonzero(scores[first:] < scores[first])
        last = first + (int(worse[0]) if len(worse) else len(scores) - first) - 1
        return (margin + (first + last) // 2) / STEPS

    def average_precision(self, times: np.ndarray) -> np.ndarray:
        """AP at each of `IOUS` when image i is counted `times[r, i]` times: float64 `[10, R]` from int64 `[R, images]`.

        It equals COCO's AP of a data set in which images are repeated, because precision read from the right is highest
        after the last of equal copies. Classes without object are left out of the mean; nan when there is none at all.
        """
        objects = times @ self.objects  # [R, classes]
        total = np.zeros((len(IOUS), len(times)))
        for label in np.flatnonzero(self.objects.sum(axis=0)):
            chosen = np.flatnonzero((self.label == label) & (self.rank < MOST))
            step = max(1, _LIMIT // max(1, len(chosen)))
            for start in range(0, len(times), step):
                part = slice(start, start + step)
                total[:, part] += self._class_precision(chosen, times[part], objects[part, label])
        present = (objects > 0).sum(axis=1)
        return np.divide(total, present, out=np.full_like(total, np.nan), where=present > 0)

    def _class_precision(self, chosen: np.ndarray, times: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """AP `[10, R]` of one class from its detections `chosen`; 0 where it has no object."""
        out = np.zeros((len(IOUS), len(times)))
        images = self.image[chosen]
        every = times[:, images].cumsum(axis=1)
        for level in range(len(IOUS)):
            right = np.flatnonzero(self.right[level, chosen])
            if not len(right):
                continue
            void = np.flatnonzero(self.void[level, chosen])
            before = np.searchsorted(void, right)
            skipped = np.concatenate([np.zeros((len(times), 1), int), times[:, images[void]].cumsum(axis=1)], axis=1)
            hits = times[:, images[right]].cumsum(axis=1)
            precision = hits / np.maximum(1, every[:, right] - skipped[:, before])
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(RECALLS, hits / np.maximum(1, objects)[:, None], side="right")
            out[level] = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
        return out * (objects > 0)


def match_all(records: Sequence[Record], found: Sequence[Detections], classes: int) -> Matches:
    """Match what was `found` in each record; scores must be falling within an image."""
    rows = [_image(record, one) for record, one in zip(records, found, strict=True)]
    objects = np.zeros((len(records), classes), np.int64)
    for number, record in enumerate(records):
        _, labels, crowd = boxes_of(record)
        objects[number] = np.bincount(labels[~crowd], minlength=classes)
    counts = [len(one.scores) for one in found]
    score = _joined([one.scores for one in found]).astype(np.float64)
    order = np.argsort(-score, kind="stable")
    label = _joined([one.labels for one in found]).astype(np.int64)
    return Matches(
        np.repeat(np.arange(len(found)), counts)[order],
        label[order],
        score[order],
        _joined([_rank(one.labels) for one in found]).astype(np.int64)[order],
        np.concatenate([np.zeros((len(IOUS), 0), bool), *(right for right, _ in rows)], axis=1)[:, order],
        np.concatenate([np.zeros((len(IOUS), 0), bool), *(void for _, void in rows)], axis=1)[:, order],
        objects,
    )


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU float64 `[D, G]` of boxes `[D, 4]` and `[G, 4]` (x1, y1, x2, y2); with a crowd, the share of the box inside it."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    return np.asarray(coco_mask.iou(sides(boxes), sides(others), crowd.astype(np.uint8)))


def pair(iou: np.ndarray, same: np.ndarray, crowd: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """COCO's greedy matching at several IoU thresholds.

    Args:
        iou: float64 `[D, G]`, detections in falling order of score. same: bool `[D, G]`, whether the classes agree.
        crowd: bool `[G]`. levels: float64 `[T]`.

    Returns:
        int64 `[T, D]`: the object each detection takes, -1 = none, -2 = none, but it lies in a crowd region. Each takes the
        free object of its class with the highest IoU (the later one of equals); crowd regions take any number.
    """
    levels = np.minimum(levels, 1 - 1e-10)  # as COCO: equal boxes count at threshold 1
    taken = np.full((len(levels), len(iou)), -1, np.int64)
    free = np.repeat(~crowd[None], len(levels), axis=0)
    usable = np.where(same, iou, -1.0)
    every = np.arange(len(levels))
    for d in np.flatnonzero((usable >= levels.min()).any(axis=1)):
        reached = usable[d] >= levels[:, None]
        candidates = np.where(reached & free, usable[d], -1.0)
        best = candidates.shape[1] - 1 - candidates[:, ::-1].argmax(axis=1)
        hit = candidates[every, best] >= 0
        taken[hit, d] = best[hit]
        free[every[hit], best[hit]] = False
        taken[~hit & (reached & crowd).any(axis=1), d] = -2
    return taken


def _image(record: Record, found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """right and void, each bool `[10, D]`, of one image."""
    boxes, labels, crowd = boxes_of(record)
    if not len(boxes):
        empty = np.zeros((len(IOUS), len(found.scores)), bool)
        return empty, empty
    taken = pair(overlaps(found.boxes, boxes, crowd), found.labels[:, None] == labels, crowd, IOUS)
    return taken >= 0, taken == -2


def _rank(labels: np.ndarray) -> np.ndarray:
    """How many earlier entries have the same label: int64 `[D]`."""
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    starts = np.searchsorted(ranked, ranked, side="left")
    out = np.empty(len(labels), np.int64)
    out[order] = np.arange(len(labels)) - starts
    return out


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)
