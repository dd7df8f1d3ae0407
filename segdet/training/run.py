"""A training run from settings to a run folder: data, model, loop, final validation, pictures and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from torch import nn

from segdet.console import progress, say
from segdet.data import catalog, splits
from segdet.data.augment import SegmentationAugment
from segdet.data.batches import SegmentationSamples, TrainingPlan, default_workers, evaluation_plan, loader
from segdet.data.records import Dataset, by_photograph
from segdet.errors import InputError, SegdetError
from segdet.evaluation.segmentation import Evaluation
from segdet.files import new_folder, write_json, write_text
from segdet.metadata import DataSource, Metadata
from segdet.models import weights
from segdet.models.backbones import Backbone
from segdet.models.registry import arch_named, build_model
from segdet.reporting import pictures, report
from segdet.training import checkpoints, devices
from segdet.training.config import TrainConfig
from segdet.training.loop import Data, Trainer
from segdet.training.losses import loss_named
from segdet.validation import validate
from segdet.version import __version__


@dataclass
class _Setup:
    dataset: Dataset
    model: nn.Module
    backbone: Backbone
    notes: list[str]


def train(config: TrainConfig, resume: Path | None = None) -> Path:
    """Train as `config` says, or go on with the run folder `resume`, and return the run folder.

    Raises:
        InputError: settings or data that cannot be used. SegdetError: training failed. Interrupted: by a signal.
    """
    state = checkpoints.load_state(resume) if resume is not None else None
    arch_named(config.arch)
    accelerator = devices.accelerator(config.device, config.precision)
    if accelerator.device.type == "cpu":
        devices.keep_freed_memory()
    torch.manual_seed(config.seed)
    setup = _prepare(config, start_weights=resume is None)
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
    config = config.model_copy(update={"backbone": setup.backbone.name})
    if accelerator.is_main_process and resume is None:
        _describe(config, setup, run)
    trainer = _trainer(config, accelerator, setup, run)
    if state is not None:
        trainer.restore(state)
        if trainer.done:
            raise InputError(f"--resume {resume}: it is done ({trainer.epoch} epochs); train a new run for more")
        say(f"going on with {run} in epoch {trainer.epoch + 1}, step {trainer.start + 1}")
    say(_headline(config, accelerator, setup, run))
    trainer.fit()
    if accelerator.is_main_process:
        _finish(config, setup, trainer, run)
    accelerator.wait_for_everyone()
    return run


def _prepare(config: TrainConfig, start_weights: bool) -> _Setup:
    """Read the data and build the model."""
    with progress("drawing crack-demo", 220) as advance:
        dataset = catalog.load(config.data, lambda done, total: advance(1))
    if config.fold:
        dataset = splits.fold(dataset, *splits.parse_fold(config.fold), config.seed)
    dataset, note = splits.with_validation(dataset, config.seed)
    dataset = splits.limited(dataset, config.limit)
    _check_outlines(dataset)
    notes = [note] if note else []
    named = config.weights in ("imagenet", "none")
    kind = config.weights if named and start_weights else "none"
    model, backbone = build_model(config.arch, config.backbone, dataset.classes, kind, config.options, config.imgsz)
    if not named and start_weights:
        notes.append(weights.start_from(Path(config.weights), model, backbone))
    for problem in dataset.problems[:10]:
        say(f"left out: {problem}")
    if len(dataset.problems) > 10:
        say(f"left out: {len(dataset.problems) - 10} more (see problems.txt in the run folder)")
    return _Setup(dataset, model, backbone, notes)


def _check_outlines(dataset: Dataset) -> None:
    outlined = any(i.polygons or i.rle for records in dataset.splits.values() for r in records for i in r.instances)
    if not outlined:
        raise InputError(
            f"{dataset.root}: only boxes or no labels at all; segmentation needs outlines (polygons or masks)"
        )


def _describe(config: TrainConfig, setup: _Setup, run: Path) -> None:
    """Write what is known before the first step: settings, label statistics, what was left out."""
    write_text(run / "config.yaml", yaml.safe_dump(config.model_dump(), sort_keys=False))
    if setup.dataset.problems:
        write_text(run / "problems.txt", "\n".join(map(str, setup.dataset.problems)) + "\n")
    pictures.labels(setup.dataset, run / "labels.png")
    records = setup.dataset.splits["train"]
    samples = SegmentationSamples(records, len(setup.dataset.classes), _augment(config, setup.dataset), config.seed)
    plan = TrainingPlan(records, 16, config.seed)
    shown = [sample for sample in (samples[key] for key in next(iter(plan))) if isinstance(sample, tuple)]
    pictures.samples(
        [image for _, image, _ in shown], [target for _, _, target in shown], run / "samples" / "train.jpg"
    )


def _augment(config: TrainConfig, dataset: Dataset) -> SegmentationAugment:
    one = len(dataset.classes) == 1
    turns = one if config.quarter_turns is None else config.quarter_turns
    return SegmentationAugment(config.imgsz, turns, soft=one)


def _trainer(config: TrainConfig, accelerator: Accelerator, setup: _Setup, run: Path) -> Trainer:
    dataset = setup.dataset
    rank, world = accelerator.process_index, accelerator.num_processes
    workers = default_workers() if config.workers is None else config.workers
    pin = accelerator.device.type == "cuda"
    count = len(dataset.classes)
    train_records, val_records = dataset.splits["train"], dataset.splits["val"]
    plan = TrainingPlan(train_records, config.batch, config.seed, rank, world)
    training = SegmentationSamples(train_records, count, _augment(config, dataset), config.seed)
    validation = evaluation_plan(val_records, config.batch, rank, world)
    data = Data(
        loader(training, plan, workers, pin),
        plan,
        loader(SegmentationSamples(val_records, count), validation, workers, pin),
        val_records,
        dataset.classes,
    )
    described = _metadata(config, setup)

    def save(which: str, state: Mapping[str, torch.Tensor], metrics: dict[str, Any]) -> None:
        now = described.model_copy(update={"threshold": metrics["threshold"], "metrics": _brief(metrics)})
        weights.save(run / "weights" / f"{which}.safetensors", state, now)

    mean, std = setup.backbone.mean, setup.backbone.std
    return Trainer(
        config,
        accelerator,
        setup.model,
        setup.backbone,
        mean,
        std,
        loss_named(config.loss, count, config.class_weights),
        data,
        run,
        save,
    )


def _metadata(config: TrainConfig, setup: _Setup) -> Metadata:
    dataset = setup.dataset
    return Metadata(
        schema=1,
        task=arch_named(config.arch).task,
        arch=config.arch,
        backbone=setup.backbone.name,
        options=config.options,
        classes=list(dataset.classes),
        imgsz=config.imgsz,
        mean=list(setup.backbone.mean),
        std=list(setup.backbone.std),
        data=DataSource(name=dataset.name, sha256=dataset.fingerprint(), licence=dataset.licence),
        version=__version__,
    )


def _brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the metrics that travels inside the weights: numbers, not the rows per class."""
    return {key: value for key, value in metrics.items() if key not in ("classes", "threshold")}


