"""Pascal VOC: JPEGImages, Annotations (boxes), SegmentationClass, SegmentationObject, ImageSets and labelmap.txt."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from segdet.data.catalog.splits import outlined
from segdet.data.formats.class_list import voc_colour
from segdet.data.geometry.rasterize import IGNORE
from segdet.data.records import Dataset, Record
from segdet.data.writers.base import Losses, Names, Writer, count_unsaid, label_image, whole
from segdet.data.writers.png_mask import MOST_CLASSES
from segdet.errors import InputError

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 has no way to write these
_PALETTE = [channel for value in range(256) for channel in voc_colour(value)]


def _write(dataset: Dataset, root: Path, names: Names, losses: Losses, advance: Callable[[], None]) -> None:
    if len(dataset.classes) > MOST_CLASSES:
        raise InputError(f"{dataset.root}: {len(dataset.classes)} classes; a mask image has numbers for {MOST_CLASSES}")
    odd = next((name for name in dataset.classes if _unwritable(name)), None)
    if odd is not None:
        raise InputError(f"{dataset.root}: VOC cannot hold the class name {odd!r}; rename it")
    losses.add(
        "classes of the same name that become one in the XML files", len(dataset.classes) - len(set(dataset.classes))
    )
    records = [record for some in dataset.splits.values() for record in some]
    masked = any(record.outlined for record in records)
    folders = ["Annotations", "ImageSets/Main"]
    if masked:
        folders += ["SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"]
    for folder in folders:
        (root / folder).mkdir(parents=True)
    colours = (",".join(map(str, voc_colour(value))) for value in range(256))
    rows = [f"{name}:{colour}::" for name, colour in zip(("background", *dataset.classes), colours, strict=False)]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for split, some in dataset.splits.items():
        for kind, listed in (("Main", some), ("Segmentation", outlined(some))) if masked else (("Main", some),):
            stems = "".join(f"{Path(names[record.image]).stem}\n" for record in listed)
            (root / "ImageSets" / kind / f"{split}.txt").write_text(stems, encoding="utf-8", errors="surrogateescape")
    for record in records:
        stem = Path(names[record.image]).stem
        _annotate(record, names[record.image], dataset.classes, root / "Annotations" / f"{stem}.xml", masked, losses)
        if masked and (record.outlined or not record.instances):
            _masks(record, dataset.classes, root, stem, losses)
        advance()


def _unwritable(name: str) -> bool:
    return not name or ":" in name or name != " ".join(name.split()) or bool(_NOT_XML.search(name))


def _annotate(record: Record, name: str, classes: tuple[str, ...], file: Path, masked: bool, losses: Losses) -> None:
    """One XML file; boxes are widened to whole pixels and counted from 1, as VOC does."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = _NOT_XML.sub(lambda odd: f"\\u{ord(odd[0]):04x}", name)
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", record.width), ("height", record.height), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    ElementTree.SubElement(root, "segmented").text = str(int(masked))
    for instance in record.instances:
        if instance.merged:
            continue
        x1, y1, x2, y2 = instance.box
        whole_box = (math.floor(x1) + 1, math.floor(y1) + 1, math.ceil(x2), math.ceil(y2))
        losses.add(
            "boxes widened to whole pixels",
            int((whole_box[0] - 1, whole_box[1] - 1, *whole_box[2:]) != (x1, y1, x2, y2)),
        )
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = classes[instance.label]
        ElementTree.SubElement(element, "difficult").text = str(int(instance.crowd))
        corners = ElementTree.SubElement(element, "bndbox")
        for key, number in zip(("xmin", "ymin", "xmax", "ymax"), whole_box, strict=True):
            ElementTree.SubElement(corners, key).text = str(number)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding="utf-8")


def _masks(record: Record, classes: tuple[str, ...], root: Path, stem: str, losses: Losses) -> None:
    own = Losses()
    index = label_image(record, len(classes))
    count_unsaid(record, len(classes), own)
    if record.outlined:
        own.counts["boxes beside outlined objects: in the XML file, but not read again"] = own.counts.pop(
            "boxes without an outline left out", 0
        )
    else:
        own.counts.pop("boxes without an outline left out", None)
    if not any(instance.merged for instance in record.instances):
        numbers = _numbered(record, index, losses)
        if numbers is not None:
            own.counts.pop("objects that share a class and an image, that become one", None)
            (root / "SegmentationObject" / f"{stem}.png").write_bytes(_png(numbers))
    for what, count in own.counts.items():
        losses.add(what, count)
    (root / "SegmentationClass" / f"{stem}.png").write_bytes(_png(index))


def _numbered(record: Record, index: np.ndarray, losses: Losses) -> np.ndarray | None:
    """Object k of the XML file as value k: uint8 `[H, W]`; None when there are too many. The smaller one lies on top."""
    if len(record.instances) > MOST_CLASSES:
        return None
    numbers = np.zeros(record.size, np.uint8)
    order = sorted(enumerate(record.instances, 1), key=lambda pair: -_area(pair[1].box))
    for number, instance in order:
        if instance.outlined:
            inside = whole(instance, record)
            same = inside & (numbers > 0)
            losses.add("pixels of several objects at once: the smaller one has them", int(same.sum()))
            numbers[inside] = number
    # Two outlines may each cover less than half of a pixel that they share, and together more.
    between = (index > 0) & (numbers == 0)
    numbers[between] = cv2.dilate(numbers, np.ones((3, 3), np.uint8))[between]
    numbers[index == IGNORE] = IGNORE
    return numbers


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _png(index: np.ndarray) -> bytes:
    picture = Image.fromarray(index)
    picture.putpalette(_PALETTE)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


WRITER = Writer("voc", lambda split: "JPEGImages", _write)
