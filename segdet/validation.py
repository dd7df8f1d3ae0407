"""Measuring trained weights or an exported model on a dataset split: what `segdet val` does.

It sits above evaluation, models and inference because it joins them: evaluation itself knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from segdet.console import progress
from segdet.data import splits
from segdet.data.batches import Batch, SegmentationSamples, evaluation_plan
from segdet.data.images import ImageError, read_ahead
from segdet.data.records import Problem, Record
from segdet.data.stream import Stream, default_workers
from segdet.errors import InputError
from segdet.evaluation import detection, segmentation
from segdet.evaluation.detection import DetectionEvaluation, Detections
from segdet.evaluation.segmentation import Evaluation, Predict
from segdet.inference.session import Session, open_session
from segdet.metadata import Metadata
from segdet.models import weights
from segdet.models.common import predict

Counted = TypeVar("Counted", Evaluation, DetectionEvaluation)


@dataclass
class Measured(Generic[Counted]):
    """metrics: the content of `metrics.json`; evaluation: the counts and predictions behind it."""

    metadata: Metadata
    metrics: dict[str, Any]
    evaluation: Counted


def validate(
    source: Path,
    records: Sequence[Record],
    split: str,
    *,
    classes: Sequence[str] | None = None,
    batch: int = 4,
    workers: int | None = None,
    device: str = "cpu",
) -> Measured[Any]:
    """Measure weights (safetensors) or an ONNX file on `records`, in float32.

    On "val" the threshold is chosen anew; on any other split the stored one is used. The model's task decides what is
    counted, and with it the kind of evaluation.

    Raises:
        InputError: an unusable file, or classes that differ from the dataset's.
    """
    session = open_session(source, device) if source.suffix == ".onnx" else None
    metadata = session.metadata if session is not None else weights.read_metadata(source)
    if classes is not None and list(classes) != metadata.classes:
        raise InputError(
            f"{source}: knows the classes {metadata.classes}, the dataset has {list(classes)}; use matching data"
        )
    threshold = None if split == "val" or metadata.threshold is None else metadata.threshold
    if metadata.task == "detection":
        found = _onnx_detections(session) if session is not None else _torch_detections(source, device)
        with progress(f"measuring on {split}", len(records)) as advance:
            boxes = detection.evaluate_detections(found, _images(records), records, metadata.classes, advance)
        return Measured(metadata, detection.full_metrics(boxes, records, split, threshold), boxes)
    answer = _onnx_masks(session) if session is not None else _torch_masks(source, device)
    if any(record.outlined for record in records):
        records = splits.outlined(records)
    samples = SegmentationSamples(records, len(metadata.classes))
    batches = Stream(samples, evaluation_plan(records, batch), default_workers() if workers is None else workers)
    with progress(f"measuring on {split}", len(records)) as advance:
        masks = segmentation.evaluate(answer, batches, records, metadata.classes, advance, keep=True)
    return Measured(metadata, segmentation.full_metrics(masks, records, split, threshold), masks)


def _torch_masks(source: Path, device: str) -> Predict:
    model, metadata = weights.load(source)
    model.to(device, memory_format=torch.channels_last)

    def answer(batch: Batch) -> np.ndarray:
        return predict(model, batch.images, metadata.mean, metadata.std)

    return answer


def _onnx_masks(session: Session) -> Predict:
    def answer(batch: Batch) -> np.ndarray:
        mask, confidence = session.run(batch.images.numpy())
        return confidence if len(session.metadata.classes) == 1 else mask

    return answer


@dataclass
class _Images:
    """images uint8 `[N, H, W, 3]` at their own size, their record indices, and what had to be left out."""

    images: np.ndarray
    indices: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _images(records: Sequence[Record]) -> Iterator[_Images]:
    """Every image for itself: detectors take any size, and photographs of one size are rare."""
    for index, image in enumerate(read_ahead(record.image for record in records)):
        record = records[index]
        if isinstance(image, ImageError):
            why = str(image).removeprefix(f"{record.image}: ")
        elif image.shape[:2] != record.size:
            why = f"changed on disk: it was {record.width}x{record.height} when it was listed"
        else:
            yield _Images(image[None], [index])
            continue
        yield _Images(np.empty((0, 1, 1, 3), np.uint8), problems=[Problem(record.image, why)])


def _torch_detections(source: Path, device: str) -> Callable[[_Images], list[Detections]]:
    from segdet.models.detector import load_detector

    predict_boxes, _ = load_detector(source, device)
    return lambda batch: [Detections(*found) for found in predict_boxes(batch.images)]


def _onnx_detections(session: Session) -> Callable[[_Images], list[Detections]]:
    return lambda batch: [Detections(*found) for found in zip(*session.run(batch.images), strict=True)]
