"""Small datasets drawn on disk, for the tests of every room.

The same picture numbers give the same pixels and the same polygons in every layout, so that what is read from one
layout can be compared with what is read from another (`plain`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segdet.data.geometry.rasterize import binary, coverage
from segdet.data.records import Dataset, Instance, Record
from segdet.evaluation.detection import Detections

Polygons = list[np.ndarray]

_FINE = 4  # pictures are drawn this many times larger and averaged
_GRID = 16  # vertices lie on 1/16 of a pixel, so that they survive being written as text
_ROBOFLOW_FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def crack_picture(seed: int, height: int = 96, width: int = 96) -> tuple[np.ndarray, Polygons]:
    """A noisy grey wall with one or two dark cracks, and the exact outlines of those cracks.

    Returns:
        image uint8 `[height, width, 3]` and polygons, each float32 `[P, 2]` (x, y) in pixels. The first crack runs from
        top to bottom, a second one (odd seeds) from left to right; each is 3 to 6 pixels wide.
    """
    rng = np.random.default_rng(seed)
    polygons = [_ribbon(rng, height, width)[:, ::-1].copy()]
    if seed % 2:
        polygons.append(_ribbon(rng, width, height))
    fine = Image.new("L", (width * _FINE, height * _FINE))
    for polygon in polygons:
        ImageDraw.Draw(fine).polygon([tuple(xy) for xy in (polygon * _FINE - 0.5).tolist()], fill=255)
    dark = np.asarray(fine.resize((width, height), Image.Resampling.BOX), np.float32)[..., None] / 255
    wall = rng.uniform(140, 190) + rng.normal(0, 8, (height, width, 1)) + rng.normal(0, 2, (height, width, 3))
    image = wall * (1 - dark) + (45 + rng.normal(0, 4, (height, width, 1))) * dark
    return image.clip(0, 255).astype(np.uint8), polygons


def crack_mask(seed: int, size: int = 128) -> np.ndarray:
    """The mask of `crack_picture`, bool `[size, size]`."""
    _, polygons = crack_picture(seed, size, size)
    return binary(coverage(polygons, size, size))


def yolo_dataset(
    root: str | Path,
    layout: str = "ultralytics",
    train: int = 6,
    val: int = 3,
    size: tuple[int, int] = (96, 96),
    siblings: int = 1,
    *,
    test: int = 0,
    classes: Sequence[str] = ("crack",),
) -> Path:
    """Write a YOLO polygon dataset of drawn cracks and return `root`.

    Args:
        layout: "ultralytics" (images/train, labels/train, ...) or "roboflow" (train/images, valid/images, ... and a
            data.yaml whose paths start with `../`).
        train, val, test: photographs in each split.
        size: (height, width) of every picture.
        siblings: copies of each training photograph, each second one mirrored; only Roboflow has more than one.
        classes: polygon k of a picture is of class k modulo their number.
    """
    root = Path(root)
    for drawn in _pictures(layout == "roboflow", {"train": train, "val": val, "test": test}, size, siblings):
        if layout == "roboflow":
            images, labels = (root / _ROBOFLOW_FOLDERS[drawn.split] / kind for kind in ("images", "labels"))
        else:
            images, labels = (root / kind / drawn.split for kind in ("images", "labels"))
        _save(drawn, images)
        labels.mkdir(parents=True, exist_ok=True)
        rows = [
            " ".join([str(k % len(classes)), *(f"{v:.17g}" for v in (polygon / size[::-1]).ravel().tolist())])
            for k, polygon in enumerate(drawn.polygons)
        ]
        (labels / f"{Path(drawn.name).stem}.txt").write_text("\n".join(rows))  # Roboflow ends without a newline
    if layout == "roboflow":
        card = (
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
            f"nc: {len(classes)}\nnames: {list(classes)}\n\n"
            "roboflow:\n  workspace: drawn\n  project: cracks\n  version: 2\n  license: Public Domain\n"
        )
    else:
        names = "".join(f"  {index}: {name}\n" for index, name in enumerate(classes))
        tested = "test: images/test\n" if test else ""
        card = f"path: ../datasets/drawn\ntrain: images/train\nval: images/val\n{tested}names:\n{names}"
    (root / "data.yaml").write_text(card)
    return root


def coco_dataset(
    root: str | Path,
    layout: str = "roboflow",
    train: int = 6,
    val: int = 3,
    size: tuple[int, int] = (96, 96),
    siblings: int = 1,
    *,
    test: int = 0,
    classes: Sequence[str] = ("crack",),
) -> Path:
    """Write the pictures and polygons of `yolo_dataset` as COCO instances and return `root`.

    Args:
        layout: "roboflow" (train/_annotations.coco.json, ...; ids from 0, the year a string, and a root category of
            supercategory "none" that has the name of the first class) or "coco2017"
            (annotations/instances_train2017.json and train2017/; ids with holes).
        train, val, test, size, siblings, classes: as for `yolo_dataset`.
    """
    root = Path(root)
    roboflow = layout == "roboflow"
    if roboflow:
        categories = [{"id": 0, "name": classes[0], "supercategory": "none"}]
        categories += [{"id": 1 + k, "name": name, "supercategory": classes[0]} for k, name in enumerate(classes)]
        ids = [1 + k for k in range(len(classes))]
    else:
        ids = [1 + 3 * k for k in range(len(classes))]
        categories = [
            {"id": number, "name": name, "supercategory": "thing"} for number, name in zip(ids, classes, strict=True)
        ]
    contents: dict[str, dict[str, Any]] = {}
    for drawn in _pictures(roboflow, {"train": train, "val": val, "test": test}, size, siblings):
        _save(drawn, root / (_ROBOFLOW_FOLDERS[drawn.split] if roboflow else f"{drawn.split}2017"))
        content = contents.setdefault(
            drawn.split,
            {
                "info": {"year": "2026", "version": "2"} if roboflow else {"year": 2017, "version": "1.0"},
                "licenses": [{"id": 1, "url": "", "name": "Public Domain"}],
                "categories": categories,
                "images": [],
                "annotations": [],
            },
        )
        number = len(content["images"]) if roboflow else 139 + 17 * len(content["images"])
        content["images"].append(
            {"id": number, "license": 1, "file_name": drawn.name, "height": size[0], "width": size[1]}
        )
        for k, polygon in enumerate(drawn.polygons):
            (x1, y1), (x2, y2) = polygon.min(axis=0).tolist(), polygon.max(axis=0).tolist()
            annotations = content["annotations"]
            annotations.append(
                {
                    "id": len(annotations) if roboflow else 1001 + 5 * len(annotations),
                    "image_id": number,
                    "category_id": ids[k % len(ids)],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),  # the box's, as Roboflow writes it
                    "segmentation": [polygon.ravel().tolist()],
                    "iscrowd": 0,
                }
            )
    for split, content in contents.items():
        if roboflow:
            file = root / _ROBOFLOW_FOLDERS[split] / "_annotations.coco.json"
        else:
            file = root / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    return root


def plain(dataset: Dataset) -> dict[str, list[tuple[Any, ...]]]:
    """The records of `dataset` as plain values that compare equal when two layouts hold the same."""
    return {
        split: [
            (
                record.photograph,
                record.size,
                [(i.label, [p.tolist() for p in i.polygons], i.box, i.crowd) for i in record.instances],
            )
            for record in records
        ]
        for split, records in dataset.splits.items()
    }


@dataclass(frozen=True)
class _Drawn:
    split: str
    name: str
    image: np.ndarray
    polygons: Polygons


def _pictures(roboflow: bool, counts: dict[str, int], size: tuple[int, int], siblings: int) -> Iterator[_Drawn]:
    """All pictures of a dataset, sorted by file name within a split."""
    if siblings > 1 and not roboflow:
        raise ValueError("only the roboflow layouts have siblings")
    for offset, (split, count) in enumerate(counts.items()):
        for index in range(count):
            stem = f"wall-{1000 * offset + index:04d}"
            image, polygons = crack_picture(1000 * offset + index, *size)
            if not roboflow:
                yield _Drawn(split, f"{stem}.jpg", image, polygons)
                continue
            copies = siblings if split == "train" else 1
            hashes = sorted(hashlib.md5(f"{stem} {copy}".encode()).hexdigest() for copy in range(copies))
            for copy, suffix in enumerate(hashes):
                name = f"{stem}.rf.{suffix}.jpg"
                if copy % 2:
                    mirrored = [(polygon * [-1, 1] + [size[1], 0]).astype(np.float32) for polygon in polygons]
                    yield _Drawn(split, name, image[:, ::-1], mirrored)
                else:
                    yield _Drawn(split, name, image, polygons)


def _ribbon(rng: np.random.Generator, length: int, across: int) -> np.ndarray:
    """float32 `[P, 2]`: a band along the first axis from 0 to `length`, wandering over the second within `across`."""
    nodes = 7
    along = np.linspace(0, length, nodes)
    middle = across * (rng.uniform(0.3, 0.7) + np.cumsum(rng.uniform(-0.06, 0.06, nodes)))
    middle = middle.clip(0.08 * across, 0.92 * across)
    half = rng.uniform(1.5, 3.0, nodes)
    upper, lower = np.stack([along, middle - half], 1), np.stack([along, middle + half], 1)
    outline = np.concatenate([upper, lower[::-1]]).clip(0, [length, across])
    return np.asarray(np.round(outline * _GRID) / _GRID, np.float32)


def _save(drawn: _Drawn, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(drawn.image)).save(folder / drawn.name, quality=95)


def boxed_records(seed: int, count: int, classes: int, crowds: bool) -> list[Record]:
    """Records of `count` images 200 wide and 160 high that exist nowhere, with 0 to 6 boxes, outlines or crowds each."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        instances = []
        for _ in range(rng.integers(0, 7)):
            x, y = rng.uniform(0, 120), rng.uniform(0, 100)
            w, h = rng.uniform(5, 79), rng.uniform(5, 59)
            outline = np.array([[x, y], [x + w, y], [x + w, y + h]], np.float32)  # half of its box
            polygons = (outline,) if rng.random() < 0.5 else ()
            crowd = crowds and bool(rng.random() < 0.2)
            instances.append(Instance(int(rng.integers(classes)), polygons, (x, y, x + w, y + h), crowd=crowd))
        records.append(Record(Path(f"drawn-{number}.jpg"), 200, 160, tuple(instances), f"drawn-{number}"))
    return records


