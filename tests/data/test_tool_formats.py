"""Pascal VOC, CVAT and LabelMe: their shapes, their quirks, and their malformed twins."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segdet.data import formats
from segdet.data.catalog.splits import for_task
from segdet.data.convert import convert
from segdet.data.geometry.boxes import boxes_of
from segdet.data.geometry.rasterize import IGNORE, binary, class_index, foreground
from tests.data.helpers import HEIGHT, WIDTH, blank, only, problem, refused
from tests.layouts import save_mask

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;">]>'
    "<annotation><object><name>&y;</name></object></annotation>"
)
STAMP = np.zeros((HEIGHT, WIDTH), np.uint8)
STAMP[5:20, 8:40] = 1


def box(name: str = "crack", corners: tuple[Any, ...] = (17, 13, 48, 36), extra: str = "") -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{inner}</bndbox></object>"


def voc(root: Path, *objects: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    blank(root / "JPEGImages" / "a.png")
    return _annotation(root / "Annotations" / "a.xml", objects, size) and root


def _annotation(file: Path, objects: tuple[str, ...], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    told = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    file.write_text(f"<annotation><filename>other.jpg</filename>{told}{''.join(objects)}</annotation>")
    return file


def cvat(root: Path, *shapes: str, name: str = "a.png", attributes: str = f'width="{WIDTH}" height="{HEIGHT}"') -> Path:
    blank(root / "images" / "a.png")
    meta = (
        "<meta><task><labels><label><name>stain</name></label><label><name>crack</name></label></labels></task></meta>"
    )
    image = f'<image id="0" name="{name}" {attributes}>{"".join(shapes)}</image>'
    (root / "annotations.xml").write_text(f"<annotations>{meta}{image}</annotations>")
    return root


def labelme(root: Path, *shapes: dict[str, Any], **changes: Any) -> Path:
    blank(root / "a.png")
    content = {"shapes": list(shapes), "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, **changes}
    (root / "a.json").write_text(json.dumps(content))
    return root


def shape(points: Any, kind: str = "polygon", label: str = "crack", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]


# Pascal VOC


def test_voc_boxes_are_counted_from_pixel_one(tmp_path: Path) -> None:
    record = only(formats.read(voc(tmp_path, box(), box(corners=(1, 1, WIDTH, HEIGHT)))))
    assert [i.box for i in record.instances] == [(16, 12, 48, 36), (0, 0, WIDTH, HEIGHT)]


def test_voc_classes_are_sorted_and_difficult_objects_are_crowds(tmp_path: Path) -> None:
    dataset = formats.read(voc(tmp_path, box("stain"), box("crack", extra="<difficult>1</difficult>")))
    assert dataset.classes == ("crack", "stain")
    assert [(i.label, i.crowd) for i in only(dataset).instances] == [(1, False), (0, True)]


def test_voc_lists_divide_the_images_and_what_they_name_in_vain_is_reported(tmp_path: Path) -> None:
    voc(tmp_path, box())
    for name in "bc":
        blank(tmp_path / "JPEGImages" / f"{name}.jpg")
        _annotation(tmp_path / "Annotations" / f"{name}.xml", (box(),))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a 1\nb -1\r\n")
    (lists / "val.txt").write_text("c\ngone\n")
    (lists / "crack_train.txt").write_text("b -1\n")
    dataset = formats.read(tmp_path)
    assert {s: [r.image.stem for r in rs] for s, rs in dataset.splits.items()} == {"train": ["a", "b"], "val": ["c"]}
    assert "gone" in problem(dataset)


@pytest.mark.parametrize("row", ['"sub/a b"', '"a b"', "a b", "a b -1", "a b.jpg", "sub\\\\a b 1", '"a b" 1'])
def test_voc_lists_may_name_images_with_spaces(row: str, tmp_path: Path) -> None:
    for name in ("a b", "a", "v 1"):
        blank(tmp_path / "JPEGImages" / f"{name}.jpg")
        _annotation(tmp_path / "Annotations" / f"{name}.xml", (box(),))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text(f"{row}\na 1\nv 1\n")
    dataset = formats.read(tmp_path)
    assert {record.image.stem for record in dataset.splits["val"]} == {"a", "a b", "v 1"} and dataset.problems == ()


def test_voc_xml_beside_the_images_in_split_folders(tmp_path: Path) -> None:
    outline = "<polygon><x1>10</x1><y1>10</y1><x2>30</x2><y2>10</y2><x3>30</x3><y3>30</y3></polygon>"
    for split in ("train", "valid"):
        blank(tmp_path / split / "a.jpg")
        _annotation(tmp_path / split / "a.xml", (box(extra=outline), box()))
    dataset = formats.read(tmp_path)
    assert dataset.format == "Pascal VOC" and list(dataset.splits) == ["train", "val"]
    first, second = dataset.splits["val"][0].instances
    assert first.polygons[0].tolist() == [[10, 10], [30, 10], [30, 30]] and second.polygons == ()


def test_voc_masks_are_indices_and_objects_are_numbered(tmp_path: Path) -> None:
    index = STAMP.copy()
    index[30:40, 30:40], index[29, 29:41] = 15, 255
    numbers = np.where(index == 255, 255, 0)
    numbers[5:20, 8:20], numbers[5:20, 20:40], numbers[30:40, 30:40] = 1, 2, 3
    voc(tmp_path, box("aeroplane"), box("person"))
    save_mask(tmp_path / "SegmentationClass" / "a.png", index, palette=True)
    merged = formats.read(tmp_path)
    assert len(merged.classes) == 20 and merged.classes[0] == "aeroplane" and merged.classes[14] == "person"
    assert (class_index(only(merged)) == index).all() and (index == IGNORE).any()
    assert boxes_of(only(merged))[0].tolist() == [[16, 12, 48, 36]] * 2  # the file's own, beside masks of whole classes
    save_mask(tmp_path / "SegmentationObject" / "a.png", numbers)
    apart = formats.read(tmp_path)
    assert (class_index(only(apart)) == index).all()
    found, labels, _ = boxes_of(only(apart))
    assert sorted(found.tolist()) == [[8, 5, 20, 20], [20, 5, 40, 20], [30, 30, 40, 40]] and sorted(
        labels.tolist()
    ) == [0, 0, 14]


def test_voc_images_without_a_mask_are_left_out_where_others_have_one(tmp_path: Path) -> None:
    voc(tmp_path, box())
    save_mask(tmp_path / "SegmentationClass" / "a.png", STAMP)
    blank(tmp_path / "JPEGImages" / "b.png")
    dataset = formats.read(tmp_path)
    assert only(dataset).image.stem == "a" and "b.png" in problem(dataset)


def test_voc_serves_segmentation_and_detection_each_with_its_own_images(tmp_path: Path) -> None:
    """As in VOC 2012: every image has boxes, a quarter has masks, and each task has its lists."""
    for name in "abcde":
        blank(tmp_path / "JPEGImages" / f"{name}.jpg")
        _annotation(tmp_path / "Annotations" / f"{name}.xml", (box("aeroplane"),))
    for name in "ad":
        save_mask(tmp_path / "SegmentationClass" / f"{name}.png", STAMP, palette=True)
        save_mask(tmp_path / "SegmentationObject" / f"{name}.png", STAMP, palette=True)
    for kind, train, val in (("Segmentation", "a", "d"), ("Main", "ab", "cd")):
        (tmp_path / "ImageSets" / kind).mkdir(parents=True)
        (tmp_path / "ImageSets" / kind / "train.txt").write_text("\n".join(train))
        (tmp_path / "ImageSets" / kind / "val.txt").write_text("\n".join(val))
    dataset = formats.read(tmp_path)
    assert dataset.problems == () and len(dataset.classes) == 20  # e is in no list

    def images(task: str) -> dict[str, list[str]]:
        return {s: [r.image.stem for r in records] for s, records in for_task(dataset, task).splits.items()}

    assert images("segmentation") == {"train": ["a"], "val": ["d"]}
    assert images("detection") == {"train": ["a", "b"], "val": ["c", "d"]}
    assert "2 images whose objects have boxes only" in str(for_task(dataset, "segmentation").problems[-1])
    assert all(len(boxes_of(r)[0]) == 1 for records in dataset.splits.values() for r in records)
    convert(dataset, tmp_path.parent / "again", "voc")
    again = formats.read(tmp_path.parent / "again")
    assert {s: [len(r.instances) for r in rs] for s, rs in again.splits.items()} == {"train": [1, 1], "val": [1, 1]}
    assert [r.outlined for r in again.splits["train"]] == [True, False]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "DTD"), ('<!DOCTYPE annotation SYSTEM "file:///etc/passwd"><annotation/>', "DTD"), (BOMB.replace("utf", "x"), "DTD"),
        ("<annotation>", "not readable XML"), ("", "not readable XML"), ("<html/>", "<html>"), ("\0", "not readable XML"),
    ],
)  # fmt: skip
def test_voc_files_that_cannot_be_read_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    refused(tmp_path, str(tmp_path / "Annotations" / "a.xml"), reason)


def test_a_document_type_in_utf_16_is_refused_too(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "Annotations" / "a.xml").write_bytes(BOMB.replace("?>", ' encoding="utf-16"?>').encode("utf-16"))
    refused(tmp_path, "DTD")


@pytest.mark.parametrize(
    "bad",
    [
        box("", (17, 13, 48, 36)), box(corners=(17, 13, "x", 36)), box(corners=(17, 13, "nan", 36)), box(corners=(48, 13, 17, 36)),
        box(corners=(17, 13, 1e9, 36)), "<object><name>crack</name></object>",
    ],
)  # fmt: skip
def test_a_senseless_voc_object_is_reported_and_the_rest_kept(bad: str, tmp_path: Path) -> None:
    dataset = formats.read(voc(tmp_path, bad, box()))
    assert len(only(dataset).instances) == 1
    assert "a.xml" in problem(dataset) and "object 1" in problem(dataset)


def test_a_voc_file_for_another_size_is_reported_but_zero_means_nothing(tmp_path: Path) -> None:
    assert len(only(formats.read(voc(tmp_path / "zero", box(), size=(0, 0)))).instances) == 1
    refused(voc(tmp_path / "other", box(), size=(640, 480)), "640x480", f"{WIDTH}x{HEIGHT}")


# CVAT


def test_cvat_shapes(tmp_path: Path) -> None:
    polygon = '<polygon label="crack" points="10.00,10.00;30.00,10.00;30.00,30.00" occluded="0"/>'
    turned = '<box label="crack" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90.0"/>'
    mask = '<mask label="stain" rle="1, 3, 4, 2" left="5" top="6" width="5" height="2"/>'
    ellipse = '<ellipse label="crack" cx="32" cy="24" rx="10" ry="5"/>'
    dataset = formats.read(
        cvat(tmp_path, polygon, '<box label="stain" xtl="1" ytl="2" xbr="9" ybr="8"/>', turned, mask, ellipse)
    )
    assert dataset.classes == ("stain", "crack") and dataset.problems == ()
    one, two, three, four, five = only(dataset).instances
    assert one.polygons[0].tolist() == [[10, 10], [30, 10], [30, 30]] and one.label == 1
    assert two.box == (1, 2, 9, 8) and two.polygons == () and two.label == 0
    assert np.allclose(three.box, (25, 5, 35, 25))
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[6, 6:9] = True
    drawn[7, 8:10] = True
    record = only(formats.read(cvat(tmp_path, mask)))
    assert (binary(foreground(record)) == drawn).all() and four.box == (6, 6, 10, 8)
    assert np.allclose(five.box, (22, 19, 42, 29), atol=0.1)
    area = binary(foreground(only(formats.read(cvat(tmp_path, ellipse))))).sum()
    assert area == pytest.approx(np.pi * 50, rel=0.05)


def test_cvat_shapes_that_enclose_nothing_are_counted(tmp_path: Path) -> None:
    line = '<polyline label="crack" points="1,1;9,9"/>'
    dataset = formats.read(cvat(tmp_path, line, line, '<points label="crack" points="1,1"/>', '<tag label="x"/>'))
    assert only(dataset).instances == () and dataset.classes == ("stain", "crack")
    assert "1 points, 2 polyline, 1 tag" in problem(dataset)


@pytest.mark.parametrize(
    ("name", "attributes", "split"),
    [
        ("a.png", "", "train"), ("a.png", 'subset="Validation"', "val"), ("test/a.png", "", "test"),
        ("C:\\photos\\a.png", "", "train"), ("/home/me/val/a.png", 'subset="default"', "val"), ("../../a.png", "", "train"),
    ],
)  # fmt: skip
def test_cvat_images_are_found_by_their_last_part(name: str, attributes: str, split: str, tmp_path: Path) -> None:
    dataset = formats.read(cvat(tmp_path, name=name, attributes=attributes))
    assert list(dataset.splits) == [split] and dataset.splits[split][0].image == tmp_path / "images" / "a.png"


@pytest.mark.parametrize(
    "bad",
    [
        '<polygon label="crack" points="1,1;2"/>', '<polygon label="crack" points="a,b;c,d;e,f"/>', '<polygon label="crack"/>',
        '<polygon label="crack" points="1,1;nan,2;3,9"/>', '<polygon label="crack" points="1,1;900,2;3,9"/>',
        '<polygon points="1,1;9,1;9,9"/>',
        '<ellipse label="crack" cx="x" cy="1" rx="2" ry="2"/>', '<box label="crack" xtl="5" ytl="5" xbr="1" ybr="9"/>',
        '<box label="crack"/>',
        '<box label="crack" xtl="5" ytl="5" xbr="9" ybr="9" rotation="x"/>', '<sphere label="crack"/>',
        '<mask label="crack" rle="1,2" left="0" top="0" width="2" height="1"/>',
        '<mask label="crack" rle="0,9999999999" left="0" top="0" width="2" height="1"/>',
        '<mask label="crack" rle="-1,2" left="0" top="0" width="2" height="1"/>',
        '<mask label="crack" rle="2" left="0" top="0" width="2" height="1"/>',
        '<mask label="crack" rle="0,2" left="63" top="0" width="2" height="1"/>',
        '<mask label="crack" rle="x" left="0" top="0" width="2" height="1"/>',
        '<mask label="crack" rle="0,2" left="0" top="0" width="1e12" height="1e12"/>', '<mask label="crack" rle="0,2"/>',
    ],
)  # fmt: skip
def test_a_senseless_cvat_shape_is_reported_and_the_rest_kept(bad: str, tmp_path: Path) -> None:
    dataset = formats.read(cvat(tmp_path, '<box label="crack" xtl="1" ytl="2" xbr="9" ybr="8"/>', bad))
    assert len(only(dataset).instances) == 1
    assert "annotations.xml" in problem(dataset) and "shape 2" in problem(dataset)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotations><image", "not readable XML"), ("<annotations/>", "no image"),
        ("<annotations><track id='0'/></annotations>", "CVAT for images"), (BOMB.replace("annotation>", "annotations>"), "DTD"),
    ],
)  # fmt: skip
def test_cvat_files_that_cannot_be_read_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    cvat(tmp_path)
    (tmp_path / "annotations.xml").write_text(text)
    refused(tmp_path, str(tmp_path / "annotations.xml"), reason)


def test_a_cvat_image_that_is_missing_or_of_another_size_is_reported(tmp_path: Path) -> None:
    refused(cvat(tmp_path / "a", name="gone.png"), "annotations.xml", "gone.png")
    refused(cvat(tmp_path / "b", attributes='width="640" height="480"'), "640x480")


# LabelMe


def png_base64(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme_shapes(tmp_path: Path) -> None:
    stamp = np.array([[1, 0], [1, 1]])
    dataset = formats.read(
        labelme(
            tmp_path, shape(SQUARE), shape([[40, 5], [30, 2]], "rectangle", "stain"), shape([[32, 24], [42, 24]], "circle"),
            shape([[50, 40], [51, 41]], "mask", mask=png_base64(stamp)), imageData="x" * 100,
        )
    )  # fmt: skip
    assert dataset.classes == ("crack", "stain") and dataset.problems == ()
    one, two, three, four = only(dataset).instances
    assert one.polygons[0].tolist() == SQUARE and two.box == (30, 2, 40, 5) and two.polygons == () and two.label == 1
    assert np.allclose(three.box, (22, 14, 42, 34), atol=0.1) and four.box == (50, 40, 52, 42)
    only_mask = only(formats.read(labelme(tmp_path, shape([[50, 40], [51, 41]], "mask", mask=png_base64(stamp)))))
    assert binary(foreground(only_mask))[40:42, 50:52].tolist() == [[True, False], [True, True]]


def test_labelme_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    other = [[40, 40], [50, 40], [50, 45]]
    dataset = formats.read(
        labelme(tmp_path, shape(SQUARE, group_id=1), shape(other, group_id=1), shape(other, label="stain", group_id=1))
    )
    one, two = only(dataset).instances
    assert len(one.polygons) == 2 and one.box == (10, 10, 50, 45) and two.label == 1


def test_labelme_ignore_and_label_order(tmp_path: Path) -> None:
    labelme(
        tmp_path,
        shape(SQUARE, label="__ignore__"),
        shape([[40, 40], [50, 40], [50, 45]]),
        shape([[1, 1], [2, 2]], "line"),
    )
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nstain\ncrack\n")
    dataset = formats.read(tmp_path)
    assert dataset.classes == ("stain", "crack") and "1 line" in problem(dataset)
    index = class_index(only(dataset))
    assert (index[10:30, 10:30] == IGNORE).all() and (index == 2).any()


@pytest.mark.parametrize("points", [[[10, 10], [30, 30]], SQUARE])
def test_labelme_ignores_a_rectangle_as_it_does_a_polygon(points: list[list[int]], tmp_path: Path) -> None:
    crack = shape([[40, 40], [50, 40], [50, 45]])
    boxed = formats.read(labelme(tmp_path / "a", shape(points, "rectangle", "__ignore__"), crack))
    outlined = formats.read(labelme(tmp_path / "b", shape(SQUARE, label="__ignore__"), crack))
    assert (class_index(only(boxed)) == class_index(only(outlined))).all()
    assert (class_index(only(boxed)) == IGNORE).sum() == 400 and boxed.problems == ()


@pytest.mark.parametrize(
    "told",
    [
        "a.png",
        "..\\photos\\a.png",
        "C:\\me\\a.png",
        "/home/me/a.png",
        "gone.jpg",
        "",
        None,
        7,
        "../../etc/passwd",
        "x" * 300,
        "a\0b",
    ],
)
def test_labelme_images_are_found_beside_the_file(told: Any, tmp_path: Path) -> None:
    assert only(formats.read(labelme(tmp_path, shape(SQUARE), imagePath=told))).image == tmp_path / "a.png"


def test_labelme_files_in_a_folder_of_their_own(tmp_path: Path) -> None:
    labelme(tmp_path / "labels" / "val", shape(SQUARE))
    (tmp_path / "images").mkdir()
    (tmp_path / "labels" / "val" / "a.png").rename(tmp_path / "images" / "a.png")
    dataset = formats.read(tmp_path)
    assert list(dataset.splits) == ["val"] and dataset.splits["val"][0].image == tmp_path / "images" / "a.png"


@pytest.mark.parametrize(
    "bad",
    [
        shape([[1, 1], [5, 5]]), shape([[1, 1], [5, "x"], [5, 9]]), shape([1, 2, 3]), shape(None), shape([]),
        shape([[1, 1], [1e9, 1], [5, 5]]),
        shape([[1, 1], [10**400, 1], [5, 5]]), shape([[1, 1], [float("nan"), 1], [5, 5]]), shape(SQUARE[:1], "circle"),
        shape(SQUARE[:3], "rectangle"), shape([[5, 5], [5, 5]], "rectangle"), shape(SQUARE, "blob"),
        shape([[float("nan"), 1], [1, 1]], "circle"),
        shape([[1, 1]], "mask"), shape([[1, 1]], "mask", mask="not base64!"), shape([[1, 1]], "mask", mask="aGVsbG8="),
        shape([[63, 1]], "mask", mask=png_base64(np.ones((2, 2)))), shape([[1, 1]], "mask", mask=png_base64(np.ones((99, 99)))),
        shape([[1, 1]], "mask", mask=png_base64(np.zeros((2, 2)))),
    ],
    ids=lambda bad: str(bad)[:50],
)  # fmt: skip
def test_a_senseless_labelme_shape_is_reported_and_the_rest_kept(bad: dict[str, Any], tmp_path: Path) -> None:
    dataset = formats.read(labelme(tmp_path, shape(SQUARE), bad))
    assert len(only(dataset).instances) == 1
    assert "a.json" in problem(dataset) and "shapes[1]" in problem(dataset)


@pytest.mark.parametrize("bad", [{"shapes": [7]}, {"shapes": [{}]}, {"shapes": [{"label": 7}]}])
def test_labelme_shapes_that_are_none_are_refused(bad: dict[str, Any], tmp_path: Path) -> None:
    refused(labelme(tmp_path, **bad), str(tmp_path / "a.json"), "shapes[0]")


def test_labelme_broken_json_stray_json_and_other_sizes(tmp_path: Path) -> None:
    labelme(tmp_path, shape(SQUARE))
    (tmp_path / "settings.json").write_text("{}")
    assert "settings.json" in problem(formats.read(tmp_path))
    (tmp_path / "settings.json").write_text("{")
    refused(tmp_path, str(tmp_path / "settings.json"), "not valid JSON")
    refused(labelme(tmp_path / "b", shape(SQUARE), imageHeight=7), "64x7")


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation", "quadrilateral"])
def test_four_corners_are_outlines_whatever_the_tool_calls_them(kind: str, tmp_path: Path) -> None:
    corners = [[10, 12], [30, 10], [32, 28], [9, 30]]
    dataset = formats.read(labelme(tmp_path, shape(corners, kind), shape(corners[:3], kind)))
    (instance,) = only(dataset).instances
    assert instance.polygons[0].tolist() == corners
    assert "shapes[1]" in problem(dataset) and kind in problem(dataset)


def test_labelme_in_a_local_encoding_is_refused_with_the_way_out(tmp_path: Path) -> None:
    root = labelme(tmp_path, shape(SQUARE, label="裂缝"))
    text = json.dumps(json.loads((root / "a.json").read_text()), ensure_ascii=False)
    (root / "a.json").write_bytes(text.encode("gbk"))
    refused(root, "a.json", "UTF-8", "GBK")


@pytest.mark.parametrize("sides", [(str(WIDTH), str(HEIGHT)), (float(WIDTH), float(HEIGHT)), (0, 0), (None, None)])
def test_labelme_sizes_may_be_text_or_say_nothing(sides: tuple[object, object], tmp_path: Path) -> None:
    root = labelme(tmp_path, shape(SQUARE), imageWidth=sides[0], imageHeight=sides[1])
    dataset = formats.read(root)
    assert len(only(dataset).instances) == 1 and dataset.problems == ()


def test_blank_labelme_labels_are_refused(tmp_path: Path) -> None:
    refused(labelme(tmp_path, shape(SQUARE, label="  ")), "shapes[0]", "label")
