"""Pascal VOC: XML files with boxes, masks in SegmentationClass, lists in ImageSets, in the folders of `voc_folders`.

Boxes are counted from pixel 1, both ends included, as VOC does. A `difficult` object counts neither for nor against.
Where SegmentationObject numbers the objects, they are kept apart; else a mask holds all of a class at once. VOC itself has
masks for a quarter of its images: those stand as ImageSets/Segmentation divides them, the others with the boxes of their
XML files as ImageSets/Main does (`splits.for_task` leaves them out of segmentation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from segdet.data.formats import class_list, mask_image, matching, voc_folders, voc_lists
from segdet.data.formats.base import (
    SPLIT_FOLDERS,
    Adapter,
    Malformed,
    consume,
    header_size,
    images_under,
    in_order,
    noting,
    split_of,
)
from segdet.data.formats.mask_records import read_pairs
from segdet.data.formats.voc_folders import Folders
from segdet.data.formats.xml_files import number, parse, read_root
from segdet.data.geometry import masks
from segdet.data.images import ImageError
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
    """An image that takes part: its split, its file, what its XML file says and its mask, where it has them."""

    split: str
    image: Path
    notation: _Notation | None
    mask: Path | None


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    return ", ".join(part.evidence(path) for part in voc_folders.find(path)) or None


def _read(path: Path, name: str, evidence: str) -> Dataset:
    problems: list[Problem] = []
    notes = [evidence]
    parts = voc_folders.find(path)
    listed = class_list.find(path, problems)
    masked = next((part for part in parts if part.classes is not None and images_under(part.classes)), None)
    if masked is not None:
        classes, splits = _read_masks(path, masked, listed, problems, notes)
    else:
        wanted = [one for part in parts for one in _wanted(part._replace(classes=None), problems, notes)]
        classes = _named(wanted, listed)
        splits = _boxed(wanted, classes, problems)
    return Dataset(name, path, "Pascal VOC", classes, in_order(splits), tuple(problems), None, tuple(notes))


def _read_masks(
    root: Path,
    folders: Folders,
    listed: class_list.ClassList | None,
    problems: list[Problem],
    notes: list[str],
) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    wanted = _wanted(folders, problems, notes)
    masked = [one for one in wanted if one.mask is not None]
    others = [one for one in wanted if one.mask is None]
    pairs: dict[str, list[tuple[Path, Path]]] = {split: [] for split in SPLIT_FOLDERS}
    for one in masked:
        assert one.mask is not None
        pairs[one.split].append((one.image, one.mask))
    meaning, records = read_pairs(pairs, listed or _standard(root, wanted), root, problems)
    notes.append(meaning.why)
    if others:
        notes.append(f"{len(masked)} images with masks, {len(others)} with boxes only")
    numbered = _of_images(images_under(folders.objects), folders.objects, folders, problems) if folders.objects else {}
    notations = {one.image: one.notation for one in masked}
    for split, some in records.items():
        apart = [_apart(record, numbered.get(record.image), problems) for record in some]
        records[split] = [_with_boxes(record, notations[record.image], meaning.classes, problems) for record in apart]
    for split, some in _boxed(others, meaning.classes, problems).items():
        records[split] += some
    return meaning.classes, records


def _wanted(folders: Folders, problems: list[Problem], notes: list[str]) -> list[_Wanted]:
    """The images that take part, each with its XML file and its mask: with both or one of them, but not without."""
    pictures = folders.images.images()
    annotations = folders.annotations
    files = annotations.xml_files() if annotations is not None else []
    stamps = images_under(folders.classes) if folders.classes is not None else []
    before = len(problems)
    file_of = _of_images(files, annotations.path, folders, problems) if annotations is not None else {}
    mask_of = _of_images(stamps, folders.classes, folders, problems) if folders.classes is not None else {}
    doubtful = {problem.path for problem in problems[before:] if problem.kind == "ambiguous"}
    placed: dict[Path, str] = {}
    if folders.lists is not None:
        index = matching.Index(pictures, folders.images.path)
        placed = voc_lists.splits(folders.lists, index, bool(stamps), problems, notes)
    listed = bool(placed)
    if not listed:
        placed = {image: folders.split or split_of(image, folders.images.path) for image in pictures}
        if set(placed.values()) == {"train"} and folders.split is None and annotations != folders.images:
            notes.append("no ImageSets lists: all images are train")
    found: list[_Wanted] = []
    for image, split in placed.items():
        if image in file_of:
            with noting(problems, image):
                found.append(_Wanted(split, image, _notation(file_of[image]), mask_of.get(image)))
        elif image in mask_of:
            found.append(_Wanted(split, image, None, mask_of[image]))
        elif image not in doubtful:
            lacking = f"no {image.stem}.xml in {(annotations or folders.images).path.name}"
            lacking += f" and no mask in {folders.classes.name}" if folders.classes is not None and stamps else ""
            problems.append(Problem(image, lacking, "unlabelled", image))
    if not listed:
        for file in sorted(set(files) - set(file_of.values()) - doubtful):
            problems.append(Problem(file, f"no image of that name in {folders.images.path}", "orphan"))
    return found


def _of_images(files: Sequence[Path], top: Path, folders: Folders, problems: list[Problem]) -> dict[Path, Path]:
    """XML files or masks below `top` by image: of the same place and name. What an XML file says decides between twins."""
    pictures = folders.images.images()
    twins = Counter(image.stem.casefold() for image in pictures)
    names = {}
    for file in files:
        said: tuple[str, ...] = ()
        if twins[file.stem.casefold()] > 1 and file.suffix.lower() == ".xml":
            with suppress(Malformed):  # reported by those who read the whole file
                element = read_root(file)
                said = (f"{element.findtext('folder') or ''}/{element.findtext('filename') or ''}",)
        names[file] = matching.Name((), (file.relative_to(top).with_suffix("").as_posix(), *said))
    matches = matching.match(names, lambda: pictures, folders.images.path, parallel=True)
    matching.report(matches.doubts, folders.images.path.parent, problems)
    return {image: file for file, image in matches.images.items()}


def _standard(root: Path, wanted: Sequence[_Wanted]) -> class_list.ClassList | None:
    """VOC's own twenty classes when the objects are among them, else the sorted names of the objects from 1 on."""
    found = {thing.name for one in wanted if one.notation is not None for thing in one.notation.objects} - {""}
    if not found:
        return None
    names = class_list.VOC_CLASSES if found <= set(class_list.VOC_CLASSES) else ("background", *sorted(found))
    return class_list.ClassList(dict(enumerate(names)), root / "Annotations", class_list.VOC_COLOURS)


