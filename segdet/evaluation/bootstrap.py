"""95 % intervals by bootstrap over photographs, of one measurement or of the difference of two on the same images.

Augmented copies of one photograph are drawn together: they carry no information of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Resampled(Protocol):
    """What can be counted again for any resampling of its images.

    photographs: of each image. rounds: how many resamplings are worth their time. shifted: whether the score of a
    resampling is too high on average, as AP is, and the samples must be moved to where the score is.
    """

    @property
    def photographs(self) -> Sequence[str]: ...
    @property
    def rounds(self) -> int: ...
    @property
    def shifted(self) -> bool: ...

    def scores(self, times: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Scores by name, each `[R]`, when image i is counted `times[r, i]` times; None = each once (`[1]`)."""


@dataclass(frozen=True)
class Difference:
    """Score of the first minus score of the second, with the 95 % interval of the paired bootstrap.

    same: no resampling of the images tells the two apart.
    """

    value: float
    low: float
    high: float
    same: bool

    @property
    def certain(self) -> bool:
        """Whether the interval leaves no difference out."""
        return not self.same and (self.low > 0 or self.high < 0)


def drawn(photographs: Sequence[str], rounds: int, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each round, when photographs are drawn with replacement: int64 `[rounds, images]`."""
    _, group = np.unique(np.asarray(photographs), return_inverse=True)
    count = int(group.max()) + 1
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)[:, group]


def intervals(tally: Resampled) -> dict[str, list[float] | None]:
    """[low, high] of every score; None where it is not defined (AP without object)."""
    every = tally.scores(drawn(tally.photographs, tally.rounds))
    out: dict[str, list[float] | None] = {}
    for name, value in tally.scores().items():
        samples = _usable(every[name], float(value[0]), tally.shifted)
        if np.isfinite(value[0]) and len(samples):
            out[name] = [float(end) for end in np.percentile(samples, [2.5, 97.5]).clip(0, 1)]
        else:
            out[name] = None
    return out


def differences(first: Resampled, second: Resampled) -> dict[str, Difference]:
    """First minus second, score by score, on the same resamplings; scores that are not defined are left out."""
    times = drawn(first.photographs, min(first.rounds, second.rounds))
    ours, theirs = first.scores(times), second.scores(times)
    here, there = first.scores(), second.scores()
    out: dict[str, Difference] = {}
    for name in here:
        value = float(here[name][0] - there[name][0])
        samples = _usable(ours[name] - theirs[name], value, first.shifted)
        if np.isfinite(value) and len(samples):
            low, high = (float(end) for end in np.percentile(samples, [2.5, 97.5]))
            out[name] = Difference(value, low, high, same=value == 0 and not samples.any())
    return out


def spread(values: Sequence[float]) -> dict[str, Any]:
    """ "mean", "sd" (of the sample, None of one value), "min" and "max"."""
    array = np.asarray(values, np.float64)
    return {
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)) if len(array) > 1 else None,
        "min": float(array.min()),
        "max": float(array.max()),
    }


def _usable(samples: np.ndarray, score: float, shifted: bool) -> np.ndarray:
    samples = samples[np.isfinite(samples)]
    return samples - (samples.mean() - score) if shifted and len(samples) else samples
