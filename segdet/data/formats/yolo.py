"""YOLO text labels, boxes and polygons: the folders of Ultralytics and of Roboflow's YOLO exports.

`data.yaml` names classes and splits; `labels/` mirrors `images/`. A row is `class x1 y1 x2 y2 ...`, normalised, at
least three points; a row of five numbers is a box `class x_centre y_centre width height`. An empty label file is an
image without objects, and so is a missing one, unless no image of the split has any. Paths in data.yaml are often wrong (`../train/images`, absolute paths of another
machine), so they are tried in several ways before the folders themselves decide.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.folders import files_under, in_any_case
from segdet.data.formats import matching
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
        if image is not None and _holds_rows(_label_folder(image.parent, path)):
            return f"{split} images in {folder.relative_to(path)} with a labels folder beside"
    return None


def _holds_rows(folder: Path) -> bool:
    """A folder for label files: text files, or nothing at all (all background), but not another tool's JSON."""
    if not folder.is_dir():
        return False
    endings = {file.suffix.lower() for file in files_under(folder)}
    return ".txt" in endings or ".json" not in endings


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
    images = _split_images(content, root, card, problems)
    labels, doubtful = _label_files([image for some in images.values() for image in some], root, problems)
    _drop_unlabelled(images, labels, root, problems)
    splits: dict[str, tuple[Record, ...]] = {}
    highest = -1
    for split, some in images.items():
        records = []
        for image in some:
            record = None
            if image not in doubtful:
                record = _read_record(image, labels.get(image), len(names) if names else None, problems)
            if record is not None:
                records.append(record)
                highest = max([highest, *(instance.label for instance in record.instances)])
        splits[split] = tuple(records)
    notes = [evidence]
    bare = sum(record.image not in labels for records in splits.values() for record in records)
    if bare:
        notes.append(f"{bare} images without a label file count as background")
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
        text = path.read_text(encoding="utf-8-sig", errors="replace")
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
            for folder in map(in_any_case, (root / "images" / name, root / name / "images")):
                if split not in found and folder.is_dir():
                    found[split] = folder
    if not found and in_any_case(root / "images").is_dir():
        found["train"] = in_any_case(root / "images")
    return found


def _split_images(
    content: dict[str, Any], root: Path, card: Path | None, problems: list[Problem]
) -> dict[str, list[Path]]:
    looked_up = _folders(root)
    splits: dict[str, list[Path]] = {}
    for split, keys in _SPLIT_KEYS.items():
        entry = next((content[key] for key in keys if content.get(key)), None)
        images: list[Path] = []
        lost: list[str] = []
        for one in entry if isinstance(entry, list) else [] if entry is None else [entry]:
            some = _images_of(str(one), content, root, problems)
            images.extend(some)
            lost += [] if some else [" ".join(str(one).split())[:200]]
        if images and lost and card is not None:
            what = f"{split}: {', '.join(lost[:3])} leads to no image; correct the path in the file or remove it"
            problems.append(Problem(card, what, "malformed" if split == "train" else "image-missing"))
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
    places = list(_places(entry, base, root))
    for candidate in (*places, *map(in_any_case, places)):
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
        lines = read_text(listing, "a list has one image path a line").splitlines()
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


def _label_files(images: Iterable[Path], root: Path, problems: list[Problem]) -> tuple[dict[Path, Path], set[Path]]:
    """The label file of each image that has one, and the images of which nobody can say which file is theirs.

    Label files are `labels/.../x.txt` for `images/.../x.jpg`, else beside the images. The case of names does not count, and
    a name may keep the image's ending (`x.jpg.txt`).
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for image in dict.fromkeys(images):
        folders[image.parent].append(image)
    found: dict[Path, Path] = {}
    doubtful: set[Path] = set()
    for folder, some in folders.items():
        place = _label_folder(folder, root)
        listed = sorted(file for file in place.iterdir() if file.suffix.lower() == ".txt" and file.name[0] != ".")
        files = [file for file in listed if file.exists()]  # links may lead nowhere
        matches = matching.by_stem(files, place, some, folder)
        matching.report(matches.doubts, root, problems)
        found.update({image: file for file, image in matches.images.items()})
        doubtful |= matches.doubtful
    return found, doubtful


def _label_folder(images: Path, root: Path) -> Path:
    """The folder of label files: the last `images` below the dataset's root counts. Without such a folder, the images' own."""
    parts = list(images.parts)
    start = len(root.parts) if images.is_relative_to(root) else 0
    for index in range(len(parts) - 1, start - 1, -1):
        if parts[index].lower() == "images":
            parts[index] = "labels"
            break
    folder = in_any_case(Path(*parts))
    return folder if folder_there(folder) else images


def _drop_unlabelled(
    splits: dict[str, list[Path]], labels: Mapping[Path, Path], root: Path, problems: list[Problem]
) -> None:
    """Take out splits of which no image has a label file: nobody said that they show nothing."""
    bare = [split for split, images in splits.items() if not any(image in labels for image in images)]
    whole = len(bare) == len(splits)
    for split in bare:
        images = splits.pop(split)
        first = images[0]
        expected = _label_folder(first.parent, root) / f"{first.stem}.txt"
        what = f"{split}: not one label file for its {len(images)} images (the first should be {_short(expected, root)}"
        elsewhere = next((file for file in files_under(root) if file.name == expected.name), None)
        what += f"; {_short(elsewhere, root)} is there: rename its folder)" if elsewhere is not None else ")"
        what += "; save empty files for images without objects"
        problems.append(Problem(root, what, "malformed" if whole else "unlabelled"))


def _short(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _read_record(image: Path, file: Path | None, classes: int | None, problems: list[Problem]) -> Record | None:
    """The record of an image; None when its size or its labels cannot be known."""
    size = header_size(image, problems)
    if size is None:
        return None
    height, width = size
    if file is None:
        return Record(image, width, height, (), photograph_of(image))
    text: str | None = None
    with noting(problems, image):
        text = read_text(file, "export the labels again or remove it")
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
