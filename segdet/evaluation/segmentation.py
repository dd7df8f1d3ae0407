"""Measuring a segmentation model by the protocol of docs/contract.md: at the images' own resolution, on one rasterisation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from segdet.data.geometry import rasterize
from segdet.data.records import Problem, Record
from segdet.errors import InvalidOption, SegdetError
from segdet.evaluation import bootstrap, mask_errors, thin
from segdet.evaluation.batch import AnyLabelled
from segdet.evaluation.binary import BINS, BinaryScores, binned, histogram
from segdet.evaluation.calibration import Calibration
from segdet.evaluation.kept import Kept
from segdet.evaluation.label_width import LabelWidths, label_widths
from segdet.evaluation.mask_errors import MaskError
from segdet.evaluation.multiclass import binary_matrix, confusion, counts_of
from segdet.evaluation.operating import DEFAULT, NEUTRAL, Rule
from segdet.evaluation.tally import MaskTally
from segdet.machine import cores

# One class: float32 probabilities [N, H, W]. Several: uint8 class indices [N, H, W], alone or with their float32 confidence.
Answer: TypeAlias = np.ndarray | tuple[np.ndarray, np.ndarray]

_CURVE = 100  # steps of the curve in metrics.json
_AT_A_TIME = 2  # images examined at once, each with about 25 bytes a pixel


@dataclass
class Evaluation:
    """What was counted over a split: one entry per image that could be read, in the order of `indices` (of records).

    counts: of each image int64 `[classes, 3]`, for several classes. matrix: their confusion matrix `[K + 1, K + 1]`.
    kept: predictions by index, for `mask`; what other processes keep is not merged. seconds: spent predicting.
    """

    classes: Sequence[str]
    records: Sequence[Record]
    binary: BinaryScores = field(default_factory=BinaryScores)
    counts: list[np.ndarray] = field(default_factory=list)
    matrix: np.ndarray = field(default_factory=lambda: np.zeros((1, 1), np.int64))
    calibration: Calibration = field(default_factory=Calibration)
    indices: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)
    seconds: float = 0.0

    @property
    def one_class(self) -> bool:
        """Whether there is one foreground class (probabilities) rather than several (class indices)."""
        return len(self.classes) == 1

    def add(
        self, index: int, answer: np.ndarray, target: np.ndarray, confidence: np.ndarray | None, keep: bool
    ) -> None:
        """Count one image: `answer` as in `Answer`, `target` uint8 `[H, W]`."""
        if self.one_class:
            labelled = rasterize.binary(target)
            self.calibration.add(answer, labelled)
            answer = binned(answer)
            self.binary.add(*histogram(answer, labelled))
        else:
            found = confusion(answer, target, len(self.classes))
            self.counts.append(counts_of(found[None])[0])
            self.matrix = self.matrix + found
            if confidence is not None:
                known = target != rasterize.IGNORE
                self.calibration.add(confidence[known], (answer == target)[known])
        self.indices.append(index)
        if keep:
            self.kept.put(index, answer)

    def threshold(self, rule: Rule) -> float | None:
        """The threshold that `rule` chooses on these images; None with several classes.

        Raises:
            InvalidOption: a rule for a model that has no threshold. SegdetError: nothing fulfils the rule.
        """
        if self.one_class:
            if not self.binary.labelled and rule.kind == DEFAULT:
                return NEUTRAL
            return rule.choose(self.binary.curve(), self.binary.best_threshold())
        if rule.kind != DEFAULT:
            reason = "a model of several classes takes the most probable class and has no threshold"
            raise InvalidOption("threshold_rule", rule, reason)
        return None

    def tally(self, threshold: float | None) -> MaskTally:
        """Hits, extra and missed pixels of every image, in the order of the records."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.array(self.counts) if threshold is None else self.binary.counts(threshold)[:, None]
        chosen = [self.records[self.indices[k]] for k in order]
        return MaskTally(
            list(self.classes),
            [record.image.name for record in chosen],
            [record.photograph for record in chosen],
            threshold,
            np.array([record.width * record.height for record in chosen]),
            counts[order],
        )

    def metrics(self) -> dict[str, Any]:
        """Scores at the threshold with the best pooled F1, as training shows them after every epoch; None without any object."""
        threshold = self.threshold(Rule())
        tally = self.tally(threshold)
        return {"threshold": threshold, **_numbers(tally), "ci95": bootstrap.intervals(tally)}

    def iou_of_each(self, threshold: float | None) -> dict[int, float]:
        """IoU by index of the record."""
        return dict(zip(sorted(self.indices), self.tally(threshold).of_each().tolist(), strict=True))

    def mask(self, index: int, threshold: float | None) -> np.ndarray:
        """The kept prediction for a record: class indices, uint8 `[H, W]`, 0 = background."""
        answer = self.kept.get(index)
        return answer if threshold is None else (answer >= round(threshold * BINS)).astype(np.uint8)

    def label_widths(self, threshold: float | None, errors: Iterable[MaskError]) -> LabelWidths:
        """How wide the labels are against what is marked, given all errors."""
        return label_widths(self.tally(threshold), sorted(self.indices), errors)

    def merge(self, others: Iterable[Evaluation]) -> Evaluation:
        """Add what other processes counted."""
        for other in others:
            self.binary.on += other.binary.on
            self.binary.off += other.binary.off
            self.counts += other.counts
            self.matrix = self.matrix + other.matrix
            self.calibration.merge(other.calibration)
            self.indices += other.indices
            self.problems += other.problems
            self.seconds += other.seconds
        return self


