"""COCO instances JSON, in the arrangements that `coco_files` knows.

Category ids may have holes (COCO: 1..90) or start at 0 (Roboflow). Roboflow writes a root category that groups the
others (supercategory "none") and no annotation uses; it is dropped by those two signs, never by its name, which it can
share with a real class. `area` is not read: Roboflow stores the box's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.formats import coco_files, matching
from segdet.data.formats.base import Adapter, Malformed, header_size, images_under, load_json, noting
from segdet.data.formats.coco_values import flag, identity, numbers, outline, side
from segdet.data.geometry import masks
from segdet.data.records import (
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

_REFERENCES = ("image_id", "category_id")


@dataclass(frozen=True)
class _File:
    path: Path
    root: Path
    images: Path  # folder that `file_name` is relative to


def _recognise(path: Path) -> str | None:
    if path.is_file():
        return f"{path.name}, a COCO JSON file" if path.suffix.lower() == ".json" else None
    return ", ".join(str(file.relative_to(path)) for file in coco_files.find(path).values()) or None


def _read(path: Path, name: str, evidence: str) -> Dataset:
    found = {"train": path} if path.is_file() else coco_files.find(path)
    root = coco_files.root_of(path) if path.is_file() else path
    problems: list[Problem] = []
    contents: dict[str, dict[str, Any]] = {}
    files: dict[str, _File] = {}
    for split, file in found.items():
        with noting(problems):
            contents[split] = _load(file, problems)
            named = [
                image["file_name"] for image in contents[split]["images"] if isinstance(image.get("file_name"), str)
            ]
            files[split] = _File(file, root, coco_files.image_folder(file, root, named))
    categories = _categories(contents, files, problems)
    classes = tuple(dict.fromkeys(categories.values()))
    labels = {number: classes.index(name) for number, name in categories.items()}
    splits = {split: _records(content, files[split], labels, problems) for split, content in contents.items()}
    notes = (evidence, *_same_names(categories), *_crowds(splits))
    return Dataset(name, root, "COCO", classes, splits, tuple(problems), _licence(contents), notes)


def _load(file: Path, problems: list[Problem]) -> dict[str, Any]:
    """The content, whose three lists hold nothing but objects with an `id`, images each its own.

    Raises:
        Malformed: no such content.
    """
    content = load_json(file, "export it again")
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise Malformed(file, "not a COCO file: it needs the lists `images`, `annotations` and `categories`")
    for key in ("annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise Malformed(file, f"the list `{key}` is missing; an instances file has it (captions do not)")
    for key in ("images", "annotations", "categories"):
        sound, seen = [], set()
        for index, entry in enumerate(content[key]):
            number = identity(entry.get("id")) if isinstance(entry, dict) else None
            if number is None:
                what = f"{key}[{index}] is not an object with a whole-number `id`; correct or remove it"
                problems.append(Problem(file, what, "malformed"))
                continue
            if number in seen and key == "images":
                what = f"{key}[{index}]: two images have the same id {number}; number them apart"
                problems.append(Problem(file, what, "malformed"))
                continue
            seen.add(number)
            sound.append({**entry, "id": number, **{k: _reference(entry[k]) for k in _REFERENCES if k in entry}})
        content[key] = sound
    return content


def _reference(value: Any) -> Any:
    """An id that refers to another entry as a number; as it is when it cannot be one."""
    number = identity(value)
    return value if number is None else number


def _categories(
    contents: Mapping[str, dict[str, Any]], files: Mapping[str, _File], problems: list[Problem]
) -> dict[int, str]:
    """Category id -> class name, ordered by id, without Roboflow's group (0) where nothing uses it; all splits must agree."""
    names: dict[int, str] = {}
    group = False
    for split, content in contents.items():
        for category in content["categories"]:
            number = category["id"]
            name = " ".join(str(category.get("name", number)).split())
            if not name or category.get("name", number) is None:
                what = f"category {number} has no name; name it"
                problems.append(Problem(files[split].path, what, "malformed"))
            if names.setdefault(number, name) != name:
                what = f"category {number} is {name!r}, but {names[number]!r} in another place or split"
                problems.append(Problem(files[split].path, what, "malformed"))
            group = group or (number == 0 and category.get("supercategory") == "none")
    used = {str(a.get("category_id")) for content in contents.values() for a in content["annotations"]}
    kept = {number: names[number] for number in sorted(names) if number != 0 or "0" in used or not group}
    return kept or names  # a lone category is no group


