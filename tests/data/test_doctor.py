"""The doctor, on small sets drawn with one fault each: what is found, what is not, and what the cleaned copy lacks."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segdet.data import doctor, formats
from segdet.data.catalog import cards
from segdet.data.doctor import exports, fix, labels, leaks, upright
from segdet.data.doctor.copies import Pair
from segdet.data.doctor.features import MIRROR, extract
from segdet.data.doctor.findings import Case, Finding
from segdet.data.doctor.scan import black_corners
from segdet.data.doctor.verify import same_place
from segdet.data.images import read_image
from segdet.data.records import Dataset
from segdet.errors import InputError
from segdet.reporting import checkup as page
from tests.conftest import Cli
from tests.data.helpers import annotation, coco, yolo
from tests.drawn import crack_picture, plain, yolo_dataset


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of its own."""
    monkeypatch.setenv("SEGDET_CACHE", str(tmp_path / "cache"))


def check(root: Path, look_alike: bool = False) -> dict[str, Finding]:
    found = doctor.examine(formats.read(root, refuse=False), look_alike).checkup.findings
    return {finding.code: finding for finding in found}


def wall(seed: int, side: int = 400) -> np.ndarray:
    """A plastered wall with grain of several sizes and a crack; RGB uint8 `[side, side, 3]`."""
    rng = np.random.default_rng(seed)
    grain = sum(
        cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), sigma) * sigma * 12 for sigma in (1.2, 2.5, 5.0, 20.0)
    )
    across = side / 2 + np.cumsum(rng.normal(0, 2.5, side))
    grain[np.abs(np.arange(side)[None] - across[:, None]) < 3] -= 90
    return np.repeat((150 + grain).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def view(seed: int, angle: float = 0.0, zoom: float = 1.0, flip: bool = False, bright: float = 1.0) -> np.ndarray:
    """A part of a wall as another photograph shows it: RGB uint8 `[240, 240, 3]`."""
    picture = wall(seed)
    turn = cv2.getRotationMatrix2D((200, 200), angle, zoom)
    turn[:, 2] -= 80
    seen = cv2.warpAffine(picture, turn, (240, 240), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    seen = seen[:, ::-1] if flip else seen
    return np.ascontiguousarray((seen * bright).clip(0, 255).astype(np.uint8))


def save(path: Path, image: np.ndarray, quality: int = 92) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=quality)
    return path


def walls(root: Path, pictures: dict[str, np.ndarray]) -> Path:
    """A YOLO dataset of these pictures (`train/a` -> images/train/a.jpg), each with the same triangle as its label."""
    for name, image in pictures.items():
        save(root / "images" / f"{name}.jpg", image)
        label = root / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.2 0.2 0.8 0.2 0.5 0.8")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [crack]\n")
    return root


# ---------------------------------------------------------------------------------------------------- look-alikes


@pytest.mark.parametrize(
    "change",
    [{"angle": 90}, {"angle": 12, "zoom": 1.15}, {"flip": True}, {"flip": True, "angle": 180, "bright": 0.8}, {"zoom": 0.8}],
)  # fmt: skip
def test_the_same_wall_is_recognised_however_it_is_shown(change: dict[str, float]) -> None:
    first, second = view(1), view(1, **change)  # type: ignore[arg-type]
    match = same_place(extract(first, 300), extract(second, 300), second.shape[:2])
    assert match is not None and match.mirrored == bool(change.get("flip"))
    moved = cv2.warpAffine(first, match.transform, (240, 240))
    inside = cv2.warpAffine(np.ones((240, 240), np.uint8), match.transform, (240, 240)) > 0
    assert np.corrcoef(moved[inside][:, 0], second[inside][:, 0])[0, 1] > 0.8


def test_other_walls_are_not_taken_for_the_same() -> None:
    features = [extract(view(seed), 300) for seed in range(8)]
    pairs = [(i, j) for i in range(8) for j in range(i)]
    assert not [(i, j) for i, j in pairs if same_place(features[i], features[j], (240, 240))]


