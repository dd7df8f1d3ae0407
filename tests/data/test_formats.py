"""Datasets on disk: four layouts of the same pictures, and folders that are no dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segdet.data import formats
from segdet.errors import SegdetError
from tests.data.helpers import annotation, blank, coco, refused, yolo
from tests.drawn import coco_dataset, plain, yolo_dataset


@pytest.mark.parametrize("classes", [("crack",), ("crack", "stain")])
def test_all_layouts_of_the_same_pictures_give_the_same_records(classes: tuple[str, ...], tmp_path: Path) -> None:
    size = (64, 96)
    read = {
        f"{write.__name__} {layout}": formats.read(
            write(tmp_path / write.__name__ / layout, layout, 4, 2, size, test=1, classes=classes)
        )
        for write, layouts in ((yolo_dataset, ("ultralytics", "roboflow")), (coco_dataset, ("roboflow", "coco2017")))
        for layout in layouts
    }
    first = plain(next(iter(read.values())))
    assert {split: len(records) for split, records in first.items()} == {"train": 4, "val": 2, "test": 1}
    assert all(instances for records in first.values() for _, _, instances in records)
    for name, dataset in read.items():
        assert plain(dataset) == first, name
        assert dataset.classes == classes, name
        assert dataset.problems == (), name
        assert all(record.image.is_file() for records in dataset.splits.values() for record in records)
    assert {dataset.format for dataset in read.values()} == {"YOLO", "COCO"}


def test_roboflow_copies_are_one_photograph_in_both_formats(tmp_path: Path) -> None:
    for write in (yolo_dataset, coco_dataset):
        dataset = formats.read(write(tmp_path / write.__name__, "roboflow", 2, 1, (32, 48), siblings=3))
        train = dataset.splits["train"]
        assert len(train) == 6 and len({record.photograph for record in train}) == 2
        # The second copy is mirrored, and so is its outline.
        first, second = (record.instances[0].polygons[0] for record in train[:2])
        assert (second == first * [-1, 1] + np.array([48, 0])).all()


def test_the_licence_is_taken_from_the_export(tmp_path: Path) -> None:
    assert formats.read(yolo_dataset(tmp_path / "a", "roboflow", 1, 1)).licence == "Public Domain"
    assert formats.read(coco_dataset(tmp_path / "b", "roboflow", 1, 1)).licence == "Public Domain"
    assert formats.read(yolo_dataset(tmp_path / "c", train=1, val=1)).licence is None


def test_the_name_is_the_folders_unless_one_is_given(tmp_path: Path) -> None:
    root = yolo(tmp_path / "walls")
    assert formats.read(root).name == "walls"
    assert formats.read(root / "data.yaml").name == "walls"
    assert formats.read(root, "crack").name == "crack"


def test_the_evidence_for_a_layout_is_noted(tmp_path: Path) -> None:
    adapter, evidence = formats.recognise(coco_dataset(tmp_path / "a", "coco2017", 1, 1))
    assert adapter.name == "coco" and "instances_train2017.json" in evidence
    adapter, evidence = formats.recognise(yolo(tmp_path / "b"))
    assert adapter.name == "yolo" and "data.yaml" in evidence
    assert formats.read(tmp_path / "b").notes == (evidence,)


def test_folders_that_are_no_dataset_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", str(tmp_path / "none"), "no such dataset folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", str(tmp_path / "empty"), "empty")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.md").write_text("hello")
    refused(tmp_path / "other", str(tmp_path / "other"), "no dataset layout", "1 md", "neither images nor labels")
    refused(tmp_path / "other" / "notes.md", "no dataset layout")
    refused(blank(tmp_path / "other" / "a.png"), "no dataset layout")


def test_a_dataset_without_a_usable_image_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    (root / "images" / "train" / "a.png").write_bytes(b"")
    refused(root, "no usable image", "a.png", "empty file")
    root = coco(tmp_path / "coco", annotation())
    (root / "a.png").unlink()
    refused(root, "no usable image", "a.png")


def test_a_dataset_that_names_no_image_at_all_is_work_that_failed(tmp_path: Path) -> None:
    with pytest.raises(SegdetError, match="not one image") as caught:
        formats.read(coco(tmp_path, images=[]))
    assert caught.value.exit_code == 1


def test_reading_changes_nothing_on_disk(tmp_path: Path) -> None:
    for write in (yolo_dataset, coco_dataset):
        root = write(tmp_path / write.__name__, "roboflow", 2, 1, (24, 24))
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        formats.read(root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
