"""Boxes in CSV files: `filename,width,height,class,xmin,ymin,xmax,ymax`, as TensorFlow's tutorials and Roboflow write them.

A row is a box; its corners are pixel coordinates without an offset, as the programs that read these files take them. An
image without a row is left out: no row says that it is empty.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from segdet.data.formats import class_list, matching
from segdet.data.formats.base import Adapter, Malformed, header_size, images_under, in_order, noting, read_text
from segdet.data.formats.coco_files import image_folder
from segdet.data.formats.layout import Tree, files_in, folders_in, split_of_file, split_said
from segdet.data.records import Dataset, Instance, Problem, Record, clean_box, photograph_of

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("filename", "class", *_CORNERS)
_ADVICE = "export it again"


class _Row(NamedTuple):
    """A row, not yet judged; `size` is (width, height), or None where the file has no such columns."""

    number: int
    image: str
    name: str
    corners: tuple[float, float, float, float]
    size: tuple[float, float] | None


def _recognise(path: Path) -> str | None:
    if path.is_file():
        return f"{path.name}, boxes in a CSV file" if path.suffix.lower() == ".csv" and _is_boxes(path) else None
    return ", ".join(file.relative_to(path).as_posix() for file in _files(path)) or None


def _files(root: Path) -> list[Path]:
    """The CSV files with boxes in the split folders, else directly in the folder, else in a folder directly below."""
    for folders in (list(Tree(root).splits().values()), [root], folders_in(root)):
        files = [file for folder in folders for file in files_in(folder, ".csv") if _is_boxes(file)]
        if files:  # beside `train_labels.csv` and `test_labels.csv` there is often a file with all rows of both
            return [file for file in files if split_said(file, root)] or files
    return []


def _is_boxes(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            first = stream.readline(4096).decode("utf-8-sig", errors="replace")
    except OSError:
        return False
    return set(_COLUMNS) <= {cell.strip().strip('"').lower() for cell in first.split(",")}


def _read(path: Path, name: str, evidence: str) -> Dataset:
    files = [path] if path.is_file() else _files(path)
    root = path.parent if path.is_file() else path
    problems: list[Problem] = []
    rows: dict[Path, list[_Row]] = {}
    for file in files:
        with noting(problems):
            rows[file] = list(_rows(file, problems))
    listed = class_list.find(root, problems)
    first = list(listed.objects.values()) if listed is not None else []
    used = {row.name for some in rows.values() for row in some}
    classes = (*first, *sorted(used - set(first) - {""}))
    splits: dict[str, list[Record]] = {}
    for file, some in rows.items():
        split = "train" if path.is_file() else split_of_file(file, root)
        splits.setdefault(split, []).extend(_records(file, root, some, classes, problems))
    return Dataset(name, root, "boxes in CSV", classes, in_order(splits), tuple(problems), None, (evidence,))


def _rows(file: Path, problems: list[Problem]) -> Iterator[_Row]:
    """The rows that make sense; the others become problems."""
    reader = csv.reader(read_text(file, _ADVICE).splitlines(), skipinitialspace=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            fields = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            try:
                x1, y1, x2, y2 = (float(fields[key]) for key in _CORNERS)
                size = (float(fields["width"]), float(fields["height"])) if {"width", "height"} <= set(header) else None
                yield _Row(reader.line_num, fields["filename"], fields["class"], (x1, y1, x2, y2), size)
            except (KeyError, ValueError):
                what = (
                    f"row {reader.line_num} is not `{','.join(header)}`: {','.join(cells)[:60]!r}; correct or remove it"
                )
                problems.append(Problem(file, " ".join(what.split()), "malformed"))
    except csv.Error as error:
        raise Malformed(file, f"row {reader.line_num}: {error}; {_ADVICE}") from error


def _records(
    file: Path, root: Path, rows: Sequence[_Row], classes: Sequence[str], problems: list[Problem]
) -> list[Record]:
    rows_of: dict[str, list[_Row]] = {}
    for row in rows:
        rows_of.setdefault(row.image, []).append(row)
    folder = image_folder(file, root, list(rows_of))
    names: dict[str, matching.Name] = {}
    for said, some in rows_of.items():
        name = matching.named(said, folder)
        if name is None:
            what = f"row {some[0].number}: no file can be called {said[:80]!r}; correct it"
            problems.append(Problem(file, what, "malformed"))
        else:
            names[said] = name
    matches = matching.match(names, lambda: images_under(folder), folder)
    matching.report(matches.doubts, folder, problems, lambda said: (file, f"row {rows_of[said][0].number}"))
    by_image: dict[Path, list[_Row]] = {}
    for said in names:
        if said in matches.images:
            by_image.setdefault(matches.images[said], []).extend(rows_of[said])
        elif ".." in matching.parts_of(said):
            what = f"row {rows_of[said][0].number}: the file name {said[:80]!r} leads out of the dataset; correct it"
            problems.append(Problem(file, what, "malformed"))
        elif said not in matches.doubtful:
            missing = folder.joinpath(*matching.parts_of(said))
            problems.append(Problem(missing, f"listed in {file.name} but not there", "image-missing"))
    made = (_record(file, image, some, classes, problems) for image, some in by_image.items())
    return [record for record in made if record is not None]


def _record(
    file: Path, image: Path, rows: Sequence[_Row], classes: Sequence[str], problems: list[Problem]
) -> Record | None:
    size = header_size(image, problems)
    if size is None:
        return None
    height, width = size
    instances = []
    for row in rows:
        if row.size is not None and min(row.size) > 0 and row.size != (width, height):
            what = (
                f"row {row.number}: labelled as {row.size[0]:.0f}x{row.size[1]:.0f}, but the image is {width}x{height}"
            )
            problems.append(Problem(file, what, "size", image))
            return None
        box, fault = clean_box(row.corners, width, height)
        if not row.name:
            problems.append(Problem(file, f"row {row.number}: the class has no name", "class", image))
        elif box is not None:
            instances.append(Instance(classes.index(row.name), (), box))
        if fault is not None:
            problems.append(Problem(file, f"row {row.number}: {fault.what}", fault.kind, image))
    return Record(image, width, height, tuple(instances), photograph_of(image))


ADAPTER = Adapter("box-csv", "boxes in CSV files (filename, class, xmin, ymin, xmax, ymax)", _recognise, _read)
