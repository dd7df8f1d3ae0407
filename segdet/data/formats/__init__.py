"""Adapters from folder layouts to records, one file each.

To add a format, write a module with an `ADAPTER` that recognises its own layout and reads it, and list it in
`ADAPTERS`. One rule holds for every adapter: whatever is wrong is left out and becomes a `Problem` that names file and row
and says of which kind it is, and the rest is read. What that means is decided here: `read` refuses a dataset with
`malformed` files or rows (a row that is not numbers, JSON that does not parse), and tells of everything else (a point
outside the image, an unknown class); for the doctor it refuses nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segdet.data import index
from segdet.data.formats import (
    box_csv,
    coco,
    coco_files,
    cvat,
    labelme,
    mask_folders,
    png_mask,
    unrecognised,
    voc,
    yolo,
)
from segdet.data.formats.accounting import account
from segdet.data.formats.base import Adapter, consuming
from segdet.data.records import Dataset, Problem, Record
from segdet.errors import InputError, SegdetError

# In this order: the more a layout says about itself, the earlier it is asked. Masks in a folder `labels` come before YOLO.
ADAPTERS: tuple[Adapter, ...] = (
    coco.ADAPTER,
    png_mask.ADAPTER,
    cvat.ADAPTER,
    voc.ADAPTER,
    box_csv.ADAPTER,
    mask_folders.ADAPTER,
    yolo.ADAPTER,
    labelme.ADAPTER,
)


def recognise(path: Path) -> tuple[Adapter, str]:
    """The adapter for a dataset folder (or its data.yaml / JSON file), and the evidence it went by.

    Raises:
        InputError: no such path, an empty folder, or no known layout.
    """
    if not path.exists():
        raise InputError(f"{path}: no such dataset folder; see `segdet data list` for the names that are known")
    if path.is_dir() and not any(path.iterdir()):
        raise InputError(f"{path}: the folder is empty; put images and labels there (`segdet data list` shows names)")
    for adapter in ADAPTERS:
        evidence = adapter.recognise(path)
        if evidence:
            return adapter, evidence
    raise InputError(unrecognised.explain(path, _is_dataset))


def _is_dataset(path: Path) -> bool:
    try:
        return any(adapter.recognise(path) for adapter in ADAPTERS)
    except InputError:  # one that has a fault of its own
        return True


def _second_labels(path: Path, dataset: Dataset, adapter: Adapter, evidence: str) -> list[Problem]:
    """Labels of other formats in the same folder, which are not read."""
    if path.is_file():
        return []
    names = ", ".join(dataset.classes[:8]) + (", ..." if len(dataset.classes) > 8 else "")
    taken = f"the labels come from {dataset.format} ({evidence}; classes {names})"
    problems = []
    for other in ADAPTERS:
        also = other.recognise(path) if other is not adapter else None
        if also:
            what = f"a second kind of labels is not read: {other.name} ({also}); {taken}; move away the kind you do not want"
            problems.append(Problem(path, what, "stray"))
    return problems


def read(path: Path, name: str | None = None, refuse: bool = True) -> Dataset:
    """Read a dataset from disk: the same records in the same order, by file name, whatever the layout.

    Args:
        refuse: refuse malformed labels and a dataset without a usable image; else both are left to the caller, who finds
            them in `problems`.

    Raises:
        InputError: as `recognise`; and what `refuse` says. SegdetError: there is nothing in it, and nothing was left out.
    """
    adapter, evidence = recognise(path)
    with index.remembered(path), consuming() as consumed:
        home = coco_files.root_of(path) if path.is_file() else path
        dataset = adapter.read(path, name or home.resolve().name, evidence)
    if refuse:
        _refuse(path, dataset)
    problems = (*dataset.problems, *_second_labels(path, dataset, adapter, evidence))
    return replace(dataset, splits=_ordered(dataset.splits), problems=problems, account=account(dataset, consumed))


def _refuse(path: Path, dataset: Dataset) -> None:
    malformed = [problem for problem in dataset.problems if problem.kind == "malformed"]
    if malformed:
        others = f" (and {len(malformed) - 1} more: `segdet data check` lists them all)" if len(malformed) > 1 else ""
        raise InputError(f"{malformed[0]}{others}")
    if not any(dataset.splits.values()):
        if not dataset.problems:
            raise SegdetError(f"{path}: {dataset.format} layout, but not one image in it")
        raise InputError(f"{path}: {dataset.format} layout, but no usable image (first problem: {dataset.problems[0]})")


def _ordered(splits: Mapping[str, Sequence[Record]]) -> dict[str, tuple[Record, ...]]:
    """By file name. Files of one name in several folders are different photographs (street/001.png, bridge/001.png)."""
    folders: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for split, records in splits.items():
        for record in records:
            folders[_namespace(split, record), record.photograph].add(record.image.parent)

    def named(split: str, record: Record) -> Record:
        places = folders[_namespace(split, record), record.photograph]
        if len(places) == 1:
            return record
        common = os.path.commonpath([place.absolute() for place in places])
        place = record.image.parent.absolute().relative_to(common)
        return replace(record, photograph=(place / record.photograph).as_posix())

    return {
        split: tuple(
            named(split, record) for record in sorted(records, key=lambda record: (record.image.name, record.image))
        )
        for split, records in splits.items()
    }


def _namespace(split: str, record: Record) -> str:
    """Where a name means one photograph: in the whole dataset, but augmented copies (`x.rf.<hash>`) in their own split only.

    Those lie in another folder for each split, and that `x` stands in two of them is a leak to report.
    """
    return "" if record.photograph == record.image.stem else split
