"""COCO instances JSON: the layout of COCO 2017, of Roboflow's COCO exports, and of a single file beside its images.

Category ids may have holes (COCO: 1..90) or start at 0 (Roboflow). Roboflow writes a root category that groups the
others (supercategory "none") and no annotation uses; it is dropped by those two signs, never by its name, which it can
share with a real class. `area` is not read: Roboflow stores the box's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segdet.data import masks
from segdet.data.formats import matching
from segdet.data.formats.base import SPLIT_FOLDERS, Adapter, Malformed, header_size, images_under, load_json, noting
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


@dataclass(frozen=True)
class _File:
    path: Path
    images: Path  # folder that `file_name` is relative to


def _recognise(path: Path) -> str | None:
    if path.is_file():
        return f"{path.name}, a COCO JSON file" if path.suffix == ".json" else None
    files = _files(path)
    return ", ".join(str(file.path.relative_to(path)) for file in files.values()) if files else None


def _read(path: Path, name: str, evidence: str) -> Dataset:
    files = {"train": _File(path, path.parent)} if path.is_file() else _files(path)
    root = path.parent if path.is_file() else path
    problems: list[Problem] = []
    contents: dict[str, dict[str, Any]] = {}
    for split, file in files.items():
        with noting(problems):
            contents[split] = _load(file.path, problems)
    categories = _categories(contents, files, problems)
    labels = {number: index for index, number in enumerate(categories)}
    splits = {split: _records(content, files[split], labels, problems) for split, content in contents.items()}
    classes = tuple(categories.values())
    return Dataset(name, root, "COCO", classes, splits, tuple(problems), _licence(contents), (evidence,))


def _files(root: Path) -> dict[str, _File]:
    """Annotation files by split."""
    found: dict[str, _File] = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            file = root / name / "_annotations.coco.json"
            if split not in found and file.is_file():
                found[split] = _File(file, file.parent)
    if found:
        return found
    for file in sorted((root / "annotations").glob("*.json")):
        match = re.fullmatch(r"(?:instances_)?(train|val|valid|validation|test)(\d{4})?", file.stem)
        if match is None:
            continue
        split = next(split for split, names in SPLIT_FOLDERS.items() if match[1] in names)
        year = match[2] or ""
        folders = [root / f"{match[1]}{year}", root / "images" / f"{match[1]}{year}", root / "images", root]
        found.setdefault(split, _File(file, next((f for f in folders if f.is_dir()), root)))
    if not found and (root / "_annotations.coco.json").is_file():
        found["train"] = _File(root / "_annotations.coco.json", root)
    return found


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
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                what = f"{key}[{index}] is not an object with a whole-number `id`; correct or remove it"
                problems.append(Problem(file, what, "malformed"))
            elif entry["id"] in seen and key == "images":
                what = f"{key}[{index}]: two images have the same id {entry['id']}; number them apart"
                problems.append(Problem(file, what, "malformed"))
            else:
                seen.add(entry["id"])
                sound.append(entry)
        content[key] = sound
    return content


def _categories(
    contents: Mapping[str, dict[str, Any]], files: Mapping[str, _File], problems: list[Problem]
) -> dict[int, str]:
    """Category id -> class name, ordered by id, without Roboflow's group (0) where nothing uses it; all splits must agree."""
    names: dict[int, str] = {}
    group = False
    for split, content in contents.items():
        for category in content["categories"]:
            number, name = category["id"], str(category.get("name", category["id"]))
            if names.setdefault(number, name) != name:
                what = f"category {number} is {name!r}, but {names[number]!r} in another place or split"
                problems.append(Problem(files[split].path, what, "malformed"))
            group = group or (number == 0 and category.get("supercategory") == "none")
    used = {_whole(a, "category_id") for content in contents.values() for a in content["annotations"]}
    kept = {number: names[number] for number in sorted(names) if number != 0 or 0 in used or not group}
    return kept or names  # a lone category is no group


