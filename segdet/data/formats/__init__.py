"""Adapters from folder layouts to records, one file each.

To add a format, write a module with an `ADAPTER` that recognises its own layout and reads it, and list it in
`ADAPTERS`. Two rules hold for every adapter: what cannot be read at all (a row that is not numbers, JSON that does not
parse) raises `InputError` naming file and row; what can be read but makes no sense (a point outside the image, an
unknown class) is left out and reported as a `Problem`.
"""

from __future__ import annotations

from pathlib import Path

from segdet.data import index
from segdet.data.formats import coco, yolo
from segdet.data.formats.base import Adapter
from segdet.data.records import Dataset
from segdet.errors import InputError

ADAPTERS: tuple[Adapter, ...] = (coco.ADAPTER, yolo.ADAPTER)


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
    known = "; ".join(adapter.layout for adapter in ADAPTERS)
    raise InputError(f"{path}: no dataset layout recognised; segdet reads: {known}")


def read(path: Path, name: str | None = None) -> Dataset:
    """Read a dataset from disk.

    Raises:
        InputError: as `recognise`, or labels that cannot be read, or no usable image.
    """
    adapter, evidence = recognise(path)
    with index.remembered(path):
        dataset = adapter.read(path, name or (path.parent.name if path.is_file() else path.resolve().name), evidence)
    if not any(dataset.splits.values()):
        raise InputError(f"{path}: {dataset.format} layout, but no usable image" + _first(dataset))
    return dataset


def _first(dataset: Dataset) -> str:
    return f" (first problem: {dataset.problems[0]})" if dataset.problems else ""
