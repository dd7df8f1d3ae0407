"""Mask images as labels: what their values mean, class lists, pairs that do not match, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdet.data import formats
from segdet.data.geometry import masks
from segdet.data.geometry.rasterize import IGNORE, binary, class_index, foreground
from segdet.data.records import Dataset
from tests.data.helpers import HEIGHT, WIDTH, blank, only, problem, refused
from tests.layouts import save_mask

STAMP = np.zeros((HEIGHT, WIDTH), np.uint8)
STAMP[5:20, 8:40] = 1


def folders(root: Path, index: np.ndarray, name: str = "a.png", palette: bool = False) -> Path:
    """images/a.png and masks/<name>."""
    blank(root / "images" / "a.png")
    save_mask(root / "masks" / name, index, palette)
    return root


def roboflow(root: Path, index: np.ndarray = STAMP, rows: str = "0, background\n1, crack\n") -> Path:
    blank(root / "train" / "a.jpg")
    save_mask(root / "train" / "a_mask.png", index)
    (root / "train" / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}")
    return root


def index_of(dataset: Dataset) -> np.ndarray:
    return class_index(only(dataset))


@pytest.mark.parametrize("value", [1, 255, 128, 7])
def test_masks_of_one_value_are_one_class_whatever_the_value(value: int, tmp_path: Path) -> None:
    dataset = formats.read(folders(tmp_path, STAMP * value))
    assert len(dataset.classes) == 1 and dataset.problems == ()
    assert (binary(foreground(only(dataset))) == (STAMP > 0)).all()
    assert any(f"0/{value}" in note for note in dataset.notes)


@pytest.mark.parametrize("palette", [False, True])
def test_values_are_class_numbers_whatever_the_palette_and_255_is_ignored(palette: bool, tmp_path: Path) -> None:
    index = STAMP.copy()
    index[25:30, 10:20], index[40:44, 50:60] = 3, 255
    dataset = formats.read(folders(tmp_path, index, palette=palette))
    assert dataset.classes == ("class_1", "class_3")
    expected = index.copy()
    expected[index == 3] = 2
    assert (index_of(dataset) == expected).all() and (expected == IGNORE).any()


def test_with_one_class_ignored_pixels_are_background_and_counted(tmp_path: Path) -> None:
    index = STAMP.copy()
    index[40:44, 50:60] = 255
    dataset = formats.read(folders(tmp_path, index))
    assert dataset.classes == ("foreground",)
    assert (binary(foreground(only(dataset))) == (STAMP > 0)).all()
    assert "40 pixels" in problem(dataset) and "background" in problem(dataset)
    assert only(dataset).ignore is not None and masks.area(only(dataset).ignore or {}) == 40


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("classes.txt", "background\ncrack\nstain\n", ("crack", "stain")),
        ("classes.txt", "crack\nstain", ("crack", "stain")),
        ("data.yaml", "names: {0: background, 1: crack, 2: stain}\ntrain: images\nmasks_dir: masks\n", ("crack", "stain")),
        ("data.yaml", "names: [wall, crack, stain]\n", ("wall", "crack", "stain")),
        ("data.yaml", "names: ['background', off, no]\n", ("off", "no")),
        ("data.yaml", "classes: {'0': background, '1': crack, '2': stain}\n", ("crack", "stain")),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:9,0,0::\nstain:0,9,0::\n", ("crack", "stain")),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, crack\n2, stain\n", ("crack", "stain")),
    ],
)  # fmt: skip
def test_names_come_from_the_list_beside_the_masks(
    name: str, text: str, classes: tuple[str, ...], tmp_path: Path
) -> None:
    index = STAMP.copy()
    index[30:33, 30:33] = 2
    folders(tmp_path / "walls", index)
    if name == "_classes.csv":
        roboflow(tmp_path / "walls", index)
    (tmp_path / "walls" / ("train" if name == "_classes.csv" else "") / name).write_text(text)
    dataset = formats.read(tmp_path / "walls")
    assert dataset.classes == classes
    shift = 1 if len(classes) == 3 else 0  # value 0 is a class of its own
    assert (index_of(dataset) == index + shift).all()


def test_coloured_masks_are_read_by_the_label_map(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [200, 10, 10], [10, 10, 200]], np.uint8)
    index = STAMP.copy()
    index[30:33, 30:33] = 2
    picture = colours[index]
    folders(tmp_path, index)
    Image.fromarray(picture).save(tmp_path / "masks" / "a.png")
    (tmp_path / "labelmap.txt").write_text("stain:10,10,200::\nbackground:0,0,0::\ncrack:200,10,10::\n")
    dataset = formats.read(tmp_path)
    assert dataset.classes == ("stain", "crack")
    assert (index_of(dataset) == np.array([0, 2, 1])[index]).all() and dataset.problems == ()
    picture[0, 0] = (1, 2, 3)
    Image.fromarray(picture).save(tmp_path / "masks" / "a.png")
    dataset = formats.read(tmp_path)
    assert "(1, 2, 3)" in problem(dataset) and index_of(dataset)[0, 0] == IGNORE


def test_a_value_in_no_list_is_reported_and_ignored(tmp_path: Path) -> None:
    index = STAMP.copy()
    index[30:33, 30:33], index[40:42, 40:42] = 2, 9
    folders(tmp_path, index)
    (tmp_path / "classes.txt").write_text("crack\nstain\n")
    dataset = formats.read(tmp_path)
    assert "value 9" in problem(dataset) and "a.png" in problem(dataset)
    assert (index_of(dataset)[40:42, 40:42] == IGNORE).all()


def test_jpeg_and_smooth_masks_are_black_and_white(tmp_path: Path) -> None:
    folders(tmp_path / "jpeg", STAMP * 255, "a.jpg")
    dataset = formats.read(tmp_path / "jpeg")
    assert (binary(foreground(only(dataset))) == (STAMP > 0)).mean() > 0.99 and len(dataset.classes) == 1
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8) * 4, (HEIGHT, 1))
    ramp[0] = ramp[0] + 1
    ramp[1] = ramp[1] + 2
    dataset = formats.read(folders(tmp_path / "smooth", ramp))
    assert (binary(foreground(only(dataset))) == (ramp >= 128)).all() and "grey levels" in dataset.notes[1]


@pytest.mark.parametrize("name", ["a.png", "a_mask.png", "a-mask.bmp", "a_gt.tif", "a_label.png"])
def test_a_mask_has_its_images_stem_with_a_suffix_or_without(name: str, tmp_path: Path) -> None:
    assert (index_of(formats.read(folders(tmp_path, STAMP, name))) == STAMP).all()


@pytest.mark.parametrize(
    ("images", "mask", "split"),
    [
        ("images", "masks", "train"), ("images", "labels", "train"), ("img_dir/val", "ann_dir/val", "val"),
        ("images/validation", "masks/validation", "val"), ("test/images", "test/masks", "test"),
        ("train_img", "train_lab", "train"), ("valid_images", "valid_masks", "val"), ("train/images", "train/labels", "train"),
    ],
)  # fmt: skip
def test_folders_of_masks_under_many_names(images: str, mask: str, split: str, tmp_path: Path) -> None:
    blank(tmp_path / images / "a.png")
    save_mask(tmp_path / mask / "a.png", STAMP)
    dataset = formats.read(tmp_path)
    assert dataset.format == "mask folders" and list(dataset.splits) == [split]


def test_yolo_labels_beside_images_stay_yolo(tmp_path: Path) -> None:
    blank(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5")
    assert formats.read(tmp_path).format == "YOLO"
    save_mask(tmp_path / "masks" / "train" / "a.png", STAMP)  # drawn from the labels by somebody
    assert formats.read(tmp_path).format == "YOLO"


def test_a_data_yaml_beside_masks_is_a_way_to_name_them(tmp_path: Path) -> None:
    folders(tmp_path, STAMP)
    (tmp_path / "data.yaml").write_text("train: images\nmasks_dir: masks\nnames: [background, crack]\n")
    dataset = formats.read(tmp_path / "data.yaml")
    assert dataset.format == "mask folders" and dataset.root == tmp_path and dataset.classes == ("crack",)


def test_images_and_masks_without_each_other_are_reported(tmp_path: Path) -> None:
    folders(tmp_path, STAMP)
    blank(tmp_path / "images" / "b.png")
    save_mask(tmp_path / "masks" / "c.png", STAMP)
    dataset = formats.read(tmp_path)
    assert only(dataset).image.name == "a.png"
    assert [p.path.name for p in dataset.problems] == ["b.png", "c.png"]
    roboflow(tmp_path / "r")
    blank(tmp_path / "r" / "train" / "b.jpg")
    save_mask(tmp_path / "r" / "train" / "c_mask.png", STAMP)
    dataset = formats.read(tmp_path / "r")
    assert only(dataset).image.name == "a.jpg" and [p.path.name for p in dataset.problems] == ["b.jpg", "c_mask.png"]


@pytest.mark.parametrize("damage", ["size", "text", "empty", "cut", "wide"])
def test_a_damaged_mask_is_reported_and_the_others_kept(damage: str, tmp_path: Path) -> None:
    folders(tmp_path, STAMP)
    blank(tmp_path / "images" / "b.png")
    mask = tmp_path / "masks" / "b.png"
    save_mask(mask, STAMP[:-1] if damage == "size" else np.random.default_rng(0).integers(0, 255, STAMP.shape))
    if damage == "wide":
        Image.fromarray(STAMP.astype(np.uint16) * 300).save(mask)
    elif damage != "size":
        mask.write_bytes({"text": b"no picture", "empty": b"", "cut": mask.read_bytes()[:900]}[damage])
    dataset = formats.read(tmp_path)
    assert only(dataset).image.name == "a.png" and "b.png" in problem(dataset)


def test_the_list_of_a_classification_export_is_refused_with_the_reason(tmp_path: Path) -> None:
    blank(tmp_path / "train" / "a.jpg")
    (tmp_path / "train" / "_classes.csv").write_text("filename, crack, stain\na.jpg, 1, 0\n")
    refused(tmp_path, str(tmp_path / "train" / "_classes.csv"), "classification export")


@pytest.mark.parametrize("row", ["x, crack", "256, crack", "-1, crack", "1.5, crack", "1", "0, again", "²,crack"])
def test_a_class_list_that_makes_no_sense_is_refused_with_its_row(row: str, tmp_path: Path) -> None:
    roboflow(tmp_path, rows=f"0, background\n{row}\n")
    refused(tmp_path, str(tmp_path / "train" / "_classes.csv"), "row 3")


def test_splits_with_other_classes_and_lists_without_any_are_refused(tmp_path: Path) -> None:
    roboflow(tmp_path / "a")
    roboflow(tmp_path / "b", rows="0, background\n1, stain\n")
    (tmp_path / "b" / "train").rename(tmp_path / "a" / "valid")
    refused(tmp_path / "a", str(tmp_path / "a" / "valid" / "_classes.csv"), "other classes")
    refused(roboflow(tmp_path / "c", rows="0, background\n"), "_classes.csv", "no class")
    refused(roboflow(tmp_path / "e", rows="0, background\n1, crack\n2, crack\n"), "_classes.csv", "values 1 and 2")
    refused(roboflow(tmp_path / "f", rows="0, background\n1, crack\n2,\n"), "_classes.csv", "value 2", "blank")
    folders(tmp_path / "g", STAMP)
    (tmp_path / "g" / "classes.txt").write_text("background\n\ncrack\n")
    refused(tmp_path / "g", "classes.txt", "row 2")
    folders(tmp_path / "d", STAMP)
    (tmp_path / "d" / "labelmap.txt").write_text("background:0,0,0::\ncrack:1,2::\n")
    refused(tmp_path / "d", "labelmap.txt", "row 2")


def test_the_fingerprint_changes_with_a_mask(tmp_path: Path) -> None:
    first = formats.read(folders(tmp_path, STAMP)).fingerprint()
    index = STAMP.copy()
    index[45, 60] = 1
    assert formats.read(folders(tmp_path, index)).fingerprint() != first
    index[45, 60] = 255
    assert formats.read(folders(tmp_path, index)).fingerprint() != first
