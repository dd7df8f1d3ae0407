"""COCO files: what is dropped and what is kept, what is refused and what is reported, and run-length masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segdet.data import formats
from segdet.data.doctor import examine
from segdet.data.geometry.rasterize import binary, class_index, foreground
from segdet.errors import InputError
from tests.data.helpers import HEIGHT, WIDTH, annotation, blank, coco, only, problem, refused
from tests.drawn import coco_dataset, plain


def runs_of(mask: np.ndarray) -> str:
    """Compressed run lengths of a mask, as COCO's JSON files hold them."""
    return str(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode())


def uncompressed(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, the first of background, written from COCO's definition."""
    flat = mask.T.ravel()
    ends = [*(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    runs = np.diff([0, *ends]).tolist()
    return [0, *runs] if flat[0] else runs


# COCO: files


def test_a_single_json_file_beside_its_images_is_a_dataset(tmp_path: Path) -> None:
    root = coco(tmp_path / "walls", annotation())
    folder, file = formats.read(root), formats.read(root / "_annotations.coco.json")
    assert plain(folder) == plain(file) and folder.root == file.root == root
    (instance,) = only(folder).instances
    assert instance.polygons[0].tolist() == [[16, 12], [48, 12], [32, 36]] and instance.box == (16, 12, 48, 36)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[]", "not a COCO file"),
        (b"7", "not a COCO file"),
        (b'{"images": {}}', "not a COCO file"),
        (b'{"images": []}', "annotations"),
        (b'{"images": [], "annotations": []}', "categories"),
        (b'{"images": [7], "annotations": [], "categories": []}', "images[0]"),
        (b'{"images": [{"id": "a"}], "annotations": [], "categories": []}', "images[0]"),
        (b'{"images": [{"id": 1}], "annotations": [], "categories": []}', "file_name"),
        (b'{"images": [{"id": 1, "file_name": 7}], "annotations": [], "categories": []}', "file_name"),
        (b'{"images": [], "annotations": [{}], "categories": []}', "annotations[0]"),
        (b'{"images": [], "annotations": [], "categories": [null]}', "categories[0]"),
    ],
)
def test_an_unreadable_json_file_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "_annotations.coco.json"
    file.write_bytes(content)
    blank(tmp_path / "a.png")
    refused(tmp_path, str(file), reason)


def test_a_byte_order_mark_in_json_does_no_harm(tmp_path: Path) -> None:
    root = coco(tmp_path, annotation())
    file = root / "_annotations.coco.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(only(formats.read(root)).instances) == 1


def test_a_captions_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    coco(tmp_path)
    content = json.loads((tmp_path / "_annotations.coco.json").read_text())
    del content["categories"]
    content["annotations"] = [{"id": 1, "image_id": 1, "caption": "A wall."}]
    (tmp_path / "captions.json").write_text(json.dumps(content))
    refused(tmp_path / "captions.json", "captions.json", "captions do not")


def test_captions_and_keypoints_beside_instances_are_left_alone(tmp_path: Path) -> None:
    root = coco_dataset(tmp_path, "coco2017", 2, 1, (24, 24))
    good = plain(formats.read(root))
    for name in ("captions_train2017.json", "person_keypoints_val2017.json", "image_info_test2017.json"):
        (root / "annotations" / name).write_text("{}")
    assert plain(formats.read(root)) == good


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "sub/../../secret.png", "..", "a\0.png", "x" * 5000])
def test_a_file_name_that_leads_nowhere_good_is_refused(name: str, tmp_path: Path) -> None:
    blank(tmp_path / "secret.png")
    root = coco(tmp_path / "walls", images=[{"id": 1, "file_name": name}])
    refused(root, str(root))


def test_images_may_be_links_to_another_disk_and_names_may_come_from_windows(tmp_path: Path) -> None:
    blank(tmp_path / "disk" / "a.png")
    images = [{"id": 1, "file_name": "sub\\a.png"}]
    root = coco(tmp_path / "walls", annotation(), images=images)
    (root / "sub").mkdir()
    (root / "sub" / "a.png").symlink_to(tmp_path / "disk" / "a.png")
    dataset = formats.read(root)
    assert len(only(dataset).instances) == 1 and dataset.problems == ()


def test_a_file_name_may_lead_into_folders(tmp_path: Path) -> None:
    blank(tmp_path / "sub" / "b.png")
    root = coco(tmp_path, annotation(), images=[{"id": 1, "file_name": "sub/b.png"}])
    assert only(formats.read(root)).image == root / "sub" / "b.png"


