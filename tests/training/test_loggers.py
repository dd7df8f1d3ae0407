"""TensorBoard files, and what MLflow and Weights & Biases would be told."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segdet.errors import InputError
from segdet.training import loggers
from segdet.training.config import TrainConfig
from segdet.training.loggers import Loggers

ROWS = [
    {"epoch": 1.0, "train/loss": 0.9, "metrics/iou": 0.1, "val/loss": None},
    {"epoch": 2.0, "train/loss": 0.7, "metrics/iou": 0.3, "val/loss": 0.8},
]


def _config(logger: str | None) -> TrainConfig:
    return TrainConfig.from_options(arch="unet", data="walls", logger=logger)


class _Recorder:
    """Stands for a module: remembers every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.summary: dict[str, float] = {}
        self.info = SimpleNamespace(run_id="abc123")

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> _Recorder:
            self.calls.append((name, arguments, named))
            return self

        return call

    def calls_of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(arguments, named) for called, arguments, named in self.calls if called == name]


def _fake(monkeypatch: pytest.MonkeyPatch, name: str) -> _Recorder:
    module, recorder = ModuleType(name), _Recorder()
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__getattr__ = lambda attribute: getattr(recorder, attribute)  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, name, module)
    return recorder


def _run(run: Path, logger: str | None, done: int = 0) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.json").write_text(json.dumps({"task": "segmentation", "iou": 0.25, "images": 6, "classes": {}}))
    (run / "report.html").write_text("<html>")
    with Loggers(_config(logger), run, done) as told:
        for row in ROWS[done:]:
            told.epoch(row)
        told.finish(run)


def test_tensorboard_is_written_when_it_is_installed(trained: Path) -> None:
    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"images": 0}).Reload()
    rows = (trained / "results.csv").read_text().splitlines()
    scalars = events.Scalars("metrics/iou")
    column = rows[0].split(",").index("metrics/iou")
    assert [event.step for event in scalars] == list(range(1, 13))
    assert [event.value for event in scalars] == pytest.approx(
        [float(row.split(",")[column]) for row in rows[1:]], rel=1e-4
    )
    metrics = json.loads((trained / "metrics.json").read_text())
    assert events.Scalars("final/cldice")[0].value == pytest.approx(metrics["cldice"])
    assert "val_worst" in events.Tags()["images"]


def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path: Path) -> None:
    _run(tmp_path / "run", "tensorboard")
    time.sleep(1.1)  # event files are told apart, and put in order, by the second they were opened in
    _run(tmp_path / "run", "tensorboard", done=1)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), purge_orphaned_data=True).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]


def test_mlflow_gets_settings_rows_scores_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = _fake(monkeypatch, "mlflow")
    _run(tmp_path / "unet-walls", "mlflow")
    assert mlflow.calls_of("set_experiment") == [(("segdet",), {})]
    assert mlflow.calls_of("start_run") == [((), {"run_name": "unet-walls"})]
    assert mlflow.calls_of("log_params")[0][0][0]["arch"] == "unet"
    assert mlflow.calls_of("log_metrics")[:2] == [
        (({"train/loss": 0.9, "metrics/iou": 0.1},), {"step": 1}),
        (({"train/loss": 0.7, "metrics/iou": 0.3, "val/loss": 0.8},), {"step": 2}),
    ]
    assert mlflow.calls_of("log_metrics")[2][0][0] == {"final/iou": 0.25}
    assert {Path(arguments[0]).name for arguments, _ in mlflow.calls_of("log_artifact")} == {
        "report.html",
        "metrics.json",
    }
    assert mlflow.calls[-1][0] == "end_run"
    _run(tmp_path / "unet-walls", "mlflow", done=1)
    assert mlflow.calls_of("start_run")[-1] == ((), {"run_id": "abc123"}) and len(mlflow.calls_of("log_params")) == 1


def test_wandb_is_told_the_same_and_closed_when_training_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = _fake(monkeypatch, "wandb")
    _run(tmp_path / "run", "wandb,tensorboard")
    (_, first), _ = wandb.calls_of("init")[0], None
    assert first["project"] == "segdet" and first["resume"] == "allow" and first["config"]["data"] == "walls"
    assert wandb.calls_of("log")[1] == (({"train/loss": 0.7, "metrics/iou": 0.3, "val/loss": 0.8},), {"step": 2})
    assert wandb.summary == {"final/iou": 0.25} and wandb.calls[-1][0] == "finish"
    assert (tmp_path / "run" / "tensorboard").is_dir()
    _run(tmp_path / "run", "wandb", done=1)
    assert wandb.calls_of("init")[1][1]["id"] == first["id"]
    with pytest.raises(RuntimeError), Loggers(_config("wandb"), tmp_path / "run"):
        raise RuntimeError
    assert wandb.calls[-1][0] == "finish"


def test_what_is_not_there_is_told_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loggers, "_installed", lambda name: False)
    assert loggers.chosen(_config(None)) == []  # nothing asked for, nothing missing
    for name in ("wandb", "mlflow", "tensorboard"):
        with pytest.raises(InputError, match=f"logger={name}: the package is not installed; pip install {name}"):
            loggers.chosen(_config(name))
    monkeypatch.undo()
    assert loggers.chosen(_config(None)) == ["tensorboard"] and loggers.chosen(_config("none")) == []
    with pytest.raises(InputError, match='did you mean "wandb"'):
        loggers.chosen(_config("wandbb"))
