"""CVAT for images 1.1: one annotations.xml with polygons, boxes, ellipses and run-length masks.

Polylines, points, cuboids and skeletons enclose nothing and are counted and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from segdet.data.formats import matching, shapes
from segdet.data.formats.base import (
    Adapter,
    Malformed,
    header_size,
    images_under,
    in_order,
    noting,
    split_named,
    split_of,
)
from segdet.data.formats.layout import Tree, file_in
from segdet.data.formats.xml_files import number, parse, root_tag
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

_OPEN = ("polyline", "points", "cuboid", "skeleton", "tag")  # nothing that a mask or a box could come from


def _recognise(path: Path) -> str | None:
    if path.is_file():
        return (
            f"{path.name}, a CVAT XML file"
            if path.suffix.lower() == ".xml" and root_tag(path) == "annotations"
            else None
        )
    files = _files(path)
    return ", ".join(str(file.relative_to(path)) for file in files.values()) if files else None


def _files(root: Path) -> dict[str, Path]:
    """Annotation files by split; "" when the file itself names the splits."""
    folders = {"": root, **Tree(root).splits()}
    files = {split: file_in(folder, "annotations.xml") for split, folder in folders.items()}
    found = {split: file for split, file in files.items() if file is not None and root_tag(file) == "annotations"}
    return {"": found[""]} if "" in found else found


def _read(path: Path, name: str, evidence: str) -> Dataset:
    files = {"": path} if path.is_file() else _files(path)
    root = path.parent if path.is_file() else path
    problems: list[Problem] = []
    roots: dict[str, ElementTree.Element] = {}
    for split, file in files.items():
        with noting(problems):
            roots[split] = _load(file)
    classes = _classes(roots.values())
    splits: dict[str, list[Record]] = {}
    for split in roots:
        file = files[split]
        elements = roots[split].findall("image")
        matches = _images(elements, file, problems)
        ignored: Counter[str] = Counter()
        for index, element in enumerate(elements):
            record = None
            if index in matches.images:
                record = _record(element, file, matches.images[index], classes, problems, ignored)
            elif index not in matches.doubtful:
                problems.append(Problem(file, f"{_shown(element)}: no such image in {file.parent}", "image-missing"))
            if record is not None:
                splits.setdefault(split or _split(element), []).append(record)
        if ignored:
            said = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))
            problems.append(Problem(file, f"shapes that enclose nothing: {said}", "open"))
    return Dataset(name, root, "CVAT", classes, in_order(splits), tuple(problems), None, (evidence,))


def _load(file: Path) -> ElementTree.Element:
    root = parse(file)
    if root.tag != "annotations":
        raise Malformed(file, f"the root element is <{root.tag[:40]}>, not <annotations>; not a CVAT file")
    if root.find("image") is None:
        kind = "tracks of a video" if root.find("track") is not None else "no image"
        raise Malformed(file, f"holds {kind}; export the task as `CVAT for images 1.1`")
    return root


def _classes(roots: Iterable[ElementTree.Element]) -> tuple[str, ...]:
    """The labels in the order of the project, then any that only shapes name, sorted."""
    named: dict[str, None] = {}
    used: set[str] = set()
    for root in roots:
        for label in root.findall("./meta//labels/label"):
            text = (label.findtext("name") or "").strip()
            if text and (label.findtext("type") or "any") not in ("points", "polyline", "skeleton", "tag"):
                named[text] = None
        used |= {shape.get("label", "").strip() for shape in root.findall("./image/*") if shape.tag not in _OPEN}
    return (*named, *sorted(used - set(named) - {""}))


def _images(elements: Sequence[ElementTree.Element], file: Path, problems: list[Problem]) -> matching.Matches[int]:
    """The image of each element: below `images/`, below the file's folder, or by the longest matching end of its name."""
    folder = file.parent
    names = {
        index: matching.named(element.get("name", ""), folder / "images", folder) or matching.Name()
        for index, element in enumerate(elements)
    }
    matches = matching.match(names, lambda: images_under(folder), folder)
    matching.report(matches.doubts, folder, problems, lambda index: (file, _shown(elements[index])))
    return matches


def _shown(element: ElementTree.Element) -> str:
    """What to call an image of the file in messages."""
    return f"image {element.get('id', '?')[:20]} ({' '.join(element.get('name', '').split())[:80]})"


def _split(element: ElementTree.Element) -> str:
    """By the image's subset, else by the folders in its name."""
    own = split_named(element.get("subset", ""))
    return own or split_of(PurePosixPath(element.get("name", "").replace("\\", "/")))


