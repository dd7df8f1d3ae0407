"""What of a dataset a task can learn and measure: looked at before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from segdet.data.records import Dataset, Instance, Record
from segdet.errors import InputError

_NAMED = 8  # classes named in one line
_UNNOTICED = {"train": "cannot be learned", "val": "its score cannot be measured"}


def objects_of(record: Record, task: str, classes: int) -> list[Instance]:
    """The objects that count: for segmentation those with an outline; crowds only where one class leaves no value to ignore them."""
    if task == "segmentation":
        return [one for one in record.instances if one.outlined and (classes == 1 or not one.crowd)]
    return [one for one in record.instances if not one.crowd]


def has_objects(records: Iterable[Record], task: str, classes: int) -> bool:
    """Whether anything in them counts."""
    return any(objects_of(record, task, classes) for record in records)


def without_crowds(records: Iterable[Record]) -> Counter[int]:
    """Objects of each class (by index), crowds left out."""
    return Counter(one.label for record in records for one in record.instances if not one.crowd)


def crowds_in(records: Iterable[Record]) -> int:
    """Regions that are marked as crowds: COCO's `iscrowd`, VOC's `difficult`."""
    return sum(one.crowd for record in records for one in record.instances)


def lacking(dataset: Dataset, counts: Counter[int], total: Counter[int]) -> list[str]:
    """Names of the classes of which a split (`counts`) has no object, but the whole dataset (`total`) has."""
    return [name for index, name in enumerate(dataset.classes) if total[index] and not counts[index]]


def shortened(names: Sequence[str]) -> str:
    """Names in a line, the first few of many."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def check(dataset: Dataset, task: str, mixed: Sequence[Record] = ()) -> list[str]:
    """Refuse what has nothing to learn; lines about what cannot be measured or learned.

    Args:
        dataset: with the splits "train" and "val". mixed: further training images.

    Raises:
        InputError: no training image has an object that counts.
    """
    count, train, val = len(dataset.classes), dataset.splits["train"], dataset.splits["val"]
    if not has_objects((*train, *mixed), task, count):
        raise InputError(_nothing(dataset, train, task))
    notes: list[str] = []
    if not has_objects(val, task, count):
        notes.append(
            f"no object counts in the {len(val)} validation images: nothing can be measured; the last weights are kept as the "
            "best, with threshold 0.5"
        )
    found = {
        split: Counter(one.label for record in records for one in objects_of(record, task, count))
        for split, records in (("train", (*train, *mixed)), ("val", val))
    }
    total = found["train"] + found["val"]
    for split, counts in found.items():
        names = lacking(dataset, counts, total) if counts else []
        if names:
            notes.append(f"no object in {split} of {shortened(names)}: {_UNNOTICED[split]}")
    crowds = crowds_in((*train, *val))
    if crowds:
        kept = task == "segmentation" and count == 1
        notes.append(
            f"{crowds} regions are marked as crowds: "
            + ("with one class they count as objects" if kept else "they are neither learned nor counted as wrong")
        )
    return notes


def _nothing(dataset: Dataset, train: Sequence[Record], task: str) -> str:
    """Why there is nothing to learn, and what to do."""
    every = [one for record in train for one in record.instances]
    where = f"{dataset.root}: "
    if not every:
        return (
            f"{where}no object is labelled in its {len(train)} training images; nothing to learn; label some, or see what was "
            f"left out with `segdet data check {dataset.name}`"
        )
    if task == "segmentation" and not any(one.outlined for one in every):
        return f"{where}only boxes; segmentation needs outlines (polygons or masks); for boxes train dfine"
    return (
        f"{where}every labelled object of its training images ({len(every)}) is marked as a crowd (`iscrowd` 1) and would be left out of "
        "training; where they are single objects, set `iscrowd` to 0"
    )
