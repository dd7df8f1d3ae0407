"""Plain records: what every dataset becomes once it is read, whatever its format on disk.

Coordinates are pixels of the upright image (EXIF orientation applied), x to the right, y down; pixel (0, 0) covers
the square from 0 to 1, so an image of width W spans x in [0, W].
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from segdet.errors import one_line
from segdet.text import encoded

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

_SIBLING = re.compile(r"^(?P<stem>.+?)\.rf\.[0-9a-zA-Z]{8,}$")


@dataclass(frozen=True, slots=True)
class Instance:
    """One labelled object.

    label: index into the dataset's `classes`.
    polygons: the parts of its outline, each float32 `[P, 2]` (x, y) with P >= 3; empty when there is only a box or RLE.
    box: (x1, y1, x2, y2).
    rle: COCO run-length encoding `{"size": [H, W], "counts": bytes}` when the outline is a mask, else None.
    crowd: COCO `iscrowd`, a region of many objects (VOC: a `difficult` one): counts neither for nor against.
    merged: `rle` holds all of a class's pixels in the image (a semantic mask), not one object; see `boxes.objects`.
    """

    label: int
    polygons: tuple[np.ndarray, ...]
    box: Box
    rle: Mapping[str, Any] | None = None
    crowd: bool = False
    merged: bool = False

    @property
    def outlined(self) -> bool:
        """Whether there is more than a box."""
        return bool(self.polygons) or self.rle is not None


@dataclass(frozen=True, slots=True)
class Record:
    """One image and its labels.

    photograph: shared by augmented copies of the same photograph.
    ignore: COCO run-length encoding of pixels that count neither for nor against (255 in mask images), or None.
    """

    image: Path
    width: int
    height: int
    instances: tuple[Instance, ...]
    photograph: str
    ignore: Mapping[str, Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def outlined(self) -> bool:
        """Whether any of its objects is outlined."""
        return any(instance.outlined for instance in self.instances)


Kind = Literal[
    "malformed",  # a file or row that is not what its format says; training refuses the dataset
    "not-finite",  # NaN or infinite coordinates
    "outside",  # a shape outside its image
    "no-area",  # a shape that encloses nothing
    "shape",  # points, run lengths or corners that make no shape
    "open",  # shapes that are meant to enclose nothing: lines, points
    "class",  # a class, value or colour that is not declared
    "repeated",  # the same row twice
    "boxed",  # boxes among outlines: kept, for detection
    "mask",  # a mask image that cannot be used
    "ignored",  # pixels to be ignored where that cannot be: kept, as background
    "size",  # labelled at another size than the image has
    "image",  # an image file that cannot be used
    "image-missing",  # an image that is listed but not there
    "unlabelled",  # an image without the label file that the others have
    "orphan",  # labels of an image that is not there or not listed
    "ambiguous",  # a label that fits several images, or several labels that fit one
    "stray",  # a file that is no label file
]
KEPT: frozenset[Kind] = frozenset({"boxed", "ignored"})  # reported, but nothing was left out


class Fault(NamedTuple):
    """What is wrong with a row, an object or a file, and of which kind that is."""

    kind: Kind
    what: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the data that cannot be used as it stands.

    path: the file it is in. what: which row or object, and why. image: the picture it is about, where one is known.
    """

    path: Path
    what: str
    kind: Kind = "image"
    image: Path | None = None

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.what}")


Reason = Literal[
    "image-format",  # an image whose ending segdet cannot decode
    "image-unlisted",  # an image that no label file or list names
    "label-orphan",  # a label file of the kind that was read, whose image was not
    "labels-other",  # labels of another kind than those that were read
    "problem",  # a file that is the subject of a problem
    "archive",  # a file to be unpacked
    "result",  # what an earlier prediction wrote
    "dead-end",  # a link or folder that cannot be followed or opened
    "unknown",  # anything else
]


@dataclass(frozen=True, slots=True)
class Unread:
    """Files of a dataset's folder that were not read, all for one reason.

    reason: a stable name. what: in words. count: how many. examples: the first of them, relative to the folder.
    """

    reason: Reason
    what: str
    count: int
    examples: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"reason": self.reason, "what": self.what, "count": self.count, "examples": list(self.examples)}

    def __str__(self) -> str:
        shown = ", ".join(self.examples[:3])
        return one_line(f"{self.what}: {self.count} ({shown}{', ...' if self.count > 3 else ''})")


@dataclass(frozen=True, slots=True)
class Account:
    """Every file in a dataset's folder, except hidden ones: `files` = `images` + `labels` + those in `unread`.

    A file that several links lead to counts once. images: read as pictures. labels: read as labels, lists or class names.
    """

    files: int
    images: int
    labels: int
    unread: tuple[Unread, ...] = ()

    @property
    def left_out(self) -> int:
        """How many files were not read."""
        return self.files - self.images - self.labels

    def __str__(self) -> str:
        read = f"{self.images} as images, {self.labels} as labels, lists or class names"
        return f"{self.files} files: {read}, {self.left_out} not read"

    @property
    def lines(self) -> list[str]:
        """In words: how many files were read, and a line for each reason to leave some out."""
        return [str(self), *(f"  not read: {one}" for one in self.unread)]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        counts = {"files": self.files, "images": self.images, "labels": self.labels, "left_out": self.left_out}
        return {**counts, "unread": [one.to_dict() for one in self.unread]}


