"""YOLO text labels, boxes and polygons: the folders of Ultralytics and of Roboflow's YOLO exports.

`data.yaml` names classes and splits; `labels/` mirrors `images/`. A row is `class x1 y1 x2 y2 ...`, normalised, at
least three points; a row of five numbers is a box `class x_centre y_centre width height`. An empty or missing label
file is an image without objects. Paths in data.yaml are often wrong (`../train/images`, absolute paths of another
machine), so they are tried in several ways before the folders themselves decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.formats.base import (
    SPLIT_FOLDERS,
    Adapter,
    Malformed,
    folder_there,
    header_size,
    images_under,
    load_yaml,
    noting,
    read_text,
    there,
)
from segdet.data.images import is_image
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
from segdet.text import decoded

_MAX_CLASSES = 10_000
_SPLIT_KEYS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


def _recognise(path: Path) -> str | None:
    if path.is_file():
        return f"{path.name} with class names" if path.suffix in (".yaml", ".yml") and _is_card(path) else None
    card = _card_of(path)
    if card is not None:
        return f"{card.name} with class names and splits"
    for split, folder in _folders(path).items():
        image = next(iter(images_under(folder)), None)
        if image is not None and _holds_rows(_label_file(image, path).parent):
            return f"{split} images in {folder.relative_to(path)} with a labels folder beside"
    return None


def _holds_rows(folder: Path) -> bool:
    """A folder for label files: text files, or nothing at all (all background), but not another tool's JSON."""
    if not folder.is_dir():
        return False
    return next(folder.rglob("*.txt"), None) is not None or next(folder.rglob("*.json"), None) is None


def _read(path: Path, name: str, evidence: str) -> Dataset:
    card = path if path.is_file() else _card_of(path)
    root = card.parent if card is not None else path
    problems: list[Problem] = []
    content: dict[str, Any] = {}
    names: list[str] = []
    if card is not None:
        with noting(problems):
            content = _load_card(card)
            names = _class_names(content, card)
    splits: dict[str, tuple[Record, ...]] = {}
    highest = -1
    for split, images in _split_images(content, root, card, problems).items():
        records = []
        for image in images:
            record = _read_record(image, root, len(names) if names else None, problems)
            if record is not None:
                records.append(record)
                highest = max([highest, *(instance.label for instance in record.instances)])
        splits[split] = tuple(records)
    notes = [evidence]
    if not names:
        names = [f"class_{index}" for index in range(highest + 1)]
        without = "no data.yaml" if card is None else f"no class names in {card.name}"
        notes.append(f"{without}: classes are named by their numbers")
    project = content.get("roboflow")
    licence = content.get("license") or (project.get("license") if isinstance(project, dict) else None)
    return Dataset(
        name, root, "YOLO", tuple(names), splits, tuple(problems), str(licence) if licence else None, tuple(notes)
    )


def _is_card(path: Path) -> bool:
    try:
        text = decoded(path.read_bytes(), "replace")
    except OSError:
        return False
    return (
        re.search(r"^(names|nc)\s*:", text, re.MULTILINE) is not None
        and re.search(r"^(train|val)\s*:", text, re.MULTILINE) is not None
    )


def _card_of(folder: Path) -> Path | None:
    candidates = [
        folder / "data.yaml",
        folder / "data.yml",
        *sorted(folder.glob("*.yaml")),
        *sorted(folder.glob("*.yml")),
    ]
    return next((path for path in candidates if path.is_file() and _is_card(path)), None)


def _load_card(card: Path) -> dict[str, Any]:
    what = "a data.yaml has the keys train, val and names"
    content = load_yaml(card, what)
    if not isinstance(content, dict):
        raise Malformed(card, f"not a YAML mapping; {what}")
    return content


def _class_names(content: dict[str, Any], card: Path) -> list[str]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise Malformed(card, f"class numbers in `names` are not 0..{len(names) - 1}; number them without holes")
        names = [names[index] for index in range(len(names))]
    if isinstance(count, int) and count > _MAX_CLASSES:
        raise Malformed(card, f"nc is {count}; at most {_MAX_CLASSES} classes are possible")
    if names is None:
        return [f"class_{index}" for index in range(int(count))] if isinstance(count, int) else []
    if not isinstance(names, list) or not names:
        raise Malformed(card, "`names` must be a list of class names (or a mapping from numbers to names)")
    if isinstance(count, int) and count != len(names):
        raise Malformed(card, f"nc is {count} but {len(names)} names are given; make them agree")
    return [str(name) for name in names]


def _folders(root: Path) -> dict[str, Path]:
    """Image folders by split, found by looking: images/train (Ultralytics) or train/images (Roboflow)."""
    found = {}
    for split, names in SPLIT_FOLDERS.items():
        for name in names:
            for folder in (root / "images" / name, root / name / "images"):
                if split not in found and folder.is_dir():
                    found[split] = folder
    if not found and (root / "images").is_dir():
        found["train"] = root / "images"
    return found


def _split_images(
    content: dict[str, Any], root: Path, card: Path | None, problems: list[Problem]
) -> dict[str, list[Path]]:
    looked_up = _folders(root)
    splits: dict[str, list[Path]] = {}
    for split, keys in _SPLIT_KEYS.items():
        entry = next((content[key] for key in keys if content.get(key)), None)
        images: list[Path] = []
        if entry is not None:
            for one in entry if isinstance(entry, list) else [entry]:
                images.extend(_images_of(str(one), content, root, problems))
        if not images and split in looked_up:
            images = images_under(looked_up[split])
        if images:
            splits[split] = images
        elif entry is not None and card is not None and split == "train":
            what = f"{split}: {entry} leads to no image; correct the path in the file"
            problems.append(Problem(card, " ".join(what.split()), "malformed"))
        elif entry is not None and card is not None and split == "val":  # exports without a test split still name it
            what = f"{split}: {entry} leads to no image"
            problems.append(Problem(card, " ".join(what.split()), "image-missing"))
    return splits


