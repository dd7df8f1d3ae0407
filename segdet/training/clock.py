"""How far a training is: by its steps, or by the clock when it has a time budget."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator

# A time budget is for the whole command. At the end stand a validation, the final measurement (float32, every metric, the report:
# measured 2.2 to 3.9 times a validation) and leaving; before the first validation, its length is guessed from the training's pace.
_FINISH = 3.6
_LEAVING = 8.0  # seconds


class Clock:
    """Seconds spent and the share of the training that is done; what decides is the same in every process.

    budget: seconds for the whole command, None = as many epochs as were asked for. steps: of the whole training then.
    validated_on: validation images. spent: seconds until the last whole epoch, of interrupted runs too. validation: seconds
    that the last validation took, 0 before the first. share: 0..1, of the training.
    """

    def __init__(self, accelerator: Accelerator, budget: float | None, steps: int, validated_on: int) -> None:
        self.accelerator, self.budget, self.steps, self.validated_on = accelerator, budget, steps, validated_on
        self.spent = self.validation = self.share = 0.0
        self.images = 0  # that this epoch has gone through since it began here
        self._began = time.perf_counter()

    def start_epoch(self) -> None:
        """Begin an epoch, or what is left of one."""
        self._began, self.images = time.perf_counter(), 0

    @property
    def elapsed(self) -> float:
        """Seconds of this epoch, in this process."""
        return time.perf_counter() - self._began

    @property
    def now(self) -> float:
        """Seconds spent until now, in this process."""
        return self.spent + self.elapsed

    def add(self, seconds: float) -> None:
        """Count seconds that were spent outside of epochs."""
        self.spent = self._of_first(self.spent + seconds)

    def end_epoch(self) -> None:
        """Count the epoch."""
        self.spent = self._of_first(self.now)

    def validated(self, seconds: float) -> None:
        """Remember how long a validation took."""
        self.validation = self._of_first(seconds)

    def look(self, step: int) -> None:
        """Renew `share` after `step` steps of the whole training; with a time budget it never falls."""
        if self.budget is None:
            self.share = step / self.steps
        else:
            share = self.now / max(self.budget - self._reserve, 1e-3)
            self.share = min(1.0, self._of_first(max(self.share, share)))

    @property
    def time_is_up(self) -> bool:
        """Whether what is left of the time budget is needed for measuring."""
        return self.budget is not None and self.share >= 1

    def room(self, within_epoch: bool) -> bool:
        """Whether the time budget leaves more than a piece of an epoch shorter than the validation behind it."""
        if self.budget is None:
            return True
        spent = self.now if within_epoch else self.spent
        return bool(self._of_first(float(spent + self._reserve + self.validation < self.budget)))

    @property
    def _reserve(self) -> float:
        """Seconds of the time budget to be kept for the last validation and everything after it."""
        validation = self.validation
        if not validation and self.images:
            validation = 0.8 * self.elapsed / self.images * self.validated_on
        return min((1 + _FINISH) * validation + _LEAVING, 0.5 * (self.budget or 0.0))

    def _of_first(self, seconds: float) -> float:
        """What the first process measured, in all of them."""
        if self.accelerator.num_processes == 1:
            return seconds
        return float(self.accelerator.gather(torch.tensor([seconds], device=self.accelerator.device))[0])