@dataclass(frozen=True)
class Dataset:
    """A dataset as read from disk: records by split ("train", "val", "test") and what was left out.

    account: what became of every file in the folder; None for a dataset that does not come from one.
    """

    name: str
    root: Path
    format: str
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]
    problems: tuple[Problem, ...] = ()
    licence: str | None = None
    notes: tuple[str, ...] = field(default=())
    account: Account | None = None

    def fingerprint(self) -> str:
        """SHA-256 over classes, file names, sizes and labels: changes whenever what a model would learn from does."""
        digest = hashlib.sha256(encoded("\n".join(self.classes)))
        for split in sorted(self.splits):
            for record in self.splits[split]:
                digest.update(encoded(f"{split} {record.image.name} {record.width} {record.height}"))
                digest.update(str(record.image.stat().st_size).encode())
                for instance in record.instances:
                    digest.update(f"{instance.label} {instance.crowd} {instance.box}".encode())
                    for polygon in instance.polygons:
                        digest.update(polygon.tobytes())
                    if instance.rle is not None:
                        digest.update(instance.rle["counts"])
                    if instance.merged:
                        digest.update(b"merged")
                if record.ignore is not None:
                    digest.update(b"ignore" + record.ignore["counts"])
        return digest.hexdigest()


def photograph_of(path: Path) -> str:
    """Name of the photograph behind a file: Roboflow's augmented copies are `<stem>.rf.<hash>.jpg`.

    >>> photograph_of(Path("10.rf.1be181322657e5592be06e9ed277e0b3.jpg"))
    '10'
    """
    match = _SIBLING.match(path.stem)
    return match["stem"] if match else path.stem


def by_photograph(records: Iterable[Record]) -> dict[str, list[int]]:
    """Indices of `records` grouped by photograph, in order of first appearance."""
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(record.photograph, []).append(index)
    return groups


def clean_polygon(points: np.ndarray, width: int, height: int) -> tuple[np.ndarray | None, Fault | None]:
    """Clip an outline to the image and judge it, before any rasteriser sees it.

    Rasterisers crash or hang on NaN and on coordinates such as 1e9, so nothing reaches them unchecked.

    Args:
        points: `[P, 2]` (x, y) in pixels.

    Returns:
        `(polygon, None)` with float32 `[P, 2]` inside the image, or `(None, why)` when it cannot be used.
        A point may lie outside by 1 % of the image's size (rounding of exporters); farther out is wrong data.
    """
    points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        return None, Fault("not-finite", "a coordinate is not a finite number")
    if len(points) < 3:
        return None, Fault("no-area", f"{len(points)} points make no polygon; at least 3 are needed")
    slack = 0.01 * np.array([width, height]) + 1.0
    if (points < -slack).any() or (points > np.array([width, height]) + slack).any():
        worst = points[np.argmax(np.abs(points - np.array([width, height]) / 2).max(axis=1))]
        where = f"({worst[0]:.6g}, {worst[1]:.6g})"
        return None, Fault("outside", f"point {where} lies outside the {width}x{height} image")
    points = np.clip(points, 0.0, [width, height])
    # Thickness across the main direction, where the signed area does not tell: it would call a figure of eight empty.
    thin = shoelace(points) < 0.01 * len(points) * (width + height)
    if thin and np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] <= 1e-3:
        return None, Fault("no-area", "the polygon has no area")
    return points.astype(np.float32), None


def shoelace(polygon: np.ndarray) -> float:
    """The area that a closed outline `[P, 2]` encloses; where it crosses itself, parts may cancel out."""
    x, y = polygon.T
    return 0.5 * abs(float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:]) + x[-1] * y[0] - y[-1] * x[0]))


def clean_box(box: Iterable[float], width: int, height: int) -> tuple[Box | None, Fault | None]:
    """Clip (x1, y1, x2, y2) to the image; `(box, None)`, or `(None, why)` when nothing is left of it."""
    x1, y1, x2, y2 = (float(value) for value in box)
    if not np.isfinite([x1, y1, x2, y2]).all():
        return None, Fault("not-finite", "a box coordinate is not a finite number")
    slack_x, slack_y = 0.01 * width + 1.0, 0.01 * height + 1.0
    if (
        min(x1, x2) < -slack_x
        or max(x1, x2) > width + slack_x
        or min(y1, y2) < -slack_y
        or max(y1, y2) > height + slack_y
    ):
        where = f"({x1:.6g}, {y1:.6g}, {x2:.6g}, {y2:.6g})"
        return None, Fault("outside", f"box {where} lies outside the {width}x{height} image")
    x1, x2 = (min(max(value, 0.0), float(width)) for value in (x1, x2))
    y1, y2 = (min(max(value, 0.0), float(height)) for value in (y1, y2))
    if x2 <= x1 or y2 <= y1:
        return None, Fault("no-area", "the box has no area")
    return (x1, y1, x2, y2), None


def box_of(polygons: Iterable[np.ndarray]) -> Box:
    """Smallest (x1, y1, x2, y2) around all parts."""
    points = np.concatenate(list(polygons))
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def iterate(dataset: Dataset) -> Iterator[tuple[str, Record]]:
    """All (split, record) pairs."""
    for split, records in dataset.splits.items():
        for record in records:
            yield split, record
