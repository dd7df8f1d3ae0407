"""Training for segmentation: samples, loss, and what is measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn

from segdet.console import progress
from segdet.data.loading.augment import SegmentationAugment
from segdet.data.loading.cache import cache_for
from segdet.data.loading.datasets import (
    Batch,
    SegmentationSamples,
    TrainingPlan,
    evaluation_plan,
    largest,
)
from segdet.data.loading.loader import Stream, default_workers
from segdet.data.records import Problem, Record, by_photograph
from segdet.errors import SegdetError
from segdet.evaluation.segmentation import evaluate
from segdet.inference.predict.tiling import answers, is_large
from segdet.metadata import Metadata
from segdet.models import devices
from segdet.models.common import answer, bounded, normalise
from segdet.models.network import outputs
from segdet.reporting import pictures, publish
from segdet.training.losses import loss_named
from segdet.training.task import Setup
from segdet.validation.run import validate


class SegmentationTask:
    """See `task.Task`."""

    score = "iou"
    columns: tuple[str, ...] = ("iou", "f1", "precision", "recall", "threshold")
    few_sizes = True

    def __init__(self, setup: Setup) -> None:
        config, accelerator, dataset = setup.config, setup.accelerator, setup.dataset
        self.setup = setup
        self.records, count = dataset.splits["val"], len(dataset.classes)
        rank, world = accelerator.process_index, accelerator.num_processes
        workers = default_workers() if config.workers is None else config.workers
        pin = accelerator.device.type == "cuda"
        turns = bool(config.quarter_turns)
        augment = SegmentationAugment.named(
            config.augment, setup.imgsz, turns, count == 1, config.clean_fraction, config.max_scale
        )
        own = dataset.splits["train"]
        records, mixed = _mixed(own, setup.mixed)
        cache = cache_for(records, config.cache, workers)
        self.samples = SegmentationSamples(records, count, augment, config.seed, cache)
        self.plan = TrainingPlan(own, config.images, config.seed, rank, world, mixed)
        self.train = Stream(self.samples, self.plan, workers, pin)
        validation = evaluation_plan(self.records, config.images, rank, world)
        most = largest(validation, self.records)
        self.val = Stream(SegmentationSamples(self.records, count), validation, workers, pin, largest=most)
        self.criterion = loss_named(config.loss, count, config.class_weights)

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """As `Task.loss`."""
        accelerator, backbone = self.setup.accelerator, self.setup.backbone
        inputs = normalise(batch.images.to(accelerator.device, non_blocking=True), backbone.mean, backbone.std)
        targets = batch.targets.to(accelerator.device, non_blocking=True)
        with accelerator.autocast():
            outputs = network(inputs)
        return self.criterion(outputs, targets)

    def validate(self, network: nn.Module) -> tuple[dict[str, Any], float | None, list[Problem]]:
        """As `Task.validate`."""
        accelerator, backbone = self.setup.accelerator, self.setup.backbone
        losses: list[float] = []

        def logits_of(images: torch.Tensor) -> torch.Tensor:
            inputs = normalise(images.to(accelerator.device), backbone.mean, backbone.std)
            with accelerator.autocast():
                logits = bounded(network, inputs, self.setup.model.most_pixels)
            return logits.float()

        def predict(batch: Batch) -> np.ndarray:
            if is_large(batch.images.shape[1:3]):
                pieces = _WithTargets(logits_of, self.criterion, len(self.setup.dataset.classes) == 1)
                found = pieces.answers(batch)
                losses.append(float(np.mean(pieces.losses)))
                return found
            logits = logits_of(batch.images)
            losses.append(float(self.criterion(logits, batch.targets.to(logits.device))))
            return answer(logits)

        with torch.inference_mode(), progress("validating", len(self.records)) as advance:
            part = evaluate(predict, self.val, self.records, self.setup.dataset.classes, advance)
        if accelerator.num_processes > 1:
            first, *others = gather_object([part])
            part = first.merge(others)
        if not part.indices:
            raise SegdetError(f"none of the {len(self.records)} validation images could be read")
        return part.metrics(), float(np.mean(losses)) if losses else None, part.problems

    def draw_samples(self, run: Path) -> None:
        """As `Task.draw_samples`."""
        plan = TrainingPlan(self.setup.dataset.splits["train"], 16, self.setup.config.seed, mixed=self.plan.mixed)
        shown = [sample for sample in (self.samples[key] for key in next(iter(plan))) if isinstance(sample, tuple)]
        images, targets = [image for _, image, _ in shown], [target for _, _, target in shown]
        pictures.samples(images, targets, len(self.setup.dataset.classes) == 1, run / "samples" / "train.jpg")

    def release(self) -> None:
        """As `Task.release`."""
        self.train.close()
        self.val.close()
        self.samples.cache = None

    def finish(self, run: Path, describe: Callable[[dict[str, Any]], Metadata]) -> str:
        """As `Task.finish`."""
        best = run / "weights" / "best.safetensors"
        device = devices.named(self.setup.accelerator.device)
        measured = validate(best, self.records, "val", workers=self.setup.config.workers, device=device)
        metrics = measured.metrics
        publish.run_folder(
            run, self.setup.dataset, describe(metrics), metrics, measured.evaluation, measured.tally, measured.errors
        )
        return _summary(metrics, run)


class _WithTargets:
    """A network whose tiles of large images carry their targets as a fourth channel, for the loss of each tile."""

    def __init__(
        self, logits_of: Callable[[torch.Tensor], torch.Tensor], criterion: nn.Module, one_class: bool
    ) -> None:
        self._logits_of, self._criterion, self.one_class = logits_of, criterion, one_class
        self.losses: list[float] = []

    def answers(self, batch: Batch) -> np.ndarray:
        """Probabilities (one class) or class indices of a batch of large images, tile by tile."""
        images = torch.cat([batch.images, batch.targets[..., None]], dim=3).numpy()
        masks, confidences = answers(self, images)
        return confidences if self.one_class else masks

    def run(self, tiles: np.ndarray) -> tuple[np.ndarray, ...]:
        """As `tiling.Segmenting`."""
        stack = torch.from_numpy(tiles)
        logits = self._logits_of(stack[..., :3])
        self.losses.append(float(self._criterion(logits, stack[..., 3].to(logits.device))))
        return outputs(logits)


def _mixed(
    own: Sequence[Record], others: Sequence[tuple[Sequence[Record], float]]
) -> tuple[list[Record], list[tuple[Sequence[int], int]]]:
    """All training records, and of each further dataset the indices and the number that makes its share of an epoch."""
    records: list[Record] = list(own)
    parts: list[tuple[Sequence[int], int]] = []
    left = 1 - sum(share for _, share in others)
    for more, share in others:
        number = round(len(by_photograph(own)) * share / left)
        parts.append((range(len(records), len(records) + len(more)), number))
        records += more
    return records, parts


def _summary(metrics: Mapping[str, Any], run: Path) -> str:
    if not metrics["labelled_images"]:
        alarms = metrics["negatives"]
        return (
            f"{run}: no object in the {metrics['images']} validation images, so no score and threshold 0.5; there something is marked "
            f"on {alarms['false_positive_images']} of them; see {run / 'report.html'}"
        )
    if not np.isfinite(metrics["iou"]):
        raise SegdetError(f"{run}: the validation score is not a number")
    low, high = metrics["ci95"]["iou"]
    tail = f" at threshold {metrics['threshold']:.3f}" if metrics["threshold"] is not None else ""
    thin = f", F1@2px {metrics['f1_2px']:.3f}, clDice {metrics['cldice']:.3f}" if "f1_2px" in metrics else ""
    return (
        f"{run}: val IoU {metrics['iou']:.4f} (95 % CI {low:.4f} to {high:.4f}), F1 {metrics['f1']:.4f}{thin}{tail}; "
        f"see {run / 'report.html'}"
    )