def test_a_listed_image_that_is_missing_is_reported(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "gone.png"}]
    dataset = formats.read(coco(tmp_path, annotation(), images=images))
    assert len(only(dataset).instances) == 1
    assert "gone.png" in problem(dataset)


def test_an_image_of_another_size_than_declared_is_reported(tmp_path: Path) -> None:
    blank(tmp_path / "b.png", 24, 32)
    images = [
        {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
        {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
    ]
    dataset = formats.read(coco(tmp_path, annotation(), annotation(id=2, image_id=2), images=images))
    assert only(dataset).image.name == "a.png"
    assert "b.png" in problem(dataset) and "32x24" in problem(dataset) and "64x48" in problem(dataset)


def test_images_without_a_declared_size_are_measured(tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(), images=[{"id": 1, "file_name": "a.png"}]))
    assert only(dataset).size == (HEIGHT, WIDTH) and dataset.problems == ()


def test_records_come_in_the_order_of_their_file_names_whatever_their_ids(tmp_path: Path) -> None:
    for name in "bc":
        blank(tmp_path / f"{name}.png")
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in ((7, "a"), (0, "b"), (3, "c"))]
    dataset = formats.read(coco(tmp_path, annotation(image_id=3), images=images))
    assert [record.image.name for record in dataset.splits["train"]] == ["a.png", "b.png", "c.png"]
    assert [len(record.instances) for record in dataset.splits["train"]] == [0, 0, 1]


# COCO: categories


def test_roboflows_unused_root_is_dropped_though_it_has_the_name_of_a_class(tmp_path: Path) -> None:
    root = coco_dataset(tmp_path, "roboflow", 2, 1, (24, 24))
    content = json.loads((root / "train" / "_annotations.coco.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["crack", "crack"]
    dataset = formats.read(root)
    assert dataset.classes == ("crack",) and dataset.splits["train"][0].instances[0].label == 0


def test_a_root_that_is_annotated_in_any_split_is_kept(tmp_path: Path) -> None:
    root = coco_dataset(tmp_path, "roboflow", 2, 1, (24, 24), classes=("wall", "crack"))
    file = root / "valid" / "_annotations.coco.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["category_id"] = 0
    file.write_text(json.dumps(content))
    dataset = formats.read(root)
    assert dataset.classes == ("wall", "crack")
    assert any("categories 0, 1 are all 'wall'" in note for note in dataset.notes)
    assert dataset.splits["val"][0].instances[0].label == 0
    assert {i.label for record in dataset.splits["train"] for i in record.instances} == {0, 1}


def test_an_unused_class_that_is_no_root_is_kept(tmp_path: Path) -> None:
    categories = [{"id": 5, "name": "stain", "supercategory": "defect"}, {"id": 1, "name": "crack"}]
    assert formats.read(coco(tmp_path, annotation(), categories=categories)).classes == ("crack", "stain")


def test_splits_that_disagree_on_a_category_are_refused(tmp_path: Path) -> None:
    root = coco_dataset(tmp_path, "roboflow", 2, 1, (24, 24))
    file = root / "valid" / "_annotations.coco.json"
    file.write_text(file.read_text().replace('"name": "crack", "supercategory": "crack"', '"name": "stain"'))
    refused(root, "category 1", "crack", "stain")


# COCO: annotations


def test_an_unknown_category_is_reported(tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(id=8), annotation(id=9, category_id=4)))
    assert len(only(dataset).instances) == 1
    assert "annotation 9" in problem(dataset) and "category 4" in problem(dataset)


def test_annotations_of_an_image_that_is_not_listed_are_reported(tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(), annotation(id=2, image_id=77), annotation(id=3, image_id=77)))
    assert len(only(dataset).instances) == 1
    assert "2 annotations" in problem(dataset) and "77" in problem(dataset)


def test_an_empty_outline_with_a_box_is_a_box(tmp_path: Path) -> None:
    for outline in ([], None):
        dataset = formats.read(coco(tmp_path, annotation(segmentation=outline)))
        (instance,) = only(dataset).instances
        assert instance.polygons == () and instance.box == (16, 12, 48, 36) and dataset.problems == ()