@dataclass(frozen=True)
class Judged:
    """A finished measurement: the content of `metrics.json`, what was counted, and every error."""

    metrics: dict[str, Any]
    tally: MaskTally
    errors: list[MaskError]


def evaluate(
    predict: Callable[[AnyLabelled], Answer],
    batches: Iterable[AnyLabelled],
    records: Sequence[Record],
    classes: Sequence[str],
    advance: Callable[[int], None] | None = None,
    keep: bool = False,
) -> Evaluation:
    """Count predictions against targets over all batches.

    Args:
        advance: called with the number of images after each batch.
        keep: also keep every prediction, compressed, for `Evaluation.mask`.
    """
    result = Evaluation(classes, records)
    for batch in batches:
        result.problems += batch.problems
        if batch.indices:
            began = time.perf_counter()
            answers = predict(batch)
            result.seconds += time.perf_counter() - began
            masks, confidence = answers if isinstance(answers, tuple) else (answers, None)
            targets = batch.targets.numpy()
            for k, index in enumerate(batch.indices):
                result.add(index, masks[k], targets[k], None if confidence is None else confidence[k], keep)
        if advance is not None:
            advance(len(batch.indices) + len(batch.problems))
    return result


def judge(result: Evaluation, split: str, rule: Rule | None = None, threshold: float | None = None) -> Judged:
    """Everything that is measured, from an evaluation that kept its predictions.

    Args:
        rule: how the threshold is chosen on these very images (right for validation data only).
        threshold: to be used instead.

    Raises:
        SegdetError: no image could be read, or none of its thresholds fulfils the rule.
    """
    if not result.indices:
        raise SegdetError(
            f"{split}: none of its {len(result.records)} images could be read (first: {result.problems[0]})"
        )
    rule = rule or Rule()
    if threshold is None:
        threshold = result.threshold(rule)
    tally, errors, moved = _examine(result, threshold)
    metrics: dict[str, Any] = {
        "task": "segmentation",
        "split": split,
        "images": len(result.indices),
        "skipped": len(result.problems),
        "labelled_images": int((tally.labelled.sum(axis=1) > 0).sum()),
        "rasterizer": rasterize.NAME,
        "threshold": threshold,
        "operate": str(rule) if threshold is not None and tally.labelled.any() else None,
        **_numbers(tally),
    }
    pooled = tally.counts.sum(axis=0)
    if result.one_class:
        metrics["average_precision"] = result.binary.average_precision()
        metrics["oracle"] = result.binary.oracle() if result.binary.labelled else {"ods": None, "ois": None}
        matrix = binary_matrix(pooled[0, :3], int(tally.pixels.sum()))
        metrics["curve"] = _thinned(result.binary.curve())
    else:
        matrix = result.matrix
        metrics["miou"] = metrics["iou"]
        metrics["pixel_accuracy"] = float(np.trace(matrix) / max(1, matrix.sum()))
    return Judged(
        metrics
        | {
            "ci95": bootstrap.intervals(tally),
            "shifted_labels": {name: _finite(moved.scores()[name][0]) for name in ("iou", "f1", "f1_2px")},
            "negatives": tally.negatives(),
            "calibration": result.calibration.result(),
            "errors": mask_errors.summary(errors),
            "label_width": result.label_widths(threshold, errors).summary(),
            "classes": tally.per_class(),
            "confusion": {"labels": ["background", *result.classes], "matrix": matrix.tolist()},
        },
        tally,
        errors,
    )


