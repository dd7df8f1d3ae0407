"""The learning-rate range test (Smith 2015, arXiv 1506.01186): the setting `find_lr`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from segdet.console import progress
from segdet.errors import SegdetError, setting
from segdet.training.stepper import Stepper
from segdet.training.task import Setup, Task

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 120
_SMOOTH = 0.9  # of the running mean of losses
_LOST = 3.0  # times the lowest loss at which the test ends


@dataclass
class RateTest:
    """rates, losses (smoothed): one entry per step. lr: the suggestion."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    lr: float = 0.0


def rate_test(setup: Setup, task: Task) -> RateTest:
    """Raise the learning rate from step to step until the loss runs away.

    The suggestion is the rate at which the loss falls fastest (per decade), and never more than a third of the one where it
    is lowest: beyond, training is at the edge.

    Raises:
        SegdetError: too few images, or a loss that never fell.
    """
    stepper, found = Stepper(setup), RateTest()
    factor = (HIGHEST / LOWEST) ** (1 / (STEPS - 1))
    mean, plan = 0.0, task.plan
    with progress("raising the learning rate", STEPS) as advance:
        while len(found.rates) < STEPS:
            before = len(found.rates)
            stepper.start_epoch(setup.config.freeze_epochs)  # as it will be once nothing rests any more
            for batch in task.train:
                if not batch.indices:
                    continue
                rate = LOWEST * factor ** len(found.rates)
                loss = float(stepper.step(batch, task.loss, rate / setup.config.lr, len(found.rates)))
                mean = _SMOOTH * mean + (1 - _SMOOTH) * loss
                smooth = mean / (1 - _SMOOTH ** (len(found.rates) + 1))
                lost = not math.isfinite(loss) or (found.losses and smooth > _LOST * min(found.losses))
                if lost:
                    return _suggested(found)
                found.rates.append(rate)
                found.losses.append(smooth)
                advance(1, f"lr {rate:.1e}  loss {smooth:.4f}")
                if len(found.rates) == STEPS:
                    break
            if len(found.rates) == before:
                raise SegdetError(
                    "none of the training images could be read; `segdet data check` lists what is damaged"
                )
            plan.epoch += 1
    return _suggested(found)


def _suggested(found: RateTest) -> RateTest:
    if len(found.rates) < 10:
        raise SegdetError(
            f"the loss grew without bound after {len(found.rates)} steps, at a rate of {LOWEST:g} already; "
            f"check the data and {setting('loss')}"
        )
    losses, decades = np.array(found.losses), np.log10(found.rates)
    lowest = int(losses.argmin())
    if lowest < 5:
        raise SegdetError("the loss never fell, at no learning rate; look at the labels (`segdet data check`)")
    slope = np.gradient(losses[: lowest + 1], decades[: lowest + 1])
    skipped = 5  # the mean of the first few losses is noise
    steepest = skipped + int(slope[skipped:].argmin()) if lowest > skipped else lowest
    found.lr = float(f"{min(found.rates[steepest], found.rates[lowest] / 3):.1e}")
    return found
