"""What must hold on the real datasets; skipped where `$SEGDET_DATASETS` does not have them."""

from __future__ import annotations

import numpy as np
import pytest

from segdet.data.catalog import cards
from segdet.data.geometry import rasterize
from segdet.data.loading.datasets import SegmentationSamples
from segdet.data.records import Problem, by_photograph
from segdet.evaluation import thin

needs_crack = pytest.mark.skipif(cards.folder_of("crack") is None, reason="the crack set is not on this machine")
needs_coco = pytest.mark.skipif(cards.folder_of("coco") is None, reason="COCO is not on this machine")


@needs_crack
def test_the_crack_set_is_read_as_it_is() -> None:
    dataset = cards.load("crack")
    train, val = dataset.splits["train"], dataset.splits["val"]
    assert (len(train), len(val), dataset.classes) == (3717, 200, ("crack",))
    assert 1235 <= len(by_photograph(train)) <= 1240 and len(by_photograph(val)) == 200
    assert sum(not record.instances for record in val) == 1
    assert not {record.photograph for record in train} & {record.photograph for record in val}


@needs_crack
def test_real_masks_have_the_known_statistics() -> None:
    records = cards.load("crack").splits["val"]
    masks = [rasterize.binary(rasterize.foreground(record)) for record in records]
    assert 0.015 < sum(mask.mean() for mask in masks) / len(masks) < 0.021
    shifted = [np.roll(mask, (1, 1), axis=(0, 1)) for mask in masks]
    sums = sum(thin.counts(moved, mask) for moved, mask in zip(shifted[:60], masks, strict=False))
    hit = sum((moved & mask).sum() for moved, mask in zip(shifted, masks, strict=True))
    either = sum((moved | mask).sum() for moved, mask in zip(shifted, masks, strict=True))
    assert 0.70 < hit / either < 0.80  # one pixel to the right and down: the size of label jitter
    assert thin.scores(sums)["f1_2px"] > 0.99


@needs_coco
def test_coco_gives_80_classes_and_masks() -> None:
    dataset = cards.load("coco")
    assert len(dataset.classes) == 80 and dataset.classes[0] == "person" and dataset.classes[-1] == "toothbrush"
    samples = SegmentationSamples(dataset.splits["val"], 80)
    for index in range(10):
        sample = samples[(0, index)]
        assert not isinstance(sample, Problem)
        _, image, target = sample
        assert image.shape[:2] == target.shape and set(target.flat) <= {*range(81), rasterize.IGNORE}