def _records(
    content: dict[str, Any], file: _File, labels: Mapping[int, int], problems: list[Problem]
) -> tuple[Record, ...]:
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(_whole(annotation, "image_id"), []).append(annotation)
    known = {image["id"] for image in content["images"]}
    for image_id in by_image.keys() - known:
        what = f"{len(by_image[image_id])} annotations of image {image_id}, which is not listed"
        problems.append(Problem(file.path, what, "orphan"))
    names: dict[int, matching.Name] = {}
    for image in content["images"]:
        with noting(problems):
            names[image["id"]] = _name(image, file)
    matches = matching.match(names, lambda: images_under(file.images), file.images)
    matching.report(matches.doubts, file.images, problems, lambda number: (file.path, f"image {number}"))
    records = []
    for image in content["images"]:
        path = matches.images.get(image["id"])
        if path is not None:
            record = _record(image, by_image.get(image["id"], []), path, file, labels, problems)
            if record is not None:
                records.append(record)
        elif image["id"] in names and image["id"] not in matches.doubtful:
            listed = file.images.joinpath(*matching.parts_of(image["file_name"]))
            problems.append(Problem(listed, f"listed in {file.path.name} but not there", "image-missing"))
    return tuple(records)


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
    declared = (image.get("height"), image.get("width"))
    if None not in declared and declared != (height, width):
        what = f"is {width}x{height}, but labelled as {declared[1]}x{declared[0]}"
        problems.append(Problem(path, " ".join(what.split()), "size", path))
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
    """What the file calls an image. A path of another machine or an address decides by its end, among the images there are."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise Malformed(file.path, f"image {image['id']} has no file_name")
    parts = matching.parts_of(name)
    if not parts or parts[-1] == "..":
        raise Malformed(file.path, f"image {image['id']} has a file_name that no file can have")
    # Links inside the folder are the owner's, and may lead anywhere; a name may not.
    below = ".." not in parts and "://" not in name and not name.startswith(("/", "\\"))
    return matching.Name((file.images.joinpath(*parts),) if below else (), (name,))


def _instance(
    annotation: dict[str, Any], labels: Mapping[int, int], width: int, height: int
) -> tuple[Instance | None, Fault | None]:
    """The instance, and what is wrong with it; an instance may be usable in part (one bad outline of two)."""
    label = labels.get(_whole(annotation, "category_id"))
    if label is None:
        named = " ".join(str(annotation.get("category_id")).split())[:40]
        return None, Fault("class", f"category {named} is not in `categories`")
    crowd = bool(annotation.get("iscrowd", 0))
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        rle, fault = _rle(outline, width, height)
        if rle is None:
            return None, fault
        box = masks.box(rle)
        if box[0] == box[2]:
            return None, Fault("no-area", "the run-length mask marks no pixel")
        return Instance(label, (), box, rle, crowd), None
    polygons: list[np.ndarray] = []
    complaint: Fault | None = None
    for part in outline if isinstance(outline, list) else []:
        numbers = _numbers(part)
        if numbers is None or len(numbers) % 2:
            complaint = Fault("shape", "an outline is not a list of x, y pairs")
            continue
        polygon, fault = clean_polygon(numbers, width, height)
        complaint = complaint or fault
        if polygon is not None:
            polygons.append(polygon)
    if polygons:
        return Instance(label, tuple(polygons), box_of(polygons), None, crowd), complaint
    if complaint:
        return None, complaint
    given = _numbers(annotation.get("bbox"))
    if given is None or len(given) != 4:
        return None, Fault("shape", "neither an outline nor a box [x, y, width, height]")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        corners = (given[0], given[1], given[0] + given[2], given[1] + given[3])
    clean, fault = clean_box(corners, width, height)
    return (Instance(label, (), clean, None, crowd) if clean is not None else None), fault


def _whole(annotation: dict[str, Any], key: str) -> int:
    """A whole-number field; -1, which no image or category has, when it is anything else."""
    value = annotation.get(key)
    return value if isinstance(value, int) else -1


def _numbers(value: Any) -> np.ndarray | None:
    """float64 `[n]` from a JSON list of numbers, else None; a number too large for a float counts as infinite."""
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) for v in value):
        return None
    try:
        return np.array(value, np.float64)
    except OverflowError:
        return np.full(len(value), np.inf)


def _rle(outline: dict[str, Any], width: int, height: int) -> tuple[dict[str, Any] | None, Fault | None]:
    """Checked compressed RLE. pycocotools returns uninitialised memory when the counts do not add up."""
    counts = outline.get("counts")
    if outline.get("size") != [height, width]:
        told = " ".join(str(outline.get("size")).split())[:40]
        return None, Fault("size", f"the run-length mask is {told}, the image [{height}, {width}]")
    if isinstance(counts, list):
        if not all(isinstance(c, int) and c >= 0 for c in counts) or sum(counts) != height * width:
            return None, Fault("shape", "the run lengths do not add up to the image")
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width), None
    if isinstance(counts, str):
        runs = _decode_counts(counts)
        if runs is None or min(runs, default=-1) < 0 or sum(runs) != height * width:
            return None, Fault("shape", "the run lengths do not add up to the image")
        return {"size": [height, width], "counts": counts.encode()}, None
    return None, Fault("shape", "a run-length mask without counts")


def _decode_counts(text: str) -> list[int] | None:
    """Run lengths of a compressed COCO string: 5 bits a character from "0" up, each run a difference from two before."""
    runs: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(text) or not 0 <= ord(text[position]) - 48 < 64 or shift > 40:
                return None
            chunk = ord(text[position]) - 48
            value |= (chunk & 31) << shift
            more = bool(chunk & 32)
            position, shift = position + 1, shift + 5
            if not more and chunk & 16:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


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
    "COCO instances JSON (annotations/instances_*.json, or _annotations.coco.json in each split)",
    _recognise,
    _read,
)
