"""Which class a value or colour in a mask image means: the lists that tools leave beside the masks."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segdet.data.formats import class_names
from segdet.data.formats.base import Malformed, load_yaml, noting, read_text
from segdet.data.records import Problem

BACKGROUND = frozenset({"background", "_background_", "__background__", "bg", "unlabeled", "unlabelled", "void"})

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassList:
    """Names by value (0..255), the values of colours where masks may be coloured, and the file that says so."""

    names: Mapping[int, str]
    source: Path
    colours: Mapping[Colour, int] = field(default_factory=dict)

    @property
    def objects(self) -> dict[int, str]:
        """Names by value without the background."""
        return {value: name for value, name in self.names.items() if value or name.lower() not in BACKGROUND}


def find(root: Path, problems: list[Problem]) -> ClassList | None:
    """The class list in a dataset's folder, whatever tool left it there; rows that make no sense are left out of it."""
    for name, load in (
        ("_classes.csv", roboflow),
        ("labelmap.txt", labelmap),
        ("class_names.txt", lines),
        ("classes.txt", lines),
    ):
        if (root / name).is_file():
            with noting(problems):
                return load(root / name, problems)
    for file in sorted(root.glob("*.y*ml")):
        with noting(problems):
            found = card(file)
            if found is not None:
                return found
    return None


def is_roboflow(file: Path) -> bool:
    """Whether a `_classes.csv` names pixel values; one that starts `filename,` belongs to a classification export."""
    return read_text(file, "export it again").split("\n")[0].split(",")[0].strip().lower() == "pixel value"


def roboflow(file: Path, problems: list[Problem]) -> ClassList:
    """`_classes.csv` of Roboflow's png-mask-semantic: the header `Pixel Value, Class`, then `0, background`, ..."""
    names: dict[int, str] = {}
    rows = csv.reader(read_text(file, "export it again").splitlines(), skipinitialspace=True)
    next(rows, None)
    try:
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            value = row[0].strip()
            if len(row) < 2 or not (value.isascii() and value.isdigit()) or int(value) > 255 or int(value) in names:
                what = (
                    f"row {rows.line_num} is not a new `pixel value, class` from 0 to 255: "
                    f"{','.join(row)[:40]!r}; correct or remove it"
                )
                problems.append(Problem(file, what, "malformed"))
            else:
                names[int(value)] = row[1].strip()
    except csv.Error as error:
        problems.append(Problem(file, f"row {rows.line_num}: {error}; export it again", "malformed"))
    return ClassList(names, file)


def labelmap(file: Path, problems: list[Problem]) -> ClassList:
    """`labelmap.txt` of CVAT's mask and VOC exports: `name:r,g,b:parts:actions`; the line's number is the value."""
    names: dict[int, str] = {}
    colours: dict[Colour, int] = {}
    for number, line in enumerate(read_text(file, "export it again").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        colour = [part.strip() for part in rest.split(":")[0].split(",")]
        value = len(names)
        names[value] = name  # a row that makes no sense keeps its number, so that those below keep theirs
        if not all(part.isascii() and part.isdigit() and int(part) < 256 for part in colour) or len(colour) != 3:
            what = f"row {number} is not `name:red,green,blue::`: {line[:40]!r}; correct or remove it"
            problems.append(Problem(file, what, "malformed"))
        else:
            colours[int(colour[0]), int(colour[1]), int(colour[2])] = value
    # CVAT sorts by name and masks hold colours, but a palette's index 0 is the background wherever its line stands.
    background = next((v for v, name in names.items() if name.lower() in BACKGROUND), colours.get((0, 0, 0)))
    if background:
        order = [background, *(value for value in names if value != background)]
        names = {place: names[value] for place, value in enumerate(order)}
        colours = {colour: order.index(value) for colour, value in colours.items()}
    return ClassList(names, file, colours)


def lines(file: Path, problems: list[Problem]) -> ClassList:
    """`classes.txt` or labelme2voc's `class_names.txt`: a name a line.

    The first line is value 0 when it names the background, else value 1. LabelMe's `__ignore__` has no value.
    """
    rows = (line.strip() for line in read_text(file, "one class name a line").rstrip().splitlines())
    names = [row for row in rows if row != "__ignore__"]
    if "" in names:
        raise Malformed(
            file, f"row {names.index('') + 1} is blank; a row's number is a value, so name it or remove the row"
        )
    first = 0 if names and names[0].lower() in BACKGROUND else 1
    return ClassList(dict(enumerate(names, first)), file)


def card(file: Path) -> ClassList | None:
    """`names` (Ultralytics) or `classes` in a YAML card; None when it has neither."""
    content: Any = load_yaml(file, "a YAML card names the classes")
    named = (content.get("names") or content.get("classes")) if isinstance(content, dict) else None
    if not isinstance(named, (list, dict)):
        return None
    names = class_names.in_yaml(file, ("names", "classes"))
    return ClassList(names, file) if names and max(names) < 256 else None


VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def voc_colour(value: int) -> Colour:
    """The colour of a value in Pascal VOC's palette: three bits of the value a time, spread over the channels."""
    channels = np.zeros(3, int)
    for bit in range(8):
        channels |= np.array([value >> shift & 1 for shift in range(3)]) << (7 - bit)
        value >>= 3
    return int(channels[0]), int(channels[1]), int(channels[2])


VOC_COLOURS = {voc_colour(value): value for value in range(256)}
