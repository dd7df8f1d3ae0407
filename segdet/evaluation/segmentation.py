"""Measuring a segmentation model by the protocol of DESIGN 5: at the images' own resolution, on one rasterisation."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segdet.data import rasterize
from segdet.data.batches import Batch
from segdet.data.records import Problem, Record
from segdet.errors import SegdetError
from segdet.evaluation import thin
from segdet.evaluation.binary import BINS, BinaryScores, binned, histogram
from segdet.evaluation.multiclass import ClassScores, confusion

# uint8 images [N, H, W, 3] -> one class: float32 probabilities [N, H, W]; several: uint8 class indices [N, H, W].
Predict = Callable[[Batch], np.ndarray]


@dataclass
class Evaluation:
    """What was counted over a split: `scores` has one entry per image that could be read."""

    classes: Sequence[str]
    binary: BinaryScores
    multi: ClassScores
    indices: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    kept: dict[int, tuple[np.dtype[Any], tuple[int, ...], bytes]] = field(default_factory=dict)

    @property
    def one_class(self) -> bool:
        """Whether there is one foreground class (probabilities) rather than several (class indices)."""
        return len(self.classes) == 1

    def metrics(self, threshold: float | None = None) -> dict[str, Any]:
        """The scores at `threshold` (default: the one with the best pooled F1), without the thin-structure ones."""
        if not self.one_class:
            return {"threshold": None, **self.multi.scores()}
        chosen = self.binary.best_threshold() if threshold is None else threshold
        return {"threshold": chosen, **self.binary.at(chosen)}

    def iou_of_each(self, threshold: float | None) -> dict[int, float]:
        """IoU by index of the record."""
        each = self.multi.iou_of_each() if threshold is None else self.binary.iou_of_each(threshold)
        return dict(zip(self.indices, each.tolist(), strict=True))

    def mask(self, index: int, threshold: float | None) -> np.ndarray:
        """The kept prediction for a record: class indices, uint8 `[H, W]`, 0 = background."""
        dtype, shape, packed = self.kept[index]
        answer = np.frombuffer(zlib.decompress(packed), dtype).reshape(shape)
        return answer if threshold is None else (answer >= round(threshold * BINS)).astype(np.uint8)

    def merge(self, others: Iterable[Evaluation]) -> Evaluation:
        """Add what other processes counted."""
        for other in others:
            for on, off, photograph in zip(other.binary.on, other.binary.off, other.binary.photographs, strict=True):
                self.binary.add(on, off, photograph)
            for matrix, photograph in zip(other.multi.matrices, other.multi.photographs, strict=True):
                self.multi.add(matrix, photograph)
            self.indices += other.indices
            self.problems += other.problems
            self.kept |= other.kept
        return self


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
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
    result = Evaluation(classes, BinaryScores(), ClassScores(classes))
    for batch in batches:
        result.problems += batch.problems
        if batch.indices:
            answers = predict(batch)
            for answer, target, index in zip(answers, batch.targets.numpy(), batch.indices, strict=True):
                photograph = records[index].photograph
                if result.one_class:
                    answer = binned(answer)
                    result.binary.add(*histogram(answer, rasterize.binary(target)), photograph)
                else:
                    result.multi.add(confusion(answer, target, len(classes)), photograph)
                result.indices.append(index)
                if keep:
                    result.kept[index] = (answer.dtype, answer.shape, zlib.compress(answer.tobytes(), 1))
        if advance is not None:
            advance(len(batch.indices) + len(batch.problems))
    return result


def full_metrics(
    result: Evaluation, records: Sequence[Record], split: str, threshold: float | None = None
) -> dict[str, Any]:
    """The content of `metrics.json` from an evaluation that kept its predictions.

    Args:
        threshold: None chooses the one with the best F1 on these very images (right for validation data only).

    Raises:
        SegdetError: no image could be read.
    """
    if not result.indices:
        raise SegdetError(f"{split}: none of its {len(records)} images could be read (first: {result.problems[0]})")
    metrics: dict[str, Any] = {
        "task": "segmentation",
        "split": split,
        "images": len(result.indices),
        "skipped": len(result.problems),
        "rasterizer": rasterize.NAME,
        **result.metrics(threshold),
    }
    if result.one_class:
        total = np.zeros((len(thin.NAMES), 4), np.int64)
        for index in result.indices:
            target = rasterize.binary(rasterize.foreground(records[index]))
            total += thin.counts(result.mask(index, metrics["threshold"]) > 0, target)
        metrics |= thin.scores(total)
        metrics["classes"] = {result.classes[0]: {key: metrics[key] for key in ("iou", "f1", "precision", "recall")}}
    return metrics
