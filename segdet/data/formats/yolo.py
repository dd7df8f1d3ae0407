"""YOLO text labels, boxes and polygons, in the arrangements that `yolo_files` knows.

`data.yaml` (Darknet: `obj.data`) names classes and splits; `labels/` mirrors `images/`. A row is `class x1 y1 x2 y2 ...`,
normalised, at least three points; a row of five numbers is a box `class x_centre y_centre width height`. An empty label
file is an image without objects, and so is a missing one, unless no image of the split has any. Paths in data.yaml are
often wrong (`../train/images`, absolute paths of another
machine), so they are tried in several ways before the folders themselves decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segdet.data.folders import files_under
from segdet.data.formats import class_names, matching, yolo_files, yolo_rows
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
from segdet.data.formats.layout import Tree, file_in, files_in
from segdet.data.images import is_image
from segdet.data.records import (
    Dataset,
    Problem,
    Record,
    photograph_of,
)
from segdet.text import decoded

_SPLIT_KEYS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


def _recognise(path: Path) -> str | None:
    if path.is_file():
        is_card = {".yaml": _is_card, ".yml": _is_card, ".data": _is_darknet_card}.get(path.suffix.lower())
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
    endings = {".png" if is_image(file) else file.suffix.lower() for file in files_under(folder)}
    return ".txt" in endings or endings.isdisjoint((".png", ".json", ".xml", ".csv"))


def _read(path: Path, name: str, evidence: str) -> Dataset:
    card = path if path.is_file() else _card_of(path)
    root = card.parent if card is not None else path
    problems: list[Problem] = []
    content: dict[str, Any] = {}
    names: list[str] = []
    keypoints = 0
    if card is not None:
        with noting(problems):
            if card.suffix.lower() == ".data":
                content = yolo_files.darknet_card(card, problems)
                names = content.get("names", [])
            else:
                content = _load_card(card)
                names = _class_names(content, card)
                keypoints = _keypoints(content, card)
    images = _split_images(content, root, card, problems)
    labels = yolo_files.Labels(root)
    files = labels.match([image for some in images.values() for image in some])
    matching.report(files.doubts, root, problems)
    label_of = {image: file for file, image in files.images.items()}
    _drop_unlabelled(images, label_of, labels, root, problems)
    notes = [evidence]
    if keypoints:
        notes.append("pose labels (kpt_shape): read as boxes, keypoints are not used")
    if not names:
        parents = {image.parent for some in images.values() for image in some}
        places = sorted(parents | {labels.folder(parent) for parent in parents})
        names, source = yolo_files.class_names(root, places, card, problems)
        if source is not None:
            notes.append(f"class names from {source.relative_to(root).as_posix()}")
    splits: dict[str, tuple[Record, ...]] = {}
    highest = -1
    doubtful = files.doubtful
    for split, some in images.items():
        records = []
        for image in some:
            record = None
            if image not in doubtful:
                record = _read_record(image, label_of.get(image), len(names) if names else None, keypoints, problems)
            if record is not None:
                records.append(record)
                highest = max([highest, *(instance.label for instance in record.instances)])
        splits[split] = tuple(records)
    bare = sum(record.image not in label_of for records in splits.values() for record in records)
    if bare:
        notes.append(f"{bare} images without a label file count as background")
    if card is not None and isinstance(content.get("names"), str) and any(one.kind == "class" for one in problems):
        what = f"`names` is a single name, but rows of the labels have other classes; {class_names.EXAMPLE}"
        problems.append(Problem(card, what, "malformed"))
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
    usual = (file_in(folder, name) for name in ("data.yaml", "data.yml"))
    candidates = [*filter(None, usual), *files_in(folder, ".yaml"), *files_in(folder, ".yml")]
    darknet = (file for file in files_in(folder, ".data") if _is_darknet_card(file))
    return next(filter(_is_card, candidates), None) or next(darknet, None)


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
        if count > yolo_rows.MAX_CLASSES:
            raise Malformed(card, f"nc is {count}; at most {yolo_rows.MAX_CLASSES} classes are possible")
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
        lost: list[str] = []
        for one in entry if isinstance(entry, list) else [] if entry is None else [entry]:
            some = _images_of(str(one), content, root, problems)
            images.extend(some)
            lost += [] if some else [" ".join(str(one).split())[:200]]
        if images and lost and card is not None:
            what = f"{split}: {', '.join(lost[:3])} leads to no image; correct the path in the file or remove it"
            problems.append(Problem(card, what, "malformed" if split == "train" else "image-missing"))
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
    places = list(_places(entry, base, root))
    tree = Tree(root)
    below = (place.relative_to(root).as_posix() for place in places if place.is_relative_to(root))
    spelled = (folder for at in below if (folder := tree.at(at)) is not None)  # in any case
    for candidate in (*places, *spelled):
        if folder_there(candidate):
            return images_under(candidate)
        if candidate.suffix.lower() == ".txt" and there(candidate):
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


def _drop_unlabelled(
    splits: dict[str, list[Path]],
    label_of: Mapping[Path, Path],
    labels: yolo_files.Labels,
    root: Path,
    problems: list[Problem],
) -> None:
    """Take out splits without a folder of labels, or whose label files all belong to other images.

    Nobody said that their images show nothing. An empty folder of labels says so.
    """
    folders = {split: {labels.folder(image.parent) for image in images} for split, images in splits.items()}
    used = {file.parent for file in label_of.values()}
    bare = [split for split, some in folders.items() if not any(at in used or labels.empty(at) for at in some)]
    whole = len(bare) == len(splits)
    for split in bare:
        images = splits.pop(split)
        expected = labels.folder(images[0].parent) / f"{images[0].stem}.txt"
        what = f"{split}: not one label file for its {len(images)} images (the first should be {_short(expected, root)}"
        elsewhere = next((file for file in files_under(root) if file.name == expected.name), None)
        what += f"; {_short(elsewhere, root)} is there: rename its folder)" if elsewhere is not None else ")"
        what += "; save empty files for images without objects"
        problems.append(Problem(root, what, "malformed" if whole else "unlabelled"))


def _short(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _read_record(
    image: Path, file: Path | None, classes: int | None, keypoints: int, problems: list[Problem]
) -> Record | None:
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
    instances, found = yolo_rows.instances(text, width, height, classes, keypoints)
    problems.extend(Problem(file, fault.what, fault.kind, image) for fault in found)
    return Record(image, width, height, tuple(instances), photograph_of(image))


ADAPTER = Adapter(
    "yolo", "YOLO text labels (data.yaml; images/ and labels/; or text files beside the images)", _recognise, _read
)
