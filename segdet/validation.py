"""Measuring trained weights or an exported model on a dataset split: what `segdet val` does.

It sits above evaluation, models and inference because it joins them: evaluation itself knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segdet.console import progress
from segdet.data.batches import Batch, SegmentationSamples, default_workers, evaluation_plan, loader
from segdet.data.records import Record
from segdet.errors import InputError
from segdet.evaluation.segmentation import Evaluation, Predict, evaluate, full_metrics
from segdet.metadata import Metadata
from segdet.models import weights
from segdet.models.common import predict


@dataclass
class Measured:
    """metrics: the content of `metrics.json`; evaluation: the counts and predictions behind it."""

    metadata: Metadata
    metrics: dict[str, Any]
    evaluation: Evaluation


def validate(
    source: Path,
    records: Sequence[Record],
    split: str,
    *,
    classes: Sequence[str] | None = None,
    batch: int = 4,
    workers: int | None = None,
    device: str = "cpu",
) -> Measured:
    """Measure weights (safetensors) or an ONNX file on `records`, in float32.

    On "val" the threshold is chosen anew; on any other split the stored one is used.

    Raises:
        InputError: an unusable file, or classes that differ from the dataset's.
    """
    answer, metadata = _onnx(source, device) if source.suffix == ".onnx" else _torch(source, device)
    if classes is not None and list(classes) != metadata.classes:
        raise InputError(
            f"{source}: knows the classes {metadata.classes}, the dataset has {list(classes)}; use matching data"
        )
    samples = SegmentationSamples(records, len(metadata.classes))
    batches = loader(samples, evaluation_plan(records, batch), default_workers() if workers is None else workers)
    with progress(f"measuring on {split}", len(records)) as advance:
        result = evaluate(answer, batches, records, metadata.classes, advance, keep=True)
    threshold = None if split == "val" or metadata.threshold is None else metadata.threshold
    return Measured(metadata, full_metrics(result, records, split, threshold), result)


def _torch(source: Path, device: str) -> tuple[Predict, Metadata]:
    model, metadata = weights.load(source)
    model.to(device, memory_format=torch.channels_last)

    def answer(batch: Batch) -> np.ndarray:
        return predict(model, batch.images, metadata.mean, metadata.std)

    return answer, metadata


def _onnx(source: Path, device: str) -> tuple[Predict, Metadata]:
    from segdet.inference.session import open_session

    session = open_session(source, device)

    def answer(batch: Batch) -> np.ndarray:
        mask, confidence = session.run(batch.images.numpy())
        return confidence if len(session.metadata.classes) == 1 else mask

    return answer, session.metadata
