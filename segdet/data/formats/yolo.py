"""YOLO text labels, boxes and polygons, in the arrangements that `yolo_files` knows.

`data.yaml` (Darknet: `obj.data`) names classes and splits; `labels/` mirrors `images/`. A row is `class x1 y1 x2 y2 ...`, normalised, at
least three points; a row of five numbers is a box `class x_centre y_centre width height`. An empty or missing label
file is an image without objects. Paths in data.yaml are often wrong (`../train/images`, absolute paths of another
machine), so they are tried in several ways before the folders themselves decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.formats import class_names, yolo_files
from segdet.data.formats.base import (
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
        is_card = {".yaml": _is_card, ".yml": _is_card, ".data": _is_darknet_card}.get(path.suffix)
        return f"{path.name} with class names" if is_card is not None and is_card(path) else None
    card = _card_of(path)
    if card is not None:
        return f"{card.name} with class names and splits"
    if not path.is_dir():
        return None
    labels = yolo_files.Labels(path)
    for split, folder in yolo_files.image_folders(path).items():
        image = next(iter(folder.files()), None)
        if image is None:
            continue
        at = labels.folder(image.parent)
        if at == image.parent:
            if yolo_files.has_rows_beside(at):
                return f"{split} images with text files of rows beside them ({at.relative_to(path).as_posix()})"
        elif _holds_rows(at):
            return f"{split} images in {folder.path.relative_to(path)} with a labels folder beside"
    return None


def _holds_rows(folder: Path) -> bool:
    """A folder for label files: text files, or nothing at all (all background), but no labels of another kind."""
    if not folder.is_dir():
        return False
    if next(folder.rglob("*.txt"), None) is not None:
        return True
    return not any(is_image(file) or file.suffix.lower() in (".json", ".xml", ".csv") for file in folder.rglob("*"))


def _read(path: Path, name: str, evidence: str) -> Dataset:
    card = path if path.is_file() else _card_of(path)
    root = card.parent if card is not None else path
    problems: list[Problem] = []
    content: dict[str, Any] = {}
    names: list[str] = []
    keypoints = 0
    if card is not None:
        with noting(problems):
            if card.suffix == ".data":
                content = yolo_files.darknet_card(card, problems)
                names = content.get("names", [])
            else:
                content = _load_card(card)
                names = _class_names(content, card)
                keypoints = _keypoints(content, card)
    labels = yolo_files.Labels(root)
    images_by_split = _split_images(content, root, card, problems)
    notes = [evidence]
    if keypoints:
        notes.append("pose labels (kpt_shape): read as boxes, keypoints are not used")
    if not names:
        parents = {image.parent for images in images_by_split.values() for image in images}
        places = sorted(parents | {labels.folder(parent) for parent in parents})
        names, source = yolo_files.class_names(root, places, card, problems)
        if source is not None:
            notes.append(f"class names from {source.relative_to(root).as_posix()}")
    splits: dict[str, tuple[Record, ...]] = {}
    highest = -1
    for split, images in images_by_split.items():
        records = []
        for image in images:
            record = _read_record(image, labels, len(names) if names else None, keypoints, problems)
            if record is not None:
                records.append(record)
                highest = max([highest, *(instance.label for instance in record.instances)])
        splits[split] = tuple(records)
    if not names:
        names = [f"class_{index}" for index in range(highest + 1)]
        without = "no data.yaml or classes.txt" if card is None else f"no class names in {card.name}"
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
    darknet = (file for file in sorted(folder.glob("*.data")) if _is_darknet_card(file))
    return next((path for path in candidates if path.is_file() and _is_card(path)), None) or next(darknet, None)


def _is_darknet_card(path: Path) -> bool:
    """Whether a file is Darknet's `obj.data`, which CVAT's YOLO 1.1 export has too."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return False
    return all(re.search(rf"^\s*{key}\s*=", text, re.MULTILINE) is not None for key in ("train", "names"))


def _load_card(card: Path) -> dict[str, Any]:
    what = "a data.yaml has the keys train, val and names"
    content = load_yaml(card, what)
    if not isinstance(content, dict):
        raise Malformed(card, f"not a YAML mapping; {what}")
    return content


def _class_names(content: dict[str, Any], card: Path) -> list[str]:
    names, count = class_names.in_yaml(card), None
    if content.get("nc") is not None:
        count = class_names.whole(content["nc"])
        if count is None:
            raise Malformed(card, f"nc is {str(content['nc'])[:40]!r}, not a whole number; correct or remove it")
        if count > _MAX_CLASSES:
            raise Malformed(card, f"nc is {count}; at most {_MAX_CLASSES} classes are possible")
    if not names:
        return [f"class_{index}" for index in range(count or 0)]
    if set(names) != set(range(len(names))):
        rows = ", ".join(f"{index}: {names[number]}" for index, number in enumerate(sorted(names)[:4]))
        raise Malformed(
            card,
            f"class numbers in `names` are {_listed_numbers(names)}, not 0..{len(names) - 1}; number them from 0 on "
            f"without holes, there ({rows}) and in the rows of the label files",
        )
    if count is not None and count != len(names):
        raise Malformed(card, f"nc is {count} but {len(names)} names are given; make them agree")
    return [names[index] for index in range(len(names))]