def test_several_parts_are_one_object_and_a_bad_part_is_reported(tmp_path: Path) -> None:
    parts = [[1, 1, 9, 1, 9, 9], [20, 20, 30, 20, 30, 30]]
    dataset = formats.read(coco(tmp_path, annotation(segmentation=parts)))
    (instance,) = only(dataset).instances
    assert len(instance.polygons) == 2 and instance.box == (1, 1, 30, 30) and dataset.problems == ()
    dataset = formats.read(coco(tmp_path, annotation(segmentation=[*parts, [1, 2, 3, 4]])))
    assert len(only(dataset).instances[0].polygons) == 2 and "annotation 1" in problem(dataset)


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": [[1, 1, float("nan"), 1, 9, 9]]},
        {"segmentation": [[1, 1, float("inf"), 1, 9, 9]]},
        {"segmentation": [[1, 1, 1e9, 1, 9, 9]]},
        {"segmentation": [[1, 1, 10**400, 1, 9, 9]]},
        {"segmentation": [[1, 1, 9, 1, 9]]},
        {"segmentation": [[1, 1, 9, 9]]},
        {"segmentation": [[1, 1, "9", 1, 9, 9]]},
        {"segmentation": [[[1, 1], [9, 1], [9]]]},
        {"segmentation": "an outline"},
        {"segmentation": [{"x": 1, "y": 1}]},
        {"segmentation": [None]},
        {"segmentation": [], "bbox": [1, 1, float("nan"), 5]},
        {"segmentation": [], "bbox": [1, 1, 10**400, 5]},
        {"segmentation": [], "bbox": [1, 1, 1e9, 5]},
        {"segmentation": [], "bbox": [1, 1, 0, 5]},
        {"segmentation": [], "bbox": [1, 1, -5, 5]},
        {"segmentation": [], "bbox": [1, 1, 5]},
        {"segmentation": [], "bbox": None},
        {"segmentation": [], "bbox": ["1", "1", "5", "5"]},
        {"category_id": None},
        {"category_id": "one"},
        {"image_id": None},
        {"segmentation": {}},
        {"segmentation": {"size": [HEIGHT, WIDTH]}},
        {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [5, 5]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH, 5]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": []}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": ["a"]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "abc"}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "55"}},  # 5 + 5 pixels
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": runs_of(np.eye(99))}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "é\u0000"}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "o" * 1000}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": 7}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}},  # adds up, but marks nothing
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_a_senseless_annotation_is_reported_and_the_rest_kept(changes: dict[str, Any], tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(id=41, **changes), annotation(id=42)))
    (instance,) = only(dataset).instances
    assert instance.box == (16, 12, 48, 36)
    assert "_annotations.coco.json" in problem(dataset)
    assert "annotation 41" in problem(dataset) or "not listed" in problem(dataset)


@pytest.mark.parametrize("key", ["category_id", "image_id", "iscrowd"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, "one", 1.5])
def test_ids_that_are_no_whole_numbers_are_reported_or_refused(key: str, value: object, tmp_path: Path) -> None:
    root = coco(tmp_path, annotation(id=41, **{key: value}), annotation(id=42))
    try:
        dataset = formats.read(root)
    except InputError as error:
        assert "_annotations.coco.json" in str(error) and "\n" not in str(error)
    else:
        if key == "iscrowd":  # anything that is not false
            assert [instance.crowd for instance in only(dataset).instances] == [True, False]
        else:
            assert len(only(dataset).instances) == 1 and "_annotations.coco.json" in problem(dataset)


@pytest.mark.parametrize("key", ["images", "annotations", "categories", "licenses", "info"])
@pytest.mark.parametrize("value", [None, 7, "text", {}, [[]], [None]])
def test_another_value_under_a_known_key_is_refused_or_ignored(key: str, value: object, tmp_path: Path) -> None:
    root = coco(tmp_path, annotation(), **{key: value})
    if key in ("licenses", "info"):
        assert len(only(formats.read(root)).instances) == 1
    else:
        refused(root, str(root / "_annotations.coco.json"))


