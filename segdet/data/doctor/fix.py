"""`segdet data check --fix`: a cleaned copy of a dataset, which says exactly what it left out. The source is not touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from segdet.data.doctor import Examination
from segdet.data.doctor.labels import KEPT, area_of
from segdet.data.records import Dataset, Instance, Record, iterate
from segdet.errors import InputError
from segdet.files import building


@dataclass(frozen=True)
class Cleaned:
    """layout: "YOLO" or "COCO". images: kept. dropped: one line for each thing left out."""

    folder: Path
    layout: str
    images: int
    dropped: tuple[str, ...]


def write(dataset: Dataset, examination: Examination, folder: Path) -> Cleaned:
    """Write the copy: YOLO data stays YOLO, everything else becomes COCO JSON; images are copied byte for byte.

    Left out are images that cannot be decoded, identical copies, labels the reader could not use, and photographs (with
    all their augmented copies) that a later split shows too: of train, val and test the later one is kept whole.

    Raises:
        InputError: `folder` exists and holds something, lies in the dataset, or cannot be written.
    """
    folder = folder.expanduser()
    if folder.resolve().is_relative_to(dataset.root.resolve()):
        raise InputError(f"--fix {folder}: lies in the dataset itself; name a folder elsewhere")
    cleaned, dropped = without(dataset, examination)
    if not cleaned.splits.get("train"):
        raise InputError(f"--fix {folder}: nothing of train would be left; mend the labels first")
    dropped += [f"label left out: {problem}" for problem in dataset.problems if KEPT not in problem.what]
    layout = "YOLO" if dataset.format == "YOLO" else "COCO"
    with building(folder) as root:
        (_yolo if layout == "YOLO" else _coco)(cleaned, root)
        lines = [f"{len(dropped)} things of {dataset.root} were left out.", *dropped]
        (root / "dropped.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Cleaned(folder, layout, sum(map(len, cleaned.splits.values())), tuple(dropped))


def without(dataset: Dataset, examination: Examination) -> tuple[Dataset, list[str]]:
    """The dataset without what must go, and a line for each image that went."""
    why: dict[Path, str] = dict.fromkeys(examination.damaged, "cannot be decoded")
    photographs: dict[tuple[str, str], list[Record]] = {}
    for split, record in iterate(dataset):
        photographs.setdefault((split, record.photograph), []).append(record)
    for pair in examination.pairs:
        if pair.leaks:
            for record in photographs[pair.splits[0], pair.first.photograph]:
                why.setdefault(record.image, f"leaks: {pair.splits[1]} shows it in {pair.second.image.name}")
        elif pair.identical:
            why.setdefault(pair.first.image, f"identical to {pair.second.image.name}")
    splits = {s: tuple(r for r in records if r.image not in why) for s, records in dataset.splits.items()}
    lines = [f"image left out: {path}: {reason}" for path, reason in sorted(why.items())]
    return replace(dataset, splits={s: records for s, records in splits.items() if records}), lines


def _placed(dataset: Dataset) -> Iterator[tuple[str, str, Record]]:
    """(split, file name, record) with names made unique within a split: sources may nest folders."""
    for split, records in dataset.splits.items():
        taken: set[str] = set()
        for record in records:
            name, number = record.image.name, 1
            while Path(name).stem.lower() in taken:
                number += 1
                name = f"{record.image.stem}-{number}{record.image.suffix}"
            taken.add(Path(name).stem.lower())
            yield split, name, record


def _yolo(dataset: Dataset, folder: Path) -> None:
    for split, name, record in _placed(dataset):
        image = folder / "images" / split / name
        label = (folder / "labels" / split / name).with_suffix(".txt")
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.image, image)
        label.write_text("".join(f"{row}\n" for row in _rows(record)), encoding="utf-8")
    card = {split: f"images/{split}" for split in dataset.splits}
    names = dict(enumerate(dataset.classes))
    licence = {"license": dataset.licence} if dataset.licence else {}
    text = yaml.safe_dump({**card, "names": names, **licence}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _rows(record: Record) -> Iterator[str]:
    """A row for each outline, or for the box of an object without one; twelve digits bring every float32 back."""
    size = np.array([record.width, record.height])
    for instance in record.instances:
        shapes = [polygon / size for polygon in instance.polygons]
        if not shapes:
            x1, y1, x2, y2 = instance.box
            shapes = [np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]]) / size]
        for shape in shapes:
            yield " ".join([str(instance.label), *(f"{value:.12g}" for value in shape.ravel().tolist())])


def _coco(dataset: Dataset, folder: Path) -> None:
    categories = [
        {"id": index, "name": name, "supercategory": "object"} for index, name in enumerate(dataset.classes, 1)
    ]
    contents: dict[str, dict[str, list[object]]] = {}
    for split, name, record in _placed(dataset):
        place = folder / "images" / split
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.image, place / name)
        content = contents.setdefault(split, {"images": [], "annotations": []})
        number = len(content["images"]) + 1
        content["images"].append({"id": number, "file_name": name, "width": record.width, "height": record.height})
        for instance in record.instances:
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, **_annotation(instance)}
            content["annotations"].append(entry)
    (folder / "annotations").mkdir()
    licences = [{"id": 1, "name": dataset.licence, "url": ""}] if dataset.licence else []
    for split, content in contents.items():
        whole = {"info": {"description": dataset.name}, "licenses": licences, "categories": categories, **content}
        text = json.dumps(whole, ensure_ascii=False)
        (folder / "annotations" / f"instances_{split}.json").write_text(text, encoding="utf-8")


def _annotation(instance: Instance) -> dict[str, object]:
    x1, y1, x2, y2 = instance.box
    outline: object = [polygon.ravel().tolist() for polygon in instance.polygons]
    if instance.rle is not None:
        outline = {"size": instance.rle["size"], "counts": instance.rle["counts"].decode()}
    return {
        "category_id": instance.label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": area_of(instance),
        "iscrowd": int(instance.crowd),
        "segmentation": outline,
    }
