"""What the loop needs to know of segmentation or detection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from segdet.data.loading.datasets import TrainingPlan
from segdet.data.loading.loader import Stream
from segdet.data.records import Dataset, Problem, Record
from segdet.metadata import Metadata
from segdet.models.backbones import Backbone
from segdet.training.config import TrainConfig


@dataclass
class Setup:
    """What a run works with once data and model are there.

    imgsz: side of the images. notes: lines for the user. mixed: further training images, and their share of every epoch.
    """

    config: TrainConfig
    accelerator: Accelerator
    dataset: Dataset
    model: nn.Module
    backbone: Backbone
    imgsz: int
    notes: list[str] = field(default_factory=list)
    mixed: list[tuple[Sequence[Record], float]] = field(default_factory=list)


class Task(Protocol):
    """One kind of model.

    score: the metric that chooses the best weights. columns: the metrics in `results.csv`.
    few_sizes: whether training images come in a few sizes only, for which a GPU may tune.
    train, plan: batches with `indices` and `problems`, in the order of the plan.
    """

    score: str
    columns: tuple[str, ...]
    few_sizes: bool
    train: Stream
    plan: TrainingPlan

    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """The loss of a batch, a scalar tensor."""
        ...

    def validate(self, network: nn.Module) -> tuple[dict[str, Any], float | None, list[Problem]]:
        """Metrics on the validation split (the same in every process), loss there, and images that could not be read."""
        ...

    def draw_samples(self, run: Path) -> None:
        """A training batch with its targets as a picture."""
        ...

    def release(self) -> None:
        """End the loader processes and forget their images: training is over, and measuring starts its own."""
        ...

    def finish(self, run: Path, describe: Callable[[dict[str, Any]], Metadata]) -> str:
        """Measure the best weights, write metrics, pictures and report; the last line for the user.

        describe: stores threshold and metrics in the weights file and returns its description.
        """
        ...
