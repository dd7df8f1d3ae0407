"""Every file of a dataset's folder is accounted for: read, or left out with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segdet.data import formats
from segdet.data.records import Account, Dataset, iterate
from tests.conftest import Cli
from tests.data.helpers import TRIANGLE, annotation, blank, coco, yolo
from tests.fuzzing.sets import FORMATS


def account(root: Path) -> Account:
    dataset = formats.read(root, refuse=False)
    assert_complete(dataset, root)
    assert dataset.account is not None
    return dataset.account


def assert_complete(dataset: Dataset, root: Path) -> None:
    """The invariant: read + left out = files there."""
    found = dataset.account
    assert found is not None
    there = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert found.files == len(there)
    assert found.images == len({record.image for _, record in iterate(dataset)})
    assert found.files == found.images + found.labels + sum(one.count for one in found.unread)


def reasons(found: Account) -> dict[str, list[str]]:
    by_reason: dict[str, list[str]] = {}
    for one in found.unread:
        by_reason.setdefault(one.reason, []).extend(one.examples)
    return by_reason


@pytest.mark.parametrize("name", FORMATS)
def test_a_sound_dataset_is_read_whole(name: str, tmp_path: Path) -> None:
    FORMATS[name](tmp_path / "set")
    found = account(tmp_path / "set")
    assert found.images and found.labels
    assert reasons(found) in ({}, {"unknown": ["notes.json"]})  # Label Studio's second list of classes


@pytest.mark.parametrize("name", FORMATS)
def test_strangers_are_named_with_their_reason(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    FORMATS[name](root)
    for file in ("photo.heic", "raw/IMG_1.DNG", "more.zip", "notes.md", "Makefile", ".hidden"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(b"x")
    found = reasons(account(root))
    assert set(found.pop("unknown")) - {"notes.json"} == {"Makefile", "notes.md"}
    assert found == {"image-format": ["photo.heic", "raw/IMG_1.DNG"], "archive": ["more.zip"]}


def test_labels_without_image_and_images_without_list(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    (root / "labels/train/gone.txt").write_text(TRIANGLE)
    blank(root / "elsewhere/b.png")
    assert reasons(account(root)) == {
        "label-orphan": ["labels/train/gone.txt"],
        "image-unlisted": ["elsewhere/b.png"],
    }


def test_a_second_kind_of_labels_is_named_with_its_classes(tmp_path: Path) -> None:
    root = coco(tmp_path / "set", annotation())
    shape = {"label": "rust", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    (root / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.png"}))
    found = account(root)
    assert reasons(found) == {"labels-other": ["a.json"]}
    said = str(found.unread[0])
    assert "LabelMe JSON; classes rust" in said and "COCO JSON" in said


def test_damaged_files_are_left_out_for_their_problem(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    (root / "images/train/b.jpg").write_text("no picture")
    (root / "labels/train/b.txt").write_text(TRIANGLE)
    found = account(root)
    assert "images/train/b.jpg" in reasons(found)["problem"]


def test_links_to_folders_are_followed_and_loops_and_dead_ends_named(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    blank(tmp_path / "site/c.png")
    (tmp_path / "site-labels").mkdir()
    (tmp_path / "site-labels/c.txt").write_text(TRIANGLE)
    (root / "images/train/site").symlink_to(tmp_path / "site")
    (root / "labels/train/site").symlink_to(tmp_path / "site-labels")
    (root / "images/train/loop").symlink_to(root)
    (root / "images/train/dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    dataset = formats.read(root)
    assert sorted(record.image.name for _, record in iterate(dataset)) == ["a.png", "c.png"]
    assert all(record.instances for _, record in iterate(dataset))
    assert dataset.account is not None
    assert {reason: sorted(names) for reason, names in reasons(dataset.account).items()} == {
        "dead-end": ["images/train/dead.jpg", "images/train/loop"]
    }


def test_a_split_without_a_folder_of_labels_is_no_background(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    blank(root / "images/val/v.png")
    (root / "label/val").mkdir(parents=True)
    (root / "label/val/v.txt").write_text(TRIANGLE)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [crack]\n")
    dataset = formats.read(root)
    assert list(dataset.splits) == ["train"]
    assert any("label/val/v.txt" in problem.what and "rename" in problem.what for problem in dataset.problems)
    assert_complete(dataset, root)


def test_an_empty_folder_of_labels_says_that_nothing_is_there(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    blank(root / "images/val/v.png")
    (root / "labels/val").mkdir()
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [crack]\n")
    dataset = formats.read(root)
    assert [len(record.instances) for record in dataset.splits["val"]] == [0] and dataset.problems == ()


def test_entries_of_a_card_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", card="train: [images/train, images/more]\nnames: [crack]\n")
    dataset = formats.read(root, refuse=False)
    assert any("images/more" in problem.what for problem in dataset.problems)


def test_info_and_check_tell_what_was_not_read(tmp_path: Path, cli: Cli) -> None:
    root = yolo(tmp_path / "set")
    (root / "images/train/b.heic").write_bytes(b"x")
    (root / "labels/train/<gone>.txt").write_text(TRIANGLE)
    described = json.loads(cli("data", "info", root, "--json").stdout)["files"]
    assert [described[key] for key in ("files", "images", "labels", "left_out")] == [5, 1, 2, 2]
    told = cli("data", "info", root).stdout
    assert "5 files: 1 as images, 2 as labels, lists or class names, 2 not read" in told and "b.heic" in told
    checked = cli("data", "check", "--quick", root, "--out", tmp_path / "out").stdout
    assert "what was not read" in checked and "images/train/b.heic" in checked
    assert json.loads((tmp_path / "out/check.json").read_text())["files"] == described
    page = (tmp_path / "out/check.html").read_text()
    assert "What was not read" in page and "images/train/b.heic" in page and "labels/train/&lt;gone&gt;.txt" in page


@pytest.mark.parametrize("name", FORMATS)
def test_names_in_upper_case_are_read_as_well(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    FORMATS[name](root)
    before = formats.read(root)
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.upper()))
    after = formats.read(root)
    assert_complete(after, root)
    assert after.classes == before.classes and after.problems == before.problems
    assert [[len(record.instances) for record in records] for records in after.splits.values()] == [
        [len(record.instances) for record in records] for records in before.splits.values()
    ]