def test_a_mirrored_picture_has_reordered_descriptors() -> None:
    picture = view(3)
    plain_, mirrored = extract(picture, 300), extract(np.ascontiguousarray(picture[:, ::-1]), 300)
    nearest = cv2.BFMatcher(cv2.NORM_L2).match(
        plain_.descriptors.astype(np.float32), mirrored.descriptors[:, MIRROR].astype(np.float32)
    )
    there = [
        np.abs(plain_.points[m.queryIdx] - ([239, 0] + mirrored.points[m.trainIdx] * [-1, 1])).max() < 3
        for m in nearest
    ]
    assert np.mean(there) > 0.8


def test_a_leak_among_many_walls_is_found_and_nothing_else(tmp_path: Path) -> None:
    pictures = {f"train/t{seed}": view(seed) for seed in range(10)}
    pictures |= {f"val/v{seed}": view(seed + 50) for seed in range(5)}
    pictures["val/again"] = view(4, angle=100, zoom=1.1, flip=True, bright=0.85)
    found = check(walls(tmp_path, pictures), look_alike=True)
    (case,) = found["leak-lookalikes"].cases
    assert [path.stem for path in case.images] == ["t4", "again"] and found["leak-lookalikes"].severity == "error"
    assert "1 photograph of val also in train" in found["leak-lookalikes"].title
    assert "lookalikes" not in found and "leak-duplicates" not in found


def test_look_alikes_within_a_split_are_a_note_and_copies_of_one_photograph_none(tmp_path: Path) -> None:
    name = "train/w.rf.{:032x}"
    pictures = {
        name.format(1): view(1),
        name.format(2): view(1, angle=90),
        "train/x": view(2),
        "train/y": view(2, angle=20),
    }
    found = check(walls(tmp_path, {**pictures, "val/z": view(9)}), look_alike=True)
    (case,) = found["lookalikes"].cases
    assert {path.stem for path in case.images} == {"x", "y"} and found["lookalikes"].severity == "note"
    assert "3 photographs" in found["augmented-copies"].title


def test_the_same_answer_every_time(tmp_path: Path) -> None:
    root = walls(tmp_path, {f"train/t{seed}": view(seed % 4, angle=7 * seed) for seed in range(8)})
    first, second = (doctor.examine(formats.read(root)).checkup.to_dict() for _ in range(2))
    assert first == second


# ---------------------------------------------------------------------------------------------------- copies


def test_identical_pictures_in_two_splits_leak_and_within_one_count_twice(tmp_path: Path) -> None:
    pictures = {"train/a": view(1), "train/b": view(2), "val/c": view(3)}
    root = walls(tmp_path, pictures)
    shutil.copy(root / "images/val/c.jpg", root / "images/train/leak.jpg")
    Image.open(root / "images/train/a.jpg").save(root / "images/train/twice.png")  # other bytes, the same pixels
    found = check(root)
    assert [[p.name for p in case.images] for case in found["leak-duplicates"].cases] == [["leak.jpg", "c.jpg"]]
    assert [{p.name for p in case.images} for case in found["duplicates"].cases] == [{"a.jpg", "twice.png"}]
    assert "same file" in found["leak-duplicates"].cases[0].note and "same pixels" in found["duplicates"].cases[0].note


def test_augmented_copies_in_two_splits_leak_but_equal_plain_names_do_not(tmp_path: Path) -> None:
    pictures = {
        f"train/7.rf.{1:032x}": view(1),
        f"val/7.rf.{2:032x}": view(2),
        "train/0001": view(3),
        "val/0001": view(4),
    }
    found = check(walls(tmp_path, pictures))
    assert found["leak-siblings"].count == 1 and "photograph 7" in found["leak-siblings"].cases[0].note


# ---------------------------------------------------------------------------------------------------- pictures


def copied(folder: Path, **counts: int) -> Dataset:
    """As many augmented copies of photograph 7 in each split, beside a photograph of its own."""
    pictures = {f"{split}/{split}": np.full((32, 32, 3), 9 * place, np.uint8) for place, split in enumerate(counts, 1)}
    for split, count in counts.items():
        for number in range(count):
            grey = 100 + 10 * number + len(split)
            pictures[f"{split}/7.rf.{split}{number:028x}"] = np.full((32, 32, 3), grey, np.uint8)
    root = walls(folder, pictures)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\ntest: images/test\nnames: [crack]\n")
    return formats.read(root)


def remembered(dataset: Dataset, first: tuple[str, int], second: tuple[str, int]) -> None:
    """As though a search had found that these two (split, position) show the same object."""
    a, b = (dataset.splits[split][place] for split, place in (first, second))
    leaks.remember(dataset, [Pair(a, b, (first[0], second[0]), Case((a.image, b.image), ""))])


