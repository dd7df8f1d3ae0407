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
from segdet.evaluation.bootstrap import drawn
from segdet.evaluation.detection import DetectionEvaluation, Detections
from segdet.evaluation.matching import overlaps
from segdet.evaluation.tally import BoxTally
from segdet.exporting.parity import UNJUDGED, both_sides, readable, sides
from segdet.inference.backends.session import Session

_APART = 1e4  # cost of pairing boxes of different classes, or far over the limits
_BOX, _SCORE = 0.5, 1e-3  # units in which gaps are compared: pixels, and score


@dataclass(frozen=True)
class DetectionLimits:
    """What a file may differ by. None: measured, but not bounded.

    box: pixels by which a corner may move, and every detection must have a partner. score: change of a score. loss: of AP,
    downwards. agreement: share of the detections shown (on either side) that the other side finds too.
    """

    box: float | None = 0.5
    score: float | None = 1e-3
    loss: float | None = None
    agreement: float | None = None


# fp32 is the contract's; the others as for masks.
DETECTION_LIMITS = {
    "fp32": DetectionLimits(),
    "fp16": DetectionLimits(box=None, score=None, loss=0.005, agreement=0.95),
    "int8": DetectionLimits(box=None, score=None, loss=0.01, agreement=0.8),
}


def compare_detections(
    predict_torch: Callable[[np.ndarray], Detections],
    session: Session,
    records: Sequence[Record],
    limits: DetectionLimits,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Run both on every record: the content of `<name>.parity.json`.

    Detections count from a score of 0.05, or half the stored threshold where that is lower, on either side: what is
    below is never shown.

    Args:
        predict_torch: answers for one RGB uint8 image `[H, W, 3]`.

    Raises:
        SegdetError: no image could be read.
    """
    threshold = session.metadata.decision_threshold
    floor = min(0.05, 0.5 * threshold)
    scores = [DetectionEvaluation(session.metadata.classes, records) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for index, record, image in readable(records, skipped, advance):
        theirs = predict_torch(image)
        ours = Detections(*(output[0] for output in session.run(image[None])))
        for score, found in zip(scores, (theirs, ours), strict=True):
            score.add(index, found)
        shown = [_found_again(a, b, threshold) for a, b in ((theirs, ours), (ours, theirs))]
        rows.append(
            {
                "image": record.image.name,
                "index": index,
                **_difference(theirs, ours, floor, limits),
                "shown": sum(count for _, count in shown),
                "shown_by_both": sum(again for again, _ in shown),
            }
        )
    rows.sort(key=lambda row: (-row["unmatched"], -row["box"] / _BOX - row["score"] / _SCORE))
    shown_at_all = sum(row["shown"] for row in rows)
    compared = {
        **sides(session),
        "compared": len(rows),
        "skipped": skipped,
        "from_score": floor,
        "detections": sum(row["detections"] for row in rows),
        "unmatched": sum(row["unmatched"] for row in rows),
        "max_box_difference": max(row["box"] for row in rows),
        "max_score_difference": max(row["score"] for row in rows),
        "agreement": sum(row["shown_by_both"] for row in rows) / shown_at_all if shown_at_all else 1.0,
        **_metrics(*scores),
        "limits": asdict(limits),
    }
    return {
        **compared,
        "passed": not broken(compared),
        "worst": rows[:5],
        "images": sorted(rows, key=lambda row: row["image"]),
    }


def broken(compared: dict[str, Any]) -> list[str]:
    """Names of the limits that a comparison of boxes does not keep."""
    limits = DetectionLimits(**compared["limits"])
    delta = compared["ap"]["delta"]
    tests = {
        "box": limits.box is not None and (compared["unmatched"] > 0 or compared["max_box_difference"] > limits.box),
        "score": limits.score is not None and compared["max_score_difference"] > limits.score,
        "loss": limits.loss is not None and delta is not None and not -delta <= limits.loss,
        "agreement": limits.agreement is not None and not compared["agreement"] >= limits.agreement,
    }
    return [name for name, failed in tests.items() if failed]


def sentence(compared: dict[str, Any]) -> str:
    """The comparison in one line."""
    limits, ap = DetectionLimits(**compared["limits"]), compared["ap"]
    changed = f"; {UNJUDGED.format('AP')}"
    if ap["delta"] is not None:
        low, high = ap["ci95"]
        bound = "" if limits.loss is None else f" (limit {-limits.loss:g})"
        changed = f", AP changes by {ap['delta']:+.5f}{bound}, 95 % between {low:+.5f} and {high:+.5f},"
    if limits.box is None:
        least = "" if limits.agreement is None else f" (at least {limits.agreement:.0%})"
        how = f"{compared['agreement']:.2%} of the boxes shown are shown by both{least}"
    else:
        score = "" if limits.score is None else f" (limit {limits.score})"
        how = (
            f"{compared['unmatched']} of {compared['detections']} detections have no partner, boxes differ by at most "
            f"{compared['max_box_difference']:.3f} px (limit {limits.box}), scores by {compared['max_score_difference']:.1e}{score}"
        )
    return f"{how}{changed} on {compared['compared']} images"


def _metrics(before: DetectionEvaluation, after: DetectionEvaluation) -> dict[str, Any]:
    """AP and AP50 of both sides, and the change with its paired bootstrap interval over photographs."""
    photographs = [before.records[index].photograph for index in before.indices]
    times = drawn(photographs, BoxTally.rounds)
    samples = [side.counted()[1].average_precision(times) for side in (before, after)]
    deltas = samples[1] - samples[0]
    theirs, ours = (side.counted()[0].twelve for side in (before, after))
    out = {}
    for name, change in (("ap", deltas.mean(axis=0)), ("ap50", deltas[0])):
        out[name] = both_sides(theirs[name], ours[name], change[np.isfinite(change)])
    return out


def _found_again(ours: Detections, theirs: Detections, threshold: float) -> tuple[int, int]:
    """How many of our detections from `threshold` on the other side finds (IoU 0.5, half the threshold), and how many there are."""
    shown, there = ours.scores >= threshold, theirs.scores >= 0.5 * threshold
    count = int(shown.sum())
    if not count or not there.any():
        return 0, count
    iou = overlaps(ours.boxes[shown], theirs.boxes[there], np.zeros(int(there.sum()), bool))
    same = ours.labels[shown][:, None] == theirs.labels[there]
    rows, columns = linear_sum_assignment(-(iou * same))
    return int(((iou * same)[rows, columns] >= 0.5).sum()), count


def _difference(theirs: Detections, ours: Detections, floor: float, limits: DetectionLimits) -> dict[str, Any]:
    """How far the two sets are apart: "detections" that count, those "unmatched", and the largest "box" and "score" gaps.

    Pairs are those with the smallest sum of gaps in units of the limits (Hungarian method; those of fp32 where there are
    none); what has no partner of its class within ten units of both is unmatched. A partner may itself lie below the floor.
    """
    unit_box, unit_score = limits.box or _BOX, limits.score or _SCORE
    counts_a, counts_b = theirs.scores > floor, ours.scores > floor
    matters = counts_a[:, None] | counts_b
    box = np.abs(theirs.boxes[:, None].astype(np.float64) - ours.boxes).max(axis=2, initial=0.0)
    score = np.abs(theirs.scores[:, None].astype(np.float64) - ours.scores)
    gap = np.maximum(box / unit_box, score / unit_score)
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
