"""Samples and batches for detection. Crowd regions and boxes thinner than a pixel are not trained on; empty images are.

Shapes: images uint8 `[N, H, W, 3]`, padded with zeros to the right and below to the largest of the batch and to a multiple of
`MULTIPLE`; boxes float32 `[K, 4]`, cxcywh as shares of the image without its padding; labels int64 `[K]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segdet.data.geometry.boxes import boxes_of
from segdet.data.loading.augment_boxes import AspectAugment, SquareAugment
from segdet.data.loading.cache import ImageCache, decoded_once
from segdet.data.loading.datasets import Key, TrainingPlan
from segdet.data.records import Problem, Record

MULTIPLE = 32  # of padded sizes: maps of stride 32 then end where the padding begins
SCALES = (0.75, 1.25)  # sides of the squares in multi-scale training, as shares of the image size
CALM = 0.85  # share of the training from which images come whole and unchanged


@dataclass
class DetectionBatch:
    """sizes: (height, width) of each image without its padding; indices: of the records."""

    images: torch.Tensor
    sizes: list[tuple[int, int]]
    boxes: list[torch.Tensor]
    labels: list[torch.Tensor]
    indices: list[int]
    problems: list[Problem] = field(default_factory=list)

    def pin_memory(self) -> DetectionBatch:
        """Called by the loader when batches go to a GPU."""
        boxes, labels = ([t.pin_memory() for t in ts] for ts in (self.boxes, self.labels))
        return DetectionBatch(self.images.pin_memory(), self.sizes, boxes, labels, self.indices, self.problems)

    def part(self, rows: slice) -> DetectionBatch:
        """Some of the images, padded as they were; problems stay with the whole."""
        return DetectionBatch(
            self.images[rows], self.sizes[rows], self.boxes[rows], self.labels[rows], self.indices[rows]
        )

    def mask(self) -> torch.Tensor | None:
        """bool `[N, H, W]`, True = padding; None when no image has any."""
        height, width = self.images.shape[1:3]
        if all(size == (height, width) for size in self.sizes):
            return None
        mask = torch.ones(len(self.sizes), height, width, dtype=torch.bool)
        for row, (h, w) in enumerate(self.sizes):
            mask[row, :h, :w] = False
        return mask


class DetectionPlan(TrainingPlan):
    """As `TrainingPlan`, with keys (epoch, index, side, calm): all images of a batch have one side, drawn for each batch.

    multiple: sides are multiples of it; None = always `size`.
    """

    def __init__(
        self, records: Sequence[Record], batch: int, seed: int, size: int, multiple: int | None,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(records, batch, seed, rank, world)
        self.size, self.multiple = size, multiple

    def __iter__(self) -> Iterator[list[Key]]:
        calm = int(self.progress >= CALM)
        for number, keys in enumerate(super().__iter__(), self.start):
            side = self.size if calm or self.multiple is None else self._side(number)
            yield [(*key, side, calm) for key in keys]

    def _side(self, number: int) -> int:
        assert self.multiple is not None
        rng = np.random.default_rng([self.seed, self.epoch, number])  # the same in every process
        low, high = (max(1, round(share * self.size / self.multiple)) for share in SCALES)
        return int(rng.integers(low, high + 1)) * self.multiple


class DetectionSamples(Dataset[Any]):
    """Decoded and (for training) augmented samples by key; as reproducible as `SegmentationSamples`."""

    def __init__(
        self, records: Sequence[Record], augment: SquareAugment | AspectAugment | None = None, seed: int = 0,
        cache: ImageCache | None = None,
    ) -> None:  # fmt: skip
        self.records, self.augment, self.seed, self.cache = records, augment, seed, cache

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | Problem:
        record = self.records[key[1]]
        image = decoded_once(self.records, key[1], self.cache)
        if isinstance(image, Problem):
            return image
        boxes, labels, crowd = boxes_of(record)
        boxes, labels = boxes[~crowd], labels[~crowd]
        if self.augment is not None:
            epoch, index, side, calm = key
            rng = np.random.default_rng([self.seed, epoch, index])
            image, boxes, labels = self.augment((image, boxes, labels), side, bool(calm), rng)
        return key[1], image, boxes, labels


def collate_boxes(samples: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray] | Problem]) -> DetectionBatch:
    """Pad samples to one size; images that could not be read become problems."""
    good = [sample for sample in samples if not isinstance(sample, Problem)]
    problems = [sample for sample in samples if isinstance(sample, Problem)]
    sizes = [(image.shape[0], image.shape[1]) for _, image, _, _ in good]
    height, width = (max((size[axis] for size in sizes), default=1) for axis in (0, 1))
    if len(set(sizes)) > 1:
        height, width = (-(-length // MULTIPLE) * MULTIPLE for length in (height, width))
    images = np.zeros((len(good), height, width, 3), np.uint8)
    boxes, labels = [], []
    for row, (_, image, corners, kinds) in enumerate(good):
        h, w = sizes[row]
        images[row, :h, :w] = image
        boxes.append(torch.from_numpy(shares(corners, h, w)))
        labels.append(torch.from_numpy(kinds))
    return DetectionBatch(torch.from_numpy(images), sizes, boxes, labels, [sample[0] for sample in good], problems)


def shares(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """xyxy in pixels -> cxcywh as shares of the image, both float32 `[K, 4]`."""
    low, high = boxes[:, :2], boxes[:, 2:]
    out = np.concatenate([(low + high) / 2, high - low], axis=1)
    return (out / np.array([width, height, width, height], np.float32)).astype(np.float32)