def test_every_copy_of_a_photograph_that_training_shows_is_known(tmp_path: Path, cache: None) -> None:
    dataset = copied(tmp_path / "walls", train=3, val=3)
    found, _ = leaks.known(dataset)
    assert {leak.scored for leak in found} == {r.image for r in dataset.splits["val"] if r.photograph == "7"}
    assert len(found) == 3 and {leak.why for leak in found} == {"a copy of the same photograph"}


def test_every_copy_of_a_look_alike_and_of_an_identical_file_is_known(tmp_path: Path, cache: None) -> None:
    dataset = copied(tmp_path / "alike", train=0, val=3)
    remembered(dataset, ("train", 0), ("val", 1))
    found, searched = leaks.known(dataset)
    assert searched and len(found) == 3 and {leak.why for leak in found} == {"another photograph of the same object"}
    dataset = copied(tmp_path / "same", train=0, val=3)
    shutil.copy(dataset.splits["val"][1].image, dataset.splits["train"][0].image)
    assert sorted(leak.why for leak in leaks.known(formats.read(dataset.root))[0]) == [
        "a copy of the same photograph", "a copy of the same photograph", "the same file",
    ]  # fmt: skip


def test_what_validation_and_test_share_training_has_not_seen(tmp_path: Path, cache: None) -> None:
    dataset = copied(tmp_path / "walls", train=0, val=2, test=2)
    remembered(dataset, ("val", 2), ("test", 2))
    assert leaks.known(dataset, "test") == ([], True)


