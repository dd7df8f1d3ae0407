"""The training loop: one epoch after another over a `TrainingPlan`, with averaged weights and exact resume."""

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
from segdet.errors import SegdetError
from segdet.training import checkpoints, depthwise
from segdet.training.optim import averaged, build_optimizer, freeze, schedule, set_rate
from segdet.training.task import Setup, Task


class Interrupted(SegdetError):
    """Training was stopped by a signal and its state saved. Exit code 128 + signal, as the shell expects."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


@dataclass
class Trainer:
    """Trains `model` for `config.epochs` and keeps the best and the last averaged weights.

    save(which, state dict, metrics): writes `weights/<which>.safetensors`. told: gets every row of `results.csv`.
    """

    setup: Setup
    task: Task
    run: Path
    save: Callable[[str, Mapping[str, torch.Tensor], dict[str, Any]], None]
    told: Callable[[Mapping[str, float | None]], None] = lambda row: None
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: float = -1.0
    problems: dict[Path, Problem] = field(default_factory=dict)
    _stop: int = 0

    def __post_init__(self) -> None:
        self.config, self.accelerator, self.model = self.setup.config, self.setup.accelerator, self.setup.model
        settings, backbone = self.config, self.setup.backbone
        schedule(settings.schedule, 0.0, 1.0, settings.warmup)  # an unknown name is told before anything is made
        self.frozen = freeze(backbone, settings.freeze)
        self.model.to(memory_format=torch.channels_last)
        if self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "bf16":
            depthwise.float32_backward(self.model)
        optimizer = build_optimizer(
            settings.optimizer, self.model, backbone,
            settings.lr, settings.backbone_lr, settings.layer_decay, settings.weight_decay,
        )  # fmt: skip
        self.network, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        self.average = averaged(self.model, settings.ema) if settings.ema else None
        self.total = settings.epochs * len(self.task.plan)
        self.epoch, self.start, self.spent = 0, 0, 0.0
        self.validation = 0.0  # seconds the last validation took
        self.partial = torch.zeros(2, dtype=torch.float64)  # loss x images and images of the epoch so far

    def fit(self) -> None:
        """Train until the last epoch is done.

        Raises:
            Interrupted: by SIGINT or SIGTERM, after saving. SegdetError: the loss is not a number.
        """
        with self._signals():
            while not self.done:
                began = time.perf_counter()
                rates = self._train_epoch(began)
                validated = time.perf_counter()
                metrics: dict[str, Any] = {}
                val_loss = None
                if self._validates(began):
                    metrics, val_loss = self.validate()
                    self.validation = time.perf_counter() - validated
                self._finish_epoch(metrics, val_loss, rates, began)

    @property
    def done(self) -> bool:
        """Whether all epochs are done, or the time is up."""
        if self.config.budget is None:
            return self.epoch >= self.config.epochs
        return self.spent + self.validation >= self.config.budget

    def _validates(self, began: float) -> bool:
        number = self.epoch + 1
        last = number == self.config.epochs if self.config.budget is None else self._time_is_up(began)
        return last or number % self.config.val_every == 0

    def _time_is_up(self, began: float) -> bool:
        """Whether what is left of the time budget is needed for the last validation."""
        if self.config.budget is None:
            return False
        return self.spent + time.perf_counter() - began + self.validation >= self.config.budget

    def _progress(self, began: float, step: int | None = None) -> float:
        """Share of the training that is done: by steps, or by time when there is a time budget."""
        if self.config.budget is not None:
            return min(1.0, (self.spent + time.perf_counter() - began) / self.config.budget)
        return (self.epoch * len(self.task.plan) + (self.start if step is None else step)) / self.total

    def _train_epoch(self, began: float) -> dict[str, float]:
        plan = self.task.plan
        plan.epoch, plan.start, plan.progress = self.epoch, self.start, self._progress(began, 0)
        self.network.train()
        for module in self.frozen:
            module.eval()  # frozen batch norms keep their statistics
        images, waited, last = 0, 0.0, time.perf_counter()
        with progress(self._title(self.epoch + 1), len(plan) - plan.start) as advance:
            for number, batch in enumerate(self.task.train, plan.start):
                waited += time.perf_counter() - last
                self._note(batch.problems)
                if batch.indices:
                    self._seed(number)
                    share = self._progress(began, number)
                    set_rate(self.optimizer, schedule(self.config.schedule, share, 1 / self.total, self.config.warmup))
                    self._step(batch)
                    images += len(batch.indices)
                if (number + 1) % 10 == 0 or number + 1 == len(plan):
                    self._check_loss(number)
                advance(1, f"loss {self._mean_loss():.4f}")
                if self._stop:
                    self._interrupt(number + 1, began)
                if self._time_is_up(began):
                    break
                last = time.perf_counter()
        spent = time.perf_counter() - began
        return {
            "images_per_second": images * self.accelerator.num_processes / max(spent, 1e-9),
            "data_wait": waited / max(spent, 1e-9),
        }

    def _seed(self, number: int) -> None:
        """Dropout and denoising depend on seed, epoch, step and process only, so that a resumed run repeats them."""
        source = [self.config.seed, self.epoch, number, self.accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(source).generate_state(1)[0]))

    def _step(self, batch: Any) -> None:
        loss = self.task.loss(self.network, batch)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.model)
        count = len(batch.indices)
        self.partial = self.partial + torch.stack([loss.detach().double().cpu() * count, torch.tensor(float(count))])

    def validate(self) -> tuple[dict[str, Any], float | None]:
        """Metrics and loss of the averaged weights on the validation split; the same in every process."""
        network = self.average.module if self.average is not None else self.model
        network.eval()
        metrics, loss, problems = self.task.validate(network)
        self._note(problems)
        return metrics, loss

    def _finish_epoch(
        self, metrics: dict[str, Any], val_loss: float | None, rates: dict[str, float], began: float
    ) -> None:
        self.spent += time.perf_counter() - began
        row = {
            "epoch": self.epoch + 1,
            "time": self.spent,
            "train/loss": self._mean_loss(),
            "val/loss": val_loss,
            **{f"metrics/{key}": metrics.get(key) for key in self.task.columns},
            "lr": self.optimizer.param_groups[0]["lr"],
            **rates,
        }
        self.history.append(row)
        self.epoch, self.start, self.partial = self.epoch + 1, 0, torch.zeros(2, dtype=torch.float64)
        score = metrics.get(self.task.score)
        better = score is not None and score > self.best
        self.best = max(self.best, -1.0 if score is None else score)
        if self.accelerator.is_main_process:
            state = (self.average.module if self.average is not None else self.model).state_dict()
            if metrics:
                self.save("last", state, metrics)
            if better:
                self.save("best", state, metrics)
            checkpoints.save_state(self.run, self.state())
            checkpoints.write_history(self.run, self.history)
            self.told(row)
            told = [f"val loss {val_loss:.4f}"] if val_loss is not None else []
            told += [f"{key} {metrics[key]:.4f}" for key in self.task.columns[:2] if metrics.get(key) is not None]
            told += ["best"] if better else []
            scores = "".join(f"{part}  " for part in told)
            say(
                f"{self._title(self.epoch)}  loss {row['train/loss']:.4f}  {scores}"
                f"{rates['images_per_second']:.1f} images/s, {rates['data_wait']:.0%} waiting for data"
            )

    def _title(self, number: int) -> str:
        if self.config.budget is None:
            return f"epoch {number}/{self.config.epochs}"
        return f"epoch {number} ({self.spent / 60:.1f} of {self.config.budget / 60:g} min)"

    def state(self) -> dict[str, Any]:
        """Everything that training depends on, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "start": self.start,
            "spent": self.spent,
            "validation": self.validation,
            "partial": self.partial,
            "best": self.best,
            "history": self.history,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved `state`."""
        for name in ("epoch", "start", "spent", "validation", "partial", "best", "history"):
            setattr(self, name, state[name])
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _mean_loss(self) -> float:
        return float(self.partial[0] / self.partial[1].clamp_min(1))

    def _check_loss(self, number: int) -> None:
        if not torch.isfinite(self.partial[0]):
            raise SegdetError(
                f"the loss is not a number any more (epoch {self.epoch + 1}, step {number + 1}); "
                f"lower --lr (it is {self.config.lr:g}) or use --precision fp32"
            )

    def _note(self, problems: list[Problem]) -> None:
        for problem in problems:
            if problem.path not in self.problems:
                self.problems[problem.path] = problem
                say(f"skipped {problem}")

    def _interrupt(self, start: int, began: float) -> None:
        self.start = start
        self.spent += time.perf_counter() - began
        if self.accelerator.is_main_process:
            checkpoints.save_state(self.run, self.state())
        raise Interrupted(
            f"stopped in {self._title(self.epoch + 1)} and saved; go on with: segdet train --resume {self.run}",
            self._stop,
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
