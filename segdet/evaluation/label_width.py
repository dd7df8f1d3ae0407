"""Were the labels drawn alike? How wide they are against what is marked, image by image, in the order of the file names.

Sets are labelled in batches and by several people: one keeps to the edge of a crack, another leaves a margin. Names usually follow the
batches, so where neighbours agree with each other and not with the rest, it is the hand that labelled, and no network can learn it
from the photograph. What is missed or invented altogether is left out first: only the width of what both see is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from segdet.evaluation.mask_errors import MaskError
from segdet.evaluation.tally import MaskTally

LEAST = 24  # photographs from which anything is said
_PIXELS = 60  # an area below which a ratio says nothing
_EACH_SIDE = 4  # neighbours in the order of names
_SHUFFLES = 499
_FACTORS = np.exp(np.linspace(-1, 1, 81))


@dataclass(frozen=True)
class LabelWidths:
    """Photographs whose objects are found, in the natural order of their names (img2 before img10).

    labelled, marked: pixels of what is found, int64 `[N]`.
    """

    names: Sequence[str]
    labelled: np.ndarray
    marked: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """How many times as wide (for compact objects: as large) the labels are as what is marked, float64 `[N]`."""
        return np.asarray(self.labelled / self.marked)

    def around(self) -> np.ndarray:
        """Median ratio of the eight photographs nearest to each one in the order, itself left out: float64 `[N]`, N of 9 or more."""
        return np.exp(_around(np.log(self.ratios)))

    def summary(self) -> dict[str, Any] | None:
        """What `metrics.json` holds; None for fewer than 24 photographs.

        Returns:
            "photographs"; "quartiles" of the ratios; "neighbours": correlation of a (logarithmic) ratio with those around it; "chance": how
            often shuffled names agree as well; "iou_width_alone": pooled IoU if every image had the right shape everywhere, in the one
            width that fits the labels of all best.
        """
        if len(self.names) < LEAST:
            return None
        ratios = np.log(self.ratios)
        found = _agreement(ratios)
        rng = np.random.default_rng(0)
        shuffled = [_agreement(rng.permutation(ratios)) for _ in range(_SHUFFLES)]
        marked = _FACTORS[:, None] * self.marked
        alone = np.minimum(self.labelled, marked).sum(axis=1) / np.maximum(self.labelled, marked).sum(axis=1)
        return {
            "photographs": len(self.names),
            "quartiles": [float(value) for value in np.exp(np.quantile(ratios, (0.25, 0.5, 0.75)))],
            "neighbours": found,
            "chance": (1 + sum(other >= found for other in shuffled)) / (1 + _SHUFFLES),
            "iou_width_alone": float(alone.max()),
        }


def label_widths(tally: MaskTally, indices: Sequence[int], errors: Iterable[MaskError]) -> LabelWidths:
    """Widths from the counts of every image and its errors; all classes together, copies of a photograph too.

    Args:
        indices: of the records behind the rows of `tally`, as `MaskError.image` has them.
    """
    labelled, marked = tally.labelled.sum(axis=1), tally.marked.sum(axis=1)
    row_of = {index: row for row, index in enumerate(indices)}
    for error in errors:
        if error.kind in ("missed", "broken"):
            labelled[row_of[error.image]] -= error.pixels
        elif error.kind == "false":
            marked[row_of[error.image]] -= error.pixels
    together: dict[str, np.ndarray] = {}
    for name, own in zip(tally.photographs, np.stack([labelled, marked], axis=1), strict=True):
        together[name] = together.get(name, np.zeros(2, np.int64)) + own
    names = [name for name in sorted(together, key=_natural) if together[name].min() >= _PIXELS]
    areas = np.array([together[name] for name in names], np.int64).reshape(-1, 2)
    return LabelWidths(names, areas[:, 0], areas[:, 1])


def follows_names(summary: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether the widths go with the order of the names more than chance does, and by an amount that matters."""
    if summary is None:
        return False
    low, _, high = summary["quartiles"]
    return bool(summary["chance"] <= 0.01 and summary["neighbours"] >= 0.3 and high / low >= 1.2)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Numbers in a name count as numbers."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _around(values: np.ndarray) -> np.ndarray:
    """Median of the eight nearest others in the order: four on each side, but at the ends."""
    count, width = len(values), 2 * _EACH_SIDE + 1
    first = np.clip(np.arange(count) - _EACH_SIDE, 0, count - width)
    places = first[:, None] + np.arange(width)
    others = places[places != np.arange(count)[:, None]].reshape(count, width - 1)
    return np.asarray(np.median(values[others], axis=1))


def _agreement(values: np.ndarray) -> float:
    """Correlation of values with those around them; 0 where they do not vary."""
    around = _around(values)
    if values.std() < 1e-9 or around.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(values, around)[0, 1])
