"""Pascal VOC: Annotations/*.xml with boxes, SegmentationClass/*.png with masks, ImageSets lists; also XML beside images.

Boxes are counted from pixel 1, both ends included, as VOC does. A `difficult` object counts neither for nor against.
Where SegmentationObject numbers the objects, they are kept apart; else a mask holds all of a class at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from segdet.data import masks
from segdet.data.formats import class_list
from segdet.data.formats.base import SPLIT_FOLDERS, Adapter, header_size, images_under, in_order, read_text, split_of
from segdet.data.formats.mask_records import Meaning, read_pairs
from segdet.data.formats.xml_files import number, parse, root_tag
from segdet.data.images import ImageError, read_label_image
from segdet.data.records import Dataset, Instance, Problem, Record, box_of, clean_box, clean_polygon, photograph_of
from segdet.errors import InputError


@dataclass(frozen=True)
class _Named:
    """An object of an XML file whose class is still a name."""

    name: str
    instance: Instance  # label 0 for now


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    if (path / "JPEGImages").is_dir() and any((path / n).is_dir() for n in ("Annotations", "SegmentationClass")):
        parts = [n for n in ("Annotations", "SegmentationClass", "SegmentationObject") if (path / n).is_dir()]
        return f"JPEGImages with {', '.join(parts)}"
    file = next(iter(_beside(path)), None)
    return f"{file.relative_to(path)}, a VOC annotation beside its image" if file else None


def _beside(root: Path) -> list[Path]:
    """XML annotations that lie with their images, in the root or in split folders; none when the first is not VOC's."""
    folders = [root, *(root / name for names in SPLIT_FOLDERS.values() for name in names)]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.xml"))]
    return files if files and root_tag(files[0]) == "annotation" else []


def _read(path: Path, name: str, evidence: str) -> Dataset:
    problems: list[Problem] = []
    notes = [evidence]
    if (path / "JPEGImages").is_dir():
        classes, splits = _read_voc(path, problems, notes)
    else:
        classes, splits = _read_beside(path, problems)
    return Dataset(name, path, "Pascal VOC", classes, in_order(splits), tuple(problems), None, tuple(notes))


def _read_beside(root: Path, problems: list[Problem]) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    files = _beside(root)
    images = {folder: {i.stem: i for i in images_under(folder)} for folder in {file.parent for file in files}}
    pairs = []
    for file in files:
        image = images[file.parent].get(file.stem)
        if image is None:
            problems.append(Problem(file, "no image of that name beside it"))
        else:
            pairs.append((split_of(file, root), image, file))
    return _boxed(pairs, None, problems)


def _read_voc(root: Path, problems: list[Problem], notes: list[str]) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    images = {image.stem: image for image in images_under(root / "JPEGImages")}
    stamps = {mask.stem: mask for mask in images_under(root / "SegmentationClass")}
    notations = {file.stem: file for file in sorted((root / "Annotations").glob("*.xml"))}
    wanted, source = _listed(root, "Segmentation" if stamps else "Main", images)
    notes.append(source)
    boxed = []
    for split, stems in wanted.items():
        for stem in stems:
            if stem not in images:
                problems.append(Problem(root / "JPEGImages" / stem, "listed in ImageSets but not there"))
            elif stem in notations:
                boxed.append((split, images[stem], notations[stem]))
            elif not stamps:
                problems.append(Problem(images[stem], f"no {stem}.xml in Annotations"))
    if not stamps:
        return _boxed(boxed, class_list.find(root), problems)
    pairs = {
        split: [(images[s], stamps[s]) for s in stems if s in images and s in stamps] for split, stems in wanted.items()
    }
    unmasked = [images[s] for stems in wanted.values() for s in stems if s in images and s not in stamps]
    problems.extend(Problem(image, "no mask of that name in SegmentationClass") for image in unmasked)
    listed = class_list.find(root) or _standard(root, boxed)
    meaning, records = read_pairs(pairs, listed, root, problems)
    notes.append(meaning.why)
    numbered = {mask.stem: mask for mask in images_under(root / "SegmentationObject")}
    drawn = {split: [_apart(r, numbered.get(r.image.stem), problems) for r in some] for split, some in records.items()}
    return meaning.classes, _with_boxes(drawn, meaning, boxed, problems)


def _standard(root: Path, boxed: Sequence[tuple[str, Path, Path]]) -> class_list.ClassList | None:
    """VOC's own twenty classes when the objects are among them, else the sorted names of the objects from 1 on."""
    found = {(e.findtext("name") or "").strip() for _, _, file in boxed for e in parse(file).findall("object")} - {""}
    if not found:
        return None
    names = class_list.VOC_CLASSES if found <= set(class_list.VOC_CLASSES) else ("background", *sorted(found))
    return class_list.ClassList(dict(enumerate(names)), root / "Annotations", class_list.VOC_COLOURS)


