"""Comparing tallies on the same images, and summing up folds: the numbers and the sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segdet.errors import InputError, setting
from segdet.evaluation import bootstrap
from segdet.evaluation.bootstrap import Difference
from segdet.evaluation.tally import MaskTally, Tally

# How scores are spoken of.
TITLES = {
    "ap": "AP", "ap50": "AP50",
    "iou": "IoU", "f1": "F1", "precision": "precision", "recall": "recall", "f1_2px": "F1 within 2 px",
    "cldice": "centre-line Dice", "boundary_iou": "boundary IoU", "iou_per_image": "IoU per image", "f1_per_image": "F1 per image",
}  # fmt: skip


def check_alike(tallies: Mapping[str, Tally]) -> None:
    """Check that all were measured on the same images with the same labels.

    Raises:
        InputError: two that were not, by name.
    """
    (first, one), *others = tallies.items()
    for name, other in others:
        if list(one.images) != list(other.images) or not np.array_equal(one.labelled, other.labelled):
            raise InputError(
                f"{first} and {name} were not measured on the same images with the same labels; choose images with "
                f"{setting('data', 'NAME|FOLDER')} (or use {setting('folds')} for the folds of one dataset)"
            )


def pairs(tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """Differences of every two, the better one (by the main score) first: "first", "second", "scores", "sentence"."""
    order = ranked(tallies)
    rows = []
    for i, first in enumerate(order):
        for second in order[i + 1 :]:
            found = bootstrap.differences(tallies[first], tallies[second])
            main = tallies[first].main
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "scores": {name: _plain(one) for name, one in found.items()},
                    "sentence": sentence(first, second, main, found.get(main)),
                }
            )
    return rows


def ranked(tallies: Mapping[str, Tally]) -> list[str]:
    """Names, the best main score first."""

    def score(name: str) -> float:
        value = float(tallies[name].scores()[tallies[name].main][0])
        return value if np.isfinite(value) else -1.0

    return sorted(tallies, key=lambda name: -score(name))


def sentence(first: str, second: str, score: str, difference: Difference | None) -> str:
    """What a difference means, in words; points are hundredths of the score."""
    what = f"{TITLES.get(score, score)} points"
    if difference is None:
        return f"{first} and {second} cannot be compared: no object is labelled in these images"
    if difference.same:
        return f"no difference between {first} and {second}: they score the same whichever images are drawn"
    value, low, high = (100 * v for v in (difference.value, difference.low, difference.high))
    if difference.certain:
        better, worse = (first, second) if value > 0 else (second, first)
        low, high = (low, high) if value > 0 else (-high, -low)
        return f"{better} is better than {worse} by {abs(value):.1f} {what} (95 % CI {low:.1f} to {high:.1f})"
    return f"these images show no difference between {first} and {second}: {value:+.1f} {what} (95 % CI {low:.1f} to {high:.1f})"


def joined(parts: Sequence[MaskTally]) -> MaskTally:
    """Folds as one measurement: every image once, marked by a model that has not seen it; sorted by name."""
    names = [name for part in parts for name in part.images]
    order = np.argsort(np.array(names), kind="stable")
    photographs = [name for part in parts for name in part.photographs]
    return MaskTally(
        parts[0].classes,
        [names[k] for k in order],
        [photographs[k] for k in order],
        None,
        np.concatenate([part.pixels for part in parts])[order],
        np.concatenate([part.counts for part in parts])[order],
    )


def summary(folds: Mapping[str, Tally]) -> dict[str, Any]:
    """Scores over folds.

    Returns:
        "folds": scores by fold; "spread": mean, sd, min and max by score; "pooled" and "ci95": of all images together (masks
        only: detectors' confidences of different folds do not compare), each photograph marked by a model that has not seen it.
    """
    scores = {name: {key: float(value[0]) for key, value in tally.scores().items()} for name, tally in folds.items()}
    keys = list(next(iter(scores.values())))
    out: dict[str, Any] = {
        "folds": {name: {key: _finite(row[key]) for key in keys} for name, row in scores.items()},
        "spread": {
            key: bootstrap.spread(values)
            for key in keys
            if len(values := [row[key] for row in scores.values() if np.isfinite(row[key])])
        },
    }
    masks = [tally for tally in folds.values() if isinstance(tally, MaskTally)]
    if masks:
        whole = joined(masks)
        out["pooled"] = {key: float(value[0]) for key, value in whole.scores().items()}
        out["ci95"] = bootstrap.intervals(whole)
    return out


def _plain(one: Difference) -> dict[str, Any]:
    verdict = "same" if one.same else "different" if one.certain else "not shown"
    return {"value": one.value, "low": one.low, "high": one.high, "verdict": verdict}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
