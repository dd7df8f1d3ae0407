"""Pascal VOC: Annotations/*.xml with boxes, SegmentationClass/*.png with masks, ImageSets lists; also XML beside images.

Boxes are counted from pixel 1, both ends included, as VOC does. A `difficult` object counts neither for nor against.
Where SegmentationObject numbers the objects, they are kept apart; else a mask holds all of a class at once. VOC itself has
masks for a quarter of its images: those stand as ImageSets/Segmentation divides them, the others with the boxes of their
XML files as ImageSets/Main does (`splits.for_task` leaves them out of segmentation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from segdet.data import masks
from segdet.data.formats import class_list
from segdet.data.formats.base import (
    SPLIT_FOLDERS,
    Adapter,
    Malformed,
    header_size,
    images_under,
    in_order,
    noting,
    read_text,
    split_of,
)
from segdet.data.formats.mask_records import read_pairs
from segdet.data.formats.xml_files import number, parse, root_tag
from segdet.data.images import ImageError, read_label_image
from segdet.data.records import (
    Box,
    Dataset,
    Fault,
    Instance,
    Problem,
    Record,
    box_of,
    clean_box,
    clean_polygon,
    photograph_of,
)

_ASKED = 50  # XML files looked at to recognise the layout, should the first ones be damaged


class _Object(NamedTuple):
    """An object as its XML file tells of it, not yet judged; `outline` float64 `[P, 2]` is Roboflow's."""

    name: str
    difficult: bool
    box: Box | None
    outline: np.ndarray | None


@dataclass(frozen=True)
class _Notation:
    """An XML file: the size (width, height) it was made for, 0 or NaN where it does not say, and its objects."""

    file: Path
    size: tuple[float, float]
    objects: tuple[_Object, ...]


class _Wanted(NamedTuple):
    """An image that takes part: its split, its file, and what its XML file says, where it has one."""

    split: str
    image: Path
    notation: _Notation | None


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    if (path / "JPEGImages").is_dir() and any((path / n).is_dir() for n in ("Annotations", "SegmentationClass")):
        parts = [n for n in ("Annotations", "SegmentationClass", "SegmentationObject") if (path / n).is_dir()]
        return f"JPEGImages with {', '.join(parts)}"
    file = next((file for file in _beside(path)[:_ASKED] if root_tag(file) == "annotation"), None)
    return f"{file.relative_to(path)}, a VOC annotation beside its image" if file else None


def _beside(root: Path) -> list[Path]:
    """XML files that lie with their images, in the root or in split folders."""
    folders = [root, *(root / name for names in SPLIT_FOLDERS.values() for name in names)]
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.xml"))]


def _read(path: Path, name: str, evidence: str) -> Dataset:
    problems: list[Problem] = []
    notes = [evidence]
    if (path / "JPEGImages").is_dir():
        classes, splits = _read_voc(path, problems, notes)
    else:
        wanted = _wanted_beside(path, problems)
        classes = _named(wanted, None)
        splits = _boxed(wanted, classes, problems)
    return Dataset(name, path, "Pascal VOC", classes, in_order(splits), tuple(problems), None, tuple(notes))


def _wanted_beside(root: Path, problems: list[Problem]) -> list[_Wanted]:
    files = _beside(root)
    images = {folder: {i.stem: i for i in images_under(folder)} for folder in {file.parent for file in files}}
    wanted = []
    for file in files:
        image = images[file.parent].get(file.stem)
        if image is None:
            problems.append(Problem(file, "no image of that name beside it", "orphan"))
        with noting(problems, image):
            notation = _notation(file)
            if image is not None:
                wanted.append(_Wanted(split_of(file, root), image, notation))
    return wanted


def _read_voc(root: Path, problems: list[Problem], notes: list[str]) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    stamps = {mask.stem: mask for mask in images_under(root / "SegmentationClass")}
    wanted = _wanted(root, stamps, problems, notes)
    listed = class_list.find(root, problems)
    if not stamps:
        classes = _named(wanted, listed)
        return classes, _boxed(wanted, classes, problems)
    masked = [one for one in wanted if one.image.stem in stamps]
    others = [one for one in wanted if one.image.stem not in stamps and one.notation is not None]
    pairs: dict[str, list[tuple[Path, Path]]] = {split: [] for split in SPLIT_FOLDERS}
    for one in masked:
        pairs[one.split].append((one.image, stamps[one.image.stem]))
    meaning, records = read_pairs(pairs, listed or _standard(root, wanted), root, problems)
    notes.append(meaning.why)
    if others:
        notes.append(f"{len(masked)} images with masks, {len(others)} with boxes only")
    numbered = {mask.stem: mask for mask in images_under(root / "SegmentationObject")}
    notations = {one.image: one.notation for one in masked}
    for split, some in records.items():
        apart = [_apart(record, numbered.get(record.image.stem), problems) for record in some]
        records[split] = [_with_boxes(record, notations[record.image], meaning.classes, problems) for record in apart]
    for split, some in _boxed(others, meaning.classes, problems).items():
        records[split] += some
    return meaning.classes, records


