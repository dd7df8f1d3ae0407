"""Two sites hold pictures of the same names: labels lie on their own site's picture, or are left out as ambiguous."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdet.data import formats
from segdet.data.records import Dataset, iterate
from tests.data.helpers import CARD, HEIGHT, WIDTH, blank

SITES = {"bridge": 4, "tunnel": 36}  # the left edge of the one object, which tells whose label it is
SIDE = 16
TOP = 8

Arrange = Callable[[Path], None]


def site_images(folder: Path, name: str = "000.jpg") -> None:
    for site in SITES:
        blank(folder / site / name)


def corners(left: int) -> list[list[int]]:
    return [[left, TOP], [left + SIDE, TOP], [left + SIDE, TOP + SIDE], [left, TOP + SIDE]]


def labelme_file(path: Path, left: int, image: str) -> None:
    shape = {"label": "crack", "points": corners(left), "shape_type": "polygon", "group_id": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"shapes": [shape], "imagePath": image, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    path.write_text(json.dumps(content))


def voc_file(path: Path, left: int, said: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    box = f"<xmin>{left + 1}</xmin><ymin>{TOP + 1}</ymin><xmax>{left + SIDE}</xmax><ymax>{TOP + SIDE}</ymax>"
    path.write_text(
        f"<annotation>{said}<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        f"<object><name>crack</name><bndbox>{box}</bndbox></object></annotation>"
    )


def mask_file(path: Path, left: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[TOP : TOP + SIDE, left : left + SIDE] = 255
    Image.fromarray(mask).save(path)


def yolo_file(path: Path, left: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = f"{SIDE / WIDTH} {SIDE / HEIGHT}"
    path.write_text(f"0 {(left + SIDE / 2) / WIDTH} {(TOP + SIDE / 2) / HEIGHT} {size}\n")


def cvat_file(path: Path, names: dict[str, int]) -> None:
    images = "".join(
        f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
        f'<box label="crack" xtl="{left}" ytl="{TOP}" xbr="{left + SIDE}" ybr="{TOP + SIDE}"/></image>'
        for number, (name, left) in enumerate(names.items())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotations>{images}</annotations>")


def coco_file(path: Path, names: dict[str, int]) -> None:
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT} for number, name in enumerate(names, 1)
    ]
    boxes = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [left, TOP, SIDE, SIDE], "iscrowd": 0}
        for number, left in enumerate(names.values(), 1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "crack"}]}))


def labelme_apart(root: Path) -> None:
    site_images(root / "images")
    for site, left in SITES.items():
        labelme_file(root / "json" / site / "000.json", left, "000.jpg")


def labelme_of_another_machine(root: Path) -> None:
    site_images(root / "images")
    for number, (site, left) in enumerate(SITES.items()):
        labelme_file(root / "json" / f"{number}.json", left, rf"C:\shots\{site}\000.jpg")


def cvat_of_another_machine(root: Path) -> None:
    site_images(root / "images")
    cvat_file(root / "annotations.xml", {f"/data/upload/{site}/000.jpg": left for site, left in SITES.items()})


def voc_subfolders(root: Path) -> None:
    site_images(root / "JPEGImages")
    for site, left in SITES.items():
        voc_file(root / "Annotations" / site / "000.xml", left)


def voc_lists(root: Path) -> None:
    voc_subfolders(root)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("bridge/000\n")
    (lists / "val.txt").write_text("tunnel/000\n")


def voc_masks(root: Path) -> None:
    site_images(root / "JPEGImages")
    for site, left in SITES.items():
        mask_file(root / "SegmentationClass" / site / "000.png", left)


def mask_folders(root: Path) -> None:
    site_images(root / "images")
    for site, left in SITES.items():
        mask_file(root / "masks" / site / "000_mask.png", left)


def coco_of_another_machine(root: Path) -> None:
    site_images(root / "images")
    names = {rf"D:\work\{site}\000.jpg": left for site, left in SITES.items()}
    coco_file(root / "annotations" / "instances_default.json", names)


def coco_addresses(root: Path) -> None:
    site_images(root / "images")
    names = {f"https://example.com/shots/{site}/000.jpg?key=1": left for site, left in SITES.items()}
    coco_file(root / "annotations" / "instances_default.json", names)


def yolo_subfolders(root: Path) -> None:
    site_images(root / "images" / "train")
    for site, left in SITES.items():
        yolo_file(root / "labels" / "train" / site / "000.txt", left)
    (root / "data.yaml").write_text(CARD)


APART: tuple[Arrange, ...] = (
    labelme_apart, labelme_of_another_machine, cvat_of_another_machine, voc_subfolders, voc_lists, voc_masks,
    mask_folders, coco_of_another_machine, coco_addresses, yolo_subfolders,
)  # fmt: skip


@pytest.mark.parametrize("arrange", APART, ids=lambda arrange: arrange.__name__)
def test_labels_lie_on_the_picture_of_their_own_site(arrange: Arrange, tmp_path: Path) -> None:
    arrange(tmp_path)
    dataset = formats.read(tmp_path)
    records = {record.image.parent.name: record for _, record in iterate(dataset)}
    assert records.keys() == SITES.keys() and dataset.problems == ()
    assert {site: record.instances[0].box[0] for site, record in records.items()} == SITES
    assert_all_accounted(dataset, tmp_path)


def test_voc_lists_divide_pictures_of_the_same_name(tmp_path: Path) -> None:
    voc_lists(tmp_path)
    dataset = formats.read(tmp_path)
    sites = {split: [record.image.parent.name for record in records] for split, records in dataset.splits.items()}
    assert sites == {"train": ["bridge"], "val": ["tunnel"]}


def flat_labelme(root: Path) -> None:
    site_images(root / "images")
    labelme_file(root / "json" / "000.json", 4, "000.jpg")


def flat_cvat(root: Path) -> None:
    site_images(root / "images")
    cvat_file(root / "annotations.xml", {"000.jpg": 4})


def flat_voc(root: Path) -> None:
    site_images(root / "JPEGImages")
    voc_file(root / "Annotations" / "000.xml", 4)


def flat_voc_masks(root: Path) -> None:
    site_images(root / "JPEGImages")
    mask_file(root / "SegmentationClass" / "000.png", 4)


def flat_masks(root: Path) -> None:
    site_images(root / "images")
    mask_file(root / "masks" / "000.png", 4)


def flat_coco(root: Path) -> None:
    site_images(root / "images")
    coco_file(root / "annotations" / "instances_default.json", {"000.jpg": 4})


def twins(folder: Path) -> None:
    for name in ("000.jpg", "000.png"):
        blank(folder / name)


def twins_png_mask(root: Path) -> None:
    twins(root / "train")
    mask_file(root / "train" / "000_mask.png", 4)
    (root / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n255, crack\n")


def twins_masks(root: Path) -> None:
    twins(root / "images")
    mask_file(root / "masks" / "000.png", 4)


def twins_yolo(root: Path) -> None:
    twins(root / "images" / "train")
    yolo_file(root / "labels" / "train" / "000.txt", 4)
    (root / "data.yaml").write_text(CARD)


def twins_voc(root: Path) -> None:
    twins(root / "JPEGImages")
    voc_file(root / "Annotations" / "000.xml", 4)


DOUBTFUL: tuple[Arrange, ...] = (
    flat_labelme, flat_cvat, flat_voc, flat_voc_masks, flat_masks, flat_coco, twins_png_mask, twins_masks, twins_yolo, twins_voc,
)  # fmt: skip


@pytest.mark.parametrize("arrange", DOUBTFUL, ids=lambda arrange: arrange.__name__)
def test_a_label_that_fits_two_pictures_is_used_for_neither(arrange: Arrange, tmp_path: Path) -> None:
    arrange(tmp_path)
    dataset = formats.read(tmp_path, refuse=False)
    doubts = [problem for problem in dataset.problems if problem.kind == "ambiguous"]
    masks = ("masks", "SegmentationClass")
    pictures = [
        path.relative_to(tmp_path)
        for path in sorted(tmp_path.rglob("000.*"))
        if path.suffix in (".jpg", ".png") and not set(masks) & set(path.parts)
    ]
    assert not list(iterate(dataset)) and len(pictures) == 2
    for picture in pictures:
        assert tmp_path / picture in {problem.path for problem in doubts}
        assert any("/".join(picture.parts[-2:]) in problem.what or picture.name in problem.what for problem in doubts)
    assert_all_accounted(dataset, tmp_path)


def test_what_a_voc_file_says_decides_between_twins(tmp_path: Path) -> None:
    twins(tmp_path / "JPEGImages")
    voc_file(tmp_path / "Annotations" / "000.xml", 4, "<filename>000.png</filename>")
    dataset = formats.read(tmp_path, refuse=False)
    assert [record.image.name for _, record in iterate(dataset)] == ["000.png"]


def test_two_labels_of_one_picture_are_both_left_out(tmp_path: Path) -> None:
    blank(tmp_path / "images" / "train" / "a.jpg")
    for name in ("a.txt", "a.jpg.txt"):
        yolo_file(tmp_path / "labels" / "train" / name, 4)
    (tmp_path / "data.yaml").write_text(CARD)
    dataset = formats.read(tmp_path, refuse=False)
    assert not list(iterate(dataset))
    assert any("a.txt and" in problem.what or "a.jpg.txt and" in problem.what for problem in dataset.problems)


def test_a_label_of_another_folder_is_no_match(tmp_path: Path) -> None:
    site_images(tmp_path / "JPEGImages")
    (tmp_path / "JPEGImages" / "tunnel" / "000.jpg").unlink()
    voc_file(tmp_path / "Annotations" / "bridge" / "000.xml", 4)
    voc_file(tmp_path / "Annotations" / "tunnel" / "000.xml", 36)
    dataset = formats.read(tmp_path)
    assert [record.instances[0].box[0] for _, record in iterate(dataset)] == [4]
    assert [problem.kind for problem in dataset.problems] == ["orphan"]


@pytest.mark.parametrize("name", ["A.TXT", "a.TXT", "A.txt", "a.jpg.txt"])
def test_label_names_of_windows_are_the_image_s(name: str, tmp_path: Path) -> None:
    blank(tmp_path / "images" / "train" / "a.jpg")
    yolo_file(tmp_path / "labels" / "train" / name, 4)
    (tmp_path / "data.yaml").write_text(CARD)
    dataset = formats.read(tmp_path)
    assert [len(record.instances) for _, record in iterate(dataset)] == [1] and dataset.problems == ()


def assert_all_accounted(dataset: Dataset, root: Path) -> None:
    """Read and left out are together the files that are there."""
    assert dataset.account is not None
    assert dataset.account.files == sum(path.is_file() for path in root.rglob("*"))
    assert dataset.account.images == len({record.image for _, record in iterate(dataset)})
    assert dataset.account.left_out == sum(one.count for one in dataset.account.unread)
