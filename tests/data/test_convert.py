"""Converting: what was drawn comes back from every layout, losses are counted, and nothing half-written stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segdet.data import formats
from segdet.data.convert import TARGETS, Report, convert
from segdet.data.geometry import masks
from segdet.data.geometry.boxes import boxes_of
from segdet.data.geometry.rasterize import IGNORE, binary, class_index, foreground
from segdet.data.records import Dataset, Instance, Record
from segdet.errors import InputError, SegdetError
from tests.data.helpers import HEIGHT, WIDTH, blank
from tests.drawn import coco_dataset, plain, yolo_dataset

SIZE = (64, 96)


@pytest.fixture(scope="module", params=[("crack",), ("crack", "stain")], ids=len)
def walls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("convert") / "walls"
    return formats.read(yolo_dataset(root, "roboflow", 3, 2, SIZE, siblings=2, classes=request.param))


def blobs(root: Path) -> Dataset:
    """One image with a mask of two classes: two parts that touch by a corner, a hole, and ignored pixels."""
    first, second, ignore = (np.zeros((HEIGHT, WIDTH), bool) for _ in range(3))
    first[5:15, 5:25], first[8:11, 10:14], first[15, 25] = True, False, True
    first[30:40, 30:40], second[20:28, 40:60], ignore[42:46, 1:60] = True, True, True
    instances = []
    for label, mask in enumerate((first, second)):
        rle = masks.encode(mask)
        instances.append(Instance(label, (), masks.box(rle), rle, merged=True))
    record = Record(blank(root / "a.png"), WIDTH, HEIGHT, tuple(instances), "a", masks.encode(ignore))
    return Dataset("blobs", root, "drawn", ("crack", "stain"), {"train": (record,)})


def single(root: Path, *instances: Instance, classes: tuple[str, ...] = ("crack", "stain")) -> Dataset:
    record = Record(blank(root / "a.png"), WIDTH, HEIGHT, instances, "a")
    return Dataset("one", root, "drawn", classes, {"train": (record,)})


def outlined(label: int, *corners: tuple[float, float, float, float], crowd: bool = False) -> Instance:
    parts = tuple(np.array([[a, b], [c, b], [c, d], [a, d]], np.float32) for a, b, c, d in corners)
    points = np.concatenate(parts)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return Instance(label, parts, (x1, y1, x2, y2), None, crowd)


def lost(report: Report, word: str) -> int:
    return sum(count for what, count in report.losses.items() if word in what)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_layout_gives_the_same_masks_back(target: str, walls: Dataset, tmp_path: Path) -> None:
    report = convert(walls, tmp_path / "new", target, compare=None)
    back = formats.read(tmp_path / "new")
    assert report.agreement.iou == 1.0 and report.agreement.pixels == 0 and report.agreement.images == 8
    assert report.problems == () and report.agreement.worst is None
    assert back.classes == walls.classes and back.licence == (walls.licence if target in ("coco", "yolo") else None)
    if target in ("coco", "yolo"):
        assert plain(back) == plain(walls) and report.losses == {}
    else:
        assert lost(report, "rounded to whole pixels") == sum(
            len(r.instances) for rs in walls.splits.values() for r in rs
        )
    for split, records in walls.splits.items():
        assert [r.image.name for r in back.splits[split]] == [r.image.name for r in records]
        for before, after in zip(records, back.splits[split], strict=True):
            assert before.image.read_bytes() == after.image.read_bytes()
            assert len(walls.classes) == 1 or (class_index(before) == class_index(after)).all()


def test_round_the_houses_and_back(walls: Dataset, tmp_path: Path) -> None:
    dataset = walls
    for number, target in enumerate(("coco", "png-mask", "yolo", "voc", "coco")):
        assert convert(dataset, tmp_path / str(number), target).agreement.iou == 1.0
        dataset = formats.read(tmp_path / str(number))
    for before, after in zip(walls.splits["train"], dataset.splits["train"], strict=True):
        if len(walls.classes) == 1:
            assert (binary(foreground(before)) == binary(foreground(after))).all()
        else:
            assert (class_index(before) == class_index(after)).all()


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_masks_with_holes_corners_and_ignored_pixels(target: str, tmp_path: Path) -> None:
    dataset = blobs(tmp_path / "old")
    report = convert(dataset, tmp_path / "new", target)
    assert report.agreement.iou == 1.0
    (before,), (after,) = dataset.splits["train"], formats.read(tmp_path / "new").splits["train"]
    expected = class_index(before)
    if target in ("coco", "yolo"):
        assert lost(report, "ignored pixels") == 4 * 59 and lost(report, "connected parts") == 3
        expected[expected == IGNORE] = 0
        # The same objects for a detector, though the order of the rows may differ.
        assert sorted(boxes_of(after)[1].tolist()) == [0, 0, 1]
    assert (class_index(after) == expected).all()
    assert lost(report, "holes") == (1 if target == "yolo" else 0)


def test_crowds_parts_and_boxes(tmp_path: Path) -> None:
    stamp = np.zeros((HEIGHT, WIDTH), bool)
    stamp[30:40, 3:20] = True
    crowd = Instance(1, (), masks.box(masks.encode(stamp)), masks.encode(stamp), crowd=True)
    parts, bare = outlined(0, (2, 2, 10, 10), (20, 2, 30, 10)), Instance(1, (), (40.5, 5, 60, 20))
    dataset = single(tmp_path / "old", parts, crowd, bare)
    coco = convert(dataset, tmp_path / "coco", "coco")
    assert coco.losses == {} and coco.agreement.iou == 1.0
    back = formats.read(tmp_path / "coco").splits["train"][0]
    assert [i.crowd for i in back.instances] == [False, True, False] and len(back.instances[0].polygons) == 2
    assert back.instances[2].box == bare.box and back.instances[2].polygons == ()
    yolo = convert(dataset, tmp_path / "yolo", "yolo")
    assert (lost(yolo, "crowds left out"), lost(yolo, "further parts"), lost(yolo, "boxes among polygons")) == (1, 1, 1)
    png = convert(dataset, tmp_path / "png", "png-mask")
    assert lost(png, "boxes without an outline") == 1 and lost(png, "crowds that are ignored") == 1
    assert (
        class_index(formats.read(tmp_path / "png").splits["train"][0]) == class_index(dataset.splits["train"][0])
    ).all()
    voc = convert(dataset, tmp_path / "voc", "voc")
    assert (
        lost(voc, "widened") == 1
        and lost(voc, "boxes beside outlined objects") == 1
        and lost(voc, "that become one") == 0
    )


def test_objects_that_overlap_are_counted(tmp_path: Path) -> None:
    dataset = single(
        tmp_path / "old", outlined(0, (2, 2, 20, 20)), outlined(1, (10, 10, 16, 16)), outlined(0, (1, 1, 4, 4))
    )
    png = convert(dataset, tmp_path / "png", "png-mask")
    assert lost(png, "several classes at once") == 36 and lost(png, "that become one") == 1 and png.agreement.iou == 1.0
    voc = convert(dataset, tmp_path / "voc", "voc")
    assert lost(voc, "several objects at once") == 36 + 4 and lost(voc, "that become one") == 0
    assert sorted(boxes_of(formats.read(tmp_path / "voc").splits["train"][0])[1].tolist()) == [0, 0, 1]


def test_a_dataset_of_boxes_keeps_them_in_voc(tmp_path: Path) -> None:
    dataset = single(tmp_path / "old", Instance(0, (), (2, 3, 10, 12)), Instance(1, (), (20, 3, 30, 12), None, True))
    report = convert(dataset, tmp_path / "voc", "voc")
    assert (
        report.losses == {} and report.agreement.iou is None and not (tmp_path / "voc" / "SegmentationClass").exists()
    )
    (record,) = formats.read(tmp_path / "voc").splits["train"]
    assert record.instances == dataset.splits["train"][0].instances


def test_images_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    root = coco_dataset(tmp_path / "old", "coco2017", 2, 2, (24, 32))
    for split in ("train", "val"):  # the same names in both splits, which VOC puts into one folder
        for number, image in enumerate(sorted((root / f"{split}2017").iterdir())):
            file = root / "annotations" / f"instances_{split}2017.json"
            file.write_text(file.read_text().replace(image.name, f"{number}.jpg"))
            image.rename(image.with_name(f"{number}.jpg"))
    dataset = formats.read(root)
    assert lost(convert(dataset, tmp_path / "yolo", "yolo"), "renamed") == 0
    report = convert(dataset, tmp_path / "voc", "voc", compare=None)
    assert lost(report, "renamed") == 2 and report.agreement.iou == 1.0
    assert [r.image.name for r in formats.read(tmp_path / "voc").splits["val"]] == ["0-2.jpg", "1-2.jpg"]


def test_an_image_listed_twice_is_kept_once(walls: Dataset, tmp_path: Path) -> None:
    twice = replace(walls, splits={**walls.splits, "val": (*walls.splits["val"], walls.splits["train"][0])})
    report = convert(twice, tmp_path / "new", "yolo")
    assert lost(report, "more than once") == 1 and report.splits == {"train": 6, "val": 2}


def test_a_folder_in_the_way_or_inside_the_dataset_is_refused(walls: Dataset, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert(walls, tmp_path / "full", "coco")
    with pytest.raises(InputError, match="inside the dataset"):
        convert(walls, walls.root / "new", "coco")
    with pytest.raises(InputError, match='did you mean "coco"'):
        convert(walls, tmp_path / "new", "cocoa")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
    (tmp_path / "full" / "mine.txt").unlink()
    assert convert(walls, tmp_path / "full", "coco").splits == {"train": 6, "val": 2}  # an empty folder is no harm


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_failure_leaves_nothing(target: str, walls: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(path: Path, name: str | None = None) -> Dataset:
        raise SegdetError("stopped")

    monkeypatch.setattr(formats, "read", stop)
    with pytest.raises(SegdetError, match="stopped"):
        convert(walls, tmp_path / "new", target)
    assert list(tmp_path.iterdir()) == []


def test_what_a_mask_cannot_number_or_voc_cannot_name_is_refused(walls: Dataset, tmp_path: Path) -> None:
    many = replace(walls, classes=tuple(f"class {k}" for k in range(255)))
    for target in ("png-mask", "voc"):
        with pytest.raises(InputError, match="255 classes"):
            convert(many, tmp_path / "new", target)
    with pytest.raises(InputError, match="rename it"):
        convert(replace(walls, classes=("a:b", "c")), tmp_path / "new", "voc")
    assert list(tmp_path.iterdir()) == []


def test_as_many_images_are_compared_as_asked_for(walls: Dataset, tmp_path: Path) -> None:
    seen: list[int] = []
    assert convert(walls, tmp_path / "none", "yolo", compare=0, advance=seen.append).agreement.images == 0
    assert sum(seen) == 16
    assert convert(walls, tmp_path / "three", "yolo", compare=3).agreement.images == 3
