"""Measuring a detection model: COCO's twelve numbers, the confidence to use, intervals, and what kind of mistakes it makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segdet.data.records import Problem, Record
from segdet.errors import SegdetError
from segdet.evaluation import bootstrap, detection_errors
from segdet.evaluation.batch import AnyBatch
from segdet.evaluation.coco import RECALLS, CocoScores, Detections, official
from segdet.evaluation.matching import Matches, match_all
from segdet.evaluation.operating import DEFAULT, NEUTRAL, Rule
from segdet.evaluation.ratios import f1, precision, recall
from segdet.evaluation.tally import BoxTally

__all__ = ["DetectionEvaluation", "Detections", "evaluate_detections", "judge"]


@dataclass
class DetectionEvaluation:
    """What was found over a split: `kept` holds the detections of every image that could be read, by index. seconds: spent predicting."""

    classes: Sequence[str]
    records: Sequence[Record]
    indices: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    kept: dict[int, Detections] = field(default_factory=dict)
    seconds: float = 0.0
    _counted: tuple[CocoScores, Matches] | None = field(default=None, init=False, repr=False, compare=False)

    def add(self, index: int, found: Detections) -> None:
        """Add what was found in the image of record `index`; the order of equal scores is kept.

        Raises:
            SegdetError: a box or score that is no finite number.
        """
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
            raise SegdetError(
                f"{self.records[index].image}: the model answers with boxes or scores that are not finite numbers"
            )
        order = np.argsort(-found.scores, kind="stable")
        self.kept[index] = Detections(found.boxes[order], found.scores[order], found.labels[order])
        self.indices.append(index)
        self._counted = None

    def merge(self, others: Iterable[DetectionEvaluation]) -> DetectionEvaluation:
        """Add what other processes found."""
        for other in others:
            self.indices += other.indices
            self.problems += other.problems
            self.kept |= other.kept
            self.seconds += other.seconds
        self._counted = None
        return self

    def metrics(self, threshold: float | None = None) -> dict[str, Any]:
        """The twelve COCO numbers, and F1, precision and recall at IoU 0.5 over all classes together at `threshold`.

        Args:
            threshold: confidence from which a detection counts; None = the one with the best F1 on these very images.

        Returns:
            "threshold", "ap" ... "ar_large" (0..1, None where no such object is labelled), "f1", "precision", "recall" (None
            where no object is labelled at all).
        """
        scores, matches = self.counted()
        chosen = self.threshold(Rule()) if threshold is None else threshold
        counts, labelled = matches.at(chosen).sum(axis=0), bool(matches.objects.any())
        rates = {"f1": f1, "precision": precision, "recall": recall}
        return {
            "threshold": chosen,
            **scores.twelve,
            **{name: float(rate(*counts)) if labelled else None for name, rate in rates.items()},
        }

    def threshold(self, rule: Rule) -> float:
        """The confidence that `rule` chooses on these images, by precision and recall at IoU 0.5 over all classes together.

        Raises:
            SegdetError: nothing fulfils the rule.
        """
        matches = self.counted()[1]
        if not matches.objects.any() and rule.kind == DEFAULT:
            return NEUTRAL
        return rule.choose(matches.curve(), matches.best_threshold())

    def tally(self, threshold: float) -> BoxTally:
        """What every detection is worth, image by image in the order of the records."""
        records = [self.records[index] for index in sorted(self.indices)]
        names, photographs = [record.image.name for record in records], [record.photograph for record in records]
        place = np.argsort(np.argsort(self.indices, kind="stable"), kind="stable")  # of each image counted
        matches = self.counted()[1]
        ordered = replace(matches, image=place[matches.image], objects=matches.objects[np.argsort(place)])
        return BoxTally(list(self.classes), names, photographs, threshold, ordered)

    def per_class(self) -> dict[str, dict[str, Any]]:
        """ "ap" and "ap50" (None without object) and the number of "objects", by class."""
        scores, matches = self.counted()
        objects = matches.objects.sum(axis=0)
        return {
            name: {
                "ap": float(scores.precision[:, :, label].mean()) if objects[label] else None,
                "ap50": float(scores.precision[0, :, label].mean()) if objects[label] else None,
                "objects": int(objects[label]),
            }
            for label, name in enumerate(self.classes)
        }

    def f1_of_each(self, threshold: float) -> dict[int, float]:
        """F1 at IoU 0.5 of each image, by index of its record; nothing there and nothing found counts 1."""
        each = f1(*self.counted()[1].at(threshold).T)
        return dict(zip(self.indices, each.tolist(), strict=True))

    def curve(self) -> dict[str, Any]:
        """Precision at `recall` (float64 `[101]`), as COCO interpolates it, for classes that have objects.

        Returns:
            "recall"; "ap50" and "ap": the mean over classes at IoU 0.5 and over 0.5 .. 0.95; "classes": the curve at IoU
            0.5 by name; "pooled": precision, recall and F1 of all classes together against the confidence, at IoU 0.5.
        """
        scores, matches = self.counted()
        present = np.flatnonzero(matches.objects.sum(axis=0))
        precision = scores.precision[:, :, present]
        empty = np.zeros(len(RECALLS))
        return {
            "recall": RECALLS,
            "ap50": precision[0].mean(axis=1) if len(present) else empty,
            "ap": precision.mean(axis=(0, 2)) if len(present) else empty,
            "classes": {self.classes[int(label)]: scores.precision[0, :, label] for label in present},
            "pooled": matches.curve(),
        }

    def counted(self) -> tuple[CocoScores, Matches]:
        """The official scores and the matches behind everything else, counted once for what was added so far."""
        if self._counted is None:
            records = [self.records[index] for index in self.indices]
            found = [self.kept[index] for index in self.indices]
            classes = len(self.classes)
            self._counted = official(records, found, classes), match_all(records, found, classes)
        return self._counted


def evaluate_detections(
    predict: Callable[[AnyBatch], list[Detections]],
    batches: Iterable[AnyBatch],
    records: Sequence[Record],
    classes: Sequence[str],
    advance: Callable[[int], None] | None = None,
) -> DetectionEvaluation:
    """Collect what `predict` finds in all batches.

    Args:
        predict: gives one `Detections` for each of a batch's `indices`, in order.
        advance: called with the number of images after each batch.
    """
    result = DetectionEvaluation(classes, records)
    for batch in batches:
        result.problems += batch.problems
        if batch.indices:
            began = time.perf_counter()
            answers = predict(batch)
            result.seconds += time.perf_counter() - began
            for index, found in zip(batch.indices, answers, strict=True):
                result.add(index, found)
        if advance is not None:
            advance(len(batch.indices) + len(batch.problems))
    return result


@dataclass(frozen=True)
class Judged:
    """A finished measurement: the content of `metrics.json`, and what every detection is worth."""

    metrics: dict[str, Any]
    tally: BoxTally


def judge(result: DetectionEvaluation, split: str, rule: Rule | None = None, threshold: float | None = None) -> Judged:
    """Everything that is measured.

    Args:
        rule: how the threshold is chosen on these very images (right for validation data only).
        threshold: to be used instead.

    Raises:
        SegdetError: no image could be read, or no threshold fulfils the rule.
    """
    if not result.indices:
        raise SegdetError(
            f"{split}: none of its {len(result.records)} images could be read (first: {result.problems[0]})"
        )
    rule = rule or Rule()
    metrics = result.metrics(result.threshold(rule) if threshold is None else threshold)
    chosen = metrics["threshold"]
    errors = detection_errors.count(
        [result.records[index] for index in result.indices], [result.kept[index] for index in result.indices], chosen
    )
    tally = result.tally(chosen)
    return Judged(
        {
            "task": "detection",
            "split": split,
            "images": len(result.indices),
            "skipped": len(result.problems),
            "labelled_images": int(tally.labelled.any(axis=1).sum()),
            "operate": str(rule) if tally.labelled.any() else None,
            **metrics,
            "ci95": bootstrap.intervals(tally),
            "classes": result.per_class(),
            "errors": errors,
        },
        tally,
    )
