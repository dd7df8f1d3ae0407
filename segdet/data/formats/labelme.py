"""LabelMe: a JSON file for each image, with polygons, rectangles, circles and masks.

`imageData` (a copy of the picture) is not read; `labelme_pictures` writes it to a file. `imagePath` is often wrong
(another machine's folders, backslashes), so the image is looked for beside the file by several names, then below the
dataset's folder by the longest matching end of its path and of the file's own. Shapes of one `group_id` and label are
parts of one object.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segdet.data.folders import files_under
from segdet.data.formats import labelme_pictures, matching, shapes
from segdet.data.formats.base import (
    Adapter,
    give_up,
    header_size,
    images_under,
    in_order,
    load_json,
    noting,
    read_text,
    split_of,
)
from segdet.data.formats.class_names import whole
from segdet.data.formats.layout import holds_lists
from segdet.data.geometry import masks, rasterize
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

_ASKED = 50  # JSON files looked at to recognise the layout, should the first ones be damaged
_OPEN = ("line", "linestrip", "point", "points")
_CORNERS = ("oriented_rectangle", "rotation", "quadrilateral")  # four corners: LabelMe 5.6 and X-AnyLabeling
_IGNORED = "__ignore__"  # LabelMe's own name for pixels that count neither for nor against


def _recognise(path: Path) -> str | None:
    if not path.is_dir():
        return None
    file = next((file for file in _files(path)[:_ASKED] if holds_lists(file, "shapes")), None)
    return f"{file.relative_to(path)}, a LabelMe file" if file is not None else None


def _files(root: Path) -> list[Path]:
    return sorted(
        file for file in files_under(root) if file.suffix.lower() == ".json" and not file.name.startswith("_")
    )


def _read(path: Path, name: str, evidence: str) -> Dataset:
    problems: list[Problem] = []
    ignored: Counter[str] = Counter()
    contents = {}
    for file in _files(path):
        with noting(problems):
            content = _load(file, problems)
            if content is not None:
                contents[file] = content
    classes = _classes(path, contents, problems)
    images = images_under(path)
    names = {file: _named(file, content, path) for file, content in contents.items()}
    matches = matching.match(names, lambda: images, path)
    matching.report(matches.doubts, path, problems)
    splits: dict[str, list[Record]] = {}
    for file, content in contents.items():
        record = None
        if file in matches.images:
            record = _record(file, content, matches.images[file], classes, problems, ignored)
        elif file not in matches.doubtful:
            problems.append(Problem(file, _missing(file, content), "image-missing"))
        if record is None:
            give_up(file)
        else:
            splits.setdefault(split_of(file, path), []).append(record)
    if ignored:
        said = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))
        problems.append(Problem(path, f"shapes that enclose nothing: {said}", "open"))
    notes = [evidence]
    without = len(images) - len({record.image for records in splits.values() for record in records})
    if without:
        notes.append(f"{without} images without a usable JSON file are left out")
    return Dataset(name, path, "LabelMe", classes, in_order(splits), tuple(problems), None, tuple(notes))


def _load(file: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """The content of a LabelMe file, whose shapes are nothing but objects with a label; None when it is some other JSON.

    Raises:
        Malformed: no JSON.
    """
    content = load_json(file, "save it again or remove it")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        problems.append(Problem(file, "not a LabelMe file (no list `shapes`)", "stray"))
        return None
    for index, shape in enumerate(content["shapes"]):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            what = f"shapes[{index}] is not an object with a `label`; correct or remove it"
            problems.append(Problem(file, what, "malformed"))
            content["shapes"][index] = None  # the others keep their numbers
    return content


def _classes(root: Path, contents: dict[Path, dict[str, Any]], problems: list[Problem]) -> tuple[str, ...]:
    """The order of `labels.txt` where there is one, then the other labels, sorted."""
    lines: list[str] = []
    with noting(problems):
        if (root / "labels.txt").is_file():
            lines = read_text(root / "labels.txt", "one label a line").splitlines()
    named = dict.fromkeys(line.strip() for line in lines if line.strip() not in ("", "_background_", _IGNORED))
    used = {shape["label"] for content in contents.values() for shape in content["shapes"] if shape is not None}
    return (*named, *sorted(used - set(named) - {_IGNORED, "_background_"}))


def _record(
    file: Path,
    content: dict[str, Any],
    path: Path,
    classes: tuple[str, ...],
    problems: list[Problem],
    ignored: Counter[str],
) -> Record | None:
    size = header_size(path, problems)
    if size is None:
        return None
    height, width = size
    declared = [whole(side) if side else None for side in (content.get("imageWidth"), content.get("imageHeight"))]
    if None not in declared and declared != [width, height]:
        stated = " ".join(f"{str(declared[0])[:20]}x{str(declared[1])[:20]}".split())
        problems.append(Problem(file, f"labelled as {stated}, but the image is {width}x{height}", "size", path))
        return None
    parts: dict[Any, list[Instance]] = {}
    skipped: np.ndarray | None = None
    for index, shape in enumerate(content["shapes"]):
        if shape is None:
            continue
        kind = str(shape.get("shape_type") or "polygon")
        if kind in _OPEN:
            ignored[kind] += 1
            continue
        instance, fault = _instance(shape, kind, classes, width, height)
        if instance is not None and shape["label"] == _IGNORED:
            area = Record(path, width, height, (_outlined(instance),), "")
            inside = rasterize.binary(rasterize.foreground(area))
            skipped = inside if skipped is None else skipped | inside
        elif instance is not None and shape["label"] in classes:
            group = shape.get("group_id")
            parts.setdefault((shape["label"], group) if isinstance(group, int) else index, []).append(instance)
        if fault is not None:
            what = f"shapes[{index}] ({' '.join(shape['label'].split())[:40]}): {fault.what}"
            problems.append(Problem(file, what, fault.kind, path))
    instances = tuple(_one(members) for members in parts.values())
    ignore = masks.encode(skipped) if skipped is not None else None
    return Record(path, width, height, instances, photograph_of(path), ignore)


def _named(file: Path, content: dict[str, Any], root: Path) -> matching.Name:
    """What a file calls its image: where it says, else of that name beside it, else of the file's own name."""
    named = str(content.get("imagePath") or "")
    parts = matching.parts_of(named)
    own = file.relative_to(root).with_suffix("").as_posix()
    if not parts:
        return matching.Name(tuple(_beside(file)), (own,))
    below = posixpath.normpath(posixpath.join(posixpath.dirname(own), *parts))
    places = [root / below] if not below.startswith("..") and not named.startswith("/") else []
    places = [place for place in (*places, file.parent / parts[-1]) if is_image(place)]
    return matching.Name((*places, *_beside(file)), (below, own))