def _same_names(categories: Mapping[int, str]) -> Iterator[str]:
    """Notes about categories of one name, which are one class."""
    for name, count in Counter(categories.values()).items():
        if count > 1:
            numbers = ", ".join(str(number) for number, other in categories.items() if other == name)
            yield f"categories {numbers} are all {name!r}: one class"


def _crowds(splits: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """A note where every object is marked as a crowd."""
    crowds = [i.crowd for records in splits.values() for record in records for i in record.instances]
    if crowds and all(crowds):
        yield (
            f"every object ({len(crowds)}) is marked as a crowd (iscrowd 1, as CVAT writes brush masks), and crowds are left "
            "out of training; set iscrowd to 0 where each is one object"
        )


def _records(
    content: dict[str, Any], file: _File, labels: Mapping[int, int], problems: list[Problem]
) -> tuple[Record, ...]:
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(_key(annotation.get("image_id")), []).append(annotation)
    known = {image["id"] for image in content["images"]}
    for image_id, some in by_image.items():
        if image_id not in known:
            what = f"{len(some)} annotations of image {' '.join(str(image_id).split())[:40]}, which is not listed"
            problems.append(Problem(file.path, what, "orphan"))
    _corner_boxes(content["annotations"], {image["id"]: image for image in content["images"]}, file, problems)
    names: dict[int, matching.Name] = {}
    for image in content["images"]:
        with noting(problems):
            names[image["id"]] = _name(image, file)
    matches = matching.match(names, lambda: images_under(file.images), file.images)
    matching.report(matches.doubts, file.images, problems, lambda number: (file.path, f"image {number}"))
    if names and not matches.images and not matches.doubts:
        said = [image["file_name"] for image in content["images"] if image["id"] in names]
        problems.append(Problem(file.path, coco_files.none_there(file.path, file.root, said), "image-missing"))
    entries: dict[Path, list[dict[str, Any]]] = defaultdict(list)
    for image in content["images"]:
        if image["id"] in matches.images:
            entries[matches.images[image["id"]]].append(image)
        elif image["id"] in names and image["id"] not in matches.doubtful:
            listed = file.images.joinpath(*matching.parts_of(image["file_name"]))
            problems.append(Problem(listed, f"listed in {file.path.name} but not there", "image-missing"))
    records = []
    for path, same in entries.items():
        for image in _once(same, by_image, file, problems):
            with noting(problems):
                record = _record(image, by_image.get(image["id"], []), path, file, labels, problems)
                records += [record] if record is not None else []
    return tuple(records)


def _key(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)


def _once(
    same: Sequence[dict[str, Any]], by_image: Mapping[Any, Any], file: _File, problems: list[Problem]
) -> Sequence[dict[str, Any]]:
    """The entries of one image file: one, unless several hold labels. Each copy would lack the labels of the others."""
    if len(same) == 1:
        return same
    labelled = [image for image in same if image["id"] in by_image]
    listed = f"{same[0]['file_name']} is listed as images {', '.join(str(image['id']) for image in same[:8])}"
    if len(labelled) > 1:
        what = f"{listed}, and each copy lacks the other's labels; give all the same id"
        problems.append(Problem(file.path, what[:400], "malformed"))
    else:
        problems.append(Problem(file.path, f"{listed}; the one with labels is kept"[:400], "repeated"))
    return (labelled or same)[:1]


def _corner_boxes(
    annotations: Sequence[dict[str, Any]], images: Mapping[int, dict[str, Any]], file: _File, problems: list[Problem]
) -> None:
    """Boxes as x1, y1, x2, y2: several leave their image as COCO's x, y, width, height, and all fit as corners."""
    leaving = []
    for annotation in annotations:
        box, image = numbers(annotation.get("bbox")), images.get(_key(annotation.get("image_id")))
        if box is None or len(box) != 4 or image is None or annotation.get("segmentation"):
            continue
        width, height = (identity(image.get(key)) or 0 for key in ("width", "height"))
        if not (0 <= box[0] < box[2] <= width + 1 and 0 <= box[1] < box[3] <= height + 1):
            return
        if box[0] + box[2] > 1.01 * width + 1 or box[1] + box[3] > 1.01 * height + 1:
            leaving.append(annotation["id"])
    if len(leaving) > 1:
        shown = ", ".join(map(str, leaving[:8])) + (", ..." if len(leaving) > 8 else "")
        what = (
            f"the boxes of annotations {shown} leave their images, and all boxes fit as x1, y1, x2, y2; COCO's bbox is "
            "x, y, width, height: export again"
        )
        problems.append(Problem(file.path, what, "malformed"))


def _record(
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    path: Path,
    file: _File,
    labels: Mapping[int, int],
    problems: list[Problem],
) -> Record | None:
    size = header_size(path, problems)
    if size is None:
        return None
    height, width = size
    try:
        declared = (side(image.get("height")), side(image.get("width")))
    except ValueError:
        shown = f"{str(image.get('width'))[:20]!r} and {str(image.get('height'))[:20]!r}"
        raise Malformed(
            file.path, f"image {image['id']} ({path.name}): width and height are {shown}, not whole numbers"
        ) from None
    if None not in declared and declared != (height, width):
        problems.append(
            Problem(path, f"is {width}x{height}, but labelled as {declared[1]}x{declared[0]}", "size", path)
        )
        return None
    instances = []
    for annotation in annotations:
        instance, fault = _instance(annotation, labels, width, height)
        if instance is not None:
            instances.append(instance)
        if fault is not None:
            what = f"annotation {annotation['id']} ({path.name}): {fault.what}"
            problems.append(Problem(file.path, what, fault.kind, path))
    return Record(path, width, height, tuple(instances), photograph_of(path))


def _name(image: dict[str, Any], file: _File) -> matching.Name:
    said = image.get("file_name")
    if not isinstance(said, str) or not said:
        raise Malformed(file.path, f"image {image['id']} has no file_name")
    name = matching.named(said, file.images)
    if name is None:
        raise Malformed(file.path, f"image {image['id']} has a file_name that no file can have")
    return name


def _instance(
    annotation: dict[str, Any], labels: Mapping[int, int], width: int, height: int
) -> tuple[Instance | None, Fault | None]:
    """The instance, and what is wrong with it; an instance may be usable in part (one bad outline of two)."""
    number = annotation.get("category_id")
    label = labels.get(number) if isinstance(number, int) else None
    if label is None:
        return None, Fault("class", f"category {' '.join(str(number).split())[:40]} is not in `categories`")
    crowd = flag(annotation.get("iscrowd", 0))
    drawn, rle, complaint = outline(annotation.get("segmentation"), width, height)
    if rle is not None:
        box = masks.box(rle)
        if box[0] == box[2]:
            return None, Fault("no-area", "the run-length mask marks no pixel")
        return Instance(label, (), box, rle, crowd), None
    polygons: list[np.ndarray] = []
    for points in drawn:
        polygon, fault = clean_polygon(points, width, height)
        complaint = complaint or fault
        if polygon is not None:
            polygons.append(polygon)
    if polygons:
        return Instance(label, tuple(polygons), box_of(polygons), None, crowd), complaint
    if complaint:
        return None, complaint
    corners = numbers(annotation.get("bbox"))
    if corners is None or len(corners) != 4:
        return None, Fault("shape", "neither an outline nor a box [x, y, width, height]")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        corners[2:] += corners[:2]
    clean, fault = clean_box(corners.tolist(), width, height)
    return (Instance(label, (), clean, None, crowd) if clean is not None else None), fault


def _licence(contents: Mapping[str, dict[str, Any]]) -> str | None:
    names = set()
    for content in contents.values():
        listed = content.get("licenses")
        for entry in listed if isinstance(listed, list) else []:
            if isinstance(entry, dict) and entry.get("name"):
                names.add(str(entry["name"]))
    return "; ".join(sorted(names)) or None


ADAPTER = Adapter(
    "coco",
    "COCO instances JSON (any name; in annotations/, in split folders or beside the images)",
    _recognise,
    _read,
)
