"""COCO instances JSON: annotations/instances_<split>.json and images/<split>/."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.geometry import masks
from segdet.data.records import Dataset, Instance, Record, shoelace
from segdet.data.writers.base import Losses, Names, Writer, objects, rings, whole
from segdet.text import encoded


def _write(dataset: Dataset, root: Path, names: Names, losses: Losses, advance: Callable[[], None]) -> None:
    (root / "annotations").mkdir()
    for split, records in dataset.splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, record in enumerate(records, 1):
            entry = {"id": number, "file_name": names[record.image], "width": record.width, "height": record.height}
            images.append({**entry, "license": 1} if dataset.licence else entry)
            if record.ignore is not None:
                losses.add("ignored pixels that are background now", masks.area(record.ignore))
            for instance in objects(record, losses):
                annotation = _annotation(instance, record, losses)
                annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
            advance()
        content = {
            "info": {"description": dataset.name},
            "licenses": [{"id": 1, "name": dataset.licence, "url": ""}] if dataset.licence else [],
            "categories": [
                {"id": k, "name": name, "supercategory": "object"} for k, name in enumerate(dataset.classes, 1)
            ],
            "images": images,
            "annotations": annotations,
        }
        text = json.dumps(content, ensure_ascii=False)
        (root / "annotations" / f"instances_{split}.json").write_bytes(encoded(text))


def _annotation(instance: Instance, record: Record, losses: Losses) -> dict[str, Any]:
    x1, y1, x2, y2 = instance.box
    segmentation: Any = []
    area = (x2 - x1) * (y2 - y1)
    if instance.polygons and instance.rle is None:
        segmentation = [polygon.ravel().tolist() for polygon in instance.polygons]
        area = sum(shoelace(polygon.astype(np.float64)) for polygon in instance.polygons)
    elif instance.rle is not None:
        if instance.polygons:
            losses.add("outlines rounded to whole pixels, for they stand beside a mask in one object")
            stamp = masks.encode(whole(instance, record))
        else:
            stamp = dict(instance.rle)
        area = masks.area(stamp)
        found = rings(instance, record)
        # Run lengths say every mask exactly; polygons are what most tools read, and say it as well without holes.
        if len(found) == 1 and not instance.crowd:
            segmentation = [found[0].ravel().tolist()]
        else:
            segmentation = {"size": list(record.size), "counts": stamp["counts"].decode()}
    return {
        "category_id": instance.label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(area),
        "segmentation": segmentation,
        "iscrowd": int(instance.crowd),
    }


WRITER = Writer("coco", lambda split: f"images/{split}", _write)
