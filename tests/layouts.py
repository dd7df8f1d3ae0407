"""The pictures of `tests.drawn` in the layouts of labelling tools, and as mask images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from segdet.data.geometry.rasterize import target
from segdet.data.records import Instance, Record, box_of
from tests.drawn import _Drawn, _pictures, _save

POLYGONS = ("labelme", "cvat")
MASKS = ("png-mask", "images-masks", "split-masks", "img_dir", "voc")


def write(
    root: Path,
    layout: str,
    train: int = 6,
    val: int = 3,
    size: tuple[int, int] = (96, 96),
    *,
    test: int = 0,
    classes: Sequence[str] = ("crack",),
) -> Path:
    """Write the pictures of `yolo_dataset` in one of the layouts above and return `root`."""
    drawn = list(_pictures(False, {"train": train, "val": val, "test": test}, size, 1))
    if layout == "labelme":
        _labelme(root, drawn, classes)
    elif layout == "cvat":
        _cvat(root, drawn, classes)
    else:
        _masks(root, layout, drawn, classes)
    return root


def label_image(drawn: _Drawn, classes: Sequence[str]) -> np.ndarray:
    """uint8 `[H, W]`: class k of the picture's polygons as k + 1."""
    instances = tuple(Instance(k % len(classes), (p,), box_of([p])) for k, p in enumerate(drawn.polygons))
    height, width = drawn.image.shape[:2]
    return target(Record(Path(drawn.name), width, height, instances, ""), len(classes))


def save_mask(path: Path, index: np.ndarray, palette: bool = False) -> None:
    """A mask image; with `palette` its colours have nothing to do with its values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(index, np.uint8))
    if palette:
        picture.putpalette([(37 * k + 11 * c) % 256 for k in range(256) for c in range(3)])
    picture.save(path)


def _masks(root: Path, layout: str, drawn: Sequence[_Drawn], classes: Sequence[str]) -> None:
    lists: dict[str, list[str]] = {}
    for one in drawn:
        stem, index = Path(one.name).stem, label_image(one, classes)
        roboflow = {"train": "train", "val": "valid", "test": "test"}[one.split]
        images, mask = {
            "png-mask": (root / roboflow, root / roboflow / f"{stem}_mask.png"),
            "images-masks": (root / "images" / one.split, root / "masks" / one.split / f"{stem}.png"),
            "split-masks": (root / roboflow / "images", root / roboflow / "masks" / f"{stem}_mask.png"),
            "img_dir": (root / "img_dir" / one.split, root / "ann_dir" / one.split / f"{stem}.png"),
            "voc": (root / "JPEGImages", root / "SegmentationClass" / f"{stem}.png"),
        }[layout]
        _save(one, images)
        save_mask(mask, index, palette=layout in ("voc", "img_dir"))
        lists.setdefault(one.split, []).append(stem)
        if layout == "png-mask":
            rows = "\n".join(f"{k}, {name}" for k, name in enumerate(("background", *classes)))
            (images / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}\n")
    if layout == "voc":
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        for split, stems in lists.items():
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems))
    if layout != "png-mask":
        (root / "classes.txt").write_text("\n".join(("background", *classes)))


def _labelme(root: Path, drawn: Sequence[_Drawn], classes: Sequence[str]) -> None:
    for one in drawn:
        _save(one, root / one.split)
        shapes = [
            {
                "label": classes[k % len(classes)],
                "points": p.tolist(),
                "shape_type": "polygon",
                "group_id": None,
                "flags": {},
            }
            for k, p in enumerate(one.polygons)
        ]
        height, width = one.image.shape[:2]
        content = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\\\photos\\\\{one.name}".replace("\\\\", "\\"),
            "imageData": "not read", "imageHeight": height, "imageWidth": width,
        }  # fmt: skip
        (root / one.split / one.name).with_suffix(".json").write_text(json.dumps(content))


def _cvat(root: Path, drawn: Sequence[_Drawn], classes: Sequence[str]) -> None:
    top = ElementTree.Element("annotations")
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(top, "meta"), "task"), "labels")
    for name in classes:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, one in enumerate(drawn):
        _save(one, root / "images" / one.split)
        height, width = one.image.shape[:2]
        attributes = {"id": str(number), "name": f"{one.split}/{one.name}", "width": str(width), "height": str(height)}
        image = ElementTree.SubElement(top, "image", {**attributes, "subset": one.split})
        for k, polygon in enumerate(one.polygons):
            points = ";".join(f"{x:.4f},{y:.4f}" for x, y in polygon.tolist())
            ElementTree.SubElement(
                image, "polygon", {"label": classes[k % len(classes)], "points": points, "z_order": "0"}
            )
    ElementTree.ElementTree(top).write(root / "annotations.xml")
