"""A training run from settings to a run folder: data, model, loop, final validation, pictures and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from segdet import memory
from segdet.console import progress, say
from segdet.data import catalog, splits
from segdet.data.records import by_photograph
from segdet.errors import InputError
from segdet.files import new_folder, write_text
from segdet.metadata import DataSource, Metadata
from segdet.models import weights
from segdet.models.registry import arch_named, build_model
from segdet.reporting import pictures
from segdet.training import checkpoints, devices
from segdet.training.config import TrainConfig
from segdet.training.detection import DetectionTask
from segdet.training.loop import Trainer
from segdet.training.segmentation import SegmentationTask
from segdet.training.task import Setup, Task
from segdet.version import __version__

TASKS: dict[str, Callable[[Setup], Task]] = {"segmentation": SegmentationTask, "detection": DetectionTask}


def train(config: TrainConfig, resume: Path | None = None) -> Path:
    """Train as `config` says, or go on with the run folder `resume`, and return the run folder.

    Raises:
        InputError: settings or data that cannot be used. SegdetError: training failed. Interrupted: by a signal.
    """
    state = checkpoints.load_state(resume) if resume is not None else None
    arch_named(config.arch)
    accelerator = devices.accelerator(config.device, config.precision)
    if accelerator.device.type == "cpu":
        memory.keep_freed_memory()
    torch.manual_seed(config.seed)
    setup = _prepare(config, accelerator, start_weights=resume is None)
    task = TASKS[arch_named(config.arch).task](setup)
    run = resume
    if run is None:
        run = (
            new_folder(config.out, config.name or f"{config.arch}-{setup.dataset.name}")
            if accelerator.is_main_process
            else None
        )
        from accelerate.utils import broadcast_object_list

        run = broadcast_object_list([run])[0]
    assert run is not None
    if accelerator.is_main_process and resume is None:
        _describe(setup, task, run)
    described = _metadata(setup)

    def save(which: str, state: Mapping[str, torch.Tensor], metrics: dict[str, Any]) -> None:
        weights.save(run / "weights" / f"{which}.safetensors", state, _with(described, metrics))

    trainer = Trainer(setup, task, run, save)
    if state is not None:
        trainer.restore(state)
        if trainer.done:
            raise InputError(f"--resume {resume}: it is done ({trainer.epoch} epochs); train a new run for more")
        say(f"going on with {run} in epoch {trainer.epoch + 1}, step {trainer.start + 1}")
    say(_headline(setup, run))
    trainer.fit()
    if accelerator.is_main_process:
        _finish(trainer, described)
    accelerator.wait_for_everyone()
    return run


def _prepare(config: TrainConfig, accelerator: Accelerator, start_weights: bool) -> Setup:
    """Read the data and build the model."""
    with progress("drawing crack-demo", 220) as advance:
        dataset = catalog.load(config.data, lambda done, total: advance(1))
    dataset = splits.for_task(dataset, arch_named(config.arch).task)
    if config.fold:
        dataset = splits.fold(dataset, *splits.parse_fold(config.fold), config.seed)
    dataset, note = splits.with_validation(dataset, config.seed)
    dataset = splits.limited(dataset, config.limit)
    notes = [note] if note else []
    named = config.weights in ("imagenet", "none")
    kind = config.weights if named and start_weights else "none"
    if config.arch == "detr" and config.weights == "none" and "frozen_norm" not in config.options:
        config = config.model_copy(update={"options": {**config.options, "frozen_norm": False}})
        notes.append("random start: the backbone's batch norms learn, which DETR otherwise keeps as they came")
    imgsz = config.side(accelerator.device.type)
    if config.imgsz is None and imgsz < config.side("cuda"):
        notes.append(f"images of {imgsz} px, which a CPU can train; {config.side('cuda')} is usual on a GPU (--imgsz)")
    model, backbone = build_model(config.arch, config.backbone, dataset.classes, kind, config.options, imgsz)
    if not named and start_weights:
        notes.append(weights.start_from(Path(config.weights), model, backbone))
    for problem in dataset.problems[:10]:
        say(f"left out: {problem}")
    if len(dataset.problems) > 10:
        say(f"left out: {len(dataset.problems) - 10} more (see problems.txt in the run folder)")
    config = config.model_copy(update={"backbone": backbone.name, "imgsz": imgsz})
    return Setup(config, accelerator, dataset, model, backbone, imgsz, notes)


def _describe(setup: Setup, task: Task, run: Path) -> None:
    """Write what is known before the first step: settings, label statistics, what was left out."""
    write_text(run / "config.yaml", yaml.safe_dump(setup.config.model_dump(), sort_keys=False))
    if setup.dataset.problems:
        write_text(run / "problems.txt", "\n".join(map(str, setup.dataset.problems)) + "\n")
    pictures.labels(setup.dataset, run / "labels.png")
    task.draw_samples(run)


def _metadata(setup: Setup) -> Metadata:
    config, dataset, backbone = setup.config, setup.dataset, setup.backbone
    return Metadata(
        schema=1,
        task=arch_named(config.arch).task,
        arch=config.arch,
        backbone=backbone.name,
        options=config.options,
        classes=list(dataset.classes),
        imgsz=setup.imgsz,
        mean=list(backbone.mean),
        std=list(backbone.std),
        data=DataSource(name=dataset.name, sha256=dataset.fingerprint(), licence=dataset.licence),
        version=__version__,
    )


def _with(described: Metadata, metrics: Mapping[str, Any]) -> Metadata:
    """The description with threshold and metrics: numbers, not the rows per class."""
    brief = {key: value for key, value in metrics.items() if key not in ("classes", "threshold")}
    return described.model_copy(update={"threshold": metrics["threshold"], "metrics": brief})


def _headline(setup: Setup, run: Path) -> str:
    accelerator, config = setup.accelerator, setup.config
    train_records, val_records = setup.dataset.splits["train"], setup.dataset.splits["val"]
    parameters = sum(parameter.numel() for parameter in setup.model.parameters()) / 1e6
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    notes = "".join(f"\n{note}" for note in setup.notes)
    return (
        f"{run}: {config.arch} on {setup.backbone.name} ({parameters:.1f} M parameters), {accelerator.device.type} {precision}; "
        f"{len(train_records)} training images of {len(by_photograph(train_records))} photographs, {len(val_records)} for validation"
        f"{notes}"
    )


def _finish(trainer: Trainer, described: Metadata) -> None:
    """Measure the best weights in full precision, store threshold and metrics in them, and draw everything."""
    best = trainer.run / "weights" / "best.safetensors"

    def describe(metrics: dict[str, Any]) -> Metadata:
        model, _ = weights.load(best)
        final = _with(described, metrics)
        weights.save(best, model.state_dict(), final)
        return final

    summary = trainer.task.finish(trainer.run, trainer.history, describe)
    if trainer.problems:
        say(f"{len(trainer.problems)} images could not be read and were skipped")
    say(summary)
