"""The training loop: one epoch after another over a `TrainingPlan`, with checkpoints often enough to lose little work."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segdet.console import progress, say
from segdet.data.records import Problem
from segdet.errors import SegdetError, setting
from segdet.models.devices import algorithm_search
from segdet.training import checkpoints
from segdet.training.clock import Clock
from segdet.training.optim import schedule
from segdet.training.stepper import Stepper
from segdet.training.task import Setup, Task

CHECK = 10  # steps between two looks at the loss; with several processes, also at what they agree on
_EARLIER = {"nan_rollbacks": "rescues"}  # keys in states of earlier versions
MAX_NAN_ROLLBACKS = 3  # rollbacks to the last checkpoint after a NaN or infinite loss, per epoch
_DAMPING = 0.5  # of the learning rate, each time


class Interrupted(SegdetError):
    """Training was stopped by a signal and its state saved. Exit code 128 + signal, as the shell expects."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class _NotANumber(Exception):
    """The loss or a gradient is not finite; `where` says when it was noticed."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


@dataclass
class Trainer:
    """Trains for `config.epochs` (or the time there is) and keeps the best and the last weights.

    save(which, state dict, metrics): writes `weights/<which>.safetensors`. on_epoch: gets every row of `results.csv`.
    """

    setup: Setup
    task: Task
    stepper: Stepper
    run: Path
    save: Callable[[str, Mapping[str, torch.Tensor], dict[str, Any]], None]
    on_epoch: Callable[[Mapping[str, float | None]], None] = lambda row: None
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: float = -1.0
    problems: dict[Path, Problem] = field(default_factory=dict)
    _stop: int = 0

    def __post_init__(self) -> None:
        self.config, self.accelerator = self.setup.config, self.setup.accelerator
        self.total = self.config.epochs * len(self.task.plan)
        self.clock = Clock(self.accelerator, self.config.budget, self.total, len(self.setup.dataset.splits["val"]))
        self.epoch, self.start = 0, 0
        self.unimproved, self.nan_rollbacks = 0, 0  # epochs since the best one; goings back since the last whole epoch
        self.partial = self._nothing()  # loss x images and images of the epoch so far
        self.restored = False  # whether it goes on from a saved state
        self.saved = time.monotonic()

    def fit(self) -> None:
        """Train until the last epoch is done.

        Raises:
            Interrupted: by SIGINT or SIGTERM, after saving. SegdetError: the loss is not a number even at lower rates.
        """
        with self._signals():
            if not self.restored:
                self._checkpoint()  # a run that dies in its first minute can be resumed too
            while not self.done:
                self.clock.start_epoch()
                try:
                    rates = self._train_epoch()
                except _NotANumber as error:
                    self._rollback(error)
                    continue
                validated = time.perf_counter()
                metrics: dict[str, Any] = {}
                val_loss = None
                if self._validates():
                    metrics, val_loss = self.validate()
                    self.clock.validated(time.perf_counter() - validated)
                self._finish_epoch(metrics, val_loss, rates)

    @property
    def done(self) -> bool:
        """Whether all epochs are done, the time is up, or nothing has improved for `patience` epochs."""
        validated = bool(self.history) and self.history[-1][f"metrics/{self.task.score}"] is not None
        if validated and self._waited_enough:
            return True
        if self.config.budget is None:
            return self.epoch >= self.config.epochs
        return self.clock.share >= 1 or (validated and not self.clock.room(within_epoch=False))

    @property
    def _waited_enough(self) -> bool:
        return self.config.patience is not None and self.unimproved >= self.config.patience

    def _validates(self) -> bool:
        number = self.epoch + 1
        if self.config.budget is None:
            last = number == self.config.epochs
        else:
            last = self.clock.time_is_up or not self.clock.room(within_epoch=True)
        return last or number % self.config.val_every == 0

    def _look_at_the_clock(self, step: int) -> None:
        """Several processes agree on the time, which costs a message, so only at some steps."""
        if self.config.budget is None or self.accelerator.num_processes == 1 or step % CHECK == 0 or step == self.start:
            self.clock.look(self.epoch * len(self.task.plan) + step)

    def _train_epoch(self) -> dict[str, float]:
        plan, stream = self.task.plan, self.task.train
        self._look_at_the_clock(self.start)
        plan.epoch, plan.start, plan.progress = self.epoch, self.start, self.clock.share
        self.stepper.start_epoch(self.epoch)
        waited, last = 0.0, time.perf_counter()
        seen: Any = None
        title, left = self._title(self.epoch + 1), len(plan) - plan.start
        with algorithm_search(self.task.few_sizes), progress(title, left) as advance:
            for number, batch in enumerate(stream, plan.start):
                if self.stepper.idle:  # else the GPU has work, and nothing is lost by waiting here
                    waited += time.perf_counter() - last
                self._note(batch.problems)
                batch = seen = self._in_step(batch, seen)
                if batch is not None:
                    self._look_at_the_clock(number)
                    rate = schedule(self.config.schedule, self.clock.share, 1 / self.total, self.config.warmup)
                    loss = self.stepper.step(batch, self.task.loss, rate, self._seed(number))
                    count = len(batch.indices)
                    self.partial += torch.stack([loss * count, torch.full_like(loss, count)])
                    self.clock.images += count
                advance(1)
                self._look_at_the_clock(number + 1)
                if self._looks(number + 1) and self._ends_here(number + 1, advance):
                    break
                last = time.perf_counter()
        spent = max(self.clock.elapsed, 1e-9)
        return {
            "images_per_second": self.clock.images * self.accelerator.num_processes / spent,
            "data_wait": waited / spent,
        }

    def _in_step(self, batch: Any, seen: Any) -> Any:
        """The batch, or None when none of its images could be read.

        With several processes the others are waiting for this one's gradients, so it repeats what it has seen before.
        """
        if batch.indices or self.accelerator.num_processes == 1:
            return batch if batch.indices else None
        if seen is None:
            raise SegdetError(
                "none of the first batch's images could be read; `segdet data check` lists what is damaged"
            )
        return seen

    def _looks(self, step: int) -> bool:
        """Whether to look at the loss, the clock and the signals after so many steps of the epoch.

        Alone, a stop or the end of the time is seen at once; several processes must look at the same step.
        """
        if step % CHECK == 0 or step == len(self.task.plan):
            return True
        return self.accelerator.num_processes == 1 and (bool(self._stop) or self.clock.time_is_up)

    def _ends_here(self, step: int, advance: Callable[..., None]) -> bool:
        """Stop on a bad loss or a signal, save when it is time, and say whether the time is up."""
        late = time.monotonic() - self.saved >= self.config.save_seconds
        bad, stop, due = self._any(not bool(torch.isfinite(self.partial[0])), self._stop, late)
        if bad:
            raise _NotANumber(f"epoch {self.epoch + 1}, step {step}")
        advance(0, f"loss {self._mean_loss():.4f}")
        if stop:
            self._interrupt(step, int(stop))
        if due:
            self._checkpoint(step)
        return self.clock.time_is_up

    def _seed(self, number: int) -> int:
        """Dropout and denoising depend on seed, epoch, step and process only, so that a resumed run repeats them."""
        source = [self.config.seed, self.epoch, number, self.accelerator.process_index]
        return int(np.random.SeedSequence(source).generate_state(1)[0])

    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Metrics and loss of the averaged weights on the validation split; the same in every process."""
        network = self.stepper.best_network().eval()
        metrics, loss, problems = self.task.validate(network)
        self._note(problems)
        return metrics, loss

    def _finish_epoch(self, metrics: dict[str, Any], val_loss: float | None, rates: dict[str, float]) -> None:
        self.clock.end_epoch()
        row = {
            "epoch": self.epoch + 1,
            "time": self.clock.spent,
            "train/loss": self._mean_loss(),
            "val/loss": val_loss,
            **{f"metrics/{key}": metrics.get(key) for key in self.task.columns},
            "lr": self.stepper.optimizer.param_groups[0]["lr"],
            **rates,
        }
        self.history.append(row)
        self.epoch, self.start, self.partial, self.nan_rollbacks = self.epoch + 1, 0, self._nothing(), 0
        score = metrics.get(self.task.score)
        better = score is not None and score > self.best
        self.best = max(self.best, -1.0 if score is None else score)
        self.unimproved = 0 if better else self.unimproved + 1
        state = self.stepper.best_network().state_dict()
        if self.accelerator.is_main_process:
            if metrics:
                self.save("last", state, metrics)
            if better or (metrics and self.best < 0):  # without any score so far, the last weights are the best
                self.save("best", state, metrics)
            checkpoints.write_history(self.run, self.history)
            self.on_epoch(row)
            parts = [f"val loss {val_loss:.4f}"] if val_loss is not None else []
            parts += [f"{key} {metrics[key]:.4f}" for key in self.task.columns[:2] if metrics.get(key) is not None]
            parts += ["best"] if better else []
            scores = "".join(f"{part}  " for part in parts)
            say(
                f"{self._title(self.epoch)}  loss {row['train/loss']:.4f}  {scores}"
                f"{rates['images_per_second']:.1f} images/s, {rates['data_wait']:.0%} waiting for data"
            )
            if metrics and self._waited_enough:
                say(
                    f"stopped early: {self.task.score} has not risen for {self.unimproved} epochs (best {self.best:.4f})"
                )
        self._checkpoint()

    def _title(self, number: int) -> str:
        if self.config.budget is None:
            return f"epoch {number}/{self.config.epochs}"
        return f"epoch {number} ({self.clock.spent / 60:.1f} of {self.config.budget / 60:g} min)"

    def state(self) -> dict[str, Any]:
        """Everything that training depends on, as tensors and plain values."""
        own = {name: getattr(self, name) for name in self._KEPT}
        return {**own, "spent": self.clock.spent, "validation": self.clock.validation, **self.stepper.state()}

    _KEPT = ("epoch", "start", "partial", "best", "unimproved", "nan_rollbacks", "history")

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved `state`."""
        self.restored = True
        for name in self._KEPT:
            setattr(self, name, state[_EARLIER.get(name, name)] if name not in state else state[name])
        self.clock.spent, self.clock.validation = state["spent"], state["validation"]
        self.partial = self.partial.to(self.accelerator.device)
        self.stepper.restore(state)

    def _checkpoint(self, step: int | None = None) -> None:
        """Save the state, in the middle of an epoch after `step` of its steps."""
        state = self.state() if self.accelerator.is_main_process or self.config.fsdp else {}
        if self.accelerator.is_main_process:
            here = {} if step is None else {"start": step, "spent": self.clock.now}
            checkpoints.save_state(self.run, {**state, **here})
        self.saved = time.monotonic()

    def _rollback(self, error: _NotANumber) -> None:
        """Return to the last saved state and go on with lower rates.

        Raises:
            SegdetError: that has been tried often enough.
        """
        tries, damping = self.nan_rollbacks + 1, self.stepper.damping * _DAMPING
        if tries > MAX_NAN_ROLLBACKS:
            raise SegdetError(
                f"the loss is not a number ({error.where}), also after going back {MAX_NAN_ROLLBACKS} times with lower rates; "
                f"lower {setting('lr')} (it is {self.config.lr:g}), use {setting('precision', 'fp32')}, or look for broken labels "
                "with `segdet data check`"
            )
        self.accelerator.wait_for_everyone()
        self.restore(checkpoints.load_state(self.run))
        self.nan_rollbacks, self.stepper.damping = tries, damping
        say(
            f"the loss is not a number ({error.where}): going back to epoch {self.epoch + 1}, step {self.start + 1}, "
            f"with {damping:g} of the learning rate"
        )

    def _mean_loss(self) -> float:
        return float(self.partial[0] / self.partial[1].clamp_min(1))

    def _nothing(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)

    def _any(self, *flags: float) -> list[float]:
        """The largest of each flag over all processes."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        return [
            float(v) for v in self.accelerator.gather(torch.tensor([flags], device=self.accelerator.device)).amax(0)
        ]

    def _note(self, problems: list[Problem]) -> None:
        for problem in problems:
            if problem.path not in self.problems:
                self.problems[problem.path] = problem
                say(f"skipped {problem}")

    def _interrupt(self, step: int, number: int) -> None:
        self._checkpoint(step)
        self.clock.spent = self.clock.now
        raise Interrupted(
            f"stopped in {self._title(self.epoch + 1)} and saved; continue with: segdet train {setting('resume', self.run)}",
            number,
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask for a stop after the current step; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return

        def ask(number: int, _: Any) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
