"""Splits: copies of one photograph never stand on both sides, and nothing is lost or doubled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segdet.data import formats
from segdet.data.records import Dataset, iterate
from segdet.data.splits import fold, limited, parse_fold, with_validation
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