def test_what_was_found_is_found_again_from_another_folder(
    tmp_path: Path, cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = copied(Path("walls"), train=0, val=0)
    far = formats.read(tmp_path / "walls")
    remembered(near, ("train", 0), ("val", 0))
    for dataset in (near, far):
        (leak,), searched = leaks.known(dataset)
        assert searched and leak.scored == dataset.splits["val"][0].image


def test_damaged_and_unusual_images_are_told_apart(tmp_path: Path) -> None:
    root = walls(tmp_path, {"train/a": view(1), "val/b": view(2)})
    folder = root / "images/train"
    good = (folder / "a.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "text.jpg").write_text("no image")
    grey = Image.fromarray(view(3)[..., 0])
    Image.fromarray(np.asarray(grey, np.uint16) * 256).save(folder / "deep.png")
    grey.convert("P").save(folder / "palette.png")
    Image.fromarray(view(4)).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(view(5)).convert("CMYK").save(folder / "cmyk.jpg")
    grey.save(folder / "grey.png")
    grey.save(folder / "moves.gif", save_all=True, append_images=[grey.rotate(90)])
    found = check(root)
    bad = {case.images[0].name: case.note for case in found["image-unreadable"].cases}
    assert bad.keys() == {"cut.jpg", "text.jpg", "moves.gif"} and "animation" in bad["moves.gif"]
    odd = {case.images[0].name: case.note for case in found["image-unusual"].cases}
    assert odd.keys() == {"deep.png", "palette.png", "alpha.png", "cmyk.jpg"} and "8 bits" in odd["deep.png"]
    assert {case.images[0].name for case in found["empty-labels"].cases} == {"grey.png", *odd}


def rotated(image: np.ndarray, angle: float, bright: float = 1.0) -> np.ndarray:
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    seen = np.clip(cv2.warpAffine(image, turn, (width, height)).astype(np.float32) + 40 * (bright - 1), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(seen.astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize(("angle", "bright"), [(8, 1.0), (-12, 1.5), (15, 2.0)])
def test_black_corners_are_seen_through_compression_and_brightening(angle: float, bright: float) -> None:
    drawn = cv2.warpAffine(np.ones((240, 240), np.uint8), cv2.getRotationMatrix2D((120, 120), angle, 1.0), (240, 240))
    assert black_corners(rotated(view(1), angle, bright)) == pytest.approx(float((drawn == 0).mean()), rel=0.25)


def test_shadows_dark_walls_and_black_pictures_are_no_black_corners() -> None:
    picture = view(2).astype(np.float32)
    y, x = np.mgrid[:240, :240]
    shadow = (picture * np.clip((x + y) / 150, 0, 1)[..., None]).astype(np.uint8)
    noisy_dark = (picture * 0.15).astype(np.uint8)
    for image in (view(2), shadow, noisy_dark, np.zeros((240, 240, 3), np.uint8)):
        assert black_corners(image) == 0.0


def test_corners_in_train_only_are_a_warning_and_everywhere_a_note(tmp_path: Path) -> None:
    corners = {f"train/{k}": rotated(view(k), 10) for k in range(4)}
    one = check(walls(tmp_path / "one", {**corners, "val/v": view(9)}))["black-corners"]
    both = check(walls(tmp_path / "both", {**corners, "val/v": rotated(view(9), 10)}))["black-corners"]
    assert one.severity == "warning" and one.count == 4 and "100% of train, 0% of val" in one.title
    assert both.severity == "note"


@pytest.mark.parametrize("orientation", [2, 3, 5, 6, 7, 8])
def test_labels_made_on_the_unturned_picture_are_recognised(tmp_path: Path, orientation: int) -> None:
    upright_image, polygons = crack_picture(3, 96, 160)
    size = np.array([160, 96])
    exif = Image.Exif()
    exif[0x0112] = orientation
    # stored = what this orientation turns into the upright picture
    inverse = {2: 0, 3: 3, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = Image.fromarray(upright_image).transpose(Image.Transpose(inverse))
    shares = polygons[0] / size
    wrong = next(
        candidate
        for candidate in (shares, 1 - shares, shares[:, ::-1], 1 - shares[:, ::-1])
        for candidate in (candidate, np.stack([1 - candidate[:, 0], candidate[:, 1]], 1))
        if np.allclose(upright._MOVES[orientation](candidate), shares, atol=1e-6)
    )
    for name, rows, expected in (("right", shares, False), ("wrong", wrong, True)):
        root = tmp_path / f"{name}{orientation}"
        (root / "images/train").mkdir(parents=True)
        (root / "labels/train").mkdir(parents=True)
        stored.save(root / "images/train/a.jpg", exif=exif, quality=95)
        assert np.abs(read_image(root / "images/train/a.jpg").astype(int) - upright_image).mean() < 12
        (root / "labels/train/a.txt").write_text("0 " + " ".join(f"{v:.6f}" for v in rows.ravel()))
        (root / "data.yaml").write_text("train: images/train\nnames: [crack]\n")
        found = check(root)
        assert ("labels-unturned" in found) == expected, name
        assert found["image-turned"].count == 1


# ---------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("row", "code", "severity"),
    [
        ("0 .1 .1 .9 .1 1.5 .9", "label-outside", "error"),
        ("0 .1 .1 .9 .1 nan .9", "label-not-finite", "error"),
        ("0 .1 .1 .9 .1 inf .9", "label-not-finite", "error"),
        ("0 .1 .1 .9 .1 oops .9", "label-malformed", "error"),
        ("0 .5 .5 .1 .1", "kinds-mixed", "warning"),
        ("0 .1 .1 .9 .1 .5", "label-malformed", "error"),
        ("3 .1 .1 .9 .1 .5 .9", "label-class", "error"),
        ("0 .1 .1 .5 .1 .9 .1", "label-degenerate", "warning"),
        ("0 .5 .5 0 .1", "label-degenerate", "warning"),
        ("0 .25 .25 .75 .25 .5 .75", "label-repeated", "note"),
    ],
)
def test_each_kind_of_bad_row(tmp_path: Path, row: str, code: str, severity: str) -> None:
    found = check(yolo(tmp_path, f"0 .25 .25 .75 .25 .5 .75\n{row}"))
    assert found[code].severity == severity and found[code].count == 1
    assert found[code].cases[0].images == (tmp_path / "images/train/a.png",)
    assert {c for c in found if c.startswith(("label", "kinds"))} == {code}


def test_coco_problems_name_the_picture_and_a_wrong_size_is_an_error(tmp_path: Path) -> None:
    outside = annotation(id=7, segmentation=[[0, 0, 900, 0, 9, 9]], bbox=[0, 0, 900, 9])
    found = check(coco(tmp_path / "a", annotation(), outside))
    assert found["label-outside"].cases[0].images == (tmp_path / "a/a.png",)
    sized = [{"id": 1, "file_name": "a.png", "height": 64, "width": 48}, {"id": 2, "file_name": "b.png"}]
    root = coco(tmp_path / "b", annotation(), images=sized)
    shutil.copy(root / "a.png", root / "b.png")
    assert check(root)["size-mismatch"].severity == "error"


def test_empty_labels_are_suspicious_only_where_they_are_rare(tmp_path: Path) -> None:
    pictures = {f"train/{k:03d}": np.full((20, 20, 3), k, np.uint8) for k in range(60)}
    root = walls(tmp_path, pictures)
    (root / "labels/train/007.txt").write_text("")
    rare = check(root)["empty-labels"]
    assert rare.severity == "warning" and [case.images[0].stem for case in rare.cases] == ["007"]
    for k in range(10, 30):
        (root / f"labels/train/{k:03d}.txt").unlink()
    often = check(root)["empty-labels"]
    assert often.severity == "note" and often.count == 21
    assert "no-empty-images" in check(walls(tmp_path / "full", {"train/a": view(1)}))


def test_crossing_outlines() -> None:
    bow = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], np.float32)
    assert labels.crosses_itself(bow) and not labels.crosses_itself(bow[[0, 2, 1, 3]])
    touching = np.array([[0, 0], [5, 5], [10, 0], [10, 10], [5, 5], [0, 10]], np.float32)
    assert not labels.crosses_itself(touching)
    assert not labels.crosses_itself(np.repeat(bow[[0, 2, 1, 3]], 3, axis=0))  # repeated points are no crossing


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40))
def test_star_shaped_outlines_do_not_cross_and_swapping_two_corners_is_seen(seed: int, corners: int) -> None:
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(0.1, 0.9, corners)) / corners
    star = (np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(20, 50, (corners, 1)) + 60).astype(np.float32)
    assert not labels.crosses_itself(star)
    circle = (np.stack([np.cos(angles), np.sin(angles)], 1) * 50 + 60).astype(np.float32)
    circle[[0, 1]] = circle[[1, 0]]
    assert labels.crosses_itself(circle)