def _record(
    element: ElementTree.Element,
    file: Path,
    path: Path,
    classes: tuple[str, ...],
    problems: list[Problem],
    ignored: Counter[str],
) -> Record | None:
    shown = _shown(element)
    size = header_size(path, problems)
    if size is None:
        return None
    height, width = size
    declared = number(element, "width"), number(element, "height")
    if declared[0] > 0 and declared[1] > 0 and declared != (width, height):
        what = f"is {width}x{height}, but labelled as {declared[0]:.0f}x{declared[1]:.0f}"
        problems.append(Problem(path, what, "size", path))
        return None
    instances = []
    for index, shape in enumerate(element, 1):
        if shape.tag in _OPEN:
            ignored[str(shape.tag)] += 1
            continue
        instance, fault = _instance(shape, classes, width, height)
        if instance is not None:
            instances.append(instance)
        if fault is not None:
            problems.append(Problem(file, f"{shown}, shape {index}: {fault.what}", fault.kind, path))
    return Record(path, width, height, tuple(instances), photograph_of(path))


def _instance(
    shape: ElementTree.Element, classes: tuple[str, ...], width: int, height: int
) -> tuple[Instance | None, Fault | None]:
    name = shape.get("label", "").strip()
    if name not in classes:
        return None, Fault("class", f"label {name[:40]!r} is not in the label list")
    label = classes.index(name)
    if shape.tag == "box":
        return _box(shape, label, width, height)
    if shape.tag == "mask":
        return _mask(shape, label, width, height)
    if shape.tag == "polygon":
        points = _points(shape.get("points", ""))
        if points is None:
            return None, Fault("shape", "its points are not `x,y;x,y;...`")
    elif shape.tag == "ellipse":
        x, y, across, down = (number(shape, key) for key in ("cx", "cy", "rx", "ry"))
        points = shapes.within(shapes.ellipse(x, y, across, down, _rotation(shape)), width, height)
    else:
        return None, Fault("shape", f"<{str(shape.tag)[:40]}> is no shape of CVAT")
    polygon, fault = clean_polygon(points, width, height)
    return (Instance(label, (polygon,), box_of([polygon])) if polygon is not None else None), fault


def _points(text: str) -> np.ndarray | None:
    """float64 `[P, 2]` from `x,y;x,y`."""
    try:
        pairs = [[float(value) for value in pair.split(",")] for pair in text.split(";") if pair.strip()]
    except ValueError:
        return None
    return np.array(pairs, np.float64).reshape(-1, 2) if all(len(pair) == 2 for pair in pairs) else None


def _rotation(shape: ElementTree.Element) -> float:
    return number(shape, "rotation") if shape.get("rotation") else 0.0


def _box(shape: ElementTree.Element, label: int, width: int, height: int) -> tuple[Instance | None, Fault | None]:
    x1, y1, x2, y2 = (number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    if _rotation(shape):  # the upright box around it, as far as it lies in the image
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        corners = shapes.within(shapes.turned(corners, (x1 + x2) / 2, (y1 + y2) / 2, _rotation(shape)), width, height)
        (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    box, fault = clean_box((x1, y1, x2, y2), width, height)
    return (Instance(label, (), box) if box is not None else None), fault


def _mask(shape: ElementTree.Element, label: int, width: int, height: int) -> tuple[Instance | None, Fault | None]:
    """Runs along the rows of the mask's own rectangle, the first of background."""
    left, top, across, down = (number(shape, key) for key in ("left", "top", "width", "height"))
    if not all(value == int(value) and abs(value) < 1e6 for value in (left, top, across, down) if np.isfinite(value)):
        return None, Fault("shape", "the mask's left, top, width and height are not whole pixels")
    if not np.isfinite([left, top, across, down]).all() or not (
        left >= 0 and top >= 0 and across > 0 and down > 0 and left + across <= width and top + down <= height
    ):
        return None, Fault("outside", f"the mask's rectangle lies outside the {width}x{height} image")
    try:
        runs = np.array([int(run) for run in shape.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        return None, Fault("shape", "the run lengths are not whole numbers")
    if (runs < 0).any() or (runs > width * height).any() or runs.sum() > across * down:
        return None, Fault("shape", "the run lengths do not add up to the mask's rectangle")
    flat = np.zeros(int(across * down), np.uint8)
    drawn = np.repeat(np.arange(len(runs)) % 2, runs)
    flat[: len(drawn)] = drawn
    whole = np.zeros((height, width), np.uint8)
    whole[int(top) : int(top + down), int(left) : int(left + across)] = flat.reshape(int(down), int(across))
    if not whole.any():
        return None, Fault("no-area", "the run-length mask marks no pixel")
    rle = masks.encode(whole)
    return Instance(label, (), masks.box(rle), rle), None


ADAPTER = Adapter("cvat", "CVAT for images 1.1 (annotations.xml)", _recognise, _read)
