"""From which probability on a pixel or box counts: the rule that chooses the threshold on validation data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segdet.errors import InputError, SegdetError

DEFAULT = "max-f1"
NEUTRAL = 0.5  # threshold where no image has an object to choose it by


@dataclass(frozen=True)
class Rule:
    """max-f1; or the highest precision at a recall of at least `value`, or the highest recall at such a precision."""

    kind: str = DEFAULT
    value: float = 0.0

    def __str__(self) -> str:
        return self.kind if self.kind == DEFAULT else f"{self.kind}={self.value:g}"

    def choose(self, curve: Mapping[str, np.ndarray], best: float) -> float:
        """The threshold, among those of `curve` ("threshold", "precision", "recall"; 0 and 1 are never chosen).

        Args:
            best: the one with the best F1.

        Raises:
            SegdetError: no threshold reaches the value.
        """
        if self.kind == DEFAULT:
            return best
        inner = (curve["threshold"] > 0) & (curve["threshold"] < 1)
        thresholds, precision, recall = (curve[name][inner] for name in ("threshold", "precision", "recall"))
        found = recall > 0  # precision of nothing marked is no achievement
        wanted, other = (recall, precision) if self.kind == "recall" else (precision, recall)
        reached = found & (wanted >= self.value)
        if not reached.any():
            most = f"{wanted[found].max():.3f}" if found.any() else "nothing is found at all"
            raise SegdetError(
                f"--operate {self}: no threshold reaches it on these images (at most {most}); ask for less"
            )
        highest = other[reached].max()
        # Neighbouring thresholds may do exactly the same; their middle keeps away from any answer's own confidence, which
        # another runtime gives only to 1e-3.
        equal = np.flatnonzero(reached & (other == highest) & (wanted == wanted[reached & (other == highest)].max()))
        run = equal[: int(np.argmax(np.diff(equal, append=equal[-1] + 2) > 1)) + 1]
        return float(thresholds[run[len(run) // 2]])


def parse(text: str) -> Rule:
    """`max-f1`, `recall=0.95` or `precision=0.9`.

    Raises:
        InputError: anything else.
    """
    match = re.fullmatch(r"(recall|precision)=(0?\.\d+|1(?:\.0*)?)", text.strip())
    if text.strip() == DEFAULT:
        return Rule()
    if match is None or not 0 < float(match[2]) <= 1:
        raise InputError(f"--operate {text}: write max-f1, recall=0.95 or precision=0.9 (a share above 0, at most 1)")
    return Rule(match[1], float(match[2]))
