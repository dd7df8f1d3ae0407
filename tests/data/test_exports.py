"""What labelling tools export: the same records as from the canonical layout, whatever the folders are called."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from segdet.data import formats
from segdet.data.formats import labelme_pictures
from segdet.errors import InputError
from tests import arrangements
from tests.arrangements import CLASSES, Arrange, coco_like, csv_like, picture, voc_like, yolo_like
from tests.data.helpers import annotation, blank, coco, problem, refused, yolo
from tests.drawn import plain
from tests.layouts import save_mask
from tests.test_cli import _one_line

NAMES = "crack\nstain\n"
OBJ_DATA = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
NOTES = json.dumps({"categories": [{"id": 1, "name": "stain"}, {"id": 0, "name": "crack"}], "info": {}})
ROWS_CARD = "train: Train/Images\nval: Val/Images\nnames: [crack, stain]\n"

COCO_ONE = {
    "CVAT": coco_like("annotations/instances_default.json", "images/default/{name}"),
    "CVAT without a folder": coco_like("annotations/instances_default.json", "images/{name}"),
    "FiftyOne": coco_like("labels.json", "data/{name}"),
    "Label Studio": coco_like("result.json", "images/{name}", "images\\{name}"),
    "labelme2coco": coco_like("annotations.json", "JPEGImages/{name}", "JPEGImages/{name}"),
    "any names": coco_like("Annotations/my walls.json", "photographs of walls/{name}"),
    "beside": coco_like("export.JSON", "{name}"),
}
COCO_SPLITS = {
    "CVAT project": coco_like("annotations/instances_{Split}.json", "images/{split}/{name}"),
    "versions": coco_like("annotations/instances_{split}_v2.json", "images/{name}"),
    "FiftyOne": coco_like("{split}/labels.json", "{split}/data/{name}"),
    "upper case": coco_like("Annotations/{Split}.json", "Images/{split}/{name}"),
    "labels folder": coco_like("labels/{split}.json", "data/{split}/{name}"),
}
YOLO_ONE = {
    "Label Studio": yolo_like("labels/{stem}.txt", "images/{stem}.jpg", {"classes.txt": NAMES, "notes.json": NOTES}),
    "notes only": yolo_like("labels/{stem}.txt", "images/{stem}.jpg", {"notes.json": NOTES}),
    "labelImg": yolo_like("{stem}.txt", "{stem}.jpg", {"classes.txt": NAMES}),
    "labelImg in two folders": yolo_like("labels/{stem}.txt", "images/{stem}.jpg", {"labels/classes.txt": NAMES}),
    "labelImg in images": yolo_like("images/{stem}.txt", "images/{stem}.jpg", {"images/classes.txt": NAMES}),
    "CVAT YOLO 1.1": yolo_like(
        "obj_train_data/{stem}.txt", "obj_train_data/{stem}.jpg",
        {"obj.data": OBJ_DATA, "obj.names": NAMES, "train.txt": "{images}"},
    ),
    "CVAT without lists": yolo_like("obj_train_data/{stem}.txt", "obj_train_data/{stem}.jpg", {"obj.names": NAMES}),
}  # fmt: skip
YOLO_SPLITS = {
    "Roboflow Darknet": yolo_like(
        "{split}/{stem}.txt", "{split}/{stem}.jpg",
        {"train/_darknet.labels": NAMES, "val/_darknet.labels": NAMES},
    ),
    "upper case": yolo_like("{split}/LABELS/{stem}.txt", "{split}/IMAGES/{stem}.jpg", {"classes.txt": NAMES}),
    "upper case with a card": yolo_like("{split}/Labels/{stem}.txt", "{split}/Images/{stem}.jpg", {"data.yaml": ROWS_CARD}),
    "a card without splits": yolo_like(
        "labels/{split}/{stem}.txt", "images/{split}/{stem}.jpg", {"data.yaml": "nc: 2\nnames: [crack, stain]\n"}
    ),
    "names in Labels": yolo_like("Labels/{split}/{stem}.txt", "Images/{split}/{stem}.jpg", {"Labels/classes.txt": NAMES}),
}  # fmt: skip
VOC_ONE = {
    "two folders": voc_like("annotations/{stem}.xml", "images/{stem}.jpg"),
    "upper case": voc_like("ANNOTATIONS/{stem}.XML", "IMAGES/{stem}.jpg"),
    "own names": voc_like("xmls/{stem}.xml", "fotos/{stem}.jpg"),
    "xmls below annotations": voc_like("annotations/xmls/{stem}.xml", "images/{stem}.jpg"),
    "labelImg": voc_like("{stem}.xml", "{stem}.jpg"),
    "labelImg in images": voc_like("images/{stem}.xml", "images/{stem}.jpg"),
    "images beside a folder": voc_like("annotations/{stem}.xml", "{stem}.jpg"),
    "CSV": csv_like("_annotations.csv", "{name}"),
    "CSV and images": csv_like("data/labels.csv", "images/{name}"),
}
VOC_SPLITS = {
    "TensorFlow": voc_like("images/{split}/{stem}.xml", "images/{split}/{stem}.jpg"),
    "two folders a split": voc_like("{split}/annotations/{stem}.xml", "{split}/images/{stem}.jpg"),
    "splits below": voc_like("Annotations/{split}/{stem}.xml", "Images/{split}/{stem}.jpg"),
    "Roboflow": voc_like("{split}/{stem}.xml", "{split}/{stem}.jpg"),
    "lists": voc_like("annotations/{stem}.xml", "images/{stem}.jpg", lists=True),
    "lower case": voc_like("annotations/{stem}.xml", "jpegimages/{stem}.jpg", lists=True),
    "CSV of Roboflow": csv_like("{split}/_annotations.csv", "{split}/{name}"),
    "CSV of TensorFlow": csv_like("{split}_labels.csv", "images/{name}"),
}
CANONICAL = {
    "coco": arrangements.canonical_coco,
    "yolo": arrangements.canonical_yolo,
    "voc": arrangements.canonical_voc,
}
CASES = [
    pytest.param(kind, val, arrange, id=f"{kind} {val} {name}")
    for kind, val, some in (
        ("coco", 0, COCO_ONE), ("coco", 2, COCO_SPLITS), ("yolo", 0, YOLO_ONE), ("yolo", 2, YOLO_SPLITS),
        ("voc", 0, VOC_ONE), ("voc", 2, VOC_SPLITS),
    )
    for name, arrange in some.items()
]  # fmt: skip


@pytest.mark.parametrize(("kind", "val", "arrange"), CASES)
def test_exports_give_the_records_of_the_canonical_layout(
    kind: str, val: int, arrange: Arrange, tmp_path: Path
) -> None:
    first = CANONICAL[kind](tmp_path / "first", val)
    arrange(first, tmp_path / "walls")
    expected, dataset = formats.read(first), formats.read(tmp_path / "walls")
    assert plain(dataset) == plain(expected) and dataset.problems == ()
    assert dataset.classes == CLASSES and list(dataset.splits) == (["train", "val"] if val else ["train"])


def test_a_coco_file_may_be_given_by_its_own_path(tmp_path: Path) -> None:
    first = arrangements.canonical_coco(tmp_path / "first", 0)
    COCO_ONE["CVAT"](first, tmp_path / "walls")
    dataset = formats.read(tmp_path / "walls" / "annotations" / "instances_default.json")
    assert plain(dataset) == plain(formats.read(first)) and dataset.problems == ()
    assert dataset.name == "walls" and dataset.root == tmp_path / "walls"


def test_two_coco_files_for_one_split_are_refused_with_both_names(tmp_path: Path) -> None:
    root = coco(tmp_path / "walls", annotation())
    (root / "_annotations.coco.json").rename(root / "first.json")
    (root / "second.json").write_bytes((root / "first.json").read_bytes())
    refused(root, "two COCO files", "first.json", "second.json", "path of one of them")
    assert len(formats.read(root / "first.json").splits["train"]) == 1


def test_instances_are_read_where_coco_has_other_files_beside_them(tmp_path: Path) -> None:
    root = arrangements.canonical_coco(tmp_path / "walls", 0)
    content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    (root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps({**content, "categories": 1}))
    adapter, evidence = formats.recognise(root)
    assert adapter.name == "coco" and evidence == "annotations/instances_train2017.json"


def test_a_coco_file_whose_images_are_all_missing_says_what_is_there(tmp_path: Path) -> None:
    root = coco(tmp_path / "walls", annotation())
    (root / "a.png").unlink()
    refused(root, "none of the 1 images", "a.png", "no pictures")
    picture(root / "samples" / "1.png")
    refused(root, "none of the 1 images", "'a.png'", "pictures of other names (1 in samples)")


def test_a_csv_row_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    csv_like("_annotations.csv", "{name}")(arrangements.canonical_voc(tmp_path / "first", 0), tmp_path / "walls")
    file = tmp_path / "walls" / "_annotations.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([*rows[:2], "x.jpg,64,48,crack,1,2,three,4", "", *rows[2:]]))
    refused(tmp_path / "walls", "_annotations.csv", "row 3", "three")
    file.write_text("\n".join([*rows, "gone.jpg,64,48,crack,1,2,3,4"]))
    assert "gone.jpg" in problem(formats.read(tmp_path / "walls"))
    file.write_text("\n".join([*rows, f"{'n' * 400}.jpg,64,48,crack,1,2,3,4"]))
    assert "not there" in problem(formats.read(tmp_path / "walls"))
    file.write_text("\n".join([*rows, "../first/x.jpg,64,48,crack,1,2,3,4"]))
    refused(tmp_path / "walls", "row", "leads out")


def test_rows_of_all_splits_in_a_third_csv_count_once(tmp_path: Path) -> None:
    first = arrangements.canonical_voc(tmp_path / "first", 2)
    csv_like("{split}_labels.csv", "images/{name}")(first, tmp_path / "walls")
    some = [(tmp_path / "walls" / f"{split}_labels.csv").read_text().splitlines() for split in ("train", "val")]
    (tmp_path / "walls" / "all_labels.csv").write_text("\n".join([*some[0], *some[1][1:]]))
    assert plain(formats.read(tmp_path / "walls")) == plain(formats.read(first))


def test_class_names_of_labelme2voc(tmp_path: Path) -> None:
    blank(tmp_path / "JPEGImages" / "a.jpg")
    stamp = [[0] * 64 for _ in range(48)]
    stamp[10][5:30] = [2] * 25
    save_mask(tmp_path / "SegmentationClassPNG" / "a.png", stamp, palette=True)  # type: ignore[arg-type]
    (tmp_path / "SegmentationClass").mkdir()
    (tmp_path / "SegmentationClass" / "a.npy").write_bytes(b"array")
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ncrack\nstain\n")
    dataset = formats.read(tmp_path)
    assert dataset.classes == ("crack", "stain") and [i.label for i in dataset.splits["train"][0].instances] == [1]


def test_a_second_kind_of_labels_is_reported_with_the_classes_of_the_first(tmp_path: Path) -> None:
    COCO_ONE["CVAT"](arrangements.canonical_coco(tmp_path / "first", 0), tmp_path / "walls")
    for record in formats.read(tmp_path / "walls").splits["train"]:
        save_mask(tmp_path / "walls" / "masks" / f"{record.image.stem}.png", [[0] * 64] * 48)  # type: ignore[arg-type]
    dataset = formats.read(tmp_path / "walls")
    said = problem(dataset)
    assert dataset.format == "COCO" and dataset.problems[0].kind == "stray"
    for part in ("second kind of labels", "images with masks", "COCO", "crack, stain"):
        assert part in said


# LabelMe files that hold the picture


def inside(file: Path, **changes: object) -> Path:
    picture = blank(file.with_suffix(".png"))
    data = base64.b64encode(picture.read_bytes()).decode()
    picture.unlink()
    points = [[10, 10], [30, 10], [30, 30]]
    shape = {"label": "crack", "points": points, "shape_type": "polygon"}
    content = {"shapes": [shape], "imagePath": "..\\photos\\x.jpg", "imageData": data, **changes}
    file.write_text(json.dumps(content))
    return file


def test_pictures_inside_labelme_files_are_named_and_can_be_written(tmp_path: Path) -> None:
    root = tmp_path / "walls"
    root.mkdir()
    file = inside(root / "a.json")
    message = refused(root, "picture is inside", "segdet data unpack")
    assert "x.jpg" in message
    written, problems = labelme_pictures.unpack(root)
    assert written == [root / "a.png"] and problems == []
    dataset = formats.read(root)
    assert len(dataset.splits["train"][0].instances) == 1 and dataset.problems == ()
    before = file.read_bytes(), (root / "a.png").read_bytes()
    assert labelme_pictures.unpack(root) == ([], [])
    assert (file.read_bytes(), (root / "a.png").read_bytes()) == before


def test_pictures_that_cannot_be_written_do_not_stop_the_others(tmp_path: Path) -> None:
    inside(tmp_path / "a.json")
    inside(tmp_path / "b.json", imageData="?" * 200)
    inside(tmp_path / "c.json", imageData=base64.b64encode(b"x" * 200).decode())
    inside(tmp_path / "d.json", imageData=None)
    (tmp_path / "e.json").write_text('{"shapes": [')
    written, problems = labelme_pictures.unpack(tmp_path)
    assert written == [tmp_path / "a.png"] and len(problems) == 4
    for line, name in zip(problems, "bcde", strict=True):
        assert f"{name}.json" in line and "\n" not in line
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 5 + [".png"]


def test_the_command_that_unpacks(tmp_path: Path, cli) -> None:
    inside(tmp_path / "a.json")
    done = cli("data", "unpack", tmp_path)
    assert done.returncode == 0 and "1 pictures written" in done.stdout
    (tmp_path / "empty").mkdir()
    assert "no LabelMe file" in _one_line(cli("data", "unpack", tmp_path / "empty"))


# Folders that are no dataset


def test_images_without_labels(tmp_path: Path) -> None:
    for name in "abc":
        blank(tmp_path / "walls" / "images" / f"{name}.jpg")
    message = refused(tmp_path / "walls", "seen: 3 images in images/", "labels are missing", "segdet predict")
    assert "YOLO text" not in message and "Pascal" not in message


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "0 0.5 0.5 0.1 0.1"), ("a.xml", "<annotation/>"), ("b.csv", "x,y")]
)
def test_labels_without_images(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / "walls" / "labels").mkdir(parents=True)
    (tmp_path / "walls" / "labels" / name).write_text(content)
    refused(tmp_path / "walls", f"1 {name[2:]} in labels/", "images are missing", str(tmp_path / "walls" / "images"))


def test_a_dataset_one_or_two_folders_deeper_or_higher(tmp_path: Path) -> None:
    root = tmp_path / "download"
    VOC_ONE["two folders"](arrangements.canonical_voc(tmp_path / "first", 0), root / "export" / "walls")
    refused(root, "folder below", str(root / "export" / "walls"))
    refused(root / "export", "folder below", str(root / "export" / "walls"))
    refused(root / "export" / "walls" / "images", "folder above", str(root / "export" / "walls"))
    walls = yolo(tmp_path / "second")
    refused(walls / "images" / "train", "folder above", str(walls))


def test_archives_and_videos(tmp_path: Path) -> None:
    for name, word in (("walls.zip", "unpack it"), ("wall.mp4", "frames"), ("wall.MOV", "frames")):
        folder = tmp_path / name.split(".")[1]
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        refused(folder, "seen: 1", word)
        refused(folder / name, name, word)


def test_files_of_other_kinds_are_described(tmp_path: Path) -> None:
    root = tmp_path / "walls"
    blank(root / "a.jpg")
    (root / "a.json").write_text('{"version": 1, "objects": []}')
    (root / "table.csv").write_text("name,class\na.jpg,crack\n")
    message = refused(root, "keys version, objects", "starts with 'name,class'", "1 image", "no label file of a known")
    assert len(message) < 600


@pytest.mark.parametrize("rows", ["a crack at the left", "", "1,2,3,4,text"])
def test_text_files_that_hold_no_rows_are_no_yolo_labels(rows: str, tmp_path: Path) -> None:
    blank(tmp_path / "walls" / "a.jpg")
    (tmp_path / "walls" / "a.txt").write_text(rows)
    with pytest.raises(InputError, match="no dataset layout"):
        formats.read(tmp_path / "walls")
