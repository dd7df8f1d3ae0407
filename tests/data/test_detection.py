"""Boxes through augmentation and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segdet.data.images import encode_png
from segdet.data.loading.augment_boxes import AspectAugment, SquareAugment, aspect_size, cropped, turned, zoomed_out
from segdet.data.loading.detection_datasets import CALM, DetectionPlan, DetectionSamples, collate_boxes, shares
from segdet.data.records import Instance, Record

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def picture(height: int = 120, width: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three rectangles of pure colours on black, so that a box can be checked against the pixels."""
    boxes = np.array([[10, 20, 60, 50], [100, 30, 180, 100], [70, 60, 95, 115]], np.float32)
    image = np.zeros((height, width, 3), np.uint8)
    for colour, (x1, y1, x2, y2) in zip(COLOURS, boxes.astype(int), strict=True):
        image[y1:y2, x1:x2] = colour
    return image, boxes, np.arange(3)


def extent(image: np.ndarray, label: int) -> tuple[float, ...]:
    """Where a colour lies: (x1, y1, x2, y2)."""
    other = [channel for channel in range(3) if channel != label]
    ys, xs = np.nonzero((image[..., label] > 127) & (image[..., other] < 80).all(-1))
    return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)


@pytest.mark.parametrize("seed", range(8))
def test_turns_move_boxes_with_their_pixels(seed: int) -> None:
    image, boxes, labels = turned(picture(), np.random.default_rng(seed), quarter_turns=True)
    for box, label in zip(boxes, labels, strict=True):
        assert extent(image, label) == tuple(box)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("augment", [SquareAugment(True), AspectAugment(False)])
def test_boxes_stay_around_their_pixels(augment: SquareAugment | AspectAugment, seed: int, monkeypatch) -> None:
    monkeypatch.setattr("segdet.data.loading.augment_boxes.relit", lambda image, rng, strength: image)
    image, boxes, labels = augment(picture(), 160, False, np.random.default_rng(seed))
    assert image.dtype == np.uint8 and boxes.dtype == np.float32
    height, width = image.shape[:2]
    assert (boxes >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    for box, label in zip(boxes, labels, strict=True):
        assert np.abs(np.array(extent(image, label)) - box).max() <= 1.6, (extent(image, label), box)


def test_calm_samples_are_whole_images() -> None:
    image, boxes, _ = SquareAugment()(picture(), 100, True, np.random.default_rng(0))
    assert image.shape == (100, 100, 3)
    assert len(boxes) == 3
    image, boxes, _ = AspectAugment()(picture(), 60, True, np.random.default_rng(0))
    assert image.shape == (60, 100, 3)
    assert len(boxes) == 3


def test_none_changes_nothing_but_the_size() -> None:
    for augment, side in ((SquareAugment(True, "none"), 100), (AspectAugment(True, "none"), 60)):
        first, again = (augment(picture(), side, False, np.random.default_rng(seed)) for seed in (0, 1))
        assert len(first[1]) == 3 and all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert np.array_equal(first[0], augment(picture(), side, True, np.random.default_rng(2))[0])


def test_robust_changes_light_more() -> None:
    def spread(strength: str) -> float:
        grey = np.full((64, 64, 3), 128, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        augment = SquareAugment(False, strength)
        return float(np.std([augment(grey, 64, False, np.random.default_rng(s))[0].mean() for s in range(60)]))

    assert spread("robust") > 1.2 * spread("standard")


def test_the_longer_side_is_bounded() -> None:
    assert aspect_size(480, 640, 800) == (800, 1067)
    height, width = aspect_size(100, 1000, 800)
    assert width == 1333 and height == 133


def test_objects_leave_with_their_centre_and_slivers_are_dropped() -> None:
    sample = picture()
    _, boxes, labels = cropped(sample, (0.0, 0.0, 40.0, 60.0), 60, 40)
    assert labels.tolist() == [0] and boxes[0].tolist() == [10, 20, 40, 50]
    sliver = (sample[0], np.array([[10, 10, 90, 11]], np.float32), np.zeros(1, np.int64))
    assert len(cropped(sliver, (0.0, 0.0, 200.0, 120.0), 60, 100)[1]) == 0  # half a pixel high
    assert len(cropped(sliver, (0.0, 0.0, 200.0, 120.0), 120, 200)[1]) == 1


def test_zooming_out_keeps_every_box() -> None:
    image, boxes, _ = picture()
    sheet, moved = zoomed_out(image, boxes, np.random.default_rng(3))
    for label, box in enumerate(moved):
        assert extent(sheet, label) == tuple(box)


def records(folder: Path, sizes: list[tuple[int, int]]) -> list[Record]:
    out = []
    for number, (height, width) in enumerate(sizes):
        image, boxes, labels = picture(height, width)
        path = folder / f"{number}.png"
        path.write_bytes(encode_png(image))
        instances = tuple(
            Instance(int(k), (), tuple(map(float, box)), crowd=k == 2) for k, box in zip(labels, boxes, strict=True)
        )
        out.append(Record(path, width, height, instances, path.stem))
    return out


def test_batches_are_padded_with_a_mask_and_leave_crowds_out(tmp_path: Path) -> None:
    samples = DetectionSamples(records(tmp_path, [(120, 200), (140, 190)]))
    batch = collate_boxes([samples[(0, 0)], samples[(0, 1)]])
    assert batch.images.shape == (2, 160, 224, 3)  # of the largest, up to a multiple of 32
    assert batch.sizes == [(120, 200), (140, 190)]
    mask = batch.mask()
    assert mask is not None and not mask[1, :140, :190].any() and mask[1, 140:].all() and mask[1, :, 190:].all()
    assert not batch.images[mask].any()
    assert [labels.tolist() for labels in batch.labels] == [[0, 1], [0, 1]]
    expected = shares(np.array([[10, 20, 60, 50]], np.float32), 120, 200)
    assert torch.allclose(batch.boxes[0][:1], torch.from_numpy(expected))
    assert collate_boxes([samples[(0, 0)]]).mask() is None


def test_empty_images_are_kept_and_broken_ones_told(tmp_path: Path) -> None:
    first, second = records(tmp_path, [(120, 200), (120, 200)])
    empty = Record(first.image, 200, 120, (), "empty")
    second.image.write_bytes(b"no picture")
    samples = DetectionSamples([empty, second])
    batch = collate_boxes([samples[(0, 0)], samples[(0, 1)]])
    assert batch.indices == [0] and batch.boxes[0].shape == (0, 4)
    assert [problem.path for problem in batch.problems] == [second.image]


def test_a_batch_has_one_side_and_the_last_part_is_calm(tmp_path: Path) -> None:
    some = records(tmp_path, [(120, 200)] * 12)
    plan = DetectionPlan(some, 3, seed=0, size=320, multiple=32)
    batches = list(plan)
    assert all(len({key[2] for key in batch}) == 1 for batch in batches)
    sides = {key[2] for epoch in range(10) for batch in _epoch(plan, epoch) for key in batch}
    assert len(sides) > 3 and all(side % 32 == 0 and 240 <= side <= 400 for side in sides)
    assert list(plan) == _epoch(plan, 9)  # the same again
    plan.progress = CALM
    assert {key[2:] for batch in plan for key in batch} == {(320, 1)}


def _epoch(plan: DetectionPlan, epoch: int) -> list[list[tuple[int, ...]]]:
    plan.epoch = epoch
    return list(plan)
