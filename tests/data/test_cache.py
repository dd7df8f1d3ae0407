"""Decoded images that are kept: the same pixels, decoded once, and no room told in clear words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from segdet.data.catalog import cards
from segdet.data.loading import cache
from segdet.data.loading.augment import SegmentationAugment
from segdet.data.loading.cache import ImageCache, cache_for
from segdet.data.loading.datasets import SegmentationSamples, TrainingPlan
from segdet.data.loading.loader import Stream
from segdet.data.records import Problem, Record
from segdet.errors import InputError


@pytest.fixture(scope="module")
def records(walls: Path) -> tuple[Record, ...]:
    return cards.load(str(walls)).splits["train"]


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_the_same_and_files_are_read_once(
    records: tuple[Record, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, workers: int
) -> None:
    log, read = tmp_path / "read", cache.read_image

    def counted(path: Path) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{path}\n")
        return read(path)

    plan = TrainingPlan(records, 6, seed=1)
    kept = ImageCache(records, kind, tmp_path)
    augment = SegmentationAugment(32)
    with monkeypatch.context() as patch:
        patch.setattr(cache, "read_image", counted)
        cached = Stream(SegmentationSamples(records, 1, augment, 1, kept), plan, workers)
        plain = Stream(SegmentationSamples(records, 1, augment, 1), plan, 0)
        for plan.epoch in range(3):
            for one, two in zip(cached, plain, strict=True):
                assert one.indices == two.indices
                assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)
    assert len(log.read_text().splitlines()) == len(records) * 4  # three epochs without the cache, one with it
    image = kept.get(0)
    assert image is not None and not image.flags.writeable
    assert [path.name for path in tmp_path.iterdir()] == ["read"]  # the file has no name


def test_a_damaged_image_is_not_kept(records: tuple[Record, ...], tmp_path: Path) -> None:
    from dataclasses import replace

    broken = tmp_path / "x.jpg"
    broken.write_bytes(b"no image")
    damaged = (replace(records[0], image=broken),)
    kept = ImageCache(damaged)
    samples = SegmentationSamples(damaged, 1, cache=kept)
    assert isinstance(samples[(0, 0)], Problem) and kept.get(0) is None


def test_what_fits_is_decided_by_free_memory(records: tuple[Record, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(record.height * record.width * 3 for record in records)

    class Memory:
        available = size * 5

    monkeypatch.setattr(cache.psutil, "virtual_memory", Memory)
    assert cache_for(records, "auto", 1) is not None and cache_for(records, "off", 1) is None
    Memory.available = size * 3
    assert cache_for(records, "auto", 1) is None and cache_for(records, "ram", 1) is not None
    Memory.available = size
    with pytest.raises(InputError, match=r"cache=ram: .* of free memory; use cache=disk"):
        cache_for(records, "ram", 1)
    assert cache_for(records, "disk", 1) is not None


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_told_at_once(records: tuple[Record, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"cache=disk: no room for .*No space left.*cache=off"):
        ImageCache(records, "disk")
