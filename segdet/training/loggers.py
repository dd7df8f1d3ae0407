"""Curves for TensorBoard, MLflow and Weights & Biases, beside the `results.csv` that every run has.

TensorBoard is written when it is installed; the other two only when they are asked for, because they may use the network.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from segdet.errors import InputError, nearest
from segdet.text import encoded
from segdet.training.config import TrainConfig

NONE, AUTO = "none", "auto"


class Logger(Protocol):
    """Where numbers go, in the main process only."""

    def epoch(self, row: Mapping[str, float | None]) -> None:
        """A row of `results.csv`."""
        ...

    def finish(self, run: Path) -> None:
        """The final scores and pictures of a finished run."""
        ...

    def close(self) -> None:
        """Whatever happened, write out what there is."""
        ...


class TensorBoard:
    """Event files in `tensorboard/` of the run folder."""

    def __init__(self, config: TrainConfig, run: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Of epochs that a resumed run repeats, the first version is dropped.
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=done + 1 if done else None)
        if not done:
            self.writer.add_text("config", f"```\n{json.dumps(config.model_dump(), indent=2)}\n```")

    def epoch(self, row: Mapping[str, float | None]) -> None:
        for name, value in _numbers(row).items():
            self.writer.add_scalar(name, value, int(row["epoch"] or 0))

    def finish(self, run: Path) -> None:
        import numpy as np

        from segdet.data.images import read_image

        for name, value in _final(run).items():
            self.writer.add_scalar(f"final/{name}", value)
        for picture in sorted((run / "samples").glob("val_*.jpg")):
            self.writer.add_image(picture.stem, np.asarray(read_image(picture)), dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment "segdet", on the server that MLFLOW_TRACKING_URI names (default: files in the working folder)."""

    def __init__(self, config: TrainConfig, run: Path, done: int) -> None:
        self.mlflow: Any = importlib.import_module("mlflow")
        self.mlflow.set_experiment("segdet")
        note = run / "resume" / "mlflow.txt"
        if done and note.is_file():
            self.mlflow.start_run(run_id=note.read_text().strip())
            return
        started = self.mlflow.start_run(run_name=run.name)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(started.info.run_id)
        self.mlflow.log_params({key: value for key, value in config.model_dump().items() if value is not None})

    def epoch(self, row: Mapping[str, float | None]) -> None:
        self.mlflow.log_metrics(_numbers(row), step=int(row["epoch"] or 0))

    def finish(self, run: Path) -> None:
        self.mlflow.log_metrics({f"final/{name}": value for name, value in _final(run).items()})
        for name in ("report.html", "metrics.json", "results.csv", "config.yaml"):
            if (run / name).is_file():
                self.mlflow.log_artifact(str(run / name))

    def close(self) -> None:
        self.mlflow.end_run()


class Wandb:
    """A run of the project "segdet"; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, config: TrainConfig, run: Path, done: int) -> None:
        wandb: Any = importlib.import_module("wandb")
        # The same folder is the same run, so that a resumed one goes on in its own curves.
        identity = hashlib.sha256(encoded(str(run.resolve()))).hexdigest()[:12]
        self.run: Any = wandb.init(
            project="segdet", name=run.name, id=identity, resume="allow", config=config.model_dump(), dir=str(run)
        )

    def epoch(self, row: Mapping[str, float | None]) -> None:
        self.run.log(_numbers(row), step=int(row["epoch"] or 0))

    def finish(self, run: Path) -> None:
        for name, value in _final(run).items():
            self.run.summary[f"final/{name}"] = value

    def close(self) -> None:
        self.run.finish()


_KINDS: dict[str, type[TensorBoard] | type[MLflow] | type[Wandb]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": Wandb,
}  # fmt: skip


def chosen(config: TrainConfig) -> list[str]:
    """The loggers a run uses.

    Raises:
        InputError: an unknown name, or a package that is not installed.
    """
    if config.logger is None or config.logger == AUTO:
        return ["tensorboard"] if _installed("tensorboard") else []
    names = [name.strip().lower() for name in config.logger.split(",") if name.strip()]
    if names == [NONE]:
        return []
    for name in names:
        if name not in _KINDS:
            raise InputError(
                f"--logger {config.logger}: say none, or some of {', '.join(_KINDS)} (with commas){nearest(name, _KINDS)}"
            )
        if not _installed(name):
            raise InputError(
                f"--logger {name}: the package is not installed; pip install {name}, or leave --logger out"
            )
    return names


class Loggers:
    """All loggers of a run that has `done` so many epochs, as one."""

    def __init__(self, config: TrainConfig, run: Path, done: int = 0) -> None:
        self.members: list[Logger] = [_KINDS[name](config, run, done) for name in chosen(config)]

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.close()

    def epoch(self, row: Mapping[str, float | None]) -> None:
        """As `Logger.epoch`."""
        for member in self.members:
            member.epoch(row)

    def finish(self, run: Path) -> None:
        """As `Logger.finish`."""
        for member in self.members:
            member.finish(run)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a spec is there all the same
        return True


def _numbers(row: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value is not None and name != "epoch"}


def _final(run: Path) -> dict[str, float]:
    """The scores in `metrics.json`: plain numbers only."""
    content = json.loads((run / "metrics.json").read_bytes())
    return {name: float(value) for name, value in content.items() if isinstance(value, float)}