def _beside(file: Path) -> Iterator[Path]:
    """The image beside a file that has its stem, where there is just one."""
    images = [image for image in sorted(file.parent.glob(f"{_literal(file.stem)}.*")) if is_image(image)]
    if len(images) == 1:
        yield images[0]


def _missing(file: Path, content: dict[str, Any]) -> str:
    """Why a file has no image, and what helps."""
    named = " ".join(str(content.get("imagePath")).split())[:80]
    way_out = f"; {labelme_pictures.advice(file)}" if labelme_pictures.has_picture(content) else ""
    return f"its image {named} is not there{way_out}"


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _instance(
    shape: dict[str, Any], kind: str, classes: tuple[str, ...], width: int, height: int
) -> tuple[Instance | None, Fault | None]:
    label = classes.index(shape["label"]) if shape["label"] in classes else 0
    points = _points(shape.get("points"))
    if points is None:
        return None, Fault("shape", "its points are not pairs of numbers")
    if kind == "rectangle":
        if len(points) not in (2, 4):
            return None, Fault("shape", f"a rectangle of {len(points)} points; it has 2 or 4")
        box, fault = clean_box((*points.min(axis=0).tolist(), *points.max(axis=0).tolist()), width, height)
        return (Instance(label, (), box) if box is not None else None), fault
    if kind == "mask":
        return _mask(shape, points, label, width, height)
    if kind == "circle":
        if len(points) != 2:
            return None, Fault("shape", f"a circle of {len(points)} points; it has its centre and one on its edge")
        radius = math.dist(points[0], points[1])
        points = shapes.within(shapes.ellipse(float(points[0, 0]), float(points[0, 1]), radius, radius), width, height)
    elif kind in _CORNERS and len(points) != 4:
        return None, Fault("shape", f"{kind} of {len(points)} points; it has 4 corners")
    elif kind not in ("polygon", *_CORNERS):
        return None, Fault("shape", f"{kind[:40]!r} is no shape of LabelMe")
    polygon, fault = clean_polygon(points, width, height)
    return (Instance(label, (polygon,), box_of([polygon])) if polygon is not None else None), fault


def _outlined(instance: Instance) -> Instance:
    """With the outline of its box, where that is all there is."""
    if instance.outlined:
        return instance
    x1, y1, x2, y2 = instance.box
    return replace(instance, polygons=(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32),))


def _points(value: Any) -> np.ndarray | None:
    """float64 `[P, 2]` from JSON; a number too large for a float counts as infinite."""
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for pair in value for v in pair) or not value:
        return None
    try:
        return np.array(value, np.float64)
    except OverflowError:
        return np.full((len(value), 2), np.inf)


def _mask(
    shape: dict[str, Any], points: np.ndarray, label: int, width: int, height: int
) -> tuple[Instance | None, Fault | None]:
    """A PNG in base64 whose upper left corner is the first point."""
    try:
        data = base64.b64decode(str(shape.get("mask") or ""), validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width > width or picture.height > height:
                return None, Fault(
                    "outside", f"its mask is {picture.width}x{picture.height}, the image {width}x{height}"
                )
            stamp = np.asarray(picture.convert("L")) > 0 if picture.mode != "1" else np.asarray(picture)
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        return None, Fault("shape", "its mask is not a PNG in base64")
    if not np.isfinite(points).all() or (np.abs(points) > 1e6).any():
        return None, Fault("not-finite", "its mask's place is not a finite number")
    x, y = (int(value) for value in points[0].round())
    if x < 0 or y < 0 or x + stamp.shape[1] > width or y + stamp.shape[0] > height:
        return None, Fault("outside", f"its mask lies outside the {width}x{height} image")
    whole = np.zeros((height, width), bool)
    whole[y : y + stamp.shape[0], x : x + stamp.shape[1]] = stamp
    if not whole.any():
        return None, Fault("no-area", "its mask marks no pixel")
    rle = masks.encode(whole)
    return Instance(label, (), masks.box(rle), rle), None


def _one(members: list[Instance]) -> Instance:
    """Parts of one object as one: polygons side by side, masks united, a box only where there is nothing else."""
    if len(members) == 1:
        return members[0]
    polygons = tuple(polygon for member in members for polygon in member.polygons)
    stamps = [member.rle for member in members if member.rle is not None]
    corners = np.array([member.box for member in members])
    box = (*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist())
    return Instance(members[0].label, polygons, box, masks.union(stamps) if stamps else None)


ADAPTER = Adapter("labelme", "LabelMe JSON files beside their images", _recognise, _read)
