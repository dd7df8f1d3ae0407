"""Which files of a folder are COCO files, and which folder their file names are relative to.

The arrangements of COCO 2017, CVAT, Roboflow, FiftyOne and Label Studio, and any JSON file with the lists `images`,
`annotations` and `categories` in a usual place, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from segdet.data.formats.base import SPLIT_FOLDERS, there
from segdet.data.formats.layout import Tree, files_in, holds_lists, split_of_file
from segdet.data.images import is_image
from segdet.errors import InputError

_LISTS = ("images", "annotations", "categories")
_ANNOTATIONS = ("annotations", "annotation", "labels", "label", "coco", "json", "jsons")  # folders for label files
_CANONICAL = re.compile(r"(instances_\w+|(train|val|valid|validation|test)(\d{4})?)\.json", re.IGNORECASE)
_ROBOFLOW = "_annotations.coco.json"
_ASKED = 50  # JSON files looked into per folder, and names looked up per folder of images


def find(root: Path) -> dict[str, Path]:
    """COCO files by split.

    Raises:
        InputError: two files of equal standing for one split.
    """
    tree = Tree(root)
    split_folders = list(tree.splits().values())
    named = [folder for name in _ANNOTATIONS if (folder := tree.at(name)) is not None]
    for folders in (split_folders, named, [root]):
        files = [file for folder in folders for file in _coco_files(folder)]
        if files:
            return _by_split(files, root)
    return {}


def _coco_files(folder: Path) -> list[Path]:
    """The COCO files in a folder. A name that only COCO files have is enough: a damaged file is then reported as such."""
    files = files_in(folder, ".json")
    by_name = [file for file in files if _rank(file) == 0]
    if by_name:
        return by_name
    canonical = [file for file in files if folder.name.lower() == "annotations" and _CANONICAL.fullmatch(file.name)]
    others = [file for file in files if file not in canonical][:_ASKED]
    return [*canonical, *(file for file in others if holds_lists(file, *_LISTS))]


def _rank(file: Path) -> int:
    """COCO 2017 has `instances_`, `person_keypoints_` and `stuff_` files for every split: the first are read."""
    if file.name == _ROBOFLOW:
        return 0
    return 1 if file.name.lower().startswith("instances") else 2


def _by_split(files: Sequence[Path], root: Path) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for file in sorted(files, key=_rank):
        split = split_of_file(file, root)
        other = chosen.setdefault(split, file)
        if other != file and _rank(other) == _rank(file):
            raise InputError(
                f"{root}: two COCO files for the split {split}: {other.relative_to(root)} and {file.relative_to(root)}; "
                "give the path of one of them instead of the folder, or name them after their splits (train, val, test)"
            )
    return {split: chosen[split] for split in SPLIT_FOLDERS if split in chosen}


def root_of(file: Path) -> Path:
    """The dataset's folder of a COCO file that the user named by its own path."""
    return file.parent.parent if file.parent.resolve().name.lower() in _ANNOTATIONS else file.parent


def image_folder(file: Path, root: Path, names: Sequence[str]) -> Path:
    """The folder that the file names in a COCO file are relative to: the one in which most of them are there.

    Where none of them is there, it is the first of the usual folders, which messages then name.
    """
    names = [name for name in names if _relative(name)]
    sample = names[:: max(1, len(names) // _ASKED)][:_ASKED]
    best: tuple[int, Path] | None = None
    for folder in _folders(file, root):
        count = sum(there(folder / name.replace("\\", "/")) for name in sample)
        if best is None or count > best[0]:
            best = (count, folder)
        if count == len(sample):
            break
    return best[1] if best is not None else root


def _relative(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts


def _folders(file: Path, root: Path) -> Iterator[Path]:
    """Folders that may hold the images of a COCO file, the likeliest first."""
    apart = file.parent != root and file.parent.name.lower() in _ANNOTATIONS
    base = root if apart else file.parent
    tree = Tree(base)
    subset = re.sub(r"(?i)^instances_", "", file.stem)
    split = split_of_file(file, root)
    if not apart:
        yield base
    for name in (subset, *SPLIT_FOLDERS[split]):
        yield from (folder for at in (name, f"images/{name}", f"data/{name}") if (folder := tree.at(at)) is not None)
    yield from (folder for name in ("images", "data") if (folder := tree.at(name)) is not None)
    yield root
    yield from image_folders(root)


def image_folders(root: Path) -> dict[Path, int]:
    """The folders at or below a root that directly hold images, with how many each holds, sorted."""
    counts: dict[Path, int] = {}
    for path in root.rglob("*"):
        if is_image(path):
            counts[path.parent] = counts.get(path.parent, 0) + 1
    return dict(sorted(counts.items()))


def none_there(file: Path, root: Path, names: Sequence[str]) -> str:
    """What to say when not one of the images that a COCO file lists is there."""
    shown = ", ".join(
        f"{count} in {folder.relative_to(root).as_posix()}" for folder, count in list(image_folders(root).items())[:3]
    )
    other = f"the folder holds pictures of other names ({shown})" if shown else "the folder holds no pictures"
    return (
        f"none of the {len(names)} images it lists is in {root} (first: {' '.join(names[0].split())[:80]!r}); {other}; "
        "copy the listed ones into `images`, or export again with the images saved"
    )