def _named(wanted: Sequence[_Wanted], listed: class_list.ClassList | None) -> tuple[str, ...]:
    """Classes in the list's order, then the others that objects have, sorted by name."""
    given = [name for name in listed.names.values() if name.lower() not in class_list.BACKGROUND] if listed else []
    found = {thing.name for one in wanted if one.notation is not None for thing in one.notation.objects} - {""}
    return (*given, *sorted(found - set(given)))


def _boxed(wanted: Sequence[_Wanted], classes: Sequence[str], problems: list[Problem]) -> dict[str, list[Record]]:
    """Records with the objects of their XML files."""
    splits: dict[str, list[Record]] = {}
    for split, image, notation, _ in wanted:
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
    element = root.find("size")
    size = (number(element, "width"), number(element, "height")) if element is not None else (0.0, 0.0)
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
    stated = notation.size
    if stated[0] > 0 and stated[1] > 0 and stated != (width, height):  # some tools write 0
        what = f"labelled as {stated[0]:.0f}x{stated[1]:.0f}, but the image is {width}x{height}"
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
        index = mask_image.read_numbers(numbered)
    except ImageError as error:
        problems.append(Problem(numbered, str(error).removeprefix(f"{numbered}: "), "mask", record.image))
        return record
    if index.shape[:2] != record.size:
        what = f"is {index.shape[1]}x{index.shape[0]}, its image {record.width}x{record.height}"
        problems.append(Problem(numbered, what, "size", record.image))
        return record
    consume(numbered)
    found = []
    for region in record.instances:
        assert region.rle is not None
        inside = masks.decode(region.rle)
        for value, rle in masks.regions(np.where(inside, index + 1, 0)).items():
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
    "voc", "Pascal VOC (images and XML files in two folders or side by side; SegmentationClass/)", _recognise, _read
)
