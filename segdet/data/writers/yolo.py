"""YOLO text labels in Ultralytics' folders: images/, labels/ and data.yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segdet.data.geometry import masks, polygons
from segdet.data.records import Dataset, Instance, Record
from segdet.data.writers.base import Losses, Names, Writer, cut_out, objects


def _write(dataset: Dataset, root: Path, names: Names, losses: Losses, advance: Callable[[], None]) -> None:
    for split, records in dataset.splits.items():
        folder = root / "labels" / split
        folder.mkdir(parents=True)
        for record in records:
            rows = _rows(record, losses)
            file = (folder / names[record.image]).with_suffix(".txt")
            file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
            advance()
    card: dict[str, Any] = {split: f"images/{split}" for split in dataset.splits}
    card["names"] = dict(enumerate(dataset.classes))
    if dataset.licence:
        card["license"] = dataset.licence
    (root / "data.yaml").write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _rows(record: Record, losses: Losses) -> list[str]:
    if record.ignore is not None:
        losses.add("ignored pixels that are background now", masks.area(record.ignore))
    found, outlined, boxed = [], 0, 0
    for instance in objects(record, losses):
        if instance.crowd:
            losses.add("crowds left out")
            continue
        if instance.outlined:
            outlined += 1
            found += [
                _row(instance.label, polygon / [record.width, record.height])
                for polygon in _parts(instance, record, losses)
            ]
        else:
            boxed += 1
            x1, y1, x2, y2 = instance.box
            centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
            found.append(_row(instance.label, centre.reshape(2, 2) / [record.width, record.height]))
    if outlined:
        losses.add("boxes among polygons: kept, but other tools drop all polygons of such a file", boxed)
    unique = list(dict.fromkeys(found))
    losses.add("objects with exactly the same outline as another left out", len(found) - len(unique))
    return unique


def _parts(instance: Instance, record: Record, losses: Losses) -> tuple[np.ndarray, ...]:
    """One outline for each row; an object of several parts is as many rows."""
    if instance.rle is None:
        found: tuple[np.ndarray, ...] = tuple(polygon.astype(np.float64) for polygon in instance.polygons)
    else:
        stamp, x, y = cut_out(instance, record)
        found = polygons.polygons(stamp, x, y)
        losses.add(
            "holes joined to the outline around them by a cut of no width", len(polygons.rings(stamp)) - len(found)
        )
    losses.add("further parts of objects that are objects of their own now", len(found) - 1)
    return found


def _row(label: int, values: np.ndarray) -> str:
    # Twelve digits bring every float32 coordinate back exactly.
    return " ".join([str(label), *(f"{value:.12g}" for value in values.ravel().tolist())])


WRITER = Writer("yolo", lambda split: f"images/{split}", _write)