def test_tiny_and_twice_labelled_objects(tmp_path: Path) -> None:
    same = annotation(id=2, segmentation=[[16.1, 12, 48, 12, 32, 36.1]])
    small = annotation(id=3, segmentation=[[1, 1, 3, 1, 3, 3]], bbox=[1, 1, 2, 2])
    found = check(coco(tmp_path, annotation(), same, small))
    assert found["objects-twice"].count == 1 and found["objects-tiny"].cases[0].note.startswith("2 square pixels")


def test_every_tiny_object_gets_its_ring_even_if_another_has_its_area(tmp_path: Path) -> None:
    corners = [[1, 1, 3, 1, 3, 3], [9, 9, 11, 9, 11, 11], [5, 5, 8, 5, 8, 8]]
    small = [annotation(id=k, segmentation=[points]) for k, points in enumerate(corners)]
    (case,) = check(coco(tmp_path, *small))["objects-tiny"].cases
    assert case.marks == ((1, 1, 3, 3), (9, 9, 11, 11), (5, 5, 8, 8)) and case.note.startswith("2 square pixels")


def test_classes_that_are_unused_rare_or_in_one_split_only(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path, train=4, val=2, size=(32, 32), classes=("crack", "spall", "rust"))
    for file in (root / "labels/train").iterdir():
        file.write_text("0 .2 .2 .8 .2 .5 .8")
    for file in (root / "labels/val").iterdir():
        file.write_text("1 .2 .2 .8 .2 .5 .8")
    findings = doctor.examine(formats.read(root), False).checkup.findings
    lacking = {f.title: f.severity for f in findings if f.code == "class-lacking"}
    assert lacking == {
        "1 class without an object in train: spall": "error",
        "1 class without an object in val: crack": "warning",
    }
    titles = {f.code: f.title for f in findings}
    assert "rust" in titles["class-unused"] and "crack (4)" in titles["class-rare"]


def test_a_sound_set_has_no_complaint(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path, train=60, val=50, size=(48, 48))
    found = doctor.examine(formats.read(root)).checkup
    assert not found.errors and {f.code for f in found.findings} == {"no-empty-images"}


# ---------------------------------------------------------------------------------------------------- exports

