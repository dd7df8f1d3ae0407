"""`segdet train`"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from segdet.cli import output
from segdet.cli.options import from_settings, option_name
from segdet.errors import InputError, InvalidOption, setting
from segdet.training.config import TrainConfig


@from_settings(TrainConfig)
def train(
    written: dict[str, Any],
    *,
    config: Path | None = typer.Option(
        None, help="YAML file with any settings; options given here override it.", rich_help_panel="Run"
    ),
    resume: Path | None = typer.Option(
        None, help="Continue this run folder exactly where it stopped.", rich_help_panel="Run"
    ),
    find_lr: bool = typer.Option(
        False, "--find-lr", help="Do not train: run a learning-rate range test and plot it.", rich_help_panel="Run"
    ),
) -> None:
    """Train a model: segdet train unet --data crack"""
    began = time.perf_counter()
    if find_lr and resume is not None:
        raise InvalidOption("find_lr", None, "starts from the initial weights", f"remove {setting('resume')}")
    settings = _settings(written, config, resume)

    from segdet.training.run import find_lr as run_find_lr
    from segdet.training.run import train as run_training

    if find_lr:
        run, test = run_find_lr(settings)
        plot = run / "find-lr.png"
        output.emit({"lr": test.lr, "plot": str(plot)}, f"suggested: {option_name('lr')} {test.lr:g} (see {plot})")
        return
    run = run_training(settings, resume, time.perf_counter() - began)
    output.emit(
        {"run": str(run), "weights": str(run / "weights" / "best.safetensors"), "report": str(run / "report.html")},
        str(run),
    )


def _settings(written: dict[str, Any], config: Path | None, resume: Path | None) -> TrainConfig:
    """The settings of the run: from a run folder, a YAML file, or options alone.

    Raises:
        InputError: no architecture or dataset, a value out of range, or options that differ from the run to resume.
    """
    if resume is not None:
        return _resumed(written, config, resume)
    if config is not None:
        return TrainConfig.from_file(config, **written)
    if "arch" not in written:
        raise InputError("no architecture; for instance: segdet train unet --data crack")
    if "data" not in written:
        arch = written["arch"]
        raise InputError(f"no dataset; use segdet train {arch} --data NAME|FOLDER (see `segdet data list`)")
    return TrainConfig.from_options(**written)


def _resumed(written: dict[str, Any], config: Path | None, resume: Path) -> TrainConfig:
    if not resume.is_dir():
        reason = "no such run folder"
        raise InvalidOption("resume", resume, reason, f"runs are in runs/ unless {setting('out')} said otherwise")
    file = resume / "config.yaml"
    if not file.is_file():
        raise InvalidOption("resume", resume, "not a run folder (no config.yaml in it)", "start a new run")
    if config is not None:
        reason = "a run continues with its own settings"
        raise InvalidOption("resume", resume, reason, f"remove {setting('config')}")
    # The data may have moved; training checks that it is the same.
    free = {key: written[key] for key in ("device", "workers", "data") if key in written}
    settings = TrainConfig.from_file(file, **free)
    asked = TrainConfig.from_file(file, **written)
    for key in written:
        stored, value = getattr(settings, key), getattr(asked, key)
        if stored == value or key in free or (key == "batch" and value == "auto"):
            continue
        reason = f"cannot resume with it: {resume} was started with {stored}"
        raise InvalidOption(key, value, reason, "remove the option or start a new run")
    return settings