def _listed(root: Path, kind: str, images: Iterable[str]) -> tuple[dict[str, list[str]], str]:
    """Stems by split from ImageSets/<kind>, and a sentence that says so; all images are train where there are no lists."""
    found: dict[str, list[str]] = {}
    folders = [root / "ImageSets" / kind, root / "ImageSets" / "Main", root / "ImageSets" / "Segmentation"]
    folder = next((folder for folder in folders if next(folder.glob("*.txt"), None) is not None), None)
    if folder is not None:
        for split, names in (*SPLIT_FOLDERS.items(), ("train", ("trainval", "default"))):
            file = next((folder / f"{name}.txt" for name in names if (folder / f"{name}.txt").is_file()), None)
            if split not in found and file is not None:
                rows = [line.split() for line in read_text(file, "a list has one image name a line").splitlines()]
                found[split] = list(dict.fromkeys(Path(row[0].replace("\\", "/")).name for row in rows if row))
    if not found or folder is None:
        return {"train": list(images)}, "no ImageSets lists: all images are train"
    known = set(images)
    stems = {s: [name if name in known else Path(name).stem for name in names] for s, names in found.items()}
    return stems, f"splits from {folder.relative_to(root)}"


def _boxed(
    pairs: Sequence[tuple[str, Path, Path]], listed: class_list.ClassList | None, problems: list[Problem]
) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    """Records with the objects of their XML files; classes in the list's order, or sorted by name without one."""
    read = []
    for split, image, file in pairs:
        size = header_size(image, problems)
        named = _objects(file, size, problems) if size is not None else None
        if size is not None and named is not None:
            read.append((split, image, size, named))
    found = {one.name for _, _, _, named in read for one in named}
    given = [name for name in listed.names.values() if name.lower() not in class_list.BACKGROUND] if listed else []
    classes = (*given, *sorted(found - set(given)))
    splits: dict[str, list[Record]] = {}
    for split, image, (height, width), named in read:
        instances = tuple(replace(one.instance, label=classes.index(one.name)) for one in named)
        splits.setdefault(split, []).append(Record(image, width, height, instances, photograph_of(image)))
    return classes, splits


def _objects(file: Path, size: tuple[int, int], problems: list[Problem]) -> list[_Named] | None:
    """The objects of one XML file; None (with a problem) when it was made for an image of another size."""
    root = parse(file)
    if root.tag != "annotation":
        raise InputError(f"{file}: the root element is <{root.tag[:40]}>, not <annotation>; not a VOC file")
    height, width = size
    told = root.find("size")
    declared = (number(told, "width"), number(told, "height")) if told is not None else (0.0, 0.0)
    if declared[0] > 0 and declared[1] > 0 and declared != (width, height):  # some tools write 0
        problems.append(
            Problem(file, f"labelled as {declared[0]:.0f}x{declared[1]:.0f}, but the image is {width}x{height}")
        )
        return None
    found = []
    for index, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        instance, why = _instance(element, width, height) if name else (None, "it has no name")
        if instance is not None:
            found.append(_Named(name, instance))
        if why:
            problems.append(Problem(file, f"object {index} ({' '.join(name.split())[:40]}): {why}"))
    return found


def _instance(element: ElementTree.Element, width: int, height: int) -> tuple[Instance | None, str | None]:
    crowd = (element.findtext("difficult") or "").strip() == "1"
    outline = element.find("polygon")  # Roboflow's: x1, y1, x2, y2, ...
    if outline is not None:
        count = len(outline.findall("*")) // 2
        points = [[number(outline, f"x{k}"), number(outline, f"y{k}")] for k in range(1, count + 1)]
        polygon, why = clean_polygon(np.array(points, np.float64).reshape(-1, 2), width, height)
        return (Instance(0, (polygon,), box_of([polygon]), None, crowd) if polygon is not None else None), why
    corners = element.find("bndbox")
    if corners is None:
        return None, "it has no bndbox"
    x1, y1, x2, y2 = (number(corners, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    box, why = clean_box((x1 - 1, y1 - 1, x2, y2), width, height)
    return (Instance(0, (), box, None, crowd) if box is not None else None), why


def _apart(record: Record, numbered: Path | None, problems: list[Problem]) -> Record:
    """The record with the classes' masks divided into the objects that SegmentationObject numbers."""
    if numbered is None:
        return record
    try:
        index = read_label_image(numbered)
    except ImageError as error:
        problems.append(Problem(numbered, str(error).removeprefix(f"{numbered}: ")))
        return record
    if index.shape[:2] != record.size:
        problems.append(
            Problem(numbered, f"is {index.shape[1]}x{index.shape[0]}, its image {record.width}x{record.height}")
        )
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


def _with_boxes(
    records: dict[str, list[Record]], meaning: Meaning, boxed: Sequence[tuple[str, Path, Path]], problems: list[Problem]
) -> dict[str, list[Record]]:
    """Boxes from XML beside masks that do not tell objects apart."""
    files = {image: file for _, image, file in boxed}

    def extended(record: Record) -> Record:
        if record.image not in files or not all(instance.merged for instance in record.instances):
            return record
        extra = []
        for one in _objects(files[record.image], record.size, problems) or []:
            if one.name in meaning.classes:
                extra.append(replace(one.instance, label=meaning.classes.index(one.name)))
            else:
                problems.append(Problem(files[record.image], f"class {one.name[:40]!r} is not in the class list"))
        return replace(record, instances=(*record.instances, *extra))

    return {split: [extended(record) for record in some] for split, some in records.items()}


ADAPTER = Adapter(
    "voc", "Pascal VOC (JPEGImages/, Annotations/, SegmentationClass/; or XML beside images)", _recognise, _read
)
