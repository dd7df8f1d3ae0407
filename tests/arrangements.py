"""The same labels in the arrangements of folders that labelling tools export: COCO, YOLO, VOC and CSV."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from segdet.data import formats
from segdet.data.records import Dataset
from tests.drawn import coco_dataset, yolo_dataset

CLASSES = ("crack", "stain")
SIZE = (48, 64)
Arrange = Callable[[Path, Path], None]  # from a canonical dataset to a new folder


def canonical_coco(root: Path, val: int) -> Path:
    return coco_dataset(root, "coco2017", 3, val, SIZE, classes=CLASSES)


def canonical_yolo(root: Path, val: int) -> Path:
    return yolo_dataset(root, "ultralytics", 3, val, SIZE, classes=CLASSES)


def canonical_voc(root: Path, val: int) -> Path:
    """Boxes on whole pixels in Pascal VOC's own folders."""
    drawn = formats.read(canonical_yolo(root.with_name(f"{root.name}-drawn"), val))
    for split, records in drawn.splits.items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{r.image.stem}\n" for r in records))
        for record in records:
            _copy(record.image, root / "JPEGImages" / record.image.name)
            top = ElementTree.Element("annotation")
            size = ElementTree.SubElement(top, "size")
            for key, value in (("width", record.width), ("height", record.height)):
                ElementTree.SubElement(size, key).text = str(value)
            for instance in record.instances:
                element = ElementTree.SubElement(top, "object")
                ElementTree.SubElement(element, "name").text = CLASSES[instance.label]
                box = ElementTree.SubElement(element, "bndbox")
                x1, y1, x2, y2 = np.round(instance.box).astype(int).tolist()
                for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (x1 + 1, y1 + 1, x2, y2), strict=True):
                    ElementTree.SubElement(box, key).text = str(value)
            file = root / "Annotations" / f"{record.image.stem}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            ElementTree.ElementTree(top).write(file)
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _splits(root: Path) -> list[str]:
    return [split for split in ("train", "val") if list(root.glob(f"**/{split}*"))]


def coco_like(label_file: str, image: str, file_name: str = "{name}") -> Arrange:
    """COCO files and images at these places; `{split}` and `{name}` are filled in."""

    def arrange(source: Path, target: Path) -> None:
        for split in _splits(source):
            content = json.loads((source / "annotations" / f"instances_{split}2017.json").read_text())
            for entry in content["images"]:
                name = entry["file_name"]
                _copy(source / f"{split}2017" / name, target / image.format(split=split, name=name))
                entry["file_name"] = file_name.format(split=split, name=name)
            file = target / label_file.format(split=split, Split=split.capitalize())
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))

    return arrange


def yolo_like(label: str, image: str, files: dict[str, str]) -> Arrange:
    """Label files, images and further files; `{split}` and `{stem}` are filled in, `{images}` in a file lists them all."""

    def arrange(source: Path, target: Path) -> None:
        listed = []
        for split in _splits(source / "images"):
            for picture in sorted((source / "images" / split).iterdir()):
                place = image.format(split=split, stem=picture.stem)
                listed.append(place)
                _copy(picture, target / place)
                _copy(
                    source / "labels" / split / f"{picture.stem}.txt",
                    target / label.format(split=split, stem=picture.stem),
                )
        for name, text in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text.replace("{images}", "\n".join(f"data/{place}" for place in listed)))

    return arrange


def voc_like(xml: str, image: str, lists: bool = False) -> Arrange:
    """XML files and images at these places; `{split}` and `{stem}` are filled in."""

    def arrange(source: Path, target: Path) -> None:
        for file in sorted((source / "ImageSets" / "Main").iterdir()):
            for stem in file.read_text().split():
                _copy(source / "JPEGImages" / f"{stem}.jpg", target / image.format(split=file.stem, stem=stem))
                _copy(source / "Annotations" / f"{stem}.xml", target / xml.format(split=file.stem, stem=stem))
        if lists:
            shutil.copytree(source / "ImageSets", target / "ImageSets")

    return arrange


def csv_like(label_file: str, image: str) -> Arrange:
    """CSV files of boxes and images at these places."""

    def arrange(source: Path, target: Path) -> None:
        for split, records in formats.read(source).splits.items():
            rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
            for record in records:
                _copy(record.image, target / image.format(split=split, name=record.image.name))
                for i in record.instances:
                    corners = ",".join(f"{value:.0f}" for value in i.box)
                    rows.append(f"{record.image.name},{record.width},{record.height},{CLASSES[i.label]},{corners}")
            file = target / label_file.format(split=split)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(rows))

    return arrange


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (150, 150, 150)).save(path)
    return path


def read(root: Path) -> Dataset:
    return formats.read(root, "walls")