def _examine(result: Evaluation, threshold: float | None) -> tuple[MaskTally, list[MaskError], MaskTally]:
    """A second look at every mask.

    Returns:
        The tally with what is judged about thin structures, all errors, and the tally of the labels against themselves, moved
        by one pixel to the right and down: a yardstick for scores that depend on where an edge was drawn.
    """
    tally = result.tally(threshold)
    more = np.zeros((*tally.counts.shape[:2], len(thin.NAMES) * 4), np.int64)
    moved = np.zeros((*tally.counts.shape[:2], 3 + len(thin.NAMES) * 4), np.int64)
    pixels, errors = tally.pixels.copy(), list[MaskError]()

    def look(row: int, index: int) -> list[MaskError]:
        predicted = result.mask(index, threshold)
        target = true_mask(result.records[index], result.one_class)
        known = target != rasterize.IGNORE
        pixels[row] = known.sum()
        seen: list[MaskError] = []
        for label in np.flatnonzero(tally.counts[row].sum(axis=1)):
            # What is ignored is taken out of both masks: it counts neither for nor against.
            marked, labelled = (predicted == label + 1) & known, target == label + 1
            lines = thin.centre_line(marked), thin.centre_line(labelled)
            more[row, label] = thin.counts(marked, labelled, lines).ravel()
            seen += mask_errors.find(marked, labelled, lines, index, int(label))
            moved[row, label] = _moved(labelled)
        return seen

    pool = ThreadPoolExecutor(min(_AT_A_TIME, cores()))
    try:
        for found in pool.map(look, itertools.count(), sorted(result.indices)):
            errors += found
    finally:
        pool.shutdown(cancel_futures=True)
    names = tally.classes, tally.images, tally.photographs, threshold, pixels
    return MaskTally(*names, np.concatenate([tally.counts, more], axis=2)), errors, MaskTally(*names, moved)


def _moved(labelled: np.ndarray) -> np.ndarray:
    """Counts int64 `[15]` of a mask that is moved by one pixel against itself; centre lines are not looked at."""
    shifted = np.zeros_like(labelled)
    shifted[1:, 1:] = labelled[:-1, :-1]
    hit = int((shifted & labelled).sum())
    nothing = np.zeros_like(labelled)
    counts = thin.counts(shifted, labelled, (nothing, nothing)).ravel()
    return np.array([hit, int(shifted.sum()) - hit, int(labelled.sum()) - hit, *counts])


def true_mask(record: Record, one_class: bool) -> np.ndarray:
    """The labels of a record as class indices, uint8 `[H, W]`: 0 = background, 255 = ignored (never with one class)."""
    if one_class:
        return rasterize.binary(rasterize.foreground(record)).astype(np.uint8)
    return rasterize.class_index(record)


def _numbers(tally: MaskTally) -> dict[str, float | None]:
    """The scores in the order in which they are shown; None where nothing is labelled."""
    scores = {name: _finite(value[0]) for name, value in tally.scores().items()}
    order = ("iou", "f1", "precision", "recall", "iou_per_image", "f1_per_image", *thin.NAMES)
    return {name: scores[name] for name in order if name in scores}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _thinned(curve: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """The curve at thresholds 0, 0.01, ... 0.99, four digits: enough to draw it again."""
    return {name: [round(float(v), 4) for v in values[:: BINS // _CURVE]] for name, values in curve.items()}
