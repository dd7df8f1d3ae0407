"""Splits: copies of one photograph never stand on both sides, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from segdet.data import formats
from segdet.data.catalog.splits import divide, fold, limited, parse_fold, with_validation
from segdet.data.records import Dataset, Instance, Record, iterate
from segdet.errors import InputError
from tests.drawn import yolo_dataset


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """10 training photographs of 3 copies, 4 for validation, 2 for testing."""
    root = tmp_path_factory.mktemp("data") / "walls"
    return formats.read(yolo_dataset(root, "roboflow", 10, 4, (24, 24), siblings=3, test=2))


def photographs(dataset: Dataset, split: str) -> set[str]:
    return {record.photograph for record in dataset.splits[split]}


def images(dataset: Dataset) -> list[Path]:
    return sorted(record.image for _, record in iterate(dataset))


def test_a_fold_is_written_k_of_n() -> None:
    assert parse_fold("1/5") == (1, 5)
    assert parse_fold("10/10") == (10, 10)


@pytest.mark.parametrize(
    "text", ["", "3", "0/5", "6/5", "1/1", "1/0", "a/b", "1/5/2", "-1/5", "1.5/5", " 1/5", "1/5\n"]
)
def test_any_other_fold_is_refused_with_the_way_to_write_it(text: str) -> None:
    with pytest.raises(InputError, match="K/N"):
        parse_fold(text)


@pytest.mark.parametrize("n", [2, 5, 14])
def test_folds_divide_the_photographs(walls: Dataset, n: int) -> None:
    held: list[str] = []
    for k in range(1, n + 1):
        part = fold(walls, k, n, seed=3)
        assert not photographs(part, "train") & photographs(part, "val")
        assert images(part) == images(walls)
        assert part.splits["test"] == walls.splits["test"]
        held.extend(photographs(part, "val"))
    assert len(held) == len(set(held)) == 14
    assert set(held) == photographs(walls, "train") | photographs(walls, "val")


def test_folds_depend_on_the_seed_alone(walls: Dataset) -> None:
    assert fold(walls, 2, 5, seed=1).splits == fold(walls, 2, 5, seed=1).splits
    assert len({frozenset(photographs(fold(walls, 2, 5, seed=seed), "val")) for seed in range(6)}) > 1


def test_more_folds_than_photographs_are_refused(walls: Dataset) -> None:
    with pytest.raises(InputError, match="14 photographs"):
        fold(walls, 1, 15)


def test_a_validation_split_of_its_own_is_kept(walls: Dataset) -> None:
    assert with_validation(walls) == (walls, None)


def test_without_validation_whole_photographs_are_held_out(walls: Dataset) -> None:
    bare = replace(walls, splits={"train": walls.splits["train"], "test": walls.splits["test"]})
    divided, note = with_validation(bare, seed=5)
    assert note is not None and "2 of 10" in note
    assert len(photographs(divided, "val")) == 2 and len(divided.splits["val"]) == 6
    assert not photographs(divided, "train") & photographs(divided, "val")
    assert images(divided) == images(bare)
    assert divided.splits["test"] == walls.splits["test"]
    assert with_validation(bare, seed=5)[0].splits == divided.splits


def test_an_empty_validation_split_counts_as_none(walls: Dataset) -> None:
    divided, note = with_validation(replace(walls, splits={"train": walls.splits["train"], "val": ()}))
    assert note is not None and divided.splits["val"]


def test_two_photographs_are_enough_and_one_is_not(walls: Dataset) -> None:
    first, second = walls.splits["train"][:3], walls.splits["train"][3:6]
    divided, _ = with_validation(replace(walls, splits={"train": (*first, *second)}))
    assert {len(divided.splits["train"]), len(divided.splits["val"])} == {3}
    with pytest.raises(InputError, match="1 photograph "):
        with_validation(replace(walls, splits={"train": first}))


def test_no_training_images_is_an_error_that_names_the_folder(walls: Dataset) -> None:
    with pytest.raises(InputError, match="no training images") as caught:
        with_validation(replace(walls, splits={"val": walls.splits["val"]}))
    assert str(walls.root) in str(caught.value)


def test_a_limit_takes_images_spread_over_each_split(walls: Dataset) -> None:
    few = limited(walls, 5)
    assert {split: len(records) for split, records in few.splits.items()} == {"train": 5, "val": 4, "test": 2}
    train = walls.splits["train"]
    positions = [train.index(record) for record in few.splits["train"]]
    assert positions[0] == 0 and positions[-1] == len(train) - 1 and positions == sorted(set(positions))
    assert limited(walls, None) == walls
    assert limited(walls, 1000).splits == walls.splits


def mixed() -> Dataset:
    """200 photographs, two copies of each: a quarter without objects, a tenth with the rare class, boxes of all sizes."""
    records = []
    for number in range(200):
        side = 1.0 + number % 50
        found = () if number % 4 == 0 else (Instance(0, (), (0, 0, side, side)),)
        if number % 10 == 3:
            found = (*found, Instance(1, (), (0, 0, 5, 5)))
        records += [Record(Path(f"{number}.rf.{copy:032d}.jpg"), 100, 100, found, str(number)) for copy in range(2)]
    return Dataset(
        "mixed",
        Path("mixed"),
        "drawn",
        ("common", "rare"),
        {"train": tuple(records[:300]), "val": tuple(records[300:])},
    )


def share_of(records: Sequence[Record], label: int | None) -> float:
    """Share of the images that show a class; None: nothing at all."""
    hits = [not r.instances if label is None else label in {i.label for i in r.instances} for r in records]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("seed", range(5))
def test_classes_sizes_and_negatives_stay_in_proportion(seed: int) -> None:
    dataset = mixed()
    everything = [record for _, record in iterate(dataset)]
    parts = [fold(dataset, k, 5, seed).splits["val"] for k in range(1, 6)]
    drawn = divide(dataset, 0.2, 0.1, seed)
    assert {split: len(records) for split, records in drawn.splits.items()} == {"train": 280, "val": 80, "test": 40}
    parts += [drawn.splits["val"], drawn.splits["test"]]
    for records in parts:
        for label in (None, 0, 1):
            assert share_of(records, label) == pytest.approx(share_of(everything, label), abs=0.06)
        sides = [i.box[2] for r in records for i in r.instances if i.label == 0]
        assert sum(sides) / len(sides) == pytest.approx(25.5, abs=4)


def test_dividing_keeps_copies_together_and_loses_nothing() -> None:
    dataset = mixed()
    drawn = divide(dataset, 0.2, 0.1, seed=1)
    groups = [photographs(drawn, split) for split in ("train", "val", "test")]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 200
    assert images(drawn) == images(dataset)
    assert divide(dataset, 0.2, 0.1, seed=1).splits == drawn.splits != divide(dataset, 0.2, 0.1, seed=2).splits
    assert list(divide(dataset, 0.2).splits) == ["train", "val"]


@pytest.mark.parametrize(("val", "test"), [(0, 0), (1, 0), (0.5, 0.5), (-0.1, 0.2), (0.2, 1.5), (float("nan"), 0)])
def test_shares_that_leave_nothing_are_refused(val: float, test: float) -> None:
    with pytest.raises(InputError, match=r"^val="):
        divide(mixed(), val, test)


def test_too_few_photographs_to_divide_are_refused(walls: Dataset) -> None:
    with pytest.raises(InputError, match="leave none to train on"):
        divide(replace(walls, splits={"train": walls.splits["train"][:6]}), 0.4, 0.4)