def _wanted(root: Path, stamps: Mapping[str, Path], problems: list[Problem], notes: list[str]) -> list[_Wanted]:
    """The images that the lists name, each with its XML file: with masks and without, but not without both."""
    images = {image.stem: image for image in images_under(root / "JPEGImages")}
    files = {file.stem: file for file in sorted((root / "Annotations").glob("*.xml"))}
    lists = ("Segmentation", "Main") if stamps else ("Main", "Segmentation")
    found: list[_Wanted] = []
    placed: dict[str, str] = {}
    for kind in lists:
        listed = _listed(root / "ImageSets" / kind, images, problems)
        if not listed or (placed and not stamps):
            continue
        notes.append(f"splits from ImageSets/{kind}")
        for split, stems in listed.items():
            for stem in stems:
                placed.setdefault(stem, split)
    if not placed:
        notes.append("no ImageSets lists: all images are train")
        placed = dict.fromkeys(images, "train")
    for stem, split in placed.items():
        image = images.get(stem)
        if image is None:
            problems.append(Problem(root / "JPEGImages" / stem, "listed in ImageSets but not there", "image-missing"))
        elif stem in files:
            with noting(problems, image):
                found.append(_Wanted(split, image, _notation(files[stem])))
        elif stem in stamps:
            found.append(_Wanted(split, image, None))
        else:
            lacking = f"no {stem}.xml in Annotations" + (" and no mask in SegmentationClass" if stamps else "")
            problems.append(Problem(image, lacking, "unlabelled", image))
    return found


def _standard(root: Path, wanted: Sequence[_Wanted]) -> class_list.ClassList | None:
    """VOC's own twenty classes when the objects are among them, else the sorted names of the objects from 1 on."""
    found = {thing.name for one in wanted if one.notation is not None for thing in one.notation.objects} - {""}
    if not found:
        return None
    names = class_list.VOC_CLASSES if found <= set(class_list.VOC_CLASSES) else ("background", *sorted(found))
    return class_list.ClassList(dict(enumerate(names)), root / "Annotations", class_list.VOC_COLOURS)


def _listed(folder: Path, images: Mapping[str, Path], problems: list[Problem]) -> dict[str, list[str]]:
    """Stems by split from the lists in a folder of ImageSets."""
    found: dict[str, list[str]] = {}
    for split, names in (*SPLIT_FOLDERS.items(), ("train", ("trainval", "default"))):
        file = next((folder / f"{name}.txt" for name in names if (folder / f"{name}.txt").is_file()), None)
        if split in found or file is None:
            continue
        with noting(problems):
            rows = [
                line.split()
                for line in read_text(file, "a list has one image name a line", "surrogateescape").splitlines()
            ]
            stems = (Path(row[0].replace("\\", "/")).name for row in rows if row)
            found[split] = list(dict.fromkeys(stem if stem in images else Path(stem).stem for stem in stems))
    return found


def _named(wanted: Sequence[_Wanted], listed: class_list.ClassList | None) -> tuple[str, ...]:
    """Classes in the list's order, then the others that objects have, sorted by name."""
    given = [name for name in listed.names.values() if name.lower() not in class_list.BACKGROUND] if listed else []
    found = {thing.name for one in wanted if one.notation is not None for thing in one.notation.objects} - {""}
    return (*given, *sorted(found - set(given)))


def _boxed(wanted: Sequence[_Wanted], classes: Sequence[str], problems: list[Problem]) -> dict[str, list[Record]]:
    """Records with the objects of their XML files."""
    splits: dict[str, list[Record]] = {}
    for split, image, notation in wanted:
        size = header_size(image, problems)
        instances = None
        if size is not None and notation is not None:
            instances = _instances(notation, image, size, classes, problems)
        if size is not None and instances is not None:
            splits.setdefault(split, []).append(Record(image, size[1], size[0], instances, photograph_of(image)))
    return splits


