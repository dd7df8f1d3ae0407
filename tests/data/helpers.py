"""Datasets of one image, and how the tests of their readers look at what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from segdet.data import formats
from segdet.data.records import Dataset, Record
from segdet.errors import InputError

HEIGHT, WIDTH = 48, 64
CARD = "train: images/train\nnc: 1\nnames: [crack]\n"
TRIANGLE = "0 0.25 0.25 0.75 0.25 0.5 0.75"
BOX = "0 0.5 0.5 0.25 0.5"


def blank(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (150, 150, 150)).save(path)
    return path


def yolo(root: Path, rows: str | bytes | None = TRIANGLE, card: str | None = CARD) -> Path:
    """An Ultralytics folder with one 64x48 image `a.png`, the given label file and data.yaml (None: no such file)."""
    blank(root / "images" / "train" / "a.png")
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    if rows is not None:
        (root / "labels" / "train" / "a.txt").write_bytes(rows.encode() if isinstance(rows, str) else rows)
    if card is not None:
        (root / "data.yaml").write_text(card)
    return root


def annotation(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [16, 12, 32, 24], "area": 384,
        "segmentation": [[16, 12, 48, 12, 32, 36]], **changes,
    }  # fmt: skip


def coco(root: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    """A folder with one 64x48 image `a.png` (id 1) and `_annotations.coco.json`; `changes` replace its top-level keys."""
    blank(root / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "crack", "supercategory": "defect"}],
        "annotations": list(annotations),
        **changes,
    }
    (root / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def only(dataset: Dataset) -> Record:
    """The one training record."""
    assert list(dataset.splits) == ["train"] and len(dataset.splits["train"]) == 1
    return dataset.splits["train"][0]


def problem(dataset: Dataset) -> str:
    """The one problem."""
    assert len(dataset.problems) == 1, [str(p) for p in dataset.problems]
    return str(dataset.problems[0])


def refused(path: Path, *parts: str) -> str:
    """The message of the InputError that reading `path` raises: one line that holds all `parts`."""
    with pytest.raises(InputError) as caught:
        formats.read(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message