def stamp() -> np.ndarray:
    """A mask with a hole and with runs long and short."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:30, 8:50] = 1
    mask[10:20, 20:25] = 0
    mask[40, 60] = 1
    return mask


@pytest.mark.parametrize("corner", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_run_length_mask_is_drawn_exactly(compressed: bool, corner: bool, tmp_path: Path) -> None:
    mask = stamp()
    mask[0, 0] = corner
    counts = runs_of(mask) if compressed else uncompressed(mask)
    outline = {"size": [HEIGHT, WIDTH], "counts": counts}
    dataset = formats.read(coco(tmp_path, annotation(segmentation=outline)))
    assert dataset.problems == ()
    record = only(dataset)
    assert (binary(foreground(record)) == mask.astype(bool)).all()
    assert (class_index(record) == mask).all()
    assert record.instances[0].box == ((0, 0, 61, 41) if corner else (8, 5, 61, 41))


def test_a_polygon_and_its_run_lengths_are_the_same_mask(tmp_path: Path) -> None:
    square = [16, 12, 48, 12, 48, 36, 16, 36]
    encoded = coco_mask.merge(coco_mask.frPyObjects([square], HEIGHT, WIDTH))
    runs = {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}
    masks = [
        binary(foreground(only(formats.read(coco(tmp_path / name, annotation(segmentation=outline))))))
        for name, outline in (("polygon", [square]), ("runs", runs))
    ]
    assert (masks[0] == masks[1]).all() and masks[0].sum() == 32 * 24


def test_many_random_masks_survive_compressed_run_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [
        (rng.random((HEIGHT, WIDTH)) < share).astype(np.uint8) for share in (0.001, 0.01, 0.2, 0.5, 0.9, 0.999, 1.0)
    ]
    outlines = [{"size": [HEIGHT, WIDTH], "counts": runs_of(mask)} for mask in masks]
    dataset = formats.read(coco(tmp_path, *(annotation(id=k, segmentation=o) for k, o in enumerate(outlines))))
    assert dataset.problems == ()
    for instance, mask in zip(only(dataset).instances, masks, strict=True):
        assert instance.rle is not None
        assert (coco_mask.decode(dict(instance.rle)) == mask).all()


def test_a_crowd_is_marked(tmp_path: Path) -> None:
    outline = {"size": [HEIGHT, WIDTH], "counts": uncompressed(stamp())}
    dataset = formats.read(coco(tmp_path, annotation(segmentation=outline, iscrowd=1), annotation(id=2)))
    assert [instance.crowd for instance in only(dataset).instances] == [True, False]


# COCO: values as tools write them


def as_written(root: Path, change: Any) -> Path:
    """A folder with two categories whose content `change` rewrites."""
    categories = [{"id": 1, "name": "crack"}, {"id": 2, "name": "stain"}]
    root = coco(root, annotation(), annotation(id=2, category_id=2), categories=categories)
    file = root / "_annotations.coco.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["id"] = change(image["id"])
    for category in content["categories"]:
        category["id"] = change(category["id"])
    for one in content["annotations"]:
        one.update(id=change(one["id"]), image_id=change(one["image_id"]), category_id=change(one["category_id"]))
    file.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    "change",
    [str, float, lambda n: f"{n:012}", lambda n: f"{n}.0", lambda n: n + 2**60],
    ids=["text", "float", "padded text", "text of a float", "large"],
)
def test_ids_may_be_text_or_floats(change: Any, tmp_path: Path) -> None:
    dataset = formats.read(as_written(tmp_path, change))
    assert [instance.label for instance in only(dataset).instances] == [0, 1] and dataset.problems == ()


@pytest.mark.parametrize("image_id", ["1", 1.0, " 1 "])
def test_annotations_may_write_an_id_in_another_way_than_its_image(image_id: object, tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(image_id=image_id, category_id=str(1))))
    assert len(only(dataset).instances) == 1 and dataset.problems == ()


def test_an_id_as_text_and_as_a_number_is_one_id(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}]
    refused(coco(tmp_path, annotation(), images=images), "images[1]", "same id 1")


@pytest.mark.parametrize("sides", [("64", "48"), (64.0, 48.0), (0, 0), (None, 48), ("", "0")])
def test_sizes_may_be_text_or_say_nothing(sides: tuple[object, object], tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png", "width": sides[0], "height": sides[1]}]
    dataset = formats.read(coco(tmp_path, annotation(), images=images))
    assert only(dataset).size == (HEIGHT, WIDTH) and dataset.problems == ()


def test_sizes_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png", "width": "wide", "height": 48}]
    refused(coco(tmp_path, annotation(), images=images), "image 1", "'wide'")


SQUARE = [16, 12, 48, 12, 48, 36, 16, 36]
PAIRS = [SQUARE[k : k + 2] for k in range(0, 8, 2)]


@pytest.mark.parametrize("outline", [SQUARE, PAIRS, [PAIRS], json.dumps([SQUARE]), [[float(v) for v in SQUARE]]])
def test_outlines_are_read_however_they_are_nested(outline: object, tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(segmentation=outline, bbox=[0, 0, 1, 1])))
    (instance,) = only(dataset).instances
    assert instance.polygons[0].ravel().tolist() == SQUARE and dataset.problems == ()


def test_two_outlines_of_pairs_are_two_parts(tmp_path: Path) -> None:
    shifted = [[x - 10, y - 10] for x, y in PAIRS]
    (instance,) = only(formats.read(coco(tmp_path, annotation(segmentation=[PAIRS, shifted])))).instances
    assert [part.shape for part in instance.polygons] == [(4, 2), (4, 2)]


def as_list(mask: np.ndarray) -> list[float]:
    return [float(run) for run in uncompressed(mask)]


@pytest.mark.parametrize(
    "write",
    [
        lambda mask: {"size": [HEIGHT, WIDTH], "counts": as_list(mask)},
        lambda mask: {"size": [str(HEIGHT), float(WIDTH)], "counts": [str(run) for run in uncompressed(mask)]},
        lambda mask: {"size": [HEIGHT, WIDTH], "counts": str(runs_of(mask).encode())},
        lambda mask: [{"size": [HEIGHT, WIDTH], "counts": runs_of(mask)}],
        lambda mask: [{"size": [HEIGHT, WIDTH], "counts": uncompressed(half)} for half in (mask * LEFT, mask * (1 - LEFT))],
        lambda mask: json.dumps({"size": [HEIGHT, WIDTH], "counts": runs_of(mask)}),
    ],
    ids=["floats", "text", "bytes", "list", "two", "json"],
)  # fmt: skip
def test_run_lengths_are_read_however_they_are_written(write: Any, tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(segmentation=write(stamp()))))
    assert (binary(foreground(only(dataset))) == stamp().astype(bool)).all() and dataset.problems == ()


LEFT = (np.arange(WIDTH) < 30).astype(np.uint8)[None]


def test_a_size_turned_around_is_named(tmp_path: Path) -> None:
    outline = {"size": [WIDTH, HEIGHT], "counts": uncompressed(stamp())}
    dataset = formats.read(coco(tmp_path, annotation(segmentation=outline), annotation(id=2)))
    assert "annotation 1" in problem(dataset) and "exchanged" in problem(dataset)


def test_an_image_under_two_ids_is_refused_when_each_has_labels(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.png"}, {"id": 99, "file_name": "./a.png"}]
    refused(coco(tmp_path, annotation(), annotation(id=2, image_id=99), images=images), "a.png", "1, 99", "labels")
    dataset = formats.read(coco(tmp_path, annotation(image_id=99), images=images))
    assert len(only(dataset).instances) == 1 and "1, 99" in problem(dataset)


@pytest.mark.parametrize("name", [None, "", "  "])
def test_a_category_without_a_name_is_refused(name: object, tmp_path: Path) -> None:
    refused(coco(tmp_path, annotation(), categories=[{"id": 1, "name": name}]), "category 1", "no name")


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    categories = [{"id": k, "name": name} for k, name in ((1, "crack"), (2, "stain"), (5, " crack"))]
    root = coco(
        tmp_path, annotation(), annotation(id=2, category_id=5), annotation(id=3, category_id=2), categories=categories
    )
    dataset = formats.read(root)
    assert dataset.classes == ("crack", "stain")
    assert [instance.label for instance in only(dataset).instances] == [0, 0, 1]
    assert any("categories 1, 5" in note for note in dataset.notes)


def test_boxes_of_corners_are_refused(tmp_path: Path) -> None:
    corners = [[30, 20, 60, 40], [20, 5, 50, 44], [2, 2, 9, 9]]
    root = coco(tmp_path, *(annotation(id=k, segmentation=[], bbox=box) for k, box in enumerate(corners)))
    refused(root, "annotations 0, 1", "x1, y1, x2, y2")
    mixed = [*corners, [40, 30, 10, 10]]
    root = coco(tmp_path, *(annotation(id=k, segmentation=[], bbox=box) for k, box in enumerate(mixed)))
    assert [problem.kind for problem in formats.read(root).problems] == ["outside", "outside"]


@pytest.mark.parametrize("value", ["0", 0, "false", False, None, 0.0])
def test_a_crowd_may_be_denied_in_words(value: object, tmp_path: Path) -> None:
    assert not only(formats.read(coco(tmp_path, annotation(iscrowd=value)))).instances[0].crowd


def test_crowds_alone_are_named(tmp_path: Path) -> None:
    dataset = formats.read(coco(tmp_path, annotation(iscrowd=1)))
    assert any("every object (1) is marked as a crowd" in note for note in dataset.notes)
    findings = {finding.code: finding.severity for finding in examine(dataset, look_alike=False).checkup.findings}
    assert findings["crowds-only"] == "error"
