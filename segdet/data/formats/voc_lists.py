"""Which split an image belongs to, as the lists in VOC's ImageSets divide them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from segdet.data.formats import matching
from segdet.data.formats.base import SPLIT_FOLDERS, noting, read_text
from segdet.data.formats.layout import Tree, file_in
from segdet.data.images import is_image
from segdet.data.records import Problem

_LISTS = (*SPLIT_FOLDERS.items(), ("train", ("trainval", "default")))


def splits(
    lists: Path, index: matching.Index, masked: bool, problems: list[Problem], notes: list[str]
) -> dict[Path, str]:
    """The split of each image that the lists name; nothing where there are no lists.

    Args:
        lists: the folder ImageSets. index: the images.
        masked: whether there are masks. Then the lists for segmentation come first, and those for detection add to them.
    """
    placed: dict[Path, str] = {}
    lost: set[str] = set()
    tree = Tree(lists)
    for kind in ("Segmentation", "Main") if masked else ("Main", "Segmentation"):
        folder = tree.at(kind)
        some = _files(folder) if folder is not None else {}
        if not some or (placed and not masked):
            continue
        notes.append(f"splits from ImageSets/{kind}")
        for split, file in some.items():
            for number, row in _rows(file, problems):
                fitting = _images(row, index)
                if len(fitting) == 1:
                    placed.setdefault(fitting[0], split)
                elif fitting:
                    shown = " and ".join(str(image.relative_to(index.root)) for image in fitting[:4])
                    what = f"row {number}: {row[:80]} fits {shown} alike; name the image with its folder"
                    problems.append(Problem(file, what, "ambiguous"))
                elif row not in lost:
                    lost.add(row)
                    what = "listed in ImageSets but not there"
                    problems.append(Problem(index.root / _names(row)[-1], what, "image-missing"))
    return placed


def _files(folder: Path) -> dict[str, Path]:
    """The list of each split; `trainval` where there is no list for train."""
    files: dict[str, Path] = {}
    for split, names in _LISTS:
        file = next((file for name in names if (file := file_in(folder, f"{name}.txt")) is not None), None)
        if file is not None:
            files.setdefault(split, file)
    return files


def _rows(file: Path, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """The rows that name an image, with their numbers."""
    text = ""
    with noting(problems):
        text = read_text(file, "a list has one image name a line", "surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _images(row: str, index: matching.Index) -> Sequence[Path]:
    """The images that a row may mean, by the first of its readings that fits any."""
    for name in _names(row):
        _, fitting = index.find((name,), parallel=True)
        if fitting:
            return fitting
    return ()


def _names(row: str) -> list[str]:
    """What a row may name: in quotes where the name has spaces, alone, or before the 1 or -1 of a class list."""
    quoted = re.match(r'"((?:[^"\\]|\\.)*)"', row)
    plain = [row, re.sub(r"\s+-?[01]$", "", row), row.split()[0]]
    names = [re.sub(r"\\([\"\\])", r"\1", quoted[1])] if quoted else plain
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names]
    return [str(form) for path in paths for form in (path, *([path.with_suffix("")] if is_image(Path(path)) else []))]