README = """
crack - v2 2022-09-29 2:14pm
==============================
The following pre-processing was applied to each image:
* Auto-orientation of pixel data (with EXIF-orientation stripping)
* Resize to 416x416 (Stretch)

The following augmentation was applied to create 3 versions of each source image:
* 50% probability of horizontal flip
* Random rotation of between -15 and +15 degrees
"""


def test_what_an_export_declares(tmp_path: Path) -> None:
    (tmp_path / "README.roboflow.txt").write_text(README)
    found = {finding.code: finding for finding in exports.check(tmp_path)}
    assert found["stretched"].title == "the export declares: Resize to 416x416 (Stretch)"
    assert found["augmented-export"].count == 3
    assert [case.note for case in found["augmented-export"].cases] == [
        "50% probability of horizontal flip", "Random rotation of between -15 and +15 degrees",
    ]  # fmt: skip
    (tmp_path / "README.roboflow.txt").write_text(
        "* Resize to 640x640 (Fit within)\n\nNo image augmentation techniques were applied.\n"
    )
    assert list(exports.check(tmp_path)) == []
    (tmp_path / "README.roboflow.txt").unlink()
    assert list(exports.check(tmp_path)) == []


# ---------------------------------------------------------------------------------------------------- the cleaned copy


def faulty(root: Path) -> Path:
    """Two leaks (a file and a photograph with two copies), a repeated picture, a damaged one and a bad row."""
    name = "train/w.rf.{:032x}"
    pictures = {f"train/t{seed}": view(seed) for seed in range(3)} | {"val/v": view(20), "val/w2": view(21, angle=30)}
    pictures |= {name.format(1): view(21), name.format(2): wall(99)[:240, :240]}
    root = walls(root, pictures)
    shutil.copy(root / "images/val/v.jpg", root / "images/train/leak.jpg")
    shutil.copy(root / "images/train/t0.jpg", root / "images/train/twice.jpg")
    (root / "images/train/cut.jpg").write_bytes((root / "images/train/t1.jpg").read_bytes()[:2000])
    (root / "labels/train/t2.txt").write_text("0 0.2 0.2 0.8 0.2 0.5 0.8\n0 0.2 0.2 0.8 0.2 0.5 7")
    return root


@pytest.mark.parametrize("layout", ["YOLO", "COCO"])
def test_the_cleaned_copy_lacks_exactly_what_is_wrong(tmp_path: Path, layout: str) -> None:
    root = faulty(tmp_path / "faulty")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    dataset = replace(formats.read(root), format=layout)
    done = fix.write(dataset, doctor.examine(dataset), tmp_path / "clean")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    clean = formats.read(tmp_path / "clean")
    assert clean.format == layout == done.layout and clean.problems == ()
    assert {r.image.name for r in clean.splits["train"]} == {"t0.jpg", "t1.jpg", "t2.jpg"}
    assert {r.image.name for r in clean.splits["val"]} == {"v.jpg", "w2.jpg"}
    for record in clean.splits["train"]:
        assert record.image.read_bytes() == before[root / "images/train" / record.image.name]
        (polygon,) = record.instances[0].polygons
        assert np.allclose(polygon, np.array([[48, 48], [192, 48], [120, 192]]), atol=1e-4)
    told = (tmp_path / "clean/dropped.txt").read_text()
    for what in ("leak.jpg: leaks", "cut.jpg: cannot be decoded", "twice.jpg: identical to t0.jpg", "t2.txt: row 2"):
        assert what in told, told
    assert told.count("shows it in w2.jpg") == 2 and len(done.dropped) == told.count("\n") - 1 == 6
    assert not doctor.examine(clean).checkup.errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "faulty"]


def listed(root: Path, **lists: list[str]) -> Dataset:
    """The pictures of the lists once each, and a list of names for each split."""
    names = sorted({name for some in lists.values() for name in some})
    walls(root, {name: view(number) for number, name in enumerate(names)})
    for split, some in lists.items():
        (root / f"{split}.txt").write_text("".join(f"images/{name}.jpg\n" for name in some))
    (root / "data.yaml").write_text("".join(f"{split}: {split}.txt\n" for split in lists) + "names: [crack]\n")
    return formats.read(root)


