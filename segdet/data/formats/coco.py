"""COCO instances JSON: the layout of COCO 2017, of Roboflow's COCO exports, and of a single file beside its images.

Category ids may have holes (COCO: 1..90) or start at 0 (Roboflow). Roboflow writes a root category that groups the
others (supercategory "none") and no annotation uses; it is dropped by those two signs, never by its name, which it can
share with a real class. `area` is not read: Roboflow stores the box's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segdet.data import masks
from segdet.data.formats.base import SPLIT_FOLDERS, Adapter, header_size, there
from segdet.data.records import Dataset, Instance, Problem, Record, box_of, clean_box, clean_polygon, photograph_of
from segdet.errors import InputError


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
    contents = {split: _load(file.path) for split, file in files.items()}
    categories = _categories(contents, files)
    classes = tuple(categories.values())
    problems: list[Problem] = []
    splits = {split: _records(contents[split], files[split], list(categories), classes, problems) for split in files}
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


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); export it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise InputError(f"{file}: not a COCO file: it needs the lists `images`, `annotations` and `categories`")
    for key in ("annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{file}: the list `{key}` is missing; an instances file has it (captions do not)")
    for key in ("images", "annotations", "categories"):
        for index, entry in enumerate(content[key]):
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                raise InputError(f"{file}: {key}[{index}] is not an object with a whole-number `id`")
    if len({image["id"] for image in content["images"]}) < len(content["images"]):
        raise InputError(f"{file}: two images have the same id; number them apart")
    return content


def _categories(contents: Mapping[str, dict[str, Any]], files: Mapping[str, _File]) -> dict[int, str]:
    """Category id -> class name, ordered by id, without unused roots; all splits must agree."""
    names: dict[int, str] = {}
    roots: set[int] = set()
    for split, content in contents.items():
        for category in content["categories"]:
            number, name = category["id"], str(category.get("name", category["id"]))
            if names.setdefault(number, name) != name:
                raise InputError(
                    f"{files[split].path}: category {number} is {name!r}, but {names[number]!r} in another split"
                )
            if category.get("supercategory") == "none":
                roots.add(number)
    used = {_whole(a, "category_id") for content in contents.values() for a in content["annotations"]}
    kept = {number: names[number] for number in sorted(names) if number in used or number not in roots}
    # When every supercategory is "none" and nothing is annotated, nothing tells a root from a class: keep them all.
    return kept or dict(sorted(names.items()))


def _records(
    content: dict[str, Any], file: _File, ids: list[int], classes: tuple[str, ...], problems: list[Problem]
) -> tuple[Record, ...]:
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(_whole(annotation, "image_id"), []).append(annotation)
    known = {image["id"] for image in content["images"]}
    for image_id in by_image.keys() - known:
        problems.append(
            Problem(file.path, f"{len(by_image[image_id])} annotations of image {image_id}, which is not listed")
        )
    labels = {number: index for index, number in enumerate(ids)}
    records = []
    for image in content["images"]:
        path = _image_path(image, file)
        if not there(path):
            problems.append(Problem(path, f"listed in {file.path.name} but not there"))
            continue
        size = header_size(path, problems)
        if size is None:
            continue
        height, width = size
        declared = (image.get("height"), image.get("width"))
        if None not in declared and declared != (height, width):
            problems.append(Problem(path, f"is {width}x{height}, but labelled as {declared[1]}x{declared[0]}"))
            continue
        instances = []
        for annotation in by_image.get(image["id"], []):
            instance, why = _instance(annotation, labels, width, height)
            if instance is not None:
                instances.append(instance)
            if why:
                problems.append(Problem(file.path, f"annotation {annotation['id']} ({path.name}): {why}"))
        records.append(Record(path, width, height, tuple(instances), photograph_of(path)))
    return tuple(records)


def _image_path(image: dict[str, Any], file: _File) -> Path:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise InputError(f"{file.path}: image {image['id']} has no file_name")
    path = file.images / name
    if "\0" in name or len(name) > 1000:
        raise InputError(f"{file.path}: image {image['id']} has a file_name that no file can have")
    if not path.resolve().is_relative_to(file.images.resolve()):
        raise InputError(f"{file.path}: file_name {name!r} leads out of {file.images}; correct it")
    return path


def _instance(
    annotation: dict[str, Any], labels: Mapping[int, int], width: int, height: int
) -> tuple[Instance | None, str | None]:
    """The instance, and what is wrong with it; an instance may be usable in part (one bad outline of two)."""
    label = labels.get(_whole(annotation, "category_id"))
    if label is None:
        return None, f"category {annotation.get('category_id')} is not in `categories`"
    crowd = bool(annotation.get("iscrowd", 0))
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        rle, why = _rle(outline, width, height)
        if rle is None:
            return None, why
        box = masks.box(rle)
        if box[0] == box[2]:
            return None, "the run-length mask marks no pixel"
        return Instance(label, (), box, rle, crowd), None
    polygons: list[np.ndarray] = []
    complaint: str | None = None
    for part in outline if isinstance(outline, list) else []:
        numbers = _numbers(part)
        if numbers is None or len(numbers) % 2:
            complaint = "an outline is not a list of x, y pairs"
            continue
        polygon, why = clean_polygon(numbers, width, height)
        complaint = complaint or why
        if polygon is not None:
            polygons.append(polygon)
    if polygons:
        return Instance(label, tuple(polygons), box_of(polygons), None, crowd), complaint
    if complaint:
        return None, complaint
    given = _numbers(annotation.get("bbox"))
    if given is None or len(given) != 4:
        return None, "neither an outline nor a box [x, y, width, height]"
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        corners = (given[0], given[1], given[0] + given[2], given[1] + given[3])
    clean, why = clean_box(corners, width, height)
    return (Instance(label, (), clean, None, crowd) if clean is not None else None), why


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


def _rle(outline: dict[str, Any], width: int, height: int) -> tuple[dict[str, Any] | None, str | None]:
    """Checked compressed RLE. pycocotools returns uninitialised memory when the counts do not add up."""
    counts = outline.get("counts")
    if outline.get("size") != [height, width]:
        return None, f"the run-length mask is {outline.get('size')}, the image [{height}, {width}]"
    if isinstance(counts, list):
        if not all(isinstance(c, int) and c >= 0 for c in counts) or sum(counts) != height * width:
            return None, "the run lengths do not add up to the image"
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width), None
    if isinstance(counts, str):
        runs = _decode_counts(counts)
        if runs is None or min(runs, default=-1) < 0 or sum(runs) != height * width:
            return None, "the run lengths do not add up to the image"
        return {"size": [height, width], "counts": counts.encode()}, None
    return None, "a run-length mask without counts"


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
