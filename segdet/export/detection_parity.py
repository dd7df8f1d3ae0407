"""Does the exported detector find the same boxes as the model it came from? Compared as sets, image by image.

Queries whose scores are equal to the last digit may change places between runtimes, so boxes are compared with their best
partners, not by position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from segdet.data.records import Record
from segdet.evaluation.detection import DetectionEvaluation, Detections
from segdet.export.parity import readable, sides
from segdet.inference.session import Session

_APART = 1e4  # cost of pairing boxes of different classes, or far over the limits


@dataclass(frozen=True)
class DetectionLimits:
    """Bounds for fp32 (DESIGN 4): pixels by which a corner may move, and change of a score."""

    box: float = 0.5
    score: float = 1e-3


def compare_detections(
    predict_torch: Callable[[np.ndarray], Detections],
    session: Session,
    records: Sequence[Record],
    limits: DetectionLimits,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Run both on every record: the content of `<name>.parity.json`.

    Detections count from a score of 0.05, or half the stored threshold where that is lower, on either side: what lies
    below is shown to nobody.

    Args:
        predict_torch: answers for one RGB uint8 image `[H, W, 3]`.

    Raises:
        SegdetError: no image could be read.
    """
    threshold = session.metadata.threshold
    floor = min(0.05, 0.5 * (0.5 if threshold is None else threshold))
    scores = [DetectionEvaluation(session.metadata.classes, records) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    index = {id(record): number for number, record in enumerate(records)}
    for record, image in readable(records, skipped, advance):
        theirs = predict_torch(image)
        ours = Detections(*(output[0] for output in session.run(image[None])))
        for score, found in zip(scores, (theirs, ours), strict=True):
            score.add(index[id(record)], found)
        rows.append({"image": record.image.name, **_difference(theirs, ours, floor, limits)})
    rows.sort(key=lambda row: (-row["unmatched"], -row["box"] / limits.box - row["score"] / limits.score))
    before, after = (score.metrics() for score in scores)
    worst = {name: max(row[name] for row in rows) for name in ("box", "score")}
    unmatched = sum(row["unmatched"] for row in rows)
    return {
        **sides(session),
        "compared": len(rows),
        "skipped": skipped,
        "from_score": floor,
        "detections": sum(row["detections"] for row in rows),
        "unmatched": unmatched,
        "max_box_difference": worst["box"],
        "max_score_difference": worst["score"],
        **{name: _both(before[name], after[name]) for name in ("ap", "ap50")},
        "limits": asdict(limits),
        "passed": bool(not unmatched and worst["box"] <= limits.box and worst["score"] <= limits.score),
        "worst": rows[:5],
        "images": sorted(rows, key=lambda row: row["image"]),
    }


def sentence(compared: dict[str, Any]) -> str:
    """The comparison in one line."""
    ap = compared["ap"]["delta"]
    changed = f", AP changes by {ap:+.5f}" if ap is not None else ""
    return (
        f"{compared['unmatched']} of {compared['detections']} detections have no partner, boxes differ by at most "
        f"{compared['max_box_difference']:.3f} px (limit {compared['limits']['box']}), scores by "
        f"{compared['max_score_difference']:.1e} (limit {compared['limits']['score']}){changed}, on {compared['compared']} images"
    )


def _difference(theirs: Detections, ours: Detections, floor: float, limits: DetectionLimits) -> dict[str, Any]:
    """How far the two sets are apart: "detections" that count, those "unmatched", and the largest "box" and "score" gaps.

    Pairs are those with the smallest sum of gaps in units of the limits (Hungarian method); what has no partner of its
    class within ten times both limits is unmatched. A partner may itself lie below the floor.
    """
    counts_a, counts_b = theirs.scores > floor, ours.scores > floor
    matters = counts_a[:, None] | counts_b
    box = np.abs(theirs.boxes[:, None].astype(np.float64) - ours.boxes).max(axis=2, initial=0.0)
    score = np.abs(theirs.scores[:, None].astype(np.float64) - ours.scores)
    gap = np.maximum(box / limits.box, score / limits.score)
    apart = (theirs.labels[:, None] != ours.labels) | (gap > 10)
    rows, columns = linear_sum_assignment(np.where(matters, np.where(apart, _APART, gap), 0.0))
    paired = matters[rows, columns] & ~apart[rows, columns]
    rows, columns = rows[paired], columns[paired]
    alone = int(counts_a.sum() - counts_a[rows].sum()) + int(counts_b.sum() - counts_b[columns].sum())
    return {
        "detections": int(max(counts_a.sum(), counts_b.sum())),
        "unmatched": alone,
        "box": float(box[rows, columns].max(initial=0.0)),
        "score": float(score[rows, columns].max(initial=0.0)),
    }


def _both(before: float | None, after: float | None) -> dict[str, float | None]:
    delta = None if before is None or after is None else after - before
    return {"torch": before, "onnx": after, "delta": delta}