def _listed_numbers(names: dict[int, str]) -> str:
    return ", ".join(map(str, sorted(names)[:8])) + (", ..." if len(names) > 8 else "")


def _keypoints(content: dict[str, Any], card: Path) -> int:
    """How many values of a row belong to keypoints: a data.yaml of pose labels says so in `kpt_shape`."""
    shape = content.get("kpt_shape")
    if shape is None:
        if content.get("flip_idx") is not None:
            raise Malformed(card, "`flip_idx` without `kpt_shape`; pose labels need both, other labels neither")
        return 0
    numbers = [class_names.whole(value) for value in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or numbers[1] not in (2, 3) or not numbers[0]:
        raise Malformed(card, f"kpt_shape is {str(shape)[:40]}; it is [keypoints, 2] or [keypoints, 3]")
    return numbers[0] * numbers[1]


def _split_images(
    content: dict[str, Any], root: Path, card: Path | None, problems: list[Problem]
) -> dict[str, list[Path]]:
    looked_up = yolo_files.image_folders(root) if root.is_dir() else {}
    splits: dict[str, list[Path]] = {}
    for split, keys in _SPLIT_KEYS.items():
        entry = next((content[key] for key in keys if content.get(key)), None)
        images: list[Path] = []
        if entry is not None:
            for one in entry if isinstance(entry, list) else [entry]:
                images.extend(_images_of(str(one), content, root, problems))
        if not images and split in looked_up:
            images = looked_up[split].files()
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


def _read_record(
    image: Path, labels: yolo_files.Labels, classes: int | None, keypoints: int, problems: list[Problem]
) -> Record | None:
    """The record of an image; None when its size or its labels cannot be known."""
    size = header_size(image, problems)
    if size is None:
        return None
    height, width = size
    file = labels.file(image)
    text: str | None = None
    with noting(problems, image):
        try:
            text = read_text(file, "export the labels again or remove it")
        except FileNotFoundError:
            text = ""
    if text is None:
        return None
    instances, found = _instances(text, width, height, classes, keypoints)
    problems.extend(Problem(file, fault.what, fault.kind, image) for fault in found)
    return Record(image, width, height, tuple(instances), photograph_of(image))


def _instances(
    text: str, width: int, height: int, classes: int | None, keypoints: int
) -> tuple[list[Instance], list[Fault]]:
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
        instance, fault = _instance(row, width, height, classes, keypoints)
        if fault is not None:
            faults.append(Fault(fault.kind, f"row {number}: {fault.what}"))
        if instance is not None:
            (outlines if instance.polygons else boxes).append(instance)
            rows += [] if instance.polygons else [number]
    if boxes and outlines:
        told = ", ".join(map(str, rows[:3]))
        faults.append(Fault("boxed", f"row {told}: a box among polygons; it counts for detection, not for masks"))
    return [*outlines, *boxes], faults


def _instance(
    row: str, width: int, height: int, classes: int | None, keypoints: int
) -> tuple[Instance | None, Fault | None]:
    read = _numbers(row, keypoints)
    if isinstance(read, Fault):
        return None, read
    label, values = read
    if not 0 <= label < (_MAX_CLASSES if classes is None else classes):
        known = f"in the list of classes (0..{classes - 1})" if classes else "a class number"
        return None, Fault("class", f"class {label} is not {known}")
    if len(values) == 4:
        x, y, w, h = values * np.array([width, height, width, height])
        box, fault = clean_box((x - w / 2, y - h / 2, x + w / 2, y + h / 2), width, height)
        return (Instance(label, (), box) if box is not None else None), fault
    polygon, fault = clean_polygon(values.reshape(-1, 2) * [width, height], width, height)
    return (Instance(label, (polygon,), box_of([polygon])) if polygon is not None else None), fault


def _numbers(row: str, keypoints: int) -> tuple[int, np.ndarray] | Fault:
    """Class and coordinates of one row; of a pose only the box."""
    try:
        label, *values = map(float, row.split())
        if label != int(label):
            raise ValueError
    except (ValueError, OverflowError):
        shown = row if len(row) <= 40 else row[:37] + "..."
        return Fault("malformed", f"not `class x y ...` in numbers: {shown!r}; correct or remove it")
    if keypoints:
        if len(values) not in (4, 4 + keypoints):
            what = f"{len(values)} values after the class; kpt_shape says {4 + keypoints} (a box and its keypoints)"
            return Fault("malformed", f"{what}; correct the row or kpt_shape")
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        what = f"{len(values)} coordinates; a box has 4, a polygon an even number from 6 on; correct or remove it"
        return Fault("malformed", what)
    numbers = np.array(values)
    if not np.abs(numbers).max() <= 1e9:  # far outside stays outside, without overflow; what is not finite stays so
        numbers = np.where(np.isfinite(numbers), np.clip(numbers, -1e9, 1e9), numbers)
    return int(label), numbers


ADAPTER = Adapter(
    "yolo", "YOLO text labels (data.yaml; images/ and labels/; or text files beside the images)", _recognise, _read
)