def _headline(config: TrainConfig, accelerator: Accelerator, setup: _Setup, run: Path) -> str:
    train_records, val_records = setup.dataset.splits["train"], setup.dataset.splits["val"]
    parameters = sum(parameter.numel() for parameter in setup.model.parameters()) / 1e6
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    notes = "".join(f"\n{note}" for note in setup.notes)
    return (
        f"{run}: {config.arch} on {setup.backbone.name} ({parameters:.1f} M parameters), {accelerator.device.type} {precision}; "
        f"{len(train_records)} training images of {len(by_photograph(train_records))} photographs, {len(val_records)} for validation"
        f"{notes}"
    )


def _finish(config: TrainConfig, setup: _Setup, trainer: Trainer, run: Path) -> None:
    """Measure the best weights in full precision, store threshold and metrics in them, and draw everything."""
    best = run / "weights" / "best.safetensors"
    records = setup.dataset.splits["val"]
    measured = validate(best, records, "val", workers=config.workers, device=str(trainer.accelerator.device))
    metrics, result = measured.metrics, measured.evaluation
    model, described = weights.load(best)
    described = described.model_copy(update={"threshold": metrics["threshold"], "metrics": _brief(metrics)})
    weights.save(best, model.state_dict(), described)
    write_json(run / "metrics.json", metrics)
    pictures.results(trainer.history, run / "results.png")
    worst_first = _ordered(result, metrics["threshold"])
    pictures.validation(records, result, metrics["threshold"], worst_first, run / "samples")
    report.write(run, setup.dataset, metrics, trainer.history, result, described)
    if trainer.problems:
        say(f"{len(trainer.problems)} images could not be read and were skipped")
    say(_summary(metrics, run))


def _ordered(result: Evaluation, threshold: float | None) -> list[int]:
    each = result.iou_of_each(threshold)
    return sorted(each, key=lambda index: each[index])


def _summary(metrics: Mapping[str, Any], run: Path) -> str:
    low, high = metrics["ci95"]["iou"]
    if not np.isfinite(metrics["iou"]):
        raise SegdetError(f"{run}: the validation score is not a number")
    tail = f" at threshold {metrics['threshold']:.3f}" if metrics["threshold"] is not None else ""
    thin = f", F1@2px {metrics['f1_2px']:.3f}, clDice {metrics['cldice']:.3f}" if "f1_2px" in metrics else ""
    return (
        f"{run}: val IoU {metrics['iou']:.4f} (95 % CI {low:.4f} to {high:.4f}), F1 {metrics['f1']:.4f}{thin}{tail}; "
        f"see {run / 'report.html'}"
    )
