"""Malformed twins of every layout: training is refused with file and row, and the doctor tells of each and reads the rest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from segdet.data import doctor, formats
from segdet.data.doctor.labels import _TOLD
from segdet.data.records import Kind
from segdet.errors import InputError
from tests import layouts
from tests.conftest import Cli
from tests.data import helpers
from tests.drawn import coco_dataset, yolo_dataset

SIZE = (32, 48)
Spoil = Callable[[Path], list[tuple[str, str]]]  # damages a dataset of four training images and says what must be told


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def yolo(root: Path) -> list[tuple[str, str]]:
    yolo_dataset(root, train=4, val=1, size=SIZE)
    labels = sorted((root / "labels/train").iterdir())
    rows = labels[0].read_text()
    labels[0].write_text(f"{rows}\n0 0.1 0.2 oops 0.4\n0 0.1 0.2 0.3\n")
    labels[1].write_bytes(b"0 0.5 0.5 0.1 0.1\n\xff\xfe\n")
    row = len(rows.splitlines()) + 1
    return [(labels[0].name, f"row {row}"), (labels[0].name, f"row {row + 1}"), (labels[1].name, "row 2")]


def yolo_lists(root: Path) -> list[tuple[str, str]]:
    yolo_dataset(root, "roboflow", train=4, val=1, size=SIZE)
    images = [f"./train/images/{path.name}" for path in sorted((root / "train/images").iterdir())]
    (root / "train.txt").write_text("\n".join([images[0], "./train/images/gone.jpg", *images[1:]]))
    _replace(root / "data.yaml", "../train/images", "train.txt")
    _replace(root / "data.yaml", "nc: 1", "nc: 3")
    return [("train.txt", "row 2"), ("data.yaml", "nc is 3")]


def yolo_card(root: Path) -> list[tuple[str, str]]:
    yolo_dataset(root, train=4, val=1, size=SIZE)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [crack\n")
    return [("data.yaml", "row 4")]


def roboflow_coco(root: Path) -> list[tuple[str, str]]:
    file = coco_dataset(root, "roboflow", train=4, val=1, size=SIZE) / "train/_annotations.coco.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["id"] = "one"
    content["annotations"].append("what")
    content["images"].append({**content["images"][0], "file_name": "again.jpg"})
    file.write_text(json.dumps(content))
    last = len(content["annotations"]) - 1
    return [(file.name, "annotations[0]"), (file.name, f"annotations[{last}]"), (file.name, "images[4]")]


def coco2017(root: Path) -> list[tuple[str, str]]:
    file = coco_dataset(root, "coco2017", train=4, val=1, size=SIZE) / "annotations/instances_val2017.json"
    file.write_text(file.read_text()[:200])
    return [("instances_val2017.json", "line 1 column")]


def png_mask(root: Path) -> list[tuple[str, str]]:
    layouts.write(root, "png-mask", 4, 1, SIZE)
    with (root / "valid/_classes.csv").open("a") as file:
        file.write("x, stain\n")
    return [("_classes.csv", "row 4")]


def mask_folders(root: Path) -> list[tuple[str, str]]:
    layouts.write(root, "images-masks", 4, 1, SIZE)
    (root / "classes.txt").unlink()
    (root / "labelmap.txt").write_text("background:0,0,0::\ncrack:1,2::\n")
    return [("labelmap.txt", "row 2")]


def voc(root: Path) -> list[tuple[str, str]]:
    layouts.write(root, "voc", 4, 1, SIZE)
    (root / "Annotations").mkdir()
    for image, text in zip(sorted((root / "JPEGImages").iterdir()), ("<annotation><object>", "<html/>"), strict=False):
        (root / "Annotations" / f"{image.stem}.xml").write_text(text)
    (root / "ImageSets/Segmentation/val.txt").write_bytes(b"wall-1000\n\xff\n")
    return [("wall-0000.xml", "line 1, column"), ("wall-0001.xml", "<html>"), ("val.txt", "row 2")]


def cvat(root: Path) -> list[tuple[str, str]]:
    layouts.write(root, "cvat", 4, 1, SIZE)
    file = root / "annotations.xml"
    file.write_text(file.read_text().replace("<image ", "<image\n", 3)[:-40])
    return [("annotations.xml", "line ")]


def labelme(root: Path) -> list[tuple[str, str]]:
    layouts.write(root, "labelme", 4, 1, SIZE)
    first, second = sorted((root / "train").glob("*.json"))[:2]
    first.write_text(first.read_text()[:100])
    content = json.loads(second.read_text())
    second.write_text(json.dumps({**content, "shapes": [*content["shapes"], 7]}))
    return [(first.name, "line 1 column"), (second.name, f"shapes[{len(content['shapes'])}]")]


TWINS: list[Spoil] = [
    yolo, yolo_lists, yolo_card, roboflow_coco, coco2017, png_mask, mask_folders, voc, cvat, labelme,
]  # fmt: skip


@pytest.mark.parametrize("spoil", TWINS, ids=lambda spoil: spoil.__name__)
def test_training_is_refused_with_file_and_row_and_the_doctor_lists_all(spoil: Spoil, tmp_path: Path) -> None:
    expected = spoil(tmp_path / "walls")
    with pytest.raises(InputError) as caught:
        formats.read(tmp_path / "walls")
    message = str(caught.value)
    assert "\n" not in message and any(file in message and row in message for file, row in expected), message
    assert (f"and {len(expected) - 1} more" in message) == (len(expected) > 1)
    dataset = formats.read(tmp_path / "walls", refuse=False)
    checkup = doctor.examine(dataset, look_alike=False).checkup
    (told,) = (finding for finding in checkup.findings if finding.code == "label-malformed")
    assert told.severity == "error" and told.count == len(expected) == len(told.cases)
    for file, row in expected:
        assert any(case.note.startswith(file) and row in case.note for case in told.cases), (file, row)
    if spoil is not cvat:  # whose one file is all there is
        assert len(dataset.splits["train"]) >= 2 and all(r.instances for r in dataset.splits["train"][-2:])


def test_a_dataset_of_which_nothing_is_left_is_told_of_and_not_a_crash(tmp_path: Path, cli: Cli) -> None:
    cvat(tmp_path / "walls")
    done = cli("data", "check", "walls", cwd=tmp_path)
    assert done.returncode == 1 and "not a single usable image" in done.stdout and "annotations.xml" in done.stdout
    assert "Mend the data first" in (tmp_path / "runs/check-walls/check.html").read_text()


def test_a_row_is_left_out_of_the_cleaned_copy_and_the_copy_trains(tmp_path: Path, cli: Cli) -> None:
    yolo(tmp_path / "walls")
    refused = cli("data", "info", "walls", cwd=tmp_path)
    assert refused.returncode == 2 and "2 more: `segdet data check` lists them all" in refused.stderr
    done = cli("data", "check", "walls", "--quick", "--fix", "clean", "--json", cwd=tmp_path)
    assert done.returncode == 1 and len(json.loads(done.stdout)["fixed"]["dropped"]) == 3, done.stderr
    clean = formats.read(tmp_path / "clean")
    assert len(clean.splits["train"]) == 3  # the picture whose labels nobody knows is not background
    whole = formats.read(yolo_dataset(tmp_path / "sound", train=4, val=1, size=SIZE)).splits["train"][0]
    assert np.array_equal(clean.splits["train"][0].instances[0].polygons[0], whole.instances[0].polygons[0])


def test_every_kind_of_problem_is_told_somewhere() -> None:
    assert set(get_args(Kind)) == {*_TOLD, "image", "boxed"}


def test_yaml_nested_without_end_is_refused_at_once(tmp_path: Path) -> None:
    root = helpers.yolo(tmp_path, card=f"train: images/train\nnames: {'[' * 900}{']' * 900}\n")
    began = time.process_time()
    helpers.refused(root, "data.yaml", "nested more than 100 deep")
    assert time.process_time() - began < 1