def found_near(records: Sequence[Record], classes: int, seed: int) -> list[Detections]:
    """What a middling detector finds: jittered and doubled boxes, some of a wrong class, some missed, some invented."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for record in records:
        rows: list[tuple[float, ...]] = []
        for instance in record.instances:
            x1, y1, x2, y2 = instance.box
            for copy in range(rng.choice([0, 1, 1, 1, 2])):
                dx, dy = rng.normal(0, 0.05 * (1 + copy), 2) * [x2 - x1, y2 - y1]
                grown = rng.uniform(0.9, 1.1)
                label = instance.label if rng.random() < 0.9 else int(rng.integers(classes))
                box = (x1 + dx, y1 + dy, x1 + dx + (x2 - x1) * grown, y1 + dy + (y2 - y1) * grown)
                rows.append((*box, rng.uniform(0.3, 1) - 0.2 * copy, label))
        for _ in range(rng.integers(0, 3)):
            x, y = rng.uniform(0, 0.7 * record.width), rng.uniform(0, 0.7 * record.height)
            w, h = rng.uniform(0.02, 0.3, 2) * [record.width, record.height]
            rows.append((x, y, x + w, y + h, rng.uniform(0, 0.6), int(rng.integers(classes))))
        table = np.array(sorted(rows, key=lambda row: -row[4]), np.float32).reshape(-1, 6)
        found.append(Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64)))
    return found
