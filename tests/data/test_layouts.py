"""The same pictures in every layout: the same records in the same order, and the same targets for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segdet.data import formats
from segdet.data.catalog.splits import divide, fold, with_validation
from segdet.data.geometry.rasterize import target
from segdet.data.loading.augment import SegmentationAugment
from segdet.data.loading.datasets import SegmentationSamples, TrainingPlan
from segdet.data.records import Dataset, Record, iterate
from tests import layouts
from tests.drawn import coco_dataset, plain, yolo_dataset

SIZE = (64, 96)
ROBOFLOW = ("ultralytics", "roboflow")
COCO = ("roboflow", "coco2017")


def targets(dataset: Dataset) -> dict[str, list[tuple[object, ...]]]:
    """What training sees of the labels, and what its order depends on."""
    return {
        split: [(r.image.name, r.photograph, r.size, target(r, len(dataset.classes)).tobytes()) for r in records]
        for split, records in dataset.splits.items()
    }


@pytest.fixture(scope="module", params=[("crack",), ("crack", "stain")], ids=len)
def first(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("first") / "walls"
    dataset = formats.read(yolo_dataset(root, train=5, val=3, size=SIZE, test=2, classes=request.param))
    assert any(np.frombuffer(row[3], np.uint8).any() for row in targets(dataset)["train"])  # type: ignore[call-overload]
    return dataset


@pytest.mark.parametrize("layout", layouts.POLYGONS)
def test_polygon_layouts_give_the_same_records(layout: str, first: Dataset, tmp_path: Path) -> None:
    dataset = formats.read(layouts.write(tmp_path / "walls", layout, 5, 3, SIZE, test=2, classes=first.classes))
    assert plain(dataset) == plain(first) and targets(dataset) == targets(first)
    assert dataset.classes == first.classes and dataset.problems == ()


def test_coco_gives_the_same_targets_whatever_its_ids(first: Dataset, tmp_path: Path) -> None:
    dataset = formats.read(coco_dataset(tmp_path, "coco2017", 5, 3, SIZE, test=2, classes=first.classes))
    assert targets(dataset) == targets(first)


@pytest.mark.parametrize("layout", layouts.MASKS)
def test_mask_layouts_give_the_same_targets(layout: str, first: Dataset, tmp_path: Path) -> None:
    dataset = formats.read(layouts.write(tmp_path / "walls", layout, 5, 3, SIZE, test=2, classes=first.classes))
    assert targets(dataset) == targets(first)
    assert dataset.classes == first.classes and dataset.problems == ()
    assert all(i.merged for records in dataset.splits.values() for record in records for i in record.instances)


def every_layout(root: Path, train: int, val: int, classes: tuple[str, ...]) -> dict[str, Dataset]:
    written = {
        **{
            f"yolo {kind}": yolo_dataset(root / f"y{kind}", kind, train, val, SIZE, classes=classes)
            for kind in ROBOFLOW
        },
        **{f"coco {kind}": coco_dataset(root / f"c{kind}", kind, train, val, SIZE, classes=classes) for kind in COCO},
        **{
            name: layouts.write(root / name, name, train, val, SIZE, classes=classes)
            for name in (*layouts.POLYGONS, *layouts.MASKS)
        },
    }
    return {name: formats.read(folder) for name, folder in written.items()}


def stem(record: Record) -> str:
    return record.photograph.split(".rf.")[0]


@pytest.mark.parametrize("classes", [("crack",), ("crack", "stain")], ids=len)
def test_training_sees_the_same_pixels_in_every_layout(classes: tuple[str, ...], tmp_path: Path) -> None:
    """The same samples in the same order make the same loss."""
    augment = SegmentationAugment(32, soft=len(classes) == 1)
    expected = None
    for name, dataset in every_layout(tmp_path, 6, 2, classes).items():
        records = dataset.splits["train"]
        samples = SegmentationSamples(records, len(classes), augment, seed=3)
        plan = TrainingPlan(records, 2, seed=3)
        epoch = [(stem(records[i]), *(a.tobytes() for a in samples[e, i][1:])) for batch in plan for e, i in batch]  # type: ignore[index]
        expected = expected or epoch
        assert epoch == expected, name


@pytest.mark.parametrize("classes", [("crack",), ("crack", "stain")], ids=len)
def test_every_layout_is_divided_alike(classes: tuple[str, ...], tmp_path: Path) -> None:
    expected = None
    for name, dataset in every_layout(tmp_path, 24, 0, classes).items():
        drawn = [sorted(map(stem, fold(dataset, k, 4).splits["val"])) for k in (1, 2, 3, 4)]
        drawn.append(sorted(map(stem, with_validation(dataset, seed=1)[0].splits["val"])))
        expected = expected or drawn
        assert drawn == expected, name


@pytest.mark.parametrize(
    ("layout", "adapter", "evidence"),
    [
        ("labelme", "labelme", ".json"),
        ("cvat", "cvat", "annotations.xml"),
        ("png-mask", "png-mask", "_classes.csv"),
        ("images-masks", "mask-folders", "images with masks"),
        ("split-masks", "mask-folders", "valid/images with valid/masks"),
        ("img_dir", "mask-folders", "img_dir with ann_dir"),
        ("voc", "voc", "SegmentationClass"),
    ],
)
def test_each_layout_is_recognised_by_itself(layout: str, adapter: str, evidence: str, tmp_path: Path) -> None:
    found, why = formats.recognise(layouts.write(tmp_path / "walls", layout, 1, 1, (24, 32)))
    assert found.name == adapter and evidence in why


def test_files_of_one_name_in_several_folders_are_several_photographs(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "walls", train=2, val=1, size=(24, 32))
    for kind, end in (("images", "jpg"), ("labels", "txt")):
        old = root / kind / "train"
        for place, number in (("street", 0), ("bridge", 1)):
            (old / place).mkdir()
            (old / f"wall-{number:04d}.{end}").rename(old / place / f"001.{end}")
    assert [r.photograph for r in formats.read(root).splits["train"]] == ["bridge/001", "street/001"]


@pytest.mark.parametrize("layout", ["ultralytics", "roboflow"])
def test_files_of_one_name_in_several_splits_are_several_photographs(layout: str, tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "walls", layout, train=3, val=3, size=(24, 32))
    for folder in {path.parent for path in root.rglob("*") if path.is_file()} - {root}:
        for number, file in enumerate(sorted(folder.iterdir())):
            file.rename(file.with_name(f"{number:03d}{file.suffix}"))
    dataset = formats.read(root)
    names = [record.photograph for _, record in iterate(dataset)]
    assert len(set(names)) == 6 and {name[-4:] for name in names} == {"/000", "/001", "/002"}
    held = [record.image for k in (1, 2, 3) for record in fold(dataset, k, 3).splits["val"]]
    assert sorted(held) == sorted(record.image for _, record in iterate(dataset))
    assert sum(map(len, divide(dataset, 0.5).splits.values())) == 6