def test_an_image_that_two_splits_list_stays_in_the_later_one(tmp_path: Path) -> None:
    dataset = listed(tmp_path / "lists", train=["a", "b"], val=["b", "c"])
    done = fix.write(dataset, doctor.examine(dataset, False), tmp_path / "clean")
    assert done.dropped == (f"image left out: {tmp_path}/lists/images/b.jpg: leaks: val shows it in b.jpg",)
    clean = formats.read(tmp_path / "clean")
    assert {split: [r.image.stem for r in some] for split, some in clean.splits.items()} == {
        "train": ["a"], "val": ["b", "c"],
    }  # fmt: skip


def test_of_an_image_listed_again_and_again_one_listing_stays(tmp_path: Path) -> None:
    dataset = listed(tmp_path / "lists", train=["a", "a", "b", "a"], val=["c"])
    done = fix.write(dataset, doctor.examine(dataset, False), tmp_path / "clean")
    assert done.dropped == (f"image left out: {tmp_path}/lists/images/a.jpg: listed more than once",)
    assert [r.image.stem for r in formats.read(tmp_path / "clean").splits["train"]] == ["a", "b"]


def test_a_copy_of_a_sound_set_is_the_same(tmp_path: Path) -> None:
    dataset = formats.read(yolo_dataset(tmp_path / "walls", "roboflow", 5, 3, (40, 56), classes=("crack", "spall")))
    fix.write(dataset, doctor.examine(dataset), tmp_path / "copy")
    copy = formats.read(tmp_path / "copy")
    assert plain(copy) == plain(dataset) and copy.classes == dataset.classes and copy.licence == dataset.licence


def test_a_folder_that_is_taken_or_inside_the_data_is_refused(tmp_path: Path) -> None:
    dataset = formats.read(walls(tmp_path / "walls", {"train/a": view(1), "val/b": view(2)}))
    examination = doctor.examine(dataset, False)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    for folder, said in (
        (tmp_path / "taken", "exists already"),
        (dataset.root / "clean", "is inside the dataset itself"),
    ):
        with pytest.raises(InputError, match=said):
            fix.write(dataset, examination, folder)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "walls"]


# ---------------------------------------------------------------------------------------------------- page and command


def test_the_page_is_one_file_with_a_picture_for_every_case(tmp_path: Path) -> None:
    dataset = formats.read(faulty(tmp_path / "<b>odd & name"))
    found = doctor.examine(dataset).checkup
    page.write(tmp_path / "check.html", dataset, found)
    text = (tmp_path / "check.html").read_text()
    assert "&lt;b&gt;odd &amp; name" in text and "<b>odd" not in text
    assert "http:" not in text and "https:" not in text and "<script" not in text
    assert text.count("<figure>") == sum(1 for f in found.findings for case in f.cases if case.images)
    assert text.count("cannot be shown") == 1  # the damaged file


def test_labels_are_drawn_on_thumbnails(tmp_path: Path) -> None:
    dataset = formats.read(walls(tmp_path, {"train/a": np.full((520, 260, 3), 128, np.uint8)}))
    record = dataset.splits["train"][0]
    drawn, bare = page.thumbnail(record.image, record), page.thumbnail(record.image, None)
    assert drawn is not None and bare is not None and drawn.shape == bare.shape == (260, 130, 3)
    changed = np.argwhere((drawn != bare).any(axis=2))
    assert changed.min(axis=0) == pytest.approx([52, 26], abs=2) and changed.max(axis=0) == pytest.approx(
        [208, 104], abs=2
    )


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    faulty(tmp_path / "walls")
    done = cli("data", "check", "walls", "--fix", "clean", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert told == json.loads((tmp_path / "runs/check-walls/check.json").read_text())
    assert told["findings"][0]["severity"] == "error" and told["fixed"]["images"] == 5
    assert (tmp_path / "runs/check-walls/check.html").is_file()
    again = cli("data", "check", "clean", "--quick", "--out", "here", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.startswith("0 errors") and (tmp_path / "here/check.json").is_file()
    refused = cli("data", "check", "walls", "--fix", "clean", "--quick", cwd=tmp_path)
    assert refused.returncode == 2 and "exists already" in refused.stderr
    assert not (tmp_path / "runs/check-walls-2").exists()


@pytest.mark.skipif(cards.folder_of("crack") is None, reason="the crack set is not on this machine")
def test_the_real_validation_images_have_no_black_corner() -> None:
    for record in cards.load("crack").splits["val"][::10]:
        assert black_corners(read_image(record.image)) == 0.0