def _notation(file: Path) -> _Notation:
    """What an XML file says.

    Raises:
        Malformed: it is not VOC's.
    """
    root = parse(file)
    if root.tag != "annotation":
        raise Malformed(file, f"the root element is <{root.tag[:40]}>, not <annotation>; not a VOC file")
    told = root.find("size")
    size = (number(told, "width"), number(told, "height")) if told is not None else (0.0, 0.0)
    return _Notation(file, size, tuple(_object(element) for element in root.findall("object")))


def _object(element: ElementTree.Element) -> _Object:
    name = " ".join((element.findtext("name") or "").split())
    difficult = (element.findtext("difficult") or "").strip() == "1"
    outline = element.find("polygon")  # x1, y1, x2, y2, ...
    points = None
    if outline is not None:
        count = len(outline.findall("*")) // 2
        pairs = [[number(outline, f"x{k}"), number(outline, f"y{k}")] for k in range(1, count + 1)]
        points = np.array(pairs, np.float64).reshape(-1, 2)
    corners = element.find("bndbox")
    if corners is None:
        return _Object(name, difficult, None, points)
    x1, y1, x2, y2 = (number(corners, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    return _Object(name, difficult, (x1 - 1, y1 - 1, x2, y2), points)


def _instances(
    notation: _Notation, image: Path, size: tuple[int, int], classes: Sequence[str], problems: list[Problem]
) -> tuple[Instance, ...] | None:
    """The objects of one XML file; None (with a problem) when it was made for an image of another size."""
    height, width = size
    told = notation.size
    if told[0] > 0 and told[1] > 0 and told != (width, height):  # some tools write 0
        what = f"labelled as {told[0]:.0f}x{told[1]:.0f}, but the image is {width}x{height}"
        problems.append(Problem(notation.file, what, "size", image))
        return None
    found = []
    for index, thing in enumerate(notation.objects, 1):
        instance, fault = _instance(thing, classes, width, height)
        if instance is not None:
            found.append(instance)
        if fault is not None:
            what = f"object {index} ({thing.name[:40]}): {fault.what}"
            problems.append(Problem(notation.file, what, fault.kind, image))
    return tuple(found)


def _instance(thing: _Object, classes: Sequence[str], width: int, height: int) -> tuple[Instance | None, Fault | None]:
    if not thing.name:
        return None, Fault("class", "it has no name")
    if thing.name not in classes:
        return None, Fault("class", "its class is not in the class list")
    label = classes.index(thing.name)
    if thing.outline is not None:
        polygon, fault = clean_polygon(thing.outline, width, height)
        if polygon is None:
            return None, fault
        return Instance(label, (polygon,), box_of([polygon]), None, thing.difficult), fault
    if thing.box is None:
        return None, Fault("shape", "it has no bndbox")
    box, fault = clean_box(thing.box, width, height)
    return (Instance(label, (), box, None, thing.difficult) if box is not None else None), fault


def _apart(record: Record, numbered: Path | None, problems: list[Problem]) -> Record:
    """The record with the classes' masks divided into the objects that SegmentationObject numbers."""
    if numbered is None:
        return record
    try:
        index = read_label_image(numbered)
    except ImageError as error:
        problems.append(Problem(numbered, str(error).removeprefix(f"{numbered}: "), "mask", record.image))
        return record
    if index.shape[:2] != record.size:
        what = f"is {index.shape[1]}x{index.shape[0]}, its image {record.width}x{record.height}"
        problems.append(Problem(numbered, what, "size", record.image))
        return record
    if index.ndim == 3:  # colours tell objects apart as well as numbers do
        index = np.unique(index.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(record.size)
    found = []
    for region in record.instances:
        assert region.rle is not None
        inside = masks.decode(region.rle)
        for value, rle in masks.regions(np.where(inside, index.astype(np.int64) + 1, 0)).items():
            if value:
                found.append(Instance(region.label, (), masks.box(rle), rle))
    return replace(record, instances=tuple(found))


def _with_boxes(record: Record, notation: _Notation | None, classes: Sequence[str], problems: list[Problem]) -> Record:
    """The boxes of the XML file too, beside masks that do not tell objects apart."""
    if notation is None or not all(instance.merged for instance in record.instances):
        return record
    extra = _instances(notation, record.image, record.size, classes, problems) or ()
    return replace(record, instances=(*record.instances, *extra))


ADAPTER = Adapter(
    "voc", "Pascal VOC (JPEGImages/, Annotations/, SegmentationClass/; or XML beside images)", _recognise, _read
)
