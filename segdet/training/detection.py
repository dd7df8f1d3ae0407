"""Training for detection: samples, loss, and what is measured and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import nn

from segdet.console import progress
from segdet.data.geometry.boxes import usual_size
from segdet.data.loading.augment_boxes import AspectAugment, SquareAugment
from segdet.data.loading.cache import cache_for
from segdet.data.loading.datasets import TrainingPlan, evaluation_plan, largest
from segdet.data.loading.detection_datasets import DetectionBatch, DetectionPlan, DetectionSamples, collate_boxes
from segdet.data.loading.loader import Stream, default_workers
from segdet.data.records import Problem
from segdet.errors import SegdetError
from segdet.evaluation.detection import DetectionEvaluation, Detections, evaluate_detections
from segdet.metadata import Metadata
from segdet.models import devices
from segdet.models.common import normalise
from segdet.models.detection import Target
from segdet.models.detector import Detector, detect
from segdet.models.detr import DETR
from segdet.models.dfine import DFINE
from segdet.models.duplicates import damped
from segdet.reporting import pictures, publish
from segdet.training.detection_losses import DETRLoss, DFINELoss
from segdet.training.task import Setup
from segdet.validation.run import validate

_GAIN = 0.005  # of AP, from which damping duplicates is worth a further step in the graph


class DetectionTask:
    """See `task.Task`. The loss is the architecture's own."""

    score = "ap"
    columns: tuple[str, ...] = ("ap", "ap50", "f1", "precision", "recall", "threshold")

    def __init__(self, setup: Setup) -> None:
        config, accelerator, dataset = setup.config, setup.accelerator, setup.dataset
        self.setup = setup
        self.records = dataset.splits["val"]
        rank, world = accelerator.process_index, accelerator.num_processes
        workers = default_workers() if config.workers is None else config.workers
        pin = accelerator.device.type == "cuda"
        turns = bool(config.quarter_turns)
        model = cast(DETR | DFINE, setup.model)
        augment = (SquareAugment if model.square else AspectAugment)(turns, config.augment)
        self.few_sizes = bool(model.square)  # else every batch is padded to a size of its own
        multiple = model.backbone.multiple if model.square and config.augment != "none" else None
        records = dataset.splits["train"]
        if isinstance(model, DFINE) and config.weights in ("imagenet", "none") and (size := usual_size(records)):
            model.decoder.expect(*size)
        self.samples = DetectionSamples(records, augment, config.seed, cache_for(records, config.cache, workers))
        self.multiple = multiple
        self.plan: TrainingPlan = DetectionPlan(records, config.images, config.seed, setup.imgsz, multiple, rank, world)
        self.train = Stream(self.samples, self.plan, workers, pin, collate_boxes)
        validation = evaluation_plan(self.records, config.images, rank, world)
        most = largest(validation, self.records)
        self.val = Stream(DetectionSamples(self.records), validation, workers, pin, collate_boxes, most)
        classes = len(dataset.classes)
        criterion = DETRLoss(classes) if isinstance(setup.model, DETR) else DFINELoss(classes)
        self.criterion = criterion.to(accelerator.device)

    def loss(self, network: nn.Module, batch: DetectionBatch) -> torch.Tensor:
        """As `Task.loss`."""
        accelerator, backbone = self.setup.accelerator, self.setup.backbone
        device = accelerator.device
        inputs = normalise(batch.images.to(device, non_blocking=True), backbone.mean, backbone.std)
        mask = batch.mask()
        if mask is not None:
            mask = mask.to(device, non_blocking=True)
            inputs = inputs.masked_fill(mask[:, None], 0.0)
        targets = [
            Target(b.to(device, non_blocking=True), k.to(device, non_blocking=True))
            for b, k in zip(batch.boxes, batch.labels, strict=True)
        ]
        with accelerator.autocast():
            predictions = network(inputs, mask, targets)
        count = float(sum(len(target.labels) for target in targets))
        if accelerator.num_processes > 1:  # as published: divided by the mean over processes
            count = float(accelerator.reduce(torch.tensor(count, device=device), "mean"))
        return torch.stack(list(self.criterion(predictions, targets, max(1.0, count)).values())).sum()

    def validate(self, network: nn.Module) -> tuple[dict[str, Any], float | None, list[Problem]]:
        """As `Task.validate`; there is no loss, matching costs more than it tells.

        "damp_duplicates" says whether the scores are those with duplicates damped, which is stored with the weights.
        """
        accelerator, backbone = self.setup.accelerator, self.setup.backbone
        detector = Detector(network, backbone.mean, backbone.std).eval()

        def predict(batch: DetectionBatch) -> list[Detections]:
            with accelerator.autocast():
                return [Detections(*found) for found in detect(detector, batch.images)]

        with progress("validating", len(self.records)) as advance:
            part = evaluate_detections(predict, self.val, self.records, self.setup.dataset.classes, advance)
        if accelerator.num_processes > 1:
            first, *others = gather_object([part])
            part = first.merge(others)
        if not part.indices:
            raise SegdetError(f"none of the {len(self.records)} validation images could be read")
        metrics, other = part.metrics(), _damped(part).metrics()
        better = (other["ap"] or 0.0) > (metrics["ap"] or 0.0) + _GAIN
        return {**(other if better else metrics), "damp_duplicates": better}, None, part.problems

    def draw_samples(self, run: Path) -> None:
        """As `Task.draw_samples`."""
        config = self.setup.config
        plan = DetectionPlan(self.samples.records, 16, config.seed, self.setup.imgsz, self.multiple)
        shown = [sample for sample in (self.samples[key] for key in next(iter(plan))) if isinstance(sample, tuple)]
        pictures.box_samples(
            [sample[1:] for sample in shown], self.setup.dataset.classes, run / "samples" / "train.jpg"
        )

    def release(self) -> None:
        """As `Task.release`."""
        self.train.close()
        self.val.close()
        self.samples.cache = None

    def finish(self, run: Path, describe: Callable[[dict[str, Any]], Metadata]) -> str:
        """As `Task.finish`."""
        device = devices.named(self.setup.accelerator.device)
        best = run / "weights" / "best.safetensors"
        measured = validate(best, self.records, "val", workers=self.setup.config.workers, device=device)
        metrics = measured.metrics
        publish.run_folder(
            run, self.setup.dataset, describe(metrics), metrics, measured.evaluation, measured.tally, measured.errors
        )
        return _summary(metrics, run)


def _summary(metrics: Mapping[str, Any], run: Path) -> str:
    if not metrics["labelled_images"]:
        return (
            f"{run}: no object in the {metrics['images']} validation images, so no score and threshold 0.5; there "
            f"{metrics['errors']['background']} boxes are shown; see {run / 'report.html'}"
        )
    low, high = metrics["ci95"]["ap"]
    return (
        f"{run}: val AP {_shown(metrics['ap'])} (95 % CI {_shown(low)} to {_shown(high)}), AP50 {_shown(metrics['ap50'])}, "
        f"AP75 {_shown(metrics['ap75'])}; F1 {_shown(metrics['f1'])} at confidence {_shown(metrics['threshold'])}; "
        f"see {run / 'report.html'}"
    )


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _damped(found: DetectionEvaluation) -> DetectionEvaluation:
    """The same images with the scores of duplicates lowered."""
    result = DetectionEvaluation(found.classes, found.records, problems=list(found.problems))
    for index in found.indices:
        kept = found.kept[index]
        parts = (torch.from_numpy(part)[None] for part in (kept.boxes, kept.scores, kept.labels))
        result.add(index, Detections(*(part[0].numpy() for part in damped(*parts))))
    return result