def _images_of(entry: str, content: dict[str, Any], root: Path, problems: list[Problem]) -> list[Path]:
    """The images behind one entry of data.yaml: a folder, or a text file that lists images."""
    base = root / str(content.get("path") or "").replace("\\", "/")
    for candidate in _places(entry, base, root):
        if folder_there(candidate):
            return images_under(candidate)
        if candidate.suffix == ".txt" and there(candidate):
            return _listed(candidate, root, problems)
    return []


def _places(entry: str, base: Path, root: Path) -> Iterator[Path]:
    """Where a path in a file may lead: as it stands, without its leading dots, or by its end (another machine's path)."""
    entry = entry.replace("\\", "/")
    stripped = re.sub(r"^(\.{1,2}/)+", "", entry)
    yield from (base / entry, root / entry, root / stripped, root.parent / stripped)
    parts = stripped.split("/")
    shortest = 1 if "." in parts[-1] else 2  # the last part of a folder's path alone would match too much
    for start in range(1, len(parts) - shortest + 1):
        yield root.joinpath(*parts[start:])


def _listed(listing: Path, root: Path, problems: list[Problem]) -> list[Path]:
    images = []
    lines: list[str] = []
    with noting(problems):
        lines = read_text(listing, "a list has one image path a line", "surrogateescape").splitlines()
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry:
            continue
        found = next((place for place in _places(entry, listing.parent, root) if there(place)), None)
        if found is None:
            what = f"row {number}: {entry[:200]} is listed but not there; correct the list or restore the image"
            problems.append(Problem(listing, what, "malformed"))
        elif is_image(found):
            images.append(found)
    return images


def _label_file(image: Path, root: Path) -> Path:
    """labels/.../x.txt for images/.../x.jpg, else beside the image."""
    return _label_folder(image.parent, root) / f"{image.stem}.txt"


@cache
def _label_folder(images: Path, root: Path) -> Path:
    """The folder of label files: the last `images` below the dataset's root counts."""
    parts = list(images.parts)
    start = len(root.parts) if images.is_relative_to(root) else 0
    for index in range(len(parts) - 1, start - 1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts)


def _read_record(image: Path, root: Path, classes: int | None, problems: list[Problem]) -> Record | None:
    """The record of an image; None when its size or its labels cannot be known."""
    size = header_size(image, problems)
    if size is None:
        return None
    height, width = size
    file = _label_file(image, root)
    text: str | None = None
    with noting(problems, image):
        try:
            text = read_text(file, "export the labels again or remove it")
        except FileNotFoundError:
            text = ""
    if text is None:
        return None
    instances, found = _instances(text, width, height, classes)
    problems.extend(Problem(file, fault.what, fault.kind, image) for fault in found)
    return Record(image, width, height, tuple(instances), photograph_of(image))


def _instances(text: str, width: int, height: int, classes: int | None) -> tuple[list[Instance], list[Fault]]:
    seen: set[str] = set()
    boxes: list[Instance] = []
    outlines: list[Instance] = []
    rows: list[int] = []  # where the boxes stand
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        row = line.strip()
        if not row:
            continue
        if row in seen:
            faults.append(Fault("repeated", f"row {number}: the same as an earlier row"))
            continue
        seen.add(row)
        instance, fault = _instance(row, width, height, classes)
        if fault is not None:
            faults.append(Fault(fault.kind, f"row {number}: {fault.what}"))
        if instance is not None:
            (outlines if instance.polygons else boxes).append(instance)
            rows += [] if instance.polygons else [number]
    if boxes and outlines:
        told = ", ".join(map(str, rows[:3]))
        faults.append(Fault("boxed", f"row {told}: a box among polygons; it counts for detection, not for masks"))
    return [*outlines, *boxes], faults


def _instance(row: str, width: int, height: int, classes: int | None) -> tuple[Instance | None, Fault | None]:
    read = _numbers(row)
    if isinstance(read, Fault):
        return None, read
    label, values = read
    if not 0 <= label < (_MAX_CLASSES if classes is None else classes):
        known = f"in data.yaml (0..{classes - 1})" if classes else "a class number"
        return None, Fault("class", f"class {label} is not {known}")
    if len(values) == 4:
        x, y, w, h = values * np.array([width, height, width, height])
        box, fault = clean_box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), width, height)
        return (Instance(label, (), box) if box is not None else None), fault
    polygon, fault = clean_polygon(values.reshape(-1, 2) * [width, height], width, height)
    return (Instance(label, (polygon,), box_of([polygon])) if polygon is not None else None), fault


def _numbers(row: str) -> tuple[int, np.ndarray] | Fault:
    """Class and coordinates of one row."""
    try:
        label, *values = map(float, row.split())
        if label != int(label):
            raise ValueError
    except (ValueError, OverflowError):
        shown = row if len(row) <= 40 else row[:37] + "..."
        return Fault("malformed", f"not `class x y ...` in numbers: {shown!r}; correct or remove it")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        what = f"{len(values)} coordinates; a box has 4, a polygon an even number from 6 on; correct or remove it"
        return Fault("malformed", what)
    numbers = np.array(values)
    if not np.abs(numbers).max() <= 1e9:  # far outside stays outside, without overflow; what is not finite stays so
        numbers = np.where(np.isfinite(numbers), np.clip(numbers, -1e9, 1e9), numbers)
    return int(label), numbers


ADAPTER = Adapter("yolo", "YOLO text labels (data.yaml, images/ and labels/)", _recognise, _read)
