"""YOLO folders: wrong paths, strange cards, and every kind of row a label file may hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdet.data import formats
from segdet.data.geometry.rasterize import binary, coverage, foreground
from tests.data.helpers import BOX, CARD, HEIGHT, TRIANGLE, WIDTH, blank, only, problem, refused, yolo
from tests.drawn import plain, yolo_dataset

ROOT = Path(__file__).parents[2]
TWO_CLASSES = "train: images/train\nnames: [crack, stain]\n"


# YOLO: data.yaml


@pytest.mark.parametrize(
    "card",
    [
        "names: [crack]\ntrain: /content/datasets/walls/train/images\nval: /content/datasets/walls/valid/images\n",
        "names: [crack]\ntrain: C:\\Users\\me\\walls\\train\\images\nval: C:\\Users\\me\\walls\\valid\\images\n",
        "names: [crack]\ntrain: ../../walls/train/images\nval: ../../walls/valid/images\n",
        "names: [crack]\npath: /nowhere\ntrain: train/images\nval: valid/images\n",
        "names: [crack]\ntrain: [train/images]\nval: [valid/images]\n",
        "names: [crack]\ntrain: train\nval: valid\n",
        "names: [crack]\ntrain: ./train/images\nvalid: ./valid/images\n",
        "names: [crack]\ntrain: nowhere/at/all\nval: nowhere/else\n",
    ],
)
def test_wrong_paths_in_a_card_are_found_in_the_folder(card: str, tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path / "walls", "roboflow", 3, 2, (24, 24))
    good = plain(formats.read(root))
    (root / "data.yaml").write_text(card)
    assert plain(formats.read(root)) == good


@pytest.mark.parametrize("prefix", ["../", "/content/walls/"])
def test_wrong_paths_never_mix_training_and_validation(prefix: str, tmp_path: Path) -> None:
    """Roboflow's card in folders sorted Ultralytics' way: `images` alone would be both splits at once."""
    root = yolo_dataset(tmp_path / "walls", train=3, val=2, size=(24, 24))
    good = plain(formats.read(root))
    (root / "data.yaml").write_text(f"train: {prefix}train/images\nval: {prefix}valid/images\nnames: [crack]\n")
    assert plain(formats.read(root)) == good


def test_a_card_that_leads_to_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [crack]\n")
    refused(tmp_path, str(tmp_path / "data.yaml"), "train/images")


def test_a_text_file_may_list_the_images(tmp_path: Path) -> None:
    root = yolo_dataset(tmp_path, train=3, val=2, size=(24, 24))
    good = plain(formats.read(root))
    for split in ("train", "val"):
        names = sorted(path.name for path in (root / "images" / split).iterdir())
        # one absolute path, the others relative, with an empty line and Windows' line ends
        lines = [str(root / "images" / split / names[0]), "", *(f"./images/{split}/{name}" for name in names[1:])]
        (root / f"{split}.txt").write_text("\r\n".join(lines))
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [crack]\n")
    assert plain(formats.read(root)) == good
    (root / "val.txt").write_text("./images/val/gone.jpg\n")
    refused(root, str(root / "val.txt"), "gone.jpg")


@pytest.mark.parametrize("start", ["C:\\Users\\me\\sets\\", "/home/me/sets/", "../../sets/"])
def test_paths_of_another_machine_are_found_by_their_end(start: str, tmp_path: Path) -> None:
    for name in "ab":
        blank(tmp_path / "part" / "images" / f"{name}.png")
    (tmp_path / "part" / "labels").mkdir()
    (tmp_path / "part" / "labels" / "a.txt").write_text(TRIANGLE)
    (tmp_path / "data.yaml").write_text(f"train: '{start}part/images'\nval: '{start}val.txt'\nnames: [crack]\n")
    (tmp_path / "val.txt").write_text(f"{start}part/images/b.png\n".replace("/", "\\" if "\\" in start else "/"))
    dataset = formats.read(tmp_path)
    assert [len(record.instances) for record in dataset.splits["train"]] == [1, 0]
    assert [record.image.name for record in dataset.splits["val"]] == ["b.png"] and dataset.problems == ()


def test_a_list_of_images_that_is_no_text_is_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, card="train: train.txt\nnames: [crack]\n")
    (root / "train.txt").write_bytes(b"\xff\xfe\x00a\xff")
    refused(root, str(root / "train.txt"))


def test_names_may_be_a_list_a_mapping_or_only_a_count(tmp_path: Path) -> None:
    for names, classes in (
        ("names: [crack, stain]", ("crack", "stain")),
        ("names: {1: stain, 0: crack}", ("crack", "stain")),
        ("names:\n- crack\n- 7\n", ("crack", "7")),
        ("nc: 2", ("class_0", "class_1")),
        ("nc: 2\nnames: [crack, stain]", ("crack", "stain")),
        ("nc: '2'\nnames: [crack, stain]", ("crack", "stain")),
        ("nc: 2.0\nnames: [crack, stain]", ("crack", "stain")),
        ("nc: 5\nnames: [on, off, No, null, 1e3]", ("on", "off", "No", "null", "1e3")),
        ("names: [0x10, 012, 1.50, 2024-01-01, ~, .inf, y]", ("0x10", "012", "1.50", "2024-01-01", "~", ".inf", "y")),
        ("names: {0: yes, 1: no}", ("yes", "no")),
        ("names:\n  - 0: crack\n  - 1: stain", ("crack", "stain")),
        ("names:\n  - {id: 1, name: stain}\n  - {id: 0, name: crack}", ("crack", "stain")),
        ("names:\n  - name: crack\n  - name: stain", ("crack", "stain")),
        ("names: {'0': crack, '1': stain}", ("crack", "stain")),
        ("names: {crack: 0, stain: 1}", ("crack", "stain")),
        ("names: \"['crack', 'stain']\"", ("crack", "stain")),
        ("names: fine  crack", ("fine crack",)),
        ("nc: 2\nnames:", ("class_0", "class_1")),
    ):
        root = yolo(tmp_path, card=f"train: images/train\n{names}\n")
        assert formats.read(root).classes == classes


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("nc: 3\nnames: [crack]", "nc is 3"),
        ("names: {0: crack, 2: stain}", "without holes"),
        ("names: {1: crack}", "without holes"),
        ("names: {0: crack, stain: 1}", "names"),
        ("names: crack, stain", "must be a list"),
        ("names: classes.txt", "must be a list"),
        ("names: [[crack, stain]]", "must be a list"),
        ("names: {crack: 0, stain: 0}", "class 0 twice"),
        ("names: {0: crack, 0: stain}", "class 0 twice"),
        ("names: [crack, ' ']", "class 1 in `names` has a blank name"),
        ("names:\n- crack\n-\n", "class 1 in `names` has a blank name"),
        ("names: [crack, stain, crack]", "classes 0 and 2 in `names` are both 'crack'"),
        ("nc: two\nnames: [crack, stain]", "nc is 'two'"),
        ("nc: '3'\nnames: [crack, stain]", "nc is 3"),
        ("nc: true\nnames: [crack]", "nc is 'True'"),
        ("names: [crack]\nkpt_shape: 4", "kpt_shape"),
        ("names: [crack]\nkpt_shape: [4, 5]", "kpt_shape"),
        ("names: [crack]\nflip_idx: [1, 0]", "kpt_shape"),
        ("names: []", "must be a list"),
        ("names: [crack", "not valid YAML"),
        ("names: [crack]\n\ttabs: no", "not valid YAML"),
    ],
)
def test_a_card_with_wrong_names_is_refused(names: str, reason: str, tmp_path: Path) -> None:
    root = yolo(tmp_path, card=f"train: images/train\n{names}\n")
    refused(root, str(root / "data.yaml"), reason)


def test_a_card_may_hold_other_things_under_known_keys(tmp_path: Path) -> None:
    """`roboflow` is a mapping in Roboflow's exports; in other people's files it may be anything."""
    root = yolo(tmp_path, card=CARD + "roboflow: yes\n")
    assert only(formats.read(root)).instances


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    good = plain(formats.read(yolo(tmp_path / "good", f"{TRIANGLE}\n{BOX}\n")))
    root = yolo(tmp_path / "bad", b"\xef\xbb\xbf" + f"{TRIANGLE}\r\n\r\n{BOX}".encode())
    (root / "data.yaml").write_bytes(b"\xef\xbb\xbf" + CARD.replace("\n", "\r\n").encode())
    assert plain(formats.read(root)) == good
    assert len(only(formats.read(root)).instances) == 2


def test_without_a_card_classes_are_numbered(tmp_path: Path) -> None:
    root = yolo(tmp_path, "2" + TRIANGLE[1:], card=None)
    dataset = formats.read(root)
    assert dataset.classes == ("class_0", "class_1", "class_2") and only(dataset).instances[0].label == 2
    assert any("data.yaml" in note for note in dataset.notes)


@pytest.mark.parametrize("where", ["label file", "card"])
def test_an_absurd_class_number_does_not_fill_the_memory(where: str, tmp_path: Path) -> None:
    many = 30_000_000
    if where == "card":
        root = yolo(tmp_path, card=f"train: images/train\nnc: {many}\n")
    else:
        root = yolo(tmp_path, f"{many}{TRIANGLE[1:]}", card=None)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom segdet.data import formats\n"
        "from segdet.errors import InputError\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 300_000_000,) * 2)\n"
        "try:\n    print(len(formats.read(Path(sys.argv[1])).classes) < 100_000)\n"
        "except InputError:\n    print(True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr[-300:]


def test_files_are_found_below_folders_and_in_a_stable_order(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    for name in ("z/b.png", "b/c.png", "B.png"):
        blank(root / "images" / "train" / name)
    label = root / "labels" / "train" / "z" / "b.txt"
    label.parent.mkdir()
    label.write_text(TRIANGLE)
    (root / "images" / "train" / "._a.png").write_bytes(b"macOS leaves these")
    (root / "images" / "train" / "Thumbs.db").write_bytes(b"Windows these")
    dataset = formats.read(root)
    names = [record.image.relative_to(root / "images" / "train").as_posix() for record in dataset.splits["train"]]
    assert names == ["B.png", "a.png", "z/b.png", "b/c.png"]
    assert [len(record.instances) for record in dataset.splits["train"]] == [0, 1, 1, 0]
    assert dataset.problems == ()


def test_labels_beside_the_images_are_found(tmp_path: Path) -> None:
    root = tmp_path / "walls"
    blank(root / "train" / "a.png")
    (root / "train" / "a.txt").write_text(TRIANGLE)
    (root / "data.yaml").write_text("train: train\nnames: [crack]\n")
    assert len(only(formats.read(root)).instances) == 1


def test_a_folder_called_images_above_the_dataset_does_not_mislead(tmp_path: Path) -> None:
    root = tmp_path / "images" / "walls"
    blank(root / "train" / "a.png")
    (root / "train" / "a.txt").write_text(TRIANGLE)
    (root / "data.yaml").write_text("train: train\nnames: [crack]\n")
    assert len(only(formats.read(root)).instances) == 1


# YOLO: label files


def test_rows_become_polygons_and_boxes_in_pixels(tmp_path: Path) -> None:
    record = only(formats.read(yolo(tmp_path, TRIANGLE)))
    (instance,) = record.instances
    assert record.size == (HEIGHT, WIDTH)
    assert instance.polygons[0].tolist() == [[16, 12], [48, 12], [32, 36]]
    assert instance.box == (16, 12, 48, 36) and instance.rle is None and not instance.crowd
    record = only(formats.read(yolo(tmp_path, BOX)))
    assert record.instances[0].polygons == () and record.instances[0].box == (24, 12, 40, 36)


@pytest.mark.parametrize("rows", [None, "", "\n", "  \r\n\n", b"\xef\xbb\xbf"])
def test_no_rows_are_an_image_without_objects(rows: str | bytes | None, tmp_path: Path) -> None:
    dataset = formats.read(yolo(tmp_path, rows))
    assert only(dataset).instances == () and dataset.problems == ()


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n  \n"])
def test_the_last_row_counts_with_and_without_a_newline(end: str, tmp_path: Path) -> None:
    second = "0 0.1 0.1 0.2 0.1 0.2 0.3"
    assert len(only(formats.read(yolo(tmp_path, f"{TRIANGLE}\n{second}{end}"))).instances) == 2


def test_duplicate_rows_count_once_and_are_reported(tmp_path: Path) -> None:
    dataset = formats.read(yolo(tmp_path, f"{TRIANGLE}\n1{TRIANGLE[1:]}\n{TRIANGLE} \n", TWO_CLASSES))
    assert [instance.label for instance in only(dataset).instances] == [0, 1]
    assert "a.txt" in problem(dataset) and "row 3" in problem(dataset)


@pytest.mark.parametrize("label", [1, -1, 79])
def test_a_class_out_of_range_is_reported_and_the_rest_kept(label: int, tmp_path: Path) -> None:
    dataset = formats.read(yolo(tmp_path, f"{TRIANGLE}\n{label}{TRIANGLE[1:]}\n"))
    assert [instance.label for instance in only(dataset).instances] == [0]
    assert "row 2" in problem(dataset) and f"class {label}" in problem(dataset) and "a.txt" in problem(dataset)


def test_boxes_among_polygons_are_kept_for_detection_and_reported(tmp_path: Path) -> None:
    dataset = formats.read(yolo(tmp_path, f"{BOX}\n{TRIANGLE}\n"))
    instances = only(dataset).instances
    assert sorted(len(instance.polygons) for instance in instances) == [0, 1]
    assert "row 1" in problem(dataset) and "box" in problem(dataset)
    triangle = binary(coverage([np.array([[16, 12], [48, 12], [32, 36]])], HEIGHT, WIDTH))
    assert (binary(foreground(only(dataset))) == triangle).all()


@pytest.mark.parametrize(
    "row",
    [
        "crack 0.1 0.1 0.2 0.2",
        "0 0.1 0.1 0.2 oops",
        "0,0.1,0.1,0.2,0.2",
        "0.5 0.1 0.1 0.2 0.2",
        "nan 0.1 0.1 0.2 0.2",
        "inf 0.1 0.1 0.2 0.2",
        "0 0.1 0.1 0.2",  # 3 coordinates
        "0 0.1 0.1 0.2 0.2 0.3",  # 5
        "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4",  # 7
        "0 0.1 0.1",
        "0",
        "<html>",
        "0 " + "x" * 100_000,
    ],
)
def test_a_garbage_row_is_refused_with_file_and_row(row: str, tmp_path: Path) -> None:
    root = yolo(tmp_path, f"{TRIANGLE}\n\n{row}\n{BOX}\n")
    assert len(refused(root, str(root / "labels" / "train" / "a.txt"), "row 3")) < 400


def test_label_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, b"\x80\x81 0")
    refused(root, str(root / "labels" / "train" / "a.txt"), "not a text file")


def test_a_folder_in_the_place_of_a_label_file_is_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, None)
    (root / "labels" / "train" / "a.txt").mkdir()
    refused(root, str(root / "labels" / "train" / "a.txt"))


@pytest.mark.parametrize(
    "row",
    [
        "0 nan 0.1 0.2 0.1 0.2 0.2",
        "0 inf 0.1 0.2 0.1 0.2 0.2",
        "0 1e9 0.1 0.2 0.1 0.2 0.2",
        "0 -1e9 0.1 0.2 0.1 0.2 0.2",
        "0 1e308 1e308 0.2 0.1 0.2 0.2",
        "0 1.2 0.1 0.2 0.1 0.2 0.2",
        "0 0.5 0.5 0.5 0.5 0.5 0.5",
        "0 nan 0.5 0.1 0.1",
        "0 0.5 0.5 1e9 0.1",
        "0 0.5 0.5 -0.1 0.1",
        "0 0.5 0.5 0 0",
    ],
)
def test_senseless_coordinates_are_reported_and_the_rest_kept(row: str, tmp_path: Path) -> None:
    dataset = formats.read(yolo(tmp_path, f"{row}\n{TRIANGLE}\n"))
    assert len(only(dataset).instances) == 1
    assert "row 1" in problem(dataset) and "a.txt" in problem(dataset)


def test_an_unreadable_image_is_reported_and_the_others_kept(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    (root / "images" / "train" / "b.jpg").write_text("no picture")
    (root / "images" / "train" / "c.png").mkdir()
    dataset = formats.read(root)
    assert [record.image.name for record in dataset.splits["train"]] == ["a.png"]
    assert [p.path.name for p in dataset.problems] == ["b.jpg", "c.png"]


def test_a_truncated_png_does_not_stop_the_reading(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    noise.save(root / "images" / "train" / "b.png")
    whole = (root / "images" / "train" / "b.png").read_bytes()
    (root / "images" / "train" / "b.png").write_bytes(whole[: len(whole) // 2])
    assert "a.png" in [record.image.name for record in formats.read(root).splits["train"]]


# YOLO: pose labels


def pose(dimensions: int, count: int = 4) -> str:
    points = [value for k in range(count) for value in (0.4 + 0.05 * k, 0.5, 2)[:dimensions]]
    return f"0 0.5 0.5 0.25 0.5 {' '.join(map(str, points))}"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_pose_labels_are_boxes_and_never_polygons(dimensions: int, tmp_path: Path) -> None:
    root = yolo(tmp_path, pose(dimensions), f"{CARD}kpt_shape: [4, {dimensions}]\nflip_idx: [0, 1, 2, 3]\n")
    dataset = formats.read(root)
    (instance,) = only(dataset).instances
    assert not instance.outlined and instance.box == (24, 12, 40, 36) and dataset.problems == ()
    assert any("kpt_shape" in note for note in dataset.notes)


def test_rows_that_disagree_with_the_keypoints_are_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, f"{pose(2)}\n{TRIANGLE}", f"{CARD}kpt_shape: [4, 2]\n")
    refused(root, "a.txt", "row 2", "6 values", "kpt_shape says 12")
