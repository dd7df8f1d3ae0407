"""Batches: which samples an epoch takes, that a sample depends on nothing else, and that a bad image stops nobody."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segdet.data import formats
from segdet.data.geometry.rasterize import binary, class_index, foreground
from segdet.data.images import read_image
from segdet.data.loading.augment import SegmentationAugment
from segdet.data.loading.datasets import (
    Batch,
    SegmentationSamples,
    TrainingPlan,
    collate,
    evaluation_plan,
)
from segdet.data.loading.loader import Stream, default_workers
from segdet.data.records import Problem, Record
from tests.drawn import yolo_dataset


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, ...]:
    """10 training photographs of 3 copies each."""
    root = tmp_path_factory.mktemp("data") / "walls"
    return formats.read(yolo_dataset(root, "roboflow", 10, 1, (48, 64), siblings=3)).splits["train"]


def names(count: int, size: tuple[int, int] = (8, 8)) -> list[Record]:
    """Records that are never opened, each its own photograph."""
    return [Record(Path(f"{index}.png"), size[1], size[0], (), str(index)) for index in range(count)]


def epoch(plan: TrainingPlan, number: int, start: int = 0) -> list[list[tuple[int, int]]]:
    plan.epoch, plan.start = number, start
    return list(plan)


# Which samples an epoch takes


def test_an_epoch_takes_every_photograph_once(walls: tuple[Record, ...]) -> None:
    plan = TrainingPlan(walls, 2, seed=0)
    batches = epoch(plan, 3)
    assert len(batches) == len(plan) == 5 and all(len(batch) == 2 for batch in batches)
    keys = list(itertools.chain(*batches))
    assert {number for number, _ in keys} == {3}
    photographs = [walls[index].photograph for _, index in keys]
    assert sorted(photographs) == sorted({record.photograph for record in walls})


def test_copies_of_a_photograph_take_turns(walls: tuple[Record, ...]) -> None:
    plan = TrainingPlan(walls, 2, seed=0)
    taken = Counter(index for number in range(60) for batch in epoch(plan, number) for _, index in batch)
    assert set(taken) == set(range(30))
    assert min(taken.values()) >= 8 and max(taken.values()) <= 34  # 20 of 60 each, on average


def test_a_plan_depends_on_seed_and_epoch_alone(walls: tuple[Record, ...]) -> None:
    first = epoch(TrainingPlan(walls, 2, seed=7), 4)
    plan = TrainingPlan(walls, 2, seed=7)
    epoch(plan, 9)
    assert epoch(plan, 4) == first and epoch(plan, 4) == first
    others = [epoch(TrainingPlan(walls, 2, seed=8), 4), epoch(plan, 5)]
    for other in others:
        assert [index for _, index in itertools.chain(*other)] != [index for _, index in itertools.chain(*first)]


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_an_interrupted_epoch_goes_on_with_exactly_what_was_left(walls: tuple[Record, ...], start: int) -> None:
    whole = epoch(TrainingPlan(walls, 2, seed=7), 4)
    assert epoch(TrainingPlan(walls, 2, seed=7), 4, start) == whole[start:]


@pytest.mark.parametrize(("batch", "world"), [(1, 2), (2, 3), (3, 3), (4, 2), (2, 5)])
def test_processes_share_each_global_batch(batch: int, world: int) -> None:
    records = names(25)
    alone = epoch(TrainingPlan(records, batch * world, seed=1), 2)
    shares = [epoch(TrainingPlan(records, batch, seed=1, rank=rank, world=world), 2) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)} == {25 // (batch * world)}
    for number, together in enumerate(alone):
        parts = [share[number] for share in shares]
        assert all(len(part) == batch for part in parts)
        assert sorted(itertools.chain(*parts)) == sorted(together)


def test_an_incomplete_last_batch_is_left_out_but_never_the_only_one() -> None:
    assert [len(batch) for batch in epoch(TrainingPlan(names(11), 4, seed=0), 0)] == [4, 4]
    plan = TrainingPlan(names(3), 4, seed=0)
    assert len(plan) == 1 and [len(batch) for batch in epoch(plan, 0)] == [3]
    # What is left out changes from epoch to epoch.
    plan = TrainingPlan(names(11), 4, seed=0)
    assert len({index for number in range(10) for batch in epoch(plan, number) for _, index in batch}) == 11


def test_evaluation_takes_every_record_once_and_mixes_no_sizes() -> None:
    records = [*names(5), *names(3, (8, 12)), *names(4)]
    plan = evaluation_plan(records, 4)
    assert sorted(index for batch in plan for _, index in batch) == list(range(12))
    assert {key for batch in plan for key, _ in batch} == {0}
    assert all(len({records[index].size for _, index in batch}) == 1 and len(batch) <= 4 for batch in plan)
    assert len(plan) == 4


def test_large_photographs_are_evaluated_in_smaller_batches() -> None:
    plan = evaluation_plan([*names(4, (2000, 2000)), *names(2, (9000, 9000)), *names(8)], 8)
    assert [len(batch) for batch in plan] == [2, 2, 1, 1, 8]


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_processes_share_the_evaluation(world: int) -> None:
    records = [*names(9), *names(4, (8, 12))]
    parts = [evaluation_plan(records, 2, rank, world) for rank in range(world)]
    indices = [index for part in parts for batch in part for _, index in batch]
    assert sorted(indices) == list(range(13))


# Samples


def test_a_sample_is_the_image_and_its_target(walls: tuple[Record, ...]) -> None:
    index, image, target = SegmentationSamples(walls, 1)[0, 4]  # type: ignore[misc]
    assert index == 4 and (image == read_image(walls[4].image)).all()
    assert (target == binary(foreground(walls[4])) * 255).all() and 0 < (target > 0).mean() < 0.5
    _, _, target = SegmentationSamples(walls, 2)[0, 4]  # type: ignore[misc]
    assert (target == class_index(walls[4])).all() and set(np.unique(target)) == {0, 1}
    assert len(SegmentationSamples(walls, 1)) == 30


def test_a_sample_does_not_depend_on_what_was_read_before(walls: tuple[Record, ...]) -> None:
    def samples(seed: int = 5) -> SegmentationSamples:
        return SegmentationSamples(walls, 1, SegmentationAugment(32), seed)

    keys = [(number, index) for number in range(2) for index in (0, 7, 29)]
    straight = samples()
    forwards = {key: straight[key] for key in keys}
    other = samples()
    for key in reversed(keys):
        for one, two in zip(other[key], forwards[key], strict=True):  # type: ignore[arg-type]
            assert np.array_equal(one, two)
    assert not np.array_equal(forwards[0, 7][1], forwards[1, 7][1])  # type: ignore[index]
    assert not np.array_equal(samples(6)[0, 7][1], forwards[0, 7][1])  # type: ignore[index]


def test_good_samples_are_stacked_and_bad_ones_reported() -> None:
    problem = Problem(Path("bad.jpg"), "damaged")
    image, target = np.full((4, 6, 3), 9, np.uint8), np.full((4, 6), 255, np.uint8)
    batch = collate([(3, image, target), problem, (5, image + 1, target)])
    assert batch.images.shape == (2, 4, 6, 3) and batch.targets.shape == (2, 4, 6)
    assert batch.images.dtype == batch.targets.dtype == torch.uint8
    assert batch.images[1].unique().tolist() == [10] and batch.indices == [3, 5] and batch.problems == [problem]
    empty = collate([problem])
    assert len(empty.images) == len(empty.targets) == 0 and empty.indices == [] and empty.problems == [problem]


@pytest.fixture
def damaged(tmp_path: Path) -> list[Record]:
    """Six photographs: 1 is cut off, 2 is gone, 3 has another size by now, 4 is no image any more."""
    root = yolo_dataset(tmp_path / "walls", train=6, val=1, size=(48, 64))
    records = list(formats.read(root).splits["train"])
    content = records[1].image.read_bytes()
    records[1].image.write_bytes(content[: len(content) // 2])
    records[2].image.unlink()
    records[3] = replace(records[3], width=80)
    records[4].image.write_bytes(b"")
    return records


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named_and_the_others_go_on(damaged: list[Record], workers: int) -> None:
    plan = [[(0, index) for index in pair] for pair in ((0, 1), (2, 3), (4, 5))]
    batches: list[Batch] = list(Stream(SegmentationSamples(damaged, 1), plan, workers))
    assert [batch.indices for batch in batches] == [[0], [], [5]]
    problems = [problem for batch in batches for problem in batch.problems]
    assert [problem.path for problem in problems] == [record.image for record in damaged[1:5]]
    for problem, reason in zip(problems, ("damaged", "no such file", "changed on disk", "empty file"), strict=True):
        assert reason in problem.what
        assert str(problem).count(str(problem.path)) == 1  # named, and named once


def test_a_worker_gives_the_samples_of_the_main_process(walls: tuple[Record, ...]) -> None:
    samples = SegmentationSamples(walls, 1, SegmentationAugment(32), seed=3)
    plan = TrainingPlan(walls, 5, seed=3)
    worked = Stream(samples, plan, workers=1)
    for number in (0, 1):  # workers stay alive between epochs and must follow the plan's epoch all the same
        plan.epoch = number
        expected = [collate([samples[key] for key in keys]) for keys in plan]
        found = list(worked)
        assert len(found) == 2
        for one, two in zip(found, expected, strict=True):
            assert one.indices == two.indices
            assert torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)


def test_there_is_always_a_worker_and_never_too_many() -> None:
    assert 1 <= default_workers() <= 8


@pytest.mark.parametrize("pool", [40, 3])
def test_further_pictures_make_their_share_of_every_epoch(walls: tuple[Record, ...], pool: int) -> None:
    records = [*walls, *names(pool)]
    first = len(walls)
    plan = TrainingPlan(walls, 2, seed=0, mixed=[(range(first, first + pool), 6)])
    assert len(plan) == 8
    seen = []
    for number in range(3):
        keys = [index for batch in epoch(plan, number) for _, index in batch]
        own = [records[index].photograph for index in keys if index < first]
        further = [index for index in keys if index >= first]
        assert len(own) == len(set(own)) == 10 and len(further) == 6
        assert pool < 6 or len(set(further)) == 6
        seen.append(tuple(further))
    assert len(set(seen)) == 3  # others each time
    plain = TrainingPlan(walls, 2, seed=0)
    assert {i for b in epoch(plain, 1) for _, i in b} == {i for b in epoch(plan, 1) for _, i in b if i < first}
