"""A small sound dataset in each format, which mutations start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import arrangements
from tests.drawn import coco_dataset, yolo_dataset
from tests.layouts import write

CLASSES = ("crack", "stain")
SIZE = (48, 64)


def _layout(name: str) -> Callable[[Path], object]:
    return lambda root: write(root, name, 3, 1, SIZE, classes=CLASSES)


def _arranged(
    canonical: Callable[[Path, int], Path], arrange: arrangements.Arrange, val: int = 0
) -> Callable[[Path], object]:
    def build(root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        arrange(canonical(root.with_name(f"{root.name}-canonical"), val), root)

    return build


_coco, _yolo, _voc = arrangements.canonical_coco, arrangements.canonical_yolo, arrangements.canonical_voc

FORMATS: dict[str, Callable[[Path], object]] = {
    "yolo": lambda root: yolo_dataset(root, "ultralytics", 3, 1, SIZE, classes=CLASSES),
    "yolo-roboflow": lambda root: yolo_dataset(root, "roboflow", 2, 1, SIZE, 2, classes=CLASSES),
    "coco": lambda root: coco_dataset(root, "roboflow", 3, 1, SIZE, classes=CLASSES),
    "png-mask": _layout("png-mask"),
    "images-masks": _layout("images-masks"),
    "split-masks": _layout("split-masks"),
    "img_dir": _layout("img_dir"),
    "voc": _layout("voc"),
    "cvat": _layout("cvat"),
    "labelme": _layout("labelme"),
    "cvat-coco": _arranged(
        _coco, arrangements.coco_like("annotations/instances_default.json", "images/default/{name}")
    ),
    "fiftyone": _arranged(_coco, arrangements.coco_like("labels.json", "data/{name}")),
    "label-studio-yolo": _arranged(
        _yolo,
        arrangements.yolo_like(
            "labels/{stem}.txt", "images/{stem}.jpg", {"classes.txt": "\n".join(CLASSES), "notes.json": "{}"}
        ),
    ),
    "darknet": _arranged(
        _yolo,
        arrangements.yolo_like(
            "obj_train_data/{stem}.txt",
            "obj_train_data/{stem}.jpg",
            {
                "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
                "obj.names": "\n".join(CLASSES),
                "train.txt": "{images}",
            },
        ),
    ),
    "voc-boxes": _arranged(
        _voc, arrangements.voc_like("Annotations/{stem}.xml", "JPEGImages/{stem}.jpg", lists=True), 1
    ),
    "csv": _arranged(_yolo, arrangements.csv_like("{split}/_annotations.csv", "{split}/{name}"), 1),
}
