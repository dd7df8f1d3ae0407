"""From records to batches: torch datasets, and which samples an epoch takes in which order.

Shapes: images are uint8 `[N, H, W, 3]` and targets uint8 `[N, H, W]`; they travel as bytes (a quarter of float32) and
are normalised on the device. A target is coverage 0..255 when there is one class, else a class index with 255 = ignore. At
the image's own resolution coverage is 0 or 255: training sees the mask that scores are taken on, and the same whether labels
came as outlines or as mask images. What lies between comes from resampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segdet.data.geometry import rasterize
from segdet.data.loading.augment import SegmentationAugment
from segdet.data.loading.cache import ImageCache, decoded_once
from segdet.data.records import Problem, Record, by_photograph
from segdet.errors import InputError

Key = tuple[int, ...]  # (epoch, index of the record), and what else a plan has to say about the sample


@dataclass
class Batch:
    """images uint8 `[N, H, W, 3]`, targets uint8 `[N, H, W]`, their record indices, and what had to be left out."""

    images: torch.Tensor
    targets: torch.Tensor
    indices: list[int]
    problems: list[Problem] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Called by the loader when batches go to a GPU."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices, self.problems)

    def part(self, rows: slice) -> Batch:
        """Some of the images; problems stay with the whole."""
        return Batch(self.images[rows], self.targets[rows], self.indices[rows])


class SegmentationSamples(Dataset[Any]):
    """Decoded, rasterised and (for training) augmented samples by (epoch, index).

    A sample depends on nothing but the seed, the epoch and the index: not on the worker, not on what was read before.
    """

    def __init__(
        self, records: Sequence[Record], classes: int, augment: SegmentationAugment | None = None, seed: int = 0,
        cache: ImageCache | None = None,
    ) -> None:  # fmt: skip
        self.records, self.cache = records, cache
        self.classes = classes
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> tuple[int, np.ndarray, np.ndarray] | Problem:
        epoch, index = key[:2]
        record = self.records[index]
        image = decoded_once(self.records, index, self.cache)
        if isinstance(image, Problem):
            return image
        target = rasterize.target(record, self.classes)
        if self.classes == 1:  # as shares of 255, since the augmentation resamples it smoothly
            target *= 255
        if self.augment is not None:
            image, target = self.augment(image, target, [self.seed, epoch, index])
        return index, image, target


def collate(samples: Sequence[tuple[int, np.ndarray, np.ndarray] | Problem]) -> Batch:
    """Stack samples of one shape; images that could not be read become problems."""
    good = [sample for sample in samples if not isinstance(sample, Problem)]
    problems = [sample for sample in samples if isinstance(sample, Problem)]
    if not good:
        return Batch(torch.empty(0, 1, 1, 3, dtype=torch.uint8), torch.empty(0, 1, 1, dtype=torch.uint8), [], problems)
    return Batch(
        torch.from_numpy(np.stack([image for _, image, _ in good])),
        torch.from_numpy(np.stack([target for _, _, target in good])),
        [index for index, _, _ in good],
        problems,
    )


class TrainingPlan:
    """The batches of an epoch: every photograph once, one of its augmented siblings at random, in random order.

    Iterating gives this process's share: lists of `batch` keys. A plan depends only on (seed, epoch), so an
    interrupted epoch goes on at `start` with exactly what was left, and several processes agree without talking.

    Args:
        mixed: further photographs, and how many of them join each epoch: (indices of their images, number).

    Raises:
        InputError: fewer photographs than processes.
    """

    def __init__(
        self, records: Sequence[Record], batch: int, seed: int, rank: int = 0, world: int = 1,
        mixed: Sequence[tuple[Sequence[int], int]] = (),
    ) -> None:  # fmt: skip
        self.groups, self.mixed = list(by_photograph(records).values()), mixed
        self.batch, self.seed, self.rank, self.world = batch, seed, rank, world
        if len(self.groups) + sum(number for _, number in mixed) < world:
            raise InputError(
                f"{len(self.groups)} training photographs for {world} processes; start fewer, or add images"
            )
        self.epoch = 0
        self.start = 0
        self.progress = 0.0  # share of the training done at the start of the epoch

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        together = len(self.groups) + sum(number for _, number in self.mixed)
        return max(1, together // (self.batch * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        chosen = [group[rng.integers(len(group))] for group in self.groups]
        for indices, number in self.mixed:
            chosen += [indices[k] for k in rng.choice(len(indices), number, replace=number > len(indices))]
        order = [chosen[position] for position in rng.permutation(len(chosen))]
        together = self.batch * self.world
        # An incomplete last batch is left out: with batch norm, one of a single image would do harm.
        for number in range(self.start, len(self)):
            share = order[number * together : (number + 1) * together][self.rank :: self.world]
            yield [(self.epoch, index) for index in share]


def evaluation_plan(records: Sequence[Record], batch: int, rank: int = 0, world: int = 1) -> list[list[Key]]:
    """Every record once, grouped by image size so that images are compared at their own resolution, unpadded."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, record in enumerate(records):
        by_size.setdefault(record.size, []).append(index)
    plan: list[list[Key]] = []
    for (height, width), indices in by_size.items():
        step = max(1, min(batch, 8_000_000 // (height * width)))  # keeps memory about constant for large photographs
        plan.extend([(0, index) for index in indices[i : i + step]] for i in range(0, len(indices), step))
    return plan[rank::world]


def largest(plan: Sequence[Sequence[Key]], records: Sequence[Record]) -> int:
    """Bytes of the images and masks of the largest batch of an `evaluation_plan`."""
    return max((sum(4 * records[key[1]].width * records[key[1]].height for key in keys) for keys in plan), default=0)
